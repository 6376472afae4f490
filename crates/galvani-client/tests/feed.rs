//! A feed against scripted owners: what it asks of them after a gap, and when it is done with a session.

mod support;

use galvani_client::{Event, OnGap, Start};
use galvani_model::ids::{Origin, Partition, Shard};
use galvani_model::version::{Dot, PartitionClock};
use galvani_wire::feed::{Advance, Begin, FeedOpen, FeedOpened, FeedPage, FeedState};
use galvani_wire::{Failure, Message};
use std::time::{Duration, Instant};
use support::{Action, Asked, Cluster, SECOND, refused};

fn shard(at: u16) -> Shard {
    Shard { partition: Partition(at), n: 1 }
}

/// An owner whose first page tells of writes that are gone, in these shards.
fn owner(gaps: &'static [u16]) -> impl Fn(&Asked) -> Action {
    move |asked: &Asked| match &asked.message {
        Message::FeedOpen(open) => {
            let began = vec![None; open.shards.len()];
            let session = asked.number as u64;
            Action::Reply(Message::FeedOpened(FeedOpened { session, began, elsewhere: Vec::new() }))
        }
        Message::FeedNext(next) if next.close => refused(Failure::NoSession),
        Message::FeedNext(next) => {
            // The first session is opened by the first request of all.
            let is_first = next.session == 0 && next.page == 0;
            let mut gone = PartitionClock::new();
            gone.insert(Dot::new(Origin(9), 1));
            let advance = |at: &u16| Advance {
                shard: shard(*at),
                done: gone.clone(),
                owed: PartitionClock::new(),
                gone: gone.clone(),
            };
            let advances = gaps.iter().filter(|_| is_first).map(advance).collect();
            let (session, events, state) = (next.session, Vec::new(), FeedState::default());
            let page = Message::FeedPage(FeedPage { session, events, advances, state });
            match is_first {
                true => Action::Reply(page),
                false => Action::Late(Duration::from_millis(20), page),
            }
        }
        other => panic!("nobody asks for that: {other:?}"),
    }
}

fn opens(cluster: &Cluster) -> Vec<FeedOpen> {
    let open = |asked: Asked| match asked.message {
        Message::FeedOpen(open) => Some(open),
        _ => None,
    };
    cluster.asked().into_iter().filter_map(open).collect()
}

/// Red if only the first shard with a gap is begun anew, and if the session of before is left to its owner.
#[tokio::test]
async fn every_shard_with_a_gap_is_begun_anew_and_the_session_of_before_is_closed() {
    let cluster = Cluster::start(1, owner(&[3, 7])).await;
    let db = cluster.client().await;
    let feed = db.feed().from(Start::Beginning).on_gap(OnGap::Restart);
    let mut feed = feed.subscribe().await.expect("opened");
    for at in [3, 7] {
        let event = tokio::time::timeout(10 * SECOND, feed.next()).await.expect("in time");
        let Some(Ok(Event::Gap(gap))) = event else { panic!("{event:?}") };
        assert_eq!(gap.shard, shard(at));
    }
    let anew = |open: &FeedOpen| -> Vec<Shard> {
        let resets = |begin: &Begin| matches!(begin, Begin::At(cursor) if cursor.resets == 1);
        open.shards.iter().filter(|(_, begin)| resets(begin)).map(|(shard, _)| *shard).collect()
    };
    let began = Instant::now();
    while opens(&cluster).last().map(anew) != Some(vec![shard(3), shard(7)]) {
        assert!(began.elapsed() < 10 * SECOND, "{:?}", opens(&cluster).last().map(anew));
        // wait: until both are asked for from the beginning, or the deadline above
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let closed = |asked: &Asked| match &asked.message {
        Message::FeedNext(next) => next.close && next.session == 0,
        _ => false,
    };
    while !cluster.asked().iter().any(closed) {
        assert!(began.elapsed() < 10 * SECOND, "nobody closes it");
        // wait: until the first session is closed, or the deadline above
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The position says so as well: another feed begins there where this one is.
    let cursors = feed.token().cursors.iter();
    let anew: Vec<Shard> = cursors.filter(|(_, it)| it.resets == 1).map(|(at, _)| *at).collect();
    assert_eq!(anew, [shard(3), shard(7)]);
}
