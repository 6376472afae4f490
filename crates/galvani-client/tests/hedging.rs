//! Reads that take longer than usual at their node: asked of the next owner, within an allowance.

mod support;

use galvani_client::Client;
use galvani_wire::{Failure, Message};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use support::{Action, Asked, Cluster, SECOND, found, refused};

const KEY: &str = "k";
/// Far beyond what a call waits for, and what any node takes by itself.
const FOREVER: Duration = Duration::from_secs(3600);

/// The first owner of [`KEY`], once it is known: ids decide, so each cluster has the same.
static FIRST: OnceLock<usize> = OnceLock::new();

/// The bytes of the key that is read.
fn key_of(asked: &Asked) -> &[u8] {
    match &asked.message {
        Message::Get(get) => get.key.bytes(),
        other => panic!("only reads are sent: {other:?}"),
    }
}

fn late(after: Duration) -> Action {
    match found(&[Some("v")]) {
        Action::Reply(reply) => Action::Late(after, reply),
        other => other,
    }
}

/// A client that has links to all three nodes and knows what reads take at each.
async fn warmed(cluster: &Cluster) -> Client {
    let mut builder = cluster.builder();
    for node in 0..3 {
        builder = builder.seed(format!("galvani://{}", cluster.address(node)));
    }
    let db = builder.connect().await.expect("connected");
    let deadline = Instant::now() + 30 * SECOND;
    let mut met = [0_usize; 3];
    for key in 0.. {
        assert!(Instant::now() < deadline, "not every node was asked: {met:?}");
        db.get(format!("warm/{key}")).timeout(10 * SECOND).await.expect("answered");
        met = [0, 1, 2].map(|node| cluster.asked().iter().filter(|a| a.node == node).count());
        // The first few include making the link.
        if met.iter().all(|&count| count >= 60) {
            break;
        }
    }
    db
}

#[tokio::test]
async fn a_read_that_takes_long_is_asked_of_the_next_owner_and_of_one_only() {
    let cluster = Cluster::start(3, |asked| match (key_of(asked), asked.node) {
        (b"k", node) if node == FIRST.get().copied().unwrap_or(usize::MAX) => late(FOREVER),
        _ => found(&[Some("v")]),
    })
    .await;
    let first = *FIRST.get_or_init(|| cluster.first_owner(KEY));
    let db = warmed(&cluster).await;
    let (before, hedges) = (cluster.asked().len(), db.hedges());
    db.get(KEY).timeout(40 * SECOND).await.expect("the next owner answers");
    let told = db.hedges();
    assert_eq!((told.sent - hedges.sent, told.won - hedges.won), (1, 1), "{told:?}");
    let asked: Vec<usize> = cluster.asked()[before..].iter().map(|asked| asked.node).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0], first);
    // Until the first is heard of, others are asked before it.
    for _ in 0..10 {
        db.get(KEY).timeout(40 * SECOND).await.expect("another owner answers");
    }
    let again = cluster.asked()[before + 2..].iter().filter(|asked| asked.node == first).count();
    assert_eq!(again, 0, "nobody waits for it a second time");
}

#[tokio::test]
async fn a_cluster_that_is_slow_everywhere_is_hardly_asked_twice() {
    const READS: usize = 100;
    let cluster = Cluster::start(3, |asked| match key_of(asked).starts_with(b"slow") {
        true => late(SECOND / 2),
        false => found(&[Some("v")]),
    })
    .await;
    let db = warmed(&cluster).await;
    let before = db.hedges();
    let reads = (0..READS).map(|key| {
        let read = db.get(format!("slow/{key}")).timeout(40 * SECOND);
        tokio::spawn(async move { read.await })
    });
    // All are under way before the first is awaited.
    let reads: Vec<_> = reads.collect();
    for read in reads {
        read.await.expect("no panic").expect("answered, if late");
    }
    let told = db.hedges();
    let (sent, refused) = (told.sent - before.sent, told.refused - before.refused);
    assert_eq!(sent + refused, READS as u64, "each took longer than usual: {told:?}");
    assert!(sent > 0, "{told:?}");
    assert!(sent <= 20 + READS as u64 / 20, "{told:?}");
}

#[tokio::test]
async fn nothing_is_asked_twice_once_a_node_is_overloaded() {
    let cluster = Cluster::start(3, |asked| match key_of(asked) {
        b"k" => late(SECOND / 2),
        b"busy" => refused(Failure::Overloaded { retry_after_ms: 1 }),
        _ => found(&[Some("v")]),
    })
    .await;
    let db = warmed(&cluster).await;
    db.get("busy").timeout(SECOND).await.expect_err("overloaded");
    let before = db.hedges();
    db.get(KEY).timeout(40 * SECOND).await.expect("answered, if late");
    let told = db.hedges();
    assert_eq!((told.sent, told.refused), (before.sent, before.refused + 1), "{told:?}");
}
