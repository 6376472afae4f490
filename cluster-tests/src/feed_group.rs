//! A group of three consumers follows writers at full speed, while a node and a member are killed.
//!
//! The members are processes, `galvani feed --group`, and what they print is all that is known of what
//! was delivered. Writers store versions of each key one after the other and note which were acked. When
//! a quarter is acked a node is killed; somewhat later a member; then the node comes back. At the end
//! every acked write must have been printed, and of one key none after one that replaces it.
//! Next to read: `feed_group/{member,verdict}.rs`.

mod member;
mod verdict;

use crate::cluster::Cluster;
use crate::wait::until;
use galvani_client::{Applied, Client, Context};
use member::Member;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
pub use verdict::{Seen, Verdict, Write, Written};

/// The group's name.
const GROUP: &str = "followers";
/// The node that is killed.
const NODE: &str = "n2";
/// Members at first.
const MEMBERS: usize = 3;
/// The member that is killed.
const KILLED: usize = MEMBERS - 1;
/// How long nothing more may come before what is missing counts as lost: longer than any lease.
const SILENCE: Duration = Duration::from_secs(60);

/// How much is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Keys.
    pub keys: usize,
    /// Versions of each key.
    pub versions: u64,
    /// Writers at once, each with keys of its own.
    pub writers: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { keys: 100_000, versions: 2, writers: 32 }
    }
}

/// What the members printed, in the order in which it was read.
type Log = Arc<Mutex<Vec<Seen>>>;

/// Runs it on a cluster of its own.
pub fn run(settings: &Settings) -> Verdict {
    let cluster = Cluster::with(&["-n", "3"]);
    let client = cluster.client();
    let log: Log = Arc::default();
    let start = |index| Member::start(&cluster, GROUP, index, log.clone());
    let mut members: Vec<Member> = (0..MEMBERS).map(start).collect();
    until("three members to share the shards", || {
        members.iter_mut().for_each(Member::lives);
        let status = cluster.block_on(client.group_status(GROUP));
        let status = status.map_err(|error| error.to_string())?;
        let shares: Vec<usize> = status.members.iter().map(|it| it.shards.len()).collect();
        let all = shares.len() == MEMBERS && !shares.contains(&0);
        if all { Ok(()) } else { Err(format!("shares {shares:?}")) }
    });
    let began = Instant::now();
    let acked = Arc::new(AtomicU64::new(0));
    let share = settings.keys.div_ceil(settings.writers).max(1);
    let all: Vec<usize> = (0..settings.keys).collect();
    let writers: Vec<_> = all
        .chunks(share)
        .map(|keys| {
            let (client, keys) = (client.clone(), keys.to_vec());
            let write = write(client, keys, settings.versions, acked.clone());
            cluster.runtime().spawn(write)
        })
        .collect();
    let total = settings.keys as u64 * settings.versions;
    let reach = |percent: u64| until_acked(&acked, total * percent / 100);
    reach(25);
    cluster.kill(NODE);
    reach(40);
    members.remove(KILLED).kill();
    reach(60);
    cluster.start_node(NODE);
    let mut written = Written::default();
    for writer in writers {
        written.add(cluster.block_on(writer).expect("a writer does not panic"));
    }
    let writing = began.elapsed();
    let ended = Instant::now();
    until_delivered(&log, &written.acked, &mut members);
    let behind = ended.elapsed();
    drop(members);
    let log = std::mem::take(&mut *log.lock().expect("no holder panics"));
    Verdict::of(&written, &log, KILLED, writing, behind)
}

/// Stores versions of keys, of each one after the other; each replaces the last that was acked.
async fn write(client: Client, keys: Vec<usize>, versions: u64, acked: Arc<AtomicU64>) -> Written {
    let mut written = Written::default();
    for key in keys {
        let key = format!("k{key}");
        let mut context = Context::default();
        for version in 0..versions {
            let put = client.put(key.clone(), version.to_string()).after(&context).w(2);
            match put.send().await {
                Ok(done) => {
                    context = done.context;
                    written.acked.insert((key.clone(), version));
                    acked.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.applied() == Applied::No => written.refused += 1,
                Err(_) => written.doubtful += 1,
            }
        }
    }
    written
}

/// Waits until so many writes are acked, as long as there are more and more of them.
fn until_acked(acked: &AtomicU64, goal: u64) {
    let mut last = (0, Instant::now());
    loop {
        let now = acked.load(Ordering::Relaxed);
        if now >= goal {
            return;
        }
        if now > last.0 {
            last = (now, Instant::now());
        }
        assert!(last.1.elapsed() < SILENCE, "no write was acked for {SILENCE:?}: {now} of {goal}");
        // wait: until `goal` are acked, or none for SILENCE
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all of it is printed, as long as something comes. What is missing then is for the
/// verdict.
fn until_delivered(log: &Log, acked: &BTreeSet<Write>, members: &mut [Member]) {
    let (mut missing, mut read) = (acked.clone(), 0);
    let mut last = Instant::now();
    while !missing.is_empty() && last.elapsed() < SILENCE {
        members.iter_mut().for_each(Member::lives);
        {
            let log = log.lock().expect("no holder panics");
            for seen in &log[read..] {
                missing.remove(&seen.write);
                last = Instant::now();
            }
            read = log.len();
        }
        // wait: until all is printed, or nothing more for SILENCE
        std::thread::sleep(Duration::from_millis(20));
    }
}
