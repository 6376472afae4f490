//! An outbox to real brokers: a relay process follows a cluster of processes, and the relay, the broker and a
//! node are killed in turn under a writer. What the broker has in the end is what was acknowledged.
//!
//! It needs redis-server and nats-server; where one is missing, its test says `NOT TESTED`.

use galvani_brokers::{Broker, Kind};
use galvani_client::{Applied, Client, EventId, Topic};
use galvani_cluster_tests::broker::ids;
use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, until};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const TOPIC: &str = "orders";
/// Events that are written between one kill and the next, at least.
const MORE: usize = 150;

/// Ids of events, by what their writer was told.
#[derive(Debug, Default)]
struct Told {
    acked: BTreeSet<String>,
    /// Refused for want of an answer: they may be there.
    doubtful: usize,
}

/// Writes events until it is stopped: of orders with a value, of customers without.
async fn write(client: Client, told: Arc<Mutex<Told>>, stop: Arc<AtomicBool>) {
    let topic: Topic = TOPIC.parse().expect("a topic");
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let payload = number.to_string();
        let (key, write) = match number % 2 {
            0 => {
                let key = format!("order/{number}");
                (key.clone(), client.put(key, payload.clone()).blind())
            }
            _ => {
                let key = format!("customer/{}", number % 37);
                (key.clone(), client.bucket("default").emit(key))
            }
        };
        let sent = write.emit(topic.clone(), key, payload).send().await;
        let mut told = told.lock().expect("no test panics with it");
        match sent {
            Ok(written) => {
                let id = EventId::Emit(written.request_id.expect("it was written"), 0);
                told.acked.insert(id.to_string());
            }
            Err(error) => told.doubtful += usize::from(error.applied() != Applied::No),
        }
    }
}

fn relay(cluster: &Cluster, target: &str) -> Running {
    cluster.begin(&["feed", "--topic", TOPIC, "--token", "position", "--to", target])
}

fn everything_acked_is_at_the_broker_once(kind: Kind, stream: &str, path: &str) {
    let Some(mut broker) = Broker::start(kind) else { return };
    let cluster = Cluster::start();
    let scheme = if kind == Kind::Redis { "redis" } else { "nats" };
    let target = format!("{scheme}://127.0.0.1:{}/{path}", broker.port());
    let mut running = relay(&cluster, &target);
    // From then on it begins no later than there.
    until("the relay to keep its first position", || {
        if cluster.scratch().join("position").exists() { Ok(()) } else { Err(running.has_ended()) }
    });
    let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicBool>::default());
    let writer = write(cluster.client(), told.clone(), stop.clone());
    let writer = cluster.runtime().spawn(writer);
    let acked = || told.lock().expect("no test panics with it").acked.len();
    let more = |what: &str| {
        let before = acked();
        until(&format!("more to be written, {what}"), || {
            if acked() >= before + MORE { Ok(()) } else { Err(acked()) }
        });
    };
    for node in ["n1", "n2"] {
        more("while all is well");
        drop(running);
        more("without a relay");
        running = relay(&cluster, &target);
        let delivered = ids(&broker, stream).map_or(0, |ids| ids.len());
        until("the relay to go on", || match ids(&broker, stream) {
            Ok(ids) if ids.len() > delivered => Ok(()),
            other => Err(other.map(|ids| ids.len())),
        });
        broker.kill();
        more("without a broker");
        broker.restart();
        more("while the broker comes back");
        cluster.kill(node);
        more("without a node");
        cluster.start_node(node);
    }
    stop.store(true, Ordering::Relaxed);
    cluster.block_on(writer).expect("no panic");
    let told = told.lock().expect("no test panics with it");
    until("all that was acknowledged to be at the broker", || {
        let ids: BTreeSet<String> = ids(&broker, stream)?.into_iter().collect();
        match told.acked.difference(&ids).count() {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} missing", told.acked.len())),
        }
    });
    assert!(!running.has_ended(), "it goes on");
    let ids = ids(&broker, stream).expect("it answers");
    let set: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(ids.len(), set.len(), "the broker knows an event that comes again");
    let unknown = set.difference(&told.acked).count();
    assert!(unknown <= told.doubtful, "{unknown} that nobody wrote, {} in doubt", told.doubtful);
}

#[test]
fn everything_acked_is_in_redis_once_whatever_was_killed() {
    everything_acked_is_at_the_broker_once(Kind::Redis, "outbox", "outbox");
}

#[test]
fn everything_acked_is_in_jetstream_once_whatever_was_killed() {
    let path = "outbox?create=OUTBOX&window=10m";
    everything_acked_is_at_the_broker_once(Kind::Nats, "OUTBOX", path);
}
