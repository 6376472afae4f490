//! Text scenarios: commands in, one answer each, through real lanes in a quiet world.
//!
//! Every command ends with the world at rest for a while, so that a reader can follow one step at a
//! time; what must overlap is made to overlap by cuts and dead nodes. The oracles look on as in any
//! seed. Next to read: `words.rs`, `scenarios/`.

mod layouts;
mod say;
mod words;

use crate::client::{Client, NewWrite};
use crate::clocks::Speed;
use crate::history::Purpose;
use crate::node::Life;
use crate::packet::LaneAt;
use crate::profile::Profile;
use crate::world::World;
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps, ConflictPolicy};
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::Store;
use galvani_model::version::Kind;
use galvani_wire::Message;
use galvani_wire::message::CreateBucket;
use std::collections::BTreeMap;
use words::Words;

/// How long the world goes on after each command, in microseconds.
const PAUSE_MICROS: u64 = 100_000;
/// Deadline of requests unless the command says otherwise, in milliseconds.
const TIMEOUT_MS: u32 = 500;

/// A scenario under way.
#[derive(Default)]
pub struct Script {
    world: Option<World>,
    clients: BTreeMap<String, usize>,
    /// Writes by the label a command gave them.
    labels: BTreeMap<String, usize>,
}

impl Script {
    /// A scenario before its first command, which must be `cluster`.
    pub fn new() -> Script {
        Script::default()
    }

    /// Executes one command and says what came of it; what cannot be understood is said too.
    pub fn execute(&mut self, command: &str) -> String {
        let said = Words::parse(command).and_then(|words| self.obey(&words));
        let said = said.unwrap_or_else(|error| format!("error: {error}"));
        match self.world.as_ref().and_then(|world| world.violation.as_ref()) {
            Some(violation) => format!("{said}\nBROKEN {violation}"),
            None => said,
        }
    }

    fn obey(&mut self, words: &Words<'_>) -> Result<String, String> {
        if words.verb == "cluster" {
            return self.make_cluster(words);
        }
        if self.world.is_none() {
            return Err("the first command is cluster".into());
        }
        let said = match words.verb {
            "bucket" => self.make_bucket(words)?,
            "put" => self.write(words, Kind::Put)?,
            "del" => self.write(words, Kind::Delete)?,
            "retry" => self.retry(words)?,
            "get" => self.get(words)?,
            "replicas" => self.replicas(words)?,
            "sees" => self.sees(words)?,
            "hints" => self.hints()?,
            "layout" => self.layout(words)?,
            "counters" => say::counters(&self.world()?.counters()),
            "wait" => {
                let ms: u64 = words.number(0)?;
                let world = self.world()?;
                world.run_until(world.now + ms * 1000);
                "ok".into()
            }
            _ => self.fault(words)?,
        };
        let world = self.world()?;
        world.run_until(world.now + PAUSE_MICROS);
        Ok(said)
    }

    fn make_cluster(&mut self, words: &Words<'_>) -> Result<String, String> {
        let nodes: usize = words.value_or("nodes", 3)?;
        let n: u8 = words.value_or("n", 3)?;
        if !(1..=7).contains(&nodes) || !(1..=nodes).contains(&usize::from(n)) {
            return Err("nodes is 1 to 7, n is 1 to nodes".into());
        }
        let mut profile = Profile::quiet(nodes, n);
        profile.always_fsync = words.flag("fsync");
        profile.limits.anti_entropy_ms = words.value_or("ae", 0)?;
        profile.lanes = words.value_or("lanes", 1u16)?.clamp(1, 4);
        profile.changes = layouts::changes(words)?;
        let mut world = World::new(0, profile, None, 0);
        (0..world.nodes.len()).for_each(|node| world.start_node(node));
        world.run_until(PAUSE_MICROS);
        *self = Script { world: Some(world), ..Script::default() };
        Ok("ok".into())
    }

    fn make_bucket(&mut self, words: &Words<'_>) -> Result<String, String> {
        let name: BucketName = words.plain(0)?.parse().map_err(|e| format!("{e}"))?;
        let mut props = BucketProps::with_copies(words.value_or("n", 3)?);
        if words.value_or("policy", String::new())? == "lww" {
            props.policy = ConflictPolicy::Lww;
        }
        let world = self.world()?;
        let mut policies = (*world.policies).clone();
        policies.insert(name.clone(), props.policy);
        world.policies = policies.into();
        // Stores judge by policies they were opened with: let every node start anew, cleanly.
        for node in 0..world.nodes.len() {
            world.stop(node);
        }
        world.run_until(world.now + PAUSE_MICROS);
        for node in 0..world.nodes.len() {
            world.start_node(node);
        }
        world.run_until(world.now + 5 * PAUSE_MICROS);
        let message = Message::CreateBucket(CreateBucket { name, props, timeout_ms: TIMEOUT_MS });
        let to = LaneAt { node: 0, lane: 0 };
        let call = world.call(None, Purpose::Other, to, message, TIMEOUT_MS);
        self.heard(call)
    }

    fn write(&mut self, words: &Words<'_>, kind: Kind) -> Result<String, String> {
        let client = self.client(words.plain(0)?)?;
        let key = self.key(words.plain(1)?)?;
        let value = match kind {
            Kind::Put => Some(Bytes::from(words.plain(2)?.to_owned())),
            Kind::Delete | Kind::Emit => None,
        };
        let context = match words.maybe("ctx") {
            None => None,
            // Another key's context: what a confused client sends.
            Some(of) => {
                let other = self.key(of)?;
                let kept = self.world()?.clients[client].contexts.get(&other);
                let back: usize = words.value_or("back", 0)?;
                let kept = kept.and_then(|kept| kept.iter().rev().nth(back).cloned());
                Some(kept.ok_or(format!("no such context of {of}"))?)
            }
        };
        let quorum = |name: &str| words.optional::<Quorum>(name);
        let options = WriteOptions {
            n: words.optional("n")?,
            w: quorum("w")?,
            pw: quorum("pw")?,
            dw: quorum("dw")?,
            strict: words.flag("strict"),
            ttl_ms: words.optional("ttl")?,
        };
        let timeout_ms = words.value_or("timeout", TIMEOUT_MS)?;
        let impossible = false;
        let new = NewWrite { key, kind, context, value, options, timeout_ms, impossible };
        let to = self.lane(words, key)?;
        let write = self.world()?.new_write(client, new);
        if let Some(label) = words.maybe("as") {
            self.labels.insert(label.to_owned(), write);
        }
        let call = self.world()?.send_write(Some(client), write, to);
        self.heard(call)
    }

    fn retry(&mut self, words: &Words<'_>) -> Result<String, String> {
        let label = words.plain(0)?;
        let write = *self.labels.get(label).ok_or(format!("no write is labelled {label}"))?;
        let key = self.world()?.history.writes[write].key;
        let to = self.lane(words, key)?;
        let call = self.world()?.send_write(None, write, to);
        self.heard(call)
    }

    fn get(&mut self, words: &Words<'_>) -> Result<String, String> {
        let client = self.client(words.plain(0)?)?;
        let key = self.key(words.plain(1)?)?;
        let options = ReadOptions {
            n: words.optional("n")?,
            r: words.optional("r")?,
            pr: words.optional("pr")?,
            strict: words.flag("strict"),
            blocking_repair: words.flag("blocking"),
        };
        let to = self.lane(words, key)?;
        let world = self.world()?;
        world.read(Some(client), key, options, TIMEOUT_MS, to, false, false);
        let call = world.history.calls.len() - 1;
        self.heard(call)
    }

    /// What each owner holds of a key, by its disk.
    fn replicas(&mut self, words: &Words<'_>) -> Result<String, String> {
        let key = self.key(words.plain(0)?)?;
        let world = self.world()?;
        let info = world.keys[key].clone();
        let mut lines = Vec::new();
        for &node in &info.owners {
            let object = world.nodes[node].object_on_disk(info.shard, &info.key);
            let mut values: Vec<String> = Vec::new();
            for version in object.versions() {
                let entry = world.ledger.entry(version.dots[0]);
                let record = entry.map(|entry| &entry.record);
                let value = record.map_or("?".into(), |r| say::value(r.head.kind, &r.value));
                let aliases = if version.dots.len() > 1 { "(x2)" } else { "" };
                values.push(format!("{value}{aliases}"));
            }
            values.sort_unstable();
            lines.push(format!("n{node}: {}", say::list(&values)));
        }
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }

    /// What the nodes that run hold for others.
    fn hints(&mut self) -> Result<String, String> {
        let nodes = &self.world()?.nodes;
        let number = |id| nodes.iter().position(|node| node.id == id).unwrap_or(usize::MAX);
        let mut lines = Vec::new();
        for (holder, node) in nodes.iter().enumerate() {
            for (owner, figures) in node.lanes.iter().flat_map(|slot| slot.store.hint_figures()) {
                lines.push(format!("n{holder}: {} for n{}", figures.count, number(*owner)));
            }
        }
        Ok(if lines.is_empty() { "none".into() } else { lines.join("\n") })
    }

    /// How a node holds the others to be.
    fn sees(&mut self, words: &Words<'_>) -> Result<String, String> {
        let node = words.node(0)?;
        let world = self.world()?;
        let slot = world.nodes.get(node).and_then(|known| known.lanes.first());
        let lane = &slot.ok_or(format!("n{node} does not run"))?.lane;
        let silent: Vec<_> = lane.peers_silent().map(|peer| peer.node).collect();
        let others = world.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        let words = others.map(|(other, known)| {
            let standing = format!("{:?}", lane.standing(known.id)).to_lowercase();
            let silent = if silent.contains(&known.id) { ", silent" } else { "" };
            format!("n{other} {standing}{silent}")
        });
        Ok(words.collect::<Vec<_>>().join("\n"))
    }

    fn fault(&mut self, words: &Words<'_>) -> Result<String, String> {
        let node = words.node(0)?;
        let world = self.world()?;
        if node >= world.nodes.len() {
            return Err(format!("there is no node n{node}"));
        }
        match words.verb {
            "cut" | "heal" => {
                let other = words.node(1)?;
                let mut pairs = vec![(node, other)];
                if !words.flag("oneway") {
                    pairs.push((other, node));
                }
                match words.verb {
                    "cut" => world.cut_links(&pairs),
                    _ => world.heal(&pairs),
                }
            }
            "crash" => world.crash(node, "fault.crash"),
            "power" => world.lose_power(node),
            "stop" => world.stop(node),
            "start" => world.start_node(node),
            // Its links stay, until whoever goes on finds them dead.
            "pause" => world.nodes[node].life = Life::Paused,
            "resume" => {
                let boot = world.nodes[node].boot;
                world.resume(node, boot);
            }
            "save" => {
                world.nodes[node].backup = Some(world.nodes[node].save());
            }
            "wipe" | "restore" => self.change_disk(words, node)?,
            "ticks" => {
                for _ in 0..words.number::<u32>(1)?.min(1_000) {
                    world.push_input(LaneAt { node, lane: 0 }, galvani_protocol::Input::Wake);
                    world.run_until(world.now + 1_000);
                }
            }
            "date" => {
                world.nodes[node].wall_ahead_ms = words.number::<i64>(1)?.saturating_mul(1_000)
            }
            "speed" => {
                let speed = match words.plain(1)? {
                    "right" => Speed::Right,
                    "double" => Speed::Double,
                    "half" => Speed::Half,
                    other => return Err(format!("no speed is called {other}")),
                };
                world.run_clock_at(node, speed);
            }
            "full" => world.nodes[node].disk.memory().set_full(true),
            "free" => world.nodes[node].disk.memory().set_full(false),
            verb => return Err(format!("what is {verb}?")),
        }
        Ok("ok".into())
    }

    /// A node that is down gets another disk; `trusted` if nothing tells it so.
    fn change_disk(&mut self, words: &Words<'_>, node: usize) -> Result<(), String> {
        let world = self.world()?;
        if !world.nodes[node].is_down() {
            return Err("only the disk of a node that is down can be changed".into());
        }
        let copy = match words.verb {
            "wipe" => Default::default(),
            _ => world.nodes[node].backup.clone().ok_or("nothing was saved")?,
        };
        world.put_back(node, &copy);
        let trusted = words.flag("trusted");
        (world.nodes[node].clean, world.nodes[node].copied) = (trusted, !trusted);
        Ok(())
    }

    /// Lets the world go on until a call is answered or given up, and says which.
    fn heard(&mut self, call: usize) -> Result<String, String> {
        let answer = self.heard_message(call)?;
        Ok(answer.map_or("no answer".into(), |message| say::answer(&message)))
    }

    fn heard_message(&mut self, call: usize) -> Result<Option<Message>, String> {
        let world = self.world()?;
        while world.history.calls[call].end.is_none() && world.violation.is_none() {
            world.run_until(world.now + 1_000);
        }
        Ok(world.answers.remove(&call))
    }

    /// The lane that `via` names; the first owner without it.
    fn lane(&mut self, words: &Words<'_>, key: usize) -> Result<LaneAt, String> {
        let world = self.world()?;
        let owner = world.keys[key].owners[0];
        let node = words.maybe("via").map_or(Ok(owner), words::node_of)?;
        if node >= world.nodes.len() {
            return Err(format!("there is no node n{node}"));
        }
        Ok(world.lane_of(node, key))
    }

    /// The key that a word means: `k`, or `bucket:k`.
    fn key(&mut self, word: &str) -> Result<usize, String> {
        let (bucket, name) = word.split_once(':').unwrap_or(("default", word));
        let bucket: BucketName = bucket.parse().map_err(|error| format!("{error}"))?;
        let key = Key::new(bucket.clone(), Bytes::from(name.to_owned()));
        let key = key.map_err(|error| error.to_string())?;
        let world = self.world()?;
        if let Some(&known) = world.key_index.get(&key) {
            return Ok(known);
        }
        let props = world.nodes[0].buckets.get(&bucket).cloned();
        let props = props.ok_or(format!("there is no bucket {bucket}"))?;
        Ok(world.add_key(key, props))
    }

    fn client(&mut self, name: &str) -> Result<usize, String> {
        if let Some(&known) = self.clients.get(name) {
            return Ok(known);
        }
        let world = self.world()?;
        world.clients.push(Client::new(0, false));
        let number = world.clients.len() - 1;
        self.clients.insert(name.to_owned(), number);
        Ok(number)
    }

    fn world(&mut self) -> Result<&mut World, String> {
        self.world.as_mut().ok_or("the first command is cluster".into())
    }
}
