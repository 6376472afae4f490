//! What becomes of a shard that is put somewhere while a session follows it.

use super::{Control, Manager, Running};
use crate::feed::session::{Ended, Gateway, Why};
use galvani_model::feed::{Cursor, Filter};
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_wire::feed::Begin;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, mpsc};

fn shard(at: u16) -> Shard {
    Shard { partition: Partition(at), n: 3 }
}

/// Red if what a session brings after a shard was put somewhere else cannot be told from what it brought
/// before.
#[tokio::test]
async fn a_shard_that_is_put_somewhere_goes_on_there_under_its_new_number() {
    let (words_in, _words) = mpsc::channel(4);
    let (ended_in, _ended) = mpsc::unbounded_channel();
    let running = Running {
        gateway: Gateway { node: NodeId(1), addr: ([127, 0, 0, 1], 1).into() },
        shards: BTreeSet::from([shard(1), shard(2)]),
        stop: Arc::new(Notify::new()),
        served: Arc::new(AtomicBool::new(true)),
        stopping: false,
        task: tokio::spawn(std::future::pending()),
    };
    let mut manager = Manager::new(Weak::new(), Filter::default(), 1, words_in, ended_in);
    manager.running.insert(1, running);
    manager.last = 1;
    let (before, put) = (Begin::At(Cursor::anew(4)), Begin::At(Cursor::anew(5)));
    // Followed no more, and again at once.
    manager.on_control(Control::Take(BTreeSet::from([shard(1)])));
    manager.on_control(Control::Put(BTreeMap::from([(shard(1), put.clone())]), 7));
    assert!(manager.running[&1].stopping);
    let positions = [1, 2].map(|at| (shard(at), before.clone()));
    let ended = Ended { session: 1, positions: positions.into(), why: Why::Stopped };
    manager.on_ended(ended).await.expect("somebody listens");
    assert_eq!(manager.idle, BTreeMap::from([(shard(1), put), (shard(2), before)]));
    assert_eq!(manager.epochs_of(&manager.idle), BTreeMap::from([(shard(1), 7)]));
}
