//! An event that ends every member that is given it: the group gets past it, and past nothing else.
//!
//! The members are dropped without a word, as a process that crashes leaves none.

use galvani_client::{Event, GroupConsumer};
use galvani_cluster_tests::Cluster;
use std::collections::BTreeSet;
use std::time::Duration;

const GROUP: &str = "fragile";
const BAD: &str = "k-bad";
const MAX_DELIVER: u32 = 3;
/// One of which nothing could be kept, and those that were.
const DEATHS_MAX: u32 = MAX_DELIVER + 1;

/// Red if attempts are counted anew by each member: then it goes on for ever.
#[test]
fn an_event_that_ends_whoever_holds_it_becomes_a_dead_letter() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let join = || {
        let group = client.group(GROUP).bucket("default").prefix("k").lease(Duration::from_secs(2));
        cluster.block_on(group.max_deliver(MAX_DELIVER).join()).expect("joined")
    };
    let mut member = join();
    let keys = |range: std::ops::Range<usize>| range.map(|number| format!("k{number}"));
    cluster.block_on(async {
        for key in keys(0..20).chain([BAD.to_owned()]).chain(keys(20..40)) {
            client.put(key, "v").blind().send().await.expect("all are up");
        }
    });
    let (mut acked, mut deaths) = (BTreeSet::new(), 0);
    while cluster.block_on(held_the_bad_one(&client, &mut member, &mut acked)) {
        deaths += 1;
        assert!(deaths <= DEATHS_MAX, "it is given out for ever: {deaths} members have ended");
        // Dropped before the next one joins, as a process that is started again.
        drop(member);
        member = join();
    }
    println!("{deaths} members ended");
    assert_eq!(deaths, DEATHS_MAX);
    assert_eq!(acked, keys(0..40).collect(), "all others were dealt with");
    let letters = cluster.block_on(client.dead_letters(GROUP)).expect("there");
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.attempts, MAX_DELIVER);
    assert!(letter.error.contains("ended without a word"), "{letter:?}");
}

/// Acknowledges until the bad event comes: true. False: it is a dead letter, and all else is done with.
async fn held_the_bad_one(
    client: &galvani_client::Client,
    member: &mut GroupConsumer,
    acked: &mut BTreeSet<String>,
) -> bool {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while tokio::time::Instant::now() < deadline {
        // wait: for an event, or for the letter
        let next = tokio::time::timeout(Duration::from_millis(200), member.next());
        let Ok(delivery) = next.await else {
            let letters = client.dead_letters(GROUP).await.expect("there");
            if !letters.is_empty() && acked.len() == 40 {
                return false;
            }
            continue;
        };
        let delivery = delivery.expect("the group goes on").expect("an event");
        let Event::Changed(change) = &delivery.event else { panic!("{:?}", delivery.event) };
        let key = String::from_utf8_lossy(&change.source.key).into_owned();
        if key == BAD {
            return true;
        }
        acked.insert(key);
        delivery.ack();
    }
    panic!("neither the event nor its letter comes; {} acked", acked.len());
}
