//! Puts and gets through three nodes in this process, by a client that is in it, too.
//!
//! Each node is a thread of its own, as in production; the client's tasks share one
//! current-thread runtime. Every worker writes keys of its own after what it wrote last, so that
//! no siblings arise.

use crate::measure::{Cost, Stopwatch};
use bytes::Bytes;
use galvani_client::{Client, Context, Quorum};
use galvani_node::local::{LocalCluster, LocalSpec};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// What a worker does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Writes 1 KiB, w=2.
    Put,
    /// Reads 1 KiB, r=2.
    Get,
}

/// When workers stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// At this moment.
    Time(Instant),
    /// After this many requests each.
    Count(u64),
}

/// A running cluster and its client.
pub struct Nodes {
    runtime: Runtime,
    client: Client,
    workers: Vec<Worker>,
    // Stopped and removed when all else is gone.
    _cluster: LocalCluster,
    _dir: TempDir,
}

/// One worker's keys, and the context of each.
#[derive(Clone, Debug)]
struct Worker {
    keys: Vec<(Bytes, Option<Context>)>,
    next: usize,
}

impl Nodes {
    /// Three nodes, and all keys of `workers` workers written once.
    pub fn start(spec: &LocalSpec, workers: usize) -> Nodes {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (dir, cluster, client) = runtime.block_on(start(spec));
        let keys = |worker: usize| {
            let key = |number| (Bytes::from(format!("user/{worker:04}/{number:06}")), None);
            Worker { keys: (0..KEYS_EACH).map(key).collect(), next: 0 }
        };
        let workers = (0..workers).map(keys).collect();
        let mut nodes = Nodes { runtime, client, workers, _cluster: cluster, _dir: dir };
        nodes.run(Request::Put, nodes.workers.len(), Until::Count(KEYS_EACH as u64));
        nodes
    }

    /// Keeps `in_flight` requests under way for `time`.
    pub fn measure(&mut self, request: Request, in_flight: usize, time: Duration) -> Cost {
        let watch = Stopwatch::start();
        let mut latencies = self.run(request, in_flight, Until::Time(Instant::now() + time));
        watch.stop_with(&mut latencies)
    }

    /// Runs `in_flight` workers; returns the latency of every request in nanoseconds.
    pub fn run(&mut self, request: Request, in_flight: usize, until: Until) -> Vec<u64> {
        let Nodes { runtime, client, workers, .. } = self;
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for worker in workers.drain(..in_flight) {
                tasks.spawn(work(client.clone(), worker, request, until));
            }
            let mut latencies = Vec::new();
            while let Some(done) = tasks.join_next().await {
                let (worker, mut took) = done.expect("no worker panics");
                workers.push(worker);
                latencies.append(&mut took);
            }
            latencies
        })
    }
}

async fn work(
    client: Client,
    mut worker: Worker,
    request: Request,
    until: Until,
) -> (Worker, Vec<u64>) {
    let value = Bytes::from(vec![b'x'; 1_024]);
    let mut latencies = Vec::new();
    let more = |done: usize| match until {
        Until::Time(end) => Instant::now() < end,
        Until::Count(count) => (done as u64) < count,
    };
    while more(latencies.len()) {
        worker.next = (worker.next + 1) % worker.keys.len();
        let (key, context) = &mut worker.keys[worker.next];
        let began = Instant::now();
        match request {
            Request::Put => {
                let put = client.put(key.clone(), value.clone());
                let put = match &context {
                    Some(context) => put.after(context),
                    None => put.blind(),
                };
                *context = Some(put.w(2).send().await.expect("stored").context);
            }
            Request::Get => {
                let read = client.get(key.clone()).r(2).await.expect("read");
                assert!(read.values().next().is_some(), "every key was written");
            }
        }
        latencies.push(began.elapsed().as_nanos() as u64);
    }
    (worker, latencies)
}

/// Three nodes in this process and a client that a quorum of them has answered.
pub async fn start(spec: &LocalSpec) -> (TempDir, LocalCluster, Client) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = LocalCluster::start(spec, dir.path()).expect("a cluster");
    let client = Client::builder()
        .seed(cluster.url(0))
        .identity_dir(cluster.client_identity())
        .connect()
        .await
        .expect("a node answers");
    while client.get("ready").r(Quorum::All).await.is_err() {}
    (dir, cluster, client)
}

/// Keys of one worker: 64 workers have 6,400, of which no cache is short.
const KEYS_EACH: usize = 100;

#[cfg(test)]
mod tests {
    use super::{Nodes, Request, Until};
    use galvani_node::local::LocalSpec;

    #[test]
    fn workers_write_and_read_what_they_wrote() {
        let mut nodes = Nodes::start(&LocalSpec::default(), 2);
        for request in [Request::Put, Request::Get] {
            assert_eq!(nodes.run(request, 2, Until::Count(150)).len(), 300);
            assert_eq!(nodes.run(request, 1, Until::Count(5)).len(), 5);
        }
    }
}
