//! Writers that go on until they are told to stop, each noting every write in the history.
//!
//! A writer has some keys it writes again and again, each time after its last acked write, and
//! keys it writes once. It waits for each answer. A failed write is noted as what the client says
//! it is: never stored, or in doubt.

use crate::cluster::{Cluster, DEADLINE};
use crate::history::{Fate, History, Violation};
use crate::wait::until;
use galvani_client::{Applied, Client, Context, Error, Quorum};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Writers at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Tally>>,
}

/// What writers were told.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Acked writes.
    pub acked: u64,
    /// Writes that were refused and never stored.
    pub never: u64,
    /// Writes in doubt.
    pub maybe: u64,
    /// When and why writes failed.
    pub failures: Vec<(Instant, String)>,
    /// The longest a writer waited for an ack.
    pub slowest: Duration,
}

impl Load {
    /// Starts `writers` writers, in turn near each of the nodes `near`. Each waits for `w` acks.
    pub fn start(
        cluster: &Cluster,
        history: &Arc<History>,
        near: &[&str],
        writers: usize,
        w: impl Into<Quorum>,
    ) -> Load {
        Load::with_deadline(DEADLINE, cluster, history, near, writers, w)
    }

    /// As [`Load::start`], with a deadline that only a request reaches which nobody answers, and no busy
    /// machine: for [`Tally::nobody_noticed`].
    pub fn patient(
        cluster: &Cluster,
        history: &Arc<History>,
        near: &[&str],
        writers: usize,
        w: impl Into<Quorum>,
    ) -> Load {
        Load::with_deadline(4 * DEADLINE, cluster, history, near, writers, w)
    }

    fn with_deadline(
        deadline: Duration,
        cluster: &Cluster,
        history: &Arc<History>,
        near: &[&str],
        writers: usize,
        w: impl Into<Quorum>,
    ) -> Load {
        let w = w.into();
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let turn = history.keys().len();
        let writer = |index: usize| {
            let writer = Writer {
                client: cluster.client_at(near[index % near.len()]).with_timeout(deadline),
                history: history.clone(),
                w,
                // Another load on the same history has keys of its own.
                name: format!("{turn}-{index}"),
                seen: BTreeMap::new(),
                rng: StdRng::seed_from_u64(history.seed() ^ (turn * 64 + index) as u64),
                tally: Tally::default(),
            };
            cluster.runtime().spawn(writer.run(stop.clone(), acked.clone()))
        };
        let writers = (0..writers).map(writer).collect();
        Load { stop, acked, writers }
    }

    /// Writes acked so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until `more` writes have been acked from now on.
    pub fn until_acked(&self, more: u64) {
        let target = self.acked() + more;
        until(&format!("{more} more acked writes"), || match self.acked() {
            acked if acked >= target => Ok(()),
            acked => Err(acked),
        });
    }

    /// Lets every writer finish its write; what they were told, all together.
    pub fn stop(self, cluster: &Cluster) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for writer in self.writers {
            let one = cluster.block_on(writer).expect("a writer does not panic");
            sum.acked += one.acked;
            sum.never += one.never;
            sum.maybe += one.maybe;
            sum.slowest = sum.slowest.max(one.slowest);
            sum.failures.extend(one.failures);
        }
        sum.failures.sort();
        println!(
            "{} acked, {} never, {} in doubt, slowest {:?}",
            sum.acked, sum.never, sum.maybe, sum.slowest
        );
        sum
    }
}

impl Tally {
    /// Panics unless every write of a [`Load::patient`] was acked, and each long before its deadline: what is
    /// demanded of writers while one node is away.
    #[track_caller]
    pub fn nobody_noticed(&self) {
        assert_eq!(self.failures, [], "of {} writes", self.acked);
        let (slowest, most) = (self.slowest, 2 * DEADLINE);
        assert!(
            slowest < most,
            "a write took {slowest:?}, not less than {most:?}: whom a client hears nothing of for a second is \
             joined by another node, and that one waits for nobody who is away"
        );
    }
}

struct Writer {
    client: Client,
    history: Arc<History>,
    w: Quorum,
    name: String,
    /// Last acked write of each key that is written again.
    seen: BTreeMap<String, (u64, Context)>,
    rng: StdRng,
    tally: Tally,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>, acked: Arc<AtomicU64>) -> Tally {
        let mut once = 0;
        while !stop.load(Ordering::Relaxed) {
            let key = match self.rng.random_range(0..3) {
                0 => {
                    once += 1;
                    format!("once/{}/{once}", self.name)
                }
                _ => format!("often/{}/{}", self.name, self.rng.random_range(0..KEYS)),
            };
            match self.write(&key).await {
                Ok(()) => {
                    acked.fetch_add(1, Ordering::Relaxed);
                }
                // wait: a moment before the next write while there may be nobody to take it
                Err(()) => tokio::time::sleep(AFTER_FAILURE).await,
            }
        }
        self.tally
    }

    async fn write(&mut self, key: &str) -> Result<(), ()> {
        let seen = self.seen.get(key).cloned();
        let (number, value) = self.history.issue(key, seen.as_ref().map(|(number, _)| *number));
        let put = self.client.put(key.to_owned(), value);
        let put = match &seen {
            Some((_, context)) => put.after(context),
            None => put.blind(),
        };
        let began = Instant::now();
        match put.w(self.w).send().await {
            Ok(written) => {
                self.tally.acked += 1;
                self.tally.slowest = self.tally.slowest.max(began.elapsed());
                self.history.settle(key, number, Fate::Acked);
                self.seen.insert(key.to_owned(), (number, written.context));
                Ok(())
            }
            Err(error) => {
                self.failed(key, number, &error);
                Err(())
            }
        }
    }

    fn failed(&mut self, key: &str, number: u64, error: &Error) {
        match error.applied() {
            Applied::No => {
                self.tally.never += 1;
                self.history.settle(key, number, Fate::Never);
            }
            Applied::Maybe { .. } => self.tally.maybe += 1,
        }
        assert!(error.is_retryable(), "a good write is refused for good: {error:?}");
        self.tally.failures.push((Instant::now(), error.to_string()));
    }
}

/// Reads every key of the history with `r` answers and checks it; panics at the first violation
/// with the seed.
#[track_caller]
pub fn check_all(cluster: &Cluster, client: &Client, history: &History, r: impl Into<Quorum>) {
    let r = r.into();
    let keys = history.keys();
    let found = cluster.block_on(async {
        let mut violations: Vec<Violation> = Vec::new();
        for batch in keys.chunks(READS_AT_ONCE) {
            let reads = batch.iter().map(|key| {
                let (client, key) = (client.clone(), key.clone());
                tokio::spawn(async move { (key.clone(), patient_read(&client, &key, r).await) })
            });
            for read in reads.collect::<Vec<_>>() {
                let (key, values) = read.await.expect("a reader does not panic");
                violations.extend(history.check(&key, &values).err());
            }
        }
        violations
    });
    assert!(found.is_empty(), "seed {:#x}: {found:?}", history.seed());
    println!("{} keys checked, {} acked writes", keys.len(), history.acked());
}

/// Reads until it is answered: what is asked is what is there, not how soon.
async fn patient_read(client: &Client, key: &str, r: Quorum) -> Vec<bytes::Bytes> {
    let began = Instant::now();
    loop {
        match client.get(key.to_owned()).r(r).await {
            Ok(read) => return read.values().cloned().collect(),
            Err(error) if began.elapsed() > crate::wait::PATIENCE => {
                panic!("{key} cannot be read: {error:?}")
            }
            Err(_) => {}
        }
        // wait: until the read is answered, at most PATIENCE
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

/// Keys a writer writes again and again.
const KEYS: u32 = 6;
const AFTER_FAILURE: Duration = Duration::from_millis(20);
const READS_AT_ONCE: usize = 32;
