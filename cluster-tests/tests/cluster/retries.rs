//! Retries: one logical write through two coordinators that knew nothing of each other, and a storm of
//! retries while a node stands still, which is kept small and leaves nothing behind.

use bytes::Bytes;
use galvani_client::{Client, Context, Quorum};
use galvani_cluster_tests::cluster::Node;
use galvani_cluster_tests::wait::PATIENCE;
use galvani_cluster_tests::{Cluster, raw, until};
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::RequestId;
use galvani_model::key::Key;
use galvani_model::request::WriteOptions;
use galvani_model::version::Kind;
use galvani_transport::pki::Identity;
use galvani_wire::{Message, message};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[test]
fn retry_after_overwrite_makes_no_sibling_and_brings_nothing_back() {
    let cluster = Cluster::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
    let issued = Hlc::default().tick(Hlc::default(), now.as_millis() as u64);
    cluster.kill("n2");
    cluster.kill("n3");
    let first = put(&cluster, "n1", 1, issued);
    cluster.kill("n1");
    cluster.start_node("n2");
    cluster.start_node("n3");
    // The retry: n1 alone has the write under one name, n2 and n3 under another.
    let retry = put(&cluster, "n2", 2, issued);
    assert_ne!(first.dot, retry.dot);
    cluster.start_node("n1");
    let client = cluster.client_at("n2");
    let seen = Context::from_bytes(&retry.context).expect("a context");
    let second = cluster.block_on(client.put("k", "second").after(&seen).w(3).send());
    second.expect("all are up");

    // n1 learns of the other name by the reads: none shows what was replaced.
    for node in ["n1", "n2", "n3"] {
        let client = cluster.client_at(node);
        let read = cluster.block_on(async { client.get("k").r(3).await }).expect("all are up");
        assert_eq!(read.siblings.len(), 1, "{:?}", read.siblings);
        assert_eq!(read.siblings[0].value.as_deref(), Some(&b"second"[..]));
    }
    let explained = cluster.until_equal(&client, "k");
    for replica in &explained.replicas {
        assert_eq!(replica.versions.as_ref().map(Vec::len), Ok(1), "{replica:?}");
    }
    assert_eq!(cluster.run_at("n1", &["get", "k", "-r", "1"]).expect(0).text(), "second\n");
}

/// A write whose request id and time are the same whatever node it is sent to.
fn put(cluster: &Cluster, node: &str, w: u8, issued: Hlc) -> message::PutDone {
    let put = Message::Put(message::Put {
        key: Key::new(BucketName::default_bucket(), "k").expect("a short key"),
        kind: Kind::Put,
        emits: Vec::new(),
        rid: RequestId(42),
        issued,
        retry: false,
        context: None,
        options: WriteOptions { w: Some(Quorum::Exactly(w)), ..WriteOptions::default() },
        timeout_ms: 5000,
        value: Bytes::from_static(b"first"),
    });
    let admin = Identity::load(&cluster.identity()).expect("made by dev");
    let asked = raw::request(&admin, cluster.node(node).addr, &put);
    match cluster.block_on(asked) {
        Message::PutDone(done) => done,
        other => panic!("not stored: {other:?}"),
    }
}

/// O1 with real nodes: one stands still, so no write at w=3 can be stored, and a crowd with small deadlines
/// tries each again and again. What reaches the nodes stays within the clients' allowance, reads go on
/// meanwhile, and once the node goes on so do the writes, with the crowd still there.
#[test]
fn retry_storm() {
    let cluster = Cluster::start();
    let handles: Vec<Client> = ["n1", "n2", "n3", "n1"]
        .into_iter()
        .map(|near| {
            let builder =
                cluster.builder().zone(&cluster.node(near).zone).timeout(DEADLINE).retries(10);
            cluster.block_on(builder.connect()).expect("the cluster runs")
        })
        .collect();
    let before = asked(&cluster);
    cluster.pause("n1");
    let storm = Arc::new(Storm::default());
    let crowd: Vec<_> = (0..CROWD)
        .map(|index| {
            let client = handles[index % handles.len()].clone();
            cluster.runtime().spawn(press(client, index, storm.clone()))
        })
        .collect();
    until("the storm to rage", || match storm.calls.load(Ordering::Relaxed) {
        few if few < STORM => Err(few),
        _ => Ok(()),
    });
    storm.abates.store(true, Ordering::Relaxed);
    cluster.resume("n1");
    let mut signs = 0;
    for near in ["n1", "n2", "n3"] {
        let builder = cluster.builder().zone(&cluster.node(near).zone).retries(0);
        let client = cluster.block_on(builder.connect()).expect("the cluster runs");
        until("all to store a write", || {
            signs += 1;
            let key = format!("sign-{signs}");
            cluster.block_on(client.put(key, "v").blind().w(3).send()).map(|_| ())
        });
    }
    storm.is_over.store(true, Ordering::Relaxed);
    let mut sum = Pressed::default();
    for one in crowd {
        sum.add(&cluster.block_on(one).expect("a client does not panic"));
    }
    // Whoever has no retries left is served as well.
    for (number, client) in handles.iter().cycle().take(CALM).enumerate() {
        let put = client.put(format!("calm-{number}"), "v").blind().w(3).timeout(PATIENCE).send();
        cluster.block_on(put).expect("all is well");
    }
    let calls = sum.calls() + signs + CALM as u64;
    let hedges: u64 = handles.iter().map(|client| client.hedges().sent).sum();
    let reached = asked(&cluster) - before;
    let allowed = calls + calls / 10 + RESERVE * handles.len() as u64 + hedges;
    println!("{calls} calls, {reached} reached the nodes of {allowed}, {hedges} hedged: {sum:?}");
    assert!(sum.failed.writes * 10 >= sum.away.writes * 9, "no storm: {sum:?}");
    assert!(reached > calls, "nothing was tried again: {reached} of {calls}");
    assert!(reached <= allowed, "{reached} for {calls} calls, {allowed} are allowed: {sum:?}");
    assert!(sum.failed.reads * 4 <= sum.away.reads, "reads do not go on: {sum:?}");
    let after = sum.after;
    assert!(sum.late * 10 <= after.reads + after.writes, "it did not recover: {sum:?}");
}

/// What the crowd is told, and says.
#[derive(Debug, Default)]
struct Storm {
    /// Calls that are over.
    calls: AtomicU64,
    /// Whether what fails from now on is not counted: the node comes back.
    abates: AtomicBool,
    /// Whether all is well again; each makes some calls more.
    is_over: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    writes: u64,
    reads: u64,
}

/// What clients did and met.
#[derive(Clone, Copy, Debug, Default)]
struct Pressed {
    /// Calls that began while the node was away.
    away: Calls,
    /// Of those, calls that failed.
    failed: Calls,
    /// Calls while it came back.
    between: Calls,
    /// Calls when all was well again.
    after: Calls,
    /// Of those, calls that failed.
    late: u64,
}

impl Pressed {
    fn calls(&self) -> u64 {
        [self.away, self.between, self.after].iter().map(|calls| calls.reads + calls.writes).sum()
    }

    fn add(&mut self, other: &Pressed) {
        let pairs = [
            (&mut self.away, other.away),
            (&mut self.failed, other.failed),
            (&mut self.between, other.between),
            (&mut self.after, other.after),
        ];
        for (sum, calls) in pairs {
            sum.writes += calls.writes;
            sum.reads += calls.reads;
        }
        self.late += other.late;
    }
}

impl Calls {
    fn note(&mut self, is_read: bool) {
        self.writes += u64::from(!is_read);
        self.reads += u64::from(is_read);
    }
}

/// One of the crowd: asks without a pause, one read for three writes, and again whatever came of it.
async fn press(client: Client, index: usize, storm: Arc<Storm>) -> Pressed {
    let (mut pressed, mut left) = (Pressed::default(), AFTER);
    for number in 0_u64.. {
        let is_read = number % 4 == 0;
        let (abates, is_over) =
            (storm.abates.load(Ordering::Relaxed), storm.is_over.load(Ordering::Relaxed));
        if is_over && left == 0 {
            break;
        }
        let key = |number: u64| format!("storm-{index}-{number}");
        let failed = match is_read {
            true => client.get(key(number.saturating_sub(1))).r(2).await.is_err(),
            false => client.put(key(number), "v").blind().w(3).send().await.is_err(),
        };
        storm.calls.fetch_add(1, Ordering::Relaxed);
        match (abates, is_over) {
            (false, _) => {
                pressed.away.note(is_read);
                if failed {
                    pressed.failed.note(is_read);
                }
            }
            (true, false) => pressed.between.note(is_read),
            (true, true) => {
                left -= 1;
                pressed.after.note(is_read);
                pressed.late += u64::from(failed);
            }
        }
    }
    pressed
}

/// Requests of clients on keys that any node answered since it started.
fn asked(cluster: &Cluster) -> u64 {
    let client = cluster.client();
    let of = |node: &Node| {
        let counters = cluster.status_of(&client, &node.name).counters;
        counters.puts + counters.gets + counters.quorum_failures + counters.refused
    };
    cluster.nodes().iter().map(of).sum()
}

/// So many ask at once, through four clients.
const CROWD: usize = 32;
/// What each call has.
const DEADLINE: Duration = Duration::from_secs(1);
/// Calls before the node goes on.
const STORM: u64 = 4_000;
/// Calls of each of the crowd when all is well again.
const AFTER: u64 = 20;
/// Calls one after the other in the end.
const CALM: usize = 60;
/// Retries that a client has at hand in the beginning, beside one for ten calls.
const RESERVE: u64 = 100;
