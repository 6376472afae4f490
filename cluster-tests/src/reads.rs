//! Readers that go on until they are told to stop: how often they were answered, and why not.
//!
//! They read the keys that the writers of a [`History`] wrote last, again and again. What they read
//! is not checked here, since writes go on meanwhile: `load.rs` checks all of it at the end.

use crate::cluster::Cluster;
use crate::history::History;
use galvani_client::{Client, Quorum};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;

/// Readers at work.
#[derive(Debug)]
pub struct Reads {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Answered>>,
}

/// What readers were told.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// Reads that were answered.
    pub reads: u64,
    /// Which reads failed, and why.
    pub failures: Vec<String>,
}

impl Reads {
    /// Starts a reader for each of `clients`, which asks for `r` answers.
    pub fn start(
        cluster: &Cluster,
        history: &Arc<History>,
        clients: impl IntoIterator<Item = Client>,
        r: impl Into<Quorum>,
    ) -> Reads {
        let (stop, r) = (Arc::new(AtomicBool::new(false)), r.into());
        let start = |client| {
            let reader = read(client, history.clone(), r, stop.clone());
            cluster.runtime().spawn(reader)
        };
        let readers = clients.into_iter().map(start).collect();
        Reads { stop, readers }
    }

    /// Lets every reader finish its read; what they were told, all together.
    pub fn stop(self, cluster: &Cluster) -> Answered {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Answered::default();
        for reader in self.readers {
            let one = cluster.block_on(reader).expect("a reader does not panic");
            sum.reads += one.reads;
            sum.failures.extend(one.failures);
        }
        println!("{} reads, {} failed", sum.reads, sum.failures.len());
        sum
    }
}

async fn read(client: Client, history: Arc<History>, r: Quorum, stop: Arc<AtomicBool>) -> Answered {
    let mut told = Answered::default();
    while !stop.load(Ordering::Relaxed) {
        for key in history.keys().into_iter().rev().take(KEYS) {
            match client.get(key.clone()).r(r).await {
                Ok(_) => told.reads += 1,
                Err(error) => told.failures.push(format!("{key}: {error} {:?}", error.trace())),
            }
        }
        tokio::task::yield_now().await;
    }
    told
}

/// Keys of one round.
const KEYS: usize = 64;
