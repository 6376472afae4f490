//! Named cases on real nodes and real QUIC in memory, in virtual time: Q5 `unknown_not_failed` and H7
//! `hint_flood`. What whole runs of random faults find there is in `memnet.rs`.
//!
//! Times are exact here: all that is waited for is the network's and the nodes' own doing, whatever the
//! machine does meanwhile.

use galvani_client::{Applied, Client};
use galvani_cluster_tests::memnet::nodes::{Nodes, Plan, client_ip};
use galvani_cluster_tests::memnet::wire::Wire;
use galvani_node::config::DurabilityMode;
use galvani_transport::Config;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Runs a test in a runtime whose clock stands still while anything can go on.
fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs nothing").block_on(test);
}

/// A healthy cluster of so many nodes.
fn plan(nodes: u8) -> Plan {
    Plan {
        nodes,
        lanes: 1,
        durability: DurabilityMode::Os,
        transport: Config::default(),
        keeps_keys: true,
        disks_lie: false,
        notices_loss: true,
    }
}

/// Asks `probe` again and again until it has an answer; panics with what it last said.
async fn until<T, E: Debug>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match probe().await {
            Ok(answer) => return answer,
            Err(why) if Instant::now() >= end => panic!("waited {PATIENCE:?} for {what}: {why:?}"),
            Err(_) => {}
        }
        // wait: virtual time, until the probe has an answer, at most PATIENCE
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until every node that runs says that it reaches all others but `away`.
async fn until_met(nodes: &Nodes, away: usize) {
    until("the nodes to meet", async || {
        let status = nodes.status();
        let up: Vec<usize> = status.iter().map(|status| status.peers_up.len()).collect();
        let met = up.iter().all(|count| count + 1 + away == nodes.len());
        if met { Ok(()) } else { Err(up) }
    })
    .await;
}

/// The values that a read of so many replicas shows.
async fn shown(client: &Client, key: &str, r: u8) -> Result<Vec<Vec<u8>>, String> {
    let read = client.get(key.to_owned()).r(r).await.map_err(|error| error.to_string())?;
    Ok(read.values().map(|value| value.to_vec()).collect())
}

/// How many versions each owner holds of a key.
async fn held(client: &Client, key: &str) -> Result<Vec<usize>, String> {
    let explained = client.explain(key.to_owned()).await.map_err(|error| error.to_string())?;
    let versions = |replica: &galvani_client::ReplicaState| {
        replica.versions.as_ref().map(Vec::len).map_err(ToString::to_string)
    };
    explained.replicas.iter().map(versions).collect()
}

#[test]
fn unknown_not_failed_where_acks_are_cut_off() {
    for seed in 1..=4 {
        in_virtual_time(async move {
            let wire = Wire::start(seed);
            let mut nodes = Nodes::start(plan(3), &wire, seed);
            let writer = nodes.client(0, CALL).await.expect("the cluster runs");
            let reader = nodes.client(1, CALL).await.expect("the cluster runs");
            until_met(&nodes, 0).await;
            // The writer reaches the first node alone, which the others hear, and which hears neither.
            for other in [1, 2] {
                wire.cut(nodes.ip(other), nodes.ip(0));
                wire.cut(nodes.ip(other), client_ip(0));
                wire.cut(client_ip(0), nodes.ip(other));
            }
            let put = writer.put("k", "v").blind().w(2).strict().send().await;
            let error = put.expect_err("no second ack can come");
            let doubt = matches!(error.applied(), Applied::Maybe { acks: 0 | 1 });
            assert!(doubt && error.is_retryable(), "seed {seed}: {error:?}");
            // It is stored where it arrived, although nobody could say so.
            let arrived = until("the value on the other side", async || {
                let values = shown(&reader, "k", 2).await?;
                if values.is_empty() { Err("none".to_owned()) } else { Ok(values) }
            });
            assert_eq!(arrived.await, [b"v"], "seed {seed}");
            for other in [1, 2] {
                wire.join(nodes.ip(other), nodes.ip(0));
                wire.join(nodes.ip(other), client_ip(0));
                wire.join(client_ip(0), nodes.ip(other));
            }
            until_met(&nodes, 0).await;
            until("all to hold it", async || match held(&reader, "k").await {
                Ok(held) if held == [1; 3] => Ok(()),
                other => Err(other),
            })
            .await;
            assert_eq!(shown(&reader, "k", 3).await, Ok(vec![b"v".to_vec()]), "seed {seed}");
            writer.close().await;
            reader.close().await;
        });
    }
}

/// What the flood is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Before,
    Down,
    Drain,
    Over,
}

impl Phase {
    fn of(number: u8) -> Phase {
        [Phase::Before, Phase::Down, Phase::Drain, Phase::Over][usize::from(number)]
    }
}

/// How long each write took, by when it began; each writer has keys of its own.
type Took = BTreeMap<Phase, Vec<Duration>>;

/// Writes until it is over; how long each took, and how many there were.
async fn press(client: Client, index: usize, phase: Arc<AtomicU8>) -> (Took, usize) {
    let (mut took, mut number) = (Took::new(), 0);
    loop {
        let now = Phase::of(phase.load(Ordering::Relaxed));
        if now == Phase::Over {
            return (took, number);
        }
        let (key, began) = (flood_key(index, number), Instant::now());
        let written = client.put(key.clone(), value(&key)).blind().w(2).send().await;
        written.unwrap_or_else(|error| panic!("{now:?} {key}: {error}"));
        took.entry(now).or_default().push(began.elapsed());
        number += 1;
        // wait: virtual time, so that a second has a bounded number of writes
        tokio::time::sleep(PAUSE).await;
    }
}

/// Who needs a stand-in for the node that is down gets one: how many of some writes did.
async fn stood_in(client: &Client) -> usize {
    let mut stood_in = 0;
    for number in 0..PROBES {
        let put = client.put(format!("probe/{number}"), "v").blind().w(3).send().await;
        let written = put.unwrap_or_else(|error| panic!("probe {number}: {error}"));
        let mut acked = written.answers.iter().filter(|answer| answer.is_ok());
        stood_in += usize::from(acked.any(|answer| answer.stands_in_for.is_some()));
    }
    stood_in
}

fn flood_key(index: usize, number: usize) -> String {
    format!("flood/{index}/{number}")
}

fn value(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(VALUE).collect()
}

/// Hints that are held, and their bytes.
fn hints(nodes: &Nodes) -> (u64, u64) {
    let status = nodes.status();
    let all = status.iter().flat_map(|status| status.hints.values());
    all.fold((0, 0), |(count, bytes), of| (count + of.count, bytes + of.bytes))
}

#[test]
fn hint_flood_holds_up_nobody_and_is_brought_whole() {
    in_virtual_time(async {
        let wire = Wire::start(7);
        let mut nodes = Nodes::start(plan(4), &wire, 7);
        let mut handles = Vec::new();
        for index in 0..3 {
            handles.push(nodes.client(index, CALL).await.expect("the cluster runs"));
        }
        until_met(&nodes, 0).await;
        let phase = Arc::new(AtomicU8::new(0));
        let mut crowd = JoinSet::new();
        for index in 0..WRITERS {
            crowd.spawn(press(handles[index % handles.len()].clone(), index, phase.clone()));
        }
        // wait: virtual time, that the load is to run before anything breaks
        tokio::time::sleep(AROUND).await;
        phase.store(1, Ordering::Relaxed);
        nodes.crash(3, false).await;
        // wait: virtual time, that the node is to be down
        tokio::time::sleep(DOWN).await;
        until_met(&nodes, 1).await;
        assert!(stood_in(&handles[1]).await > 0, "some of {PROBES} keys are its own");
        let (count, bytes) = hints(&nodes);
        phase.store(2, Ordering::Relaxed);
        let back = Instant::now();
        nodes.begin(3);
        until("all hints to be handed over", async || match hints(&nodes) {
            (0, 0) => Ok(()),
            left => Err(left),
        })
        .await;
        let drained = back.elapsed();
        phase.store(3, Ordering::Relaxed);
        let (mut took, mut least) = (Took::new(), usize::MAX);
        while let Some(ended) = crowd.join_next().await {
            let (one, numbers) = ended.expect("no write fails");
            for (phase, times) in one {
                took.entry(phase).or_default().extend(times);
            }
            least = least.min(numbers);
        }
        let acked: usize = took.values().map(Vec::len).sum();
        println!("{acked} acked, {count} hints of {bytes} bytes, brought in {drained:?}");
        // It shares a zone with another: half of the keys are its own, and it is missed soon.
        let down = took[&Phase::Down].len() as u64;
        assert!(count > down / 4, "{count} hints for {down} writes");
        assert!(bytes > count * VALUE as u64, "{bytes} bytes for {count} hints");
        for (phase, times) in &mut took {
            times.sort();
            let p99 = times[times.len() * 99 / 100];
            println!("{phase:?}: {} acked, p99 {p99:?}, longest {:?}", times.len(), times.last());
            assert!(p99 < BUDGET, "{phase:?}: the p99 is {p99:?}");
        }
        // All of it is on all of its owners, by what each holds itself.
        for number in (0..least).step_by(STEP) {
            for index in 0..WRITERS {
                let key = flood_key(index, number);
                until(&key, async || match held(&handles[0], &key).await {
                    Ok(held) if held == [1; 3] => Ok(()),
                    other => Err(other),
                })
                .await;
                assert_eq!(shown(&handles[0], &key, 3).await, Ok(vec![value(&key)]));
            }
        }
        for handle in handles {
            handle.close().await;
        }
    });
}

/// The time of one call of a client.
const CALL: Duration = Duration::from_secs(5);
/// What a condition is waited for, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Clients that write at once, and what each pauses between its writes: some 350 writes a second.
const WRITERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of a value.
const VALUE: usize = 1_000;
const AROUND: Duration = Duration::from_secs(2);
/// How long the node is down.
const DOWN: Duration = Duration::from_secs(30);
/// What 99 of 100 writes may take, on a network whose ways take a millisecond, whatever else goes on.
const BUDGET: Duration = Duration::from_millis(100);
/// Writes that need all owners, or a stand-in.
const PROBES: usize = 20;
/// Of the keys of each writer every so many are looked at in the end.
const STEP: usize = 10;
