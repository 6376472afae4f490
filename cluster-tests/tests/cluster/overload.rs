//! Many times what three nodes take on, and then little: what is too much is refused as that, some is
//! done all the while, and when the crowd is gone nothing of it is left.
//!
//! Each lane takes on so few at once that the crowd is too much for it on any machine, however fast or busy
//! that is. How much nodes take on by themselves is measured: `galvani bench mix --overload`, docs/proof.md.

use galvani_client::{Applied, Client, ErrorKind};
use galvani_cluster_tests::cluster::Node;
use galvani_cluster_tests::wait::until_within;
use galvani_cluster_tests::{Cluster, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the crowd did.
#[derive(Debug, Default)]
struct Crowd {
    done: AtomicU64,
    /// Refused as too much, with nothing done.
    turned_away: AtomicU64,
    /// Failed in another way.
    others: AtomicU64,
    over: AtomicBool,
}

/// One of them: writes without a pause and without a second try.
async fn press(client: Client, index: usize, crowd: Arc<Crowd>) {
    for number in 0_u64.. {
        if crowd.over.load(Ordering::Relaxed) {
            return;
        }
        let put = client.put(format!("crowd-{index}-{number}"), vec![7; 1_000]).blind().w(2);
        let count = match put.send().await {
            Ok(_) => &crowd.done,
            Err(error) => match (error.kind(), error.applied()) {
                (ErrorKind::Overloaded { .. }, Applied::No) => &crowd.turned_away,
                _ => &crowd.others,
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn overload_is_refused_and_over_when_the_crowd_is_gone() {
    let cluster = Cluster::with(&["--lanes", "1"]);
    cluster.reconfigure("inflight = 4096", &format!("inflight = {INFLIGHT}"));
    let handles: Vec<Client> = (0..8)
        .map(|_| {
            let builder = cluster.builder().timeout(DEADLINE).retries(0);
            cluster.block_on(builder.connect()).expect("the cluster runs")
        })
        .collect();
    let crowd = Arc::new(Crowd::default());
    let tasks: Vec<_> = (0..CROWD)
        .map(|index| {
            let client = handles[index % handles.len()].clone();
            cluster.runtime().spawn(press(client, index, crowd.clone()))
        })
        .collect();
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    until_within(LONG, "more than the nodes take on", || match count(&crowd.turned_away) {
        few if few < CROWD as u64 => Err((few, count(&crowd.done), count(&crowd.others))),
        _ => Ok(()),
    });
    // It goes on, and some is done all the while.
    let (before, refused) = (count(&crowd.done), count(&crowd.turned_away));
    until_within(LONG, "some to be done while most is refused", || {
        let (done, more) = (count(&crowd.done) - before, count(&crowd.turned_away) - refused);
        match done >= CROWD as u64 && more >= CROWD as u64 {
            true => Ok(()),
            false => Err((done, more, count(&crowd.others))),
        }
    });
    crowd.over.store(true, Ordering::Relaxed);
    for task in tasks {
        cluster.block_on(task).expect("a client does not panic");
    }
    let client = cluster.client();
    let of = |node: &Node| cluster.status_of(&client, &node.name).counters.turned_away;
    // Twice a crowd was told so, and by nodes: they turned it away before they did anything for it.
    until("the nodes to have counted whom they turned away", || {
        let turned_away: u64 = cluster.nodes().iter().map(of).sum();
        if turned_away >= 2 * CROWD as u64 { Ok(()) } else { Err(turned_away) }
    });
    println!("{crowd:?}");

    // As little as a few clients ask for is all done, soon, through every handle, and by one try each.
    let mut number = 0;
    until("a calm in which nothing fails", || {
        for client in handles.iter().cycle().take(CALM) {
            number += 1;
            let put = client.put(format!("calm-{number}"), "v").blind().w(2).send();
            cluster.block_on(put)?;
        }
        Ok::<_, galvani_client::Error>(())
    });
}

/// Requests that a lane takes on at once: the least that it always does, whatever stands on its way.
const INFLIGHT: usize = 64;
/// So many write at once: eight times what the three nodes take on together.
const CROWD: usize = 8 * 3 * INFLIGHT;
/// What each call has: far more than a refusal takes behind all the others, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(10);
/// What the crowd has to be refused and served: much of a busy machine is other programs'.
const LONG: Duration = Duration::from_secs(180);
/// Writes one after the other, none of which may fail.
const CALM: usize = 200;
