//! Reads of replicas that agree, ten thousand of them: nobody writes, syncs or sends a record (RR3).
//!
//! Four nodes whose lanes hear each other at once. Anti-entropy is off and nothing is trimmed or read
//! through, so that whatever is written while there are only reads is written because of them.
//! Next to read: `bench.rs`, `read_repair.rs`.

use crate::bench::{Bench, get, key, peer, put, strict};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::version::{Dot, Kind};
use galvani_protocol::{Effect, Input, Lane, LaneConfig, ReplyTo};
use galvani_storage::engine::Engine;
use galvani_wire::Message;

const NODES: u128 = 4;
const READS: usize = 10_000;
/// Links of clients have lower numbers, those of nodes this one and more.
const PEERS: u64 = 10;

/// All nodes of a cluster, and what they answered to clients.
struct Nodes {
    all: Vec<Bench>,
    answers: Vec<Message>,
    /// Whom nothing reaches.
    away: Option<NodeId>,
    /// Messages that carry a record to another node, whatever for.
    records_sent: u64,
}

/// What the nodes did that no read of replicas that agree may do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Done {
    commits: Vec<u64>,
    syncs: Vec<u64>,
    records_sent: u64,
    /// What reads found to mend, whether they did or left it to anti-entropy.
    repairs: u64,
}

fn at(node: NodeId) -> usize {
    (1..=NODES).position(|id| NodeId(id) == node).expect("one of them")
}

impl Nodes {
    fn start() -> Nodes {
        let limits =
            Limits { anti_entropy_ms: 0, verify_hours: 0, feed_keep_ms: 0, ..Limits::default() };
        let bench = |id| {
            let mut bench = Bench::of(NodeId(id), limits.clone());
            // Every bench mints as the same origin unless it is started as another process.
            let (lane, limits, boot) = (LaneIndex(0), limits.clone(), 100 + id);
            let config = LaneConfig { lane, limits, always_fsync: false, boot };
            bench.lane = Lane::new(config, bench.topology.clone(), []);
            bench
        };
        let all = (1..=NODES).map(bench).collect();
        let mut nodes = Nodes { all, answers: Vec::new(), away: None, records_sent: 0 };
        for node in (1..=NODES).map(NodeId) {
            for other in (1..=NODES).map(NodeId).filter(|&other| other != node) {
                nodes.all[at(node)].handle(Input::PeerUp(peer(other)));
            }
        }
        nodes.rest();
        nodes
    }

    /// What a client of `node` is answered.
    fn ask(&mut self, node: NodeId, message: Message) -> Message {
        self.all[at(node)].request(false, message);
        self.flow();
        assert_eq!(self.answers.len(), 1, "{:?}", self.answers);
        self.answers.remove(0)
    }

    /// The names of what a read shows, in their order.
    fn read(&mut self, node: NodeId, message: Message) -> Vec<Dot> {
        let Message::GetDone(done) = self.ask(node, message) else { panic!("no answer of a read") };
        let mut dots: Vec<Dot> = done.siblings.iter().map(|sibling| sibling.dot).collect();
        dots.sort();
        dots
    }

    /// The context of what a write stored.
    fn write(&mut self, node: NodeId, message: Message) -> Bytes {
        match self.ask(node, message) {
            Message::PutDone(done) => done.context,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Three seconds in which nobody asks for anything: what was begun before is over then.
    fn rest(&mut self) {
        for _ in 0..30 {
            self.pass(100_000);
            self.all.iter_mut().for_each(|bench| bench.handle(Input::Wake));
            self.flow();
        }
    }

    fn pass(&mut self, micros: u64) {
        for bench in &mut self.all {
            bench.now.micros += micros;
            bench.now.unix_ms += micros / 1_000;
        }
    }

    /// Lets every message arrive that is under way, and those that follow from them.
    fn flow(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for node in (1..=NODES).map(NodeId) {
                for effect in self.all[at(node)].tick() {
                    moved = true;
                    self.deliver(node, effect);
                }
            }
        }
    }

    fn deliver(&mut self, from: NodeId, effect: Effect) {
        match effect {
            Effect::Ask { to, id, .. } if self.away == Some(to.node) => {
                self.all[at(from)].handle(Input::Undelivered { id });
            }
            Effect::Ask { to, id, forwarded, message } => {
                let carries = matches!(
                    message,
                    Message::Replicate(_) | Message::Supply(_) | Message::Hint(_)
                );
                self.records_sent += u64::from(carries);
                let bench = &mut self.all[at(to.node)];
                let from = ReplyTo { link: PEERS + at(from) as u64, id };
                let arrived = bench.now.micros;
                bench.handle(Input::Request { from, forwarded, arrived, message });
            }
            Effect::Answer { to, message, .. } if to.link >= PEERS => {
                let asker = (to.link - PEERS) as usize;
                self.all[asker].handle(Input::Reply { id: to.id, message });
            }
            Effect::Answer { message, .. } => self.answers.push(message),
            Effect::Datagram { to, bytes } => {
                self.all[at(to.node)].handle(Input::Datagram { from: peer(from), bytes });
            }
            // There are no other lanes, and nothing is changed.
            Effect::Liveness { .. }
            | Effect::WentBack(_)
            | Effect::Adopt(_)
            | Effect::Unequal { .. }
            | Effect::DefineBucket { .. } => {}
        }
    }

    fn done(&self) -> Done {
        let stats = || self.all.iter().map(|bench| bench.engine.stats());
        let repairs = |bench: &Bench| {
            let counters = bench.lane.counters();
            counters.repairs_sent + counters.repairs_skipped
        };
        Done {
            commits: stats().map(|stats| stats.commits).collect(),
            syncs: stats().map(|stats| stats.syncs).collect(),
            records_sent: self.records_sent,
            repairs: self.all.iter().map(repairs).sum(),
        }
    }

    /// The owners of a key, the first of them first.
    fn owners(&self, key: &Key) -> Vec<NodeId> {
        let bench = &self.all[0];
        bench.topology.owners(bench.shard(key)).into_iter().collect()
    }
}

fn delete(key: Key, rid: u128, context: Bytes) -> Message {
    let Message::Put(mut put) = put(key, rid, 3) else { panic!("made as a put") };
    (put.kind, put.value, put.context) = (Kind::Delete, Bytes::new(), Some(context));
    Message::Put(put)
}

fn read(key: Key, r: u8, blocking: bool) -> Message {
    let Message::Get(mut get) = get(key, r) else { panic!("made as a get") };
    get.options.blocking_repair = blocking;
    Message::Get(get)
}

/// Keys that are absent, hold a value, siblings, a value that replaced one, and a tombstone.
fn with_data(nodes: &mut Nodes) -> Vec<Key> {
    let keys: Vec<Key> = ["absent", "value", "siblings", "replaced", "deleted"].map(key).into();
    let [_, value, siblings, replaced, deleted] = &keys[..] else { panic!("five are named") };
    nodes.write(nodes.owners(value)[0], put(value.clone(), 1, 3));
    nodes.write(nodes.owners(siblings)[0], put(siblings.clone(), 2, 3));
    nodes.write(nodes.owners(siblings)[1], put(siblings.clone(), 3, 3));
    let context = nodes.write(nodes.owners(replaced)[0], put(replaced.clone(), 4, 3));
    let Message::Put(mut second) = put(replaced.clone(), 5, 3) else { panic!("made as a put") };
    second.context = Some(context);
    nodes.write(nodes.owners(replaced)[1], Message::Put(second));
    let context = nodes.write(nodes.owners(deleted)[0], put(deleted.clone(), 6, 3));
    nodes.write(nodes.owners(deleted)[0], delete(deleted.clone(), 7, context));
    keys
}

#[test]
fn no_writes_on_read() {
    let mut nodes = Nodes::start();
    let keys = with_data(&mut nodes);
    nodes.rest();
    let before = nodes.done();
    let all = |nodes: &mut Nodes, key: &Key| nodes.read(NodeId(1), read(key.clone(), 3, false));
    let shown: Vec<Vec<Dot>> = keys.iter().map(|key| all(&mut nodes, key)).collect();
    let counts: Vec<usize> = shown.iter().map(Vec::len).collect();
    assert_eq!(counts, [0, 1, 2, 1, 1], "{shown:?}");
    // Every key, at every node, with every r, blocking and not.
    for number in 0..READS {
        let key = number % keys.len();
        let turn = number / keys.len();
        let node = NodeId(1 + turn as u128 % NODES);
        let turn = turn / NODES as usize;
        let (r, blocking) = (1 + (turn % 3) as u8, turn / 3 % 2 == 1);
        nodes.pass(10);
        let found = nodes.read(node, read(keys[key].clone(), r, blocking));
        assert_eq!(found, shown[key], "read {number} at {node:?}, r={r}, blocking: {blocking}");
    }
    // Nor does anything follow later.
    nodes.rest();
    assert_eq!(nodes.done(), before);
    assert!(nodes.all.iter().all(|bench| !bench.store.has_staged()), "something is left to write");
}

/// That the figures of `no_writes_on_read` are no zeroes of another kind.
#[test]
fn one_read_of_replicas_that_differ_is_seen_in_the_same_figures() {
    let mut nodes = Nodes::start();
    let key = key("value");
    let owners = nodes.owners(&key);
    nodes.away = Some(owners[2]);
    nodes.write(owners[0], strict(put(key.clone(), 1, 2)));
    nodes.away = None;
    nodes.rest();
    let before = nodes.done();
    assert_eq!(nodes.read(owners[1], read(key.clone(), 3, false)).len(), 1);
    let after = nodes.done();
    assert_eq!(after.records_sent, before.records_sent + 1);
    assert_eq!(after.repairs, before.repairs + 1);
    assert_eq!(after.commits[at(owners[2])], before.commits[at(owners[2])] + 1);
    // From then on they agree.
    nodes.read(owners[0], read(key, 3, true));
    assert_eq!(nodes.done(), after);
}
