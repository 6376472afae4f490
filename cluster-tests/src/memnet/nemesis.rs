//! What breaks in a run in memory: hosts, links and the network's weather, one thing after another.
//!
//! Each fault lasts a while and ends by itself; several may hold at once. What comes when follows
//! from the seed. At the end all of it is mended. Disks that are lost, put back or copied are in
//! `nemesis/losses.rs`: they come one at a time.

mod losses;

use crate::chaos::workers::Field;
use crate::memnet::nodes::{Nodes, client_ip};
use crate::memnet::wire::{Weather, Wire};
use crate::memnet::{Plant, Settings};
use galvani_client::Client;
use galvani_node::config::DurabilityMode;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node crashes and comes back.
    Crash,
    /// All nodes lose power at once.
    Blackout,
    /// A node is stopped in peace and started again.
    Restart,
    /// A node stands still, for less or more than it takes to be noticed.
    Pause,
    /// Nothing passes between two hosts.
    Cut,
    /// Something passes one way only.
    OneWay,
    /// Nothing passes between one node and the others.
    Isolate,
    /// A link between two nodes comes and goes every 200 ms.
    Flap,
    /// Loss, duplicates and reordering.
    Weather,
    /// A disk has no room.
    Full,
    /// A wall clock jumps, and back.
    Clock,
    /// A node crashes, and its disk is gone.
    Wipe,
    /// A node crashes, and an older copy of its disk is put back.
    Older,
    /// A second process runs on a copy of a node's disk.
    Copy,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 14] = [
        Fault::Crash,
        Fault::Blackout,
        Fault::Restart,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWay,
        Fault::Isolate,
        Fault::Flap,
        Fault::Weather,
        Fault::Full,
        Fault::Clock,
        Fault::Wipe,
        Fault::Older,
        Fault::Copy,
    ];

    fn is_of_data(self) -> bool {
        matches!(self, Fault::Wipe | Fault::Older | Fault::Copy)
    }
}

/// What breaks things.
pub struct Nemesis<'a> {
    nodes: &'a mut Nodes,
    wire: &'a Arc<Wire>,
    field: &'a Arc<Field>,
    client: Client,
    clients: u8,
    durability: DurabilityMode,
    plant: Option<Plant>,
    rng: StdRng,
    began: Instant,
    /// Of this run, but for those of data: not every run has every kind.
    kinds: Vec<Fault>,
    /// Kinds of this run that concern data.
    of_data: Vec<Fault>,
    /// Faults until the next one of data.
    until_data: u32,
    holding: Vec<Holding>,
    /// How often each was done.
    pub done: BTreeMap<Fault, u32>,
    /// What was done when, for people.
    pub log: Vec<String>,
}

/// A fault that holds.
struct Holding {
    until: Instant,
    mend: Mend,
}

#[derive(Clone, Debug)]
enum Mend {
    Begin(Vec<usize>),
    GoOn(usize),
    Join(Vec<(IpAddr, IpAddr)>),
    Flap { pair: [IpAddr; 2], left: u32 },
    Fair,
    Room(usize),
    Jump { index: usize, by_ms: i64 },
}

impl<'a> Nemesis<'a> {
    /// One that has done nothing yet, for the clients of `field`, whose addresses are the first
    /// `clients`; `client` is one of them.
    pub fn new(
        nodes: &'a mut Nodes,
        wire: &'a Arc<Wire>,
        (field, client, clients): (&'a Arc<Field>, &Client, u8),
        durability: DurabilityMode,
        Settings { plant, only, .. }: Settings,
        seed: u64,
    ) -> Nemesis<'a> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut kinds: Vec<Fault> =
            Fault::ALL.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        match (only, plant) {
            (Some(only), _) => kinds = vec![only],
            // What a planted bug is found by, and nothing that explains it away.
            (None, Some(Plant::LossUnnoticed)) => {
                kinds = vec![Fault::Wipe, Fault::Older, Fault::Isolate, Fault::Pause];
            }
            (None, Some(_)) => {
                kinds.retain(|kind| !kind.is_of_data());
                kinds.extend([Fault::Crash, Fault::OneWay]);
            }
            (None, None) => {}
        }
        let (of_data, mut kinds): (Vec<_>, Vec<_>) =
            kinds.into_iter().partition(|kind| kind.is_of_data());
        if kinds.is_empty() && only.is_none() {
            kinds.extend([Fault::Crash, Fault::OneWay]);
        }
        let until_data = rng.random_range(0..4);
        Nemesis {
            nodes,
            wire,
            field,
            client: client.clone(),
            clients,
            durability,
            plant,
            rng,
            began: Instant::now(),
            kinds,
            of_data,
            until_data,
            holding: Vec::new(),
            done: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Breaks things for `time`, then mends all of them. Disks that lose something take time of their
    /// own. What is wrong meanwhile is noted in the field, and ends it.
    pub async fn run(&mut self, time: Duration) -> Result<(), String> {
        let mut end = Instant::now() + time;
        while Instant::now() < end && self.field.is_clean() {
            let quiet = self.millis(100, 1_500);
            self.pass(quiet).await?;
            match self.of_data.choose(&mut self.rng).copied() {
                Some(of_data) if self.until_data == 0 || self.kinds.is_empty() => {
                    let began = Instant::now();
                    self.lose(of_data).await?;
                    self.until_data = self.rng.random_range(3..8);
                    // It waited, twice, until all owners agreed.
                    end += began.elapsed().saturating_sub(LOSS_COUNTS);
                }
                Some(_) | None => {
                    self.until_data = self.until_data.saturating_sub(1);
                    self.strike_any().await?;
                }
            }
        }
        self.mend_all().await;
        self.note("all mended".to_owned());
        Ok(())
    }

    /// Lets `time` pass; what is due ends meanwhile.
    async fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            let due = self.holding.iter().map(|holding| holding.until).min();
            // wait: virtual time, until the next fault ends, or all is over
            sleep_until(due.map_or(end, |due| due.min(end))).await;
            self.mend_due(false).await;
            self.look_for_ended().await?;
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// A node ends by itself only where another process runs under its id; it is started again.
    async fn look_for_ended(&mut self) -> Result<(), String> {
        let Some(index) = self.nodes.ended() else { return Ok(()) };
        if !self.nodes.yields(index) {
            return Err(format!("node {} ended by itself", index + 1));
        }
        self.note(format!("{} yields to its copy", self.nodes.ip(index)));
        self.nodes.stop(index).await?;
        let until = Instant::now() + self.millis(50, 2_000);
        self.holding.push(Holding { until, mend: Mend::Begin(vec![index]) });
        Ok(())
    }

    async fn mend_all(&mut self) {
        self.nodes.end_copy().await;
        self.mend_due(true).await;
        for index in 0..self.nodes.len() {
            self.nodes.pause(index, false);
            if !self.nodes.runs(index) {
                self.nodes.begin(index);
            }
        }
    }

    /// A fault of this run that does not concern data, if it has one.
    async fn strike_any(&mut self) -> Result<(), String> {
        match self.kinds.choose(&mut self.rng).copied() {
            Some(kind) => self.strike(kind).await,
            None => Ok(()),
        }
    }

    async fn strike(&mut self, kind: Fault) -> Result<(), String> {
        let index = self.rng.random_range(0..self.nodes.len());
        let hosts = self.hosts();
        let other = self.pick_other(&hosts, self.nodes.ip(index));
        let ip = self.nodes.ip(index);
        let mut until = Instant::now() + self.millis(50, 4_000);
        let power = self.durability == DurabilityMode::Fsync && self.rng.random_bool(0.5);
        let mend = match kind {
            Fault::Crash => {
                self.nodes.crash(index, power).await;
                Mend::Begin(vec![index])
            }
            Fault::Blackout => {
                let all: Vec<usize> = (0..self.nodes.len()).collect();
                for &index in &all {
                    self.nodes.crash(index, power).await;
                }
                Mend::Begin(all)
            }
            Fault::Restart => {
                self.nodes.pause(index, false);
                self.nodes.stop(index).await?;
                Mend::Begin(vec![index])
            }
            Fault::Pause => {
                until = Instant::now() + self.millis(100, 8_000);
                self.nodes.pause(index, true);
                Mend::GoOn(index)
            }
            Fault::Cut => self.cut(vec![(ip, other), (other, ip)]),
            Fault::OneWay => match self.rng.random_bool(0.5) {
                true => self.cut(vec![(ip, other)]),
                false => self.cut(vec![(other, ip)]),
            },
            Fault::Isolate => {
                let pairs = self.links_of(ip);
                self.cut(pairs)
            }
            Fault::Flap => {
                until = Instant::now() + FLAP;
                let left = self.rng.random_range(4..20);
                Mend::Flap { pair: [ip, other], left }
            }
            Fault::Weather => {
                let weather = self.weather();
                self.wire.set_weather(weather);
                self.note(format!("{weather:?}"));
                Mend::Fair
            }
            Fault::Full => {
                self.nodes.fill(index, true);
                Mend::Room(index)
            }
            Fault::Clock => {
                let by_ms = *JUMPS_MS.choose(&mut self.rng).expect("there are some");
                self.nodes.jump(index, by_ms);
                self.note(format!("the clock of {ip} jumps by {by_ms} ms"));
                Mend::Jump { index, by_ms: -by_ms }
            }
            Fault::Wipe | Fault::Older | Fault::Copy => unreachable!("`lose` does these"),
        };
        *self.done.entry(kind).or_default() += 1;
        let lasts = until.duration_since(Instant::now());
        self.note(format!("{kind:?} of {ip} ({other}), {lasts:?}"));
        self.holding.push(Holding { until, mend });
        Ok(())
    }

    /// Ends what is due, or all.
    async fn mend_due(&mut self, all: bool) {
        let now = Instant::now();
        let (due, holding) = std::mem::take(&mut self.holding)
            .into_iter()
            .partition(|holding: &Holding| all || holding.until <= now);
        self.holding = holding;
        for Holding { mend, .. } in due {
            match mend {
                Mend::Begin(nodes) => {
                    for index in nodes {
                        if !self.nodes.runs(index) {
                            self.nodes.begin(index);
                        }
                    }
                }
                Mend::GoOn(index) => self.nodes.pause(index, false),
                Mend::Join(pairs) => {
                    if self.plant != Some(Plant::CutStays) {
                        pairs.into_iter().for_each(|(from, to)| self.wire.join(from, to));
                    }
                }
                Mend::Flap { pair: [one, other], left } => {
                    let parted = left % 2 == 0 && left > 0 && !all;
                    for (from, to) in [(one, other), (other, one)] {
                        match parted {
                            true => self.wire.cut(from, to),
                            false => self.wire.join(from, to),
                        }
                    }
                    if left > 0 && !all {
                        let mend = Mend::Flap { pair: [one, other], left: left - 1 };
                        self.holding.push(Holding { until: now + FLAP, mend });
                    }
                }
                Mend::Fair => self.wire.set_weather(Weather::FAIR),
                Mend::Room(index) => self.nodes.fill(index, false),
                Mend::Jump { index, by_ms } => self.nodes.jump(index, by_ms),
            }
        }
    }

    /// Both ways between a host and every other one.
    fn links_of(&self, ip: IpAddr) -> Vec<(IpAddr, IpAddr)> {
        let others = self.hosts().into_iter().filter(|&host| host != ip);
        others.flat_map(|host| [(ip, host), (host, ip)]).collect()
    }

    fn cut(&mut self, pairs: Vec<(IpAddr, IpAddr)>) -> Mend {
        pairs.iter().for_each(|&(from, to)| self.wire.cut(from, to));
        Mend::Join(pairs)
    }

    fn weather(&mut self) -> Weather {
        let lost = *[0, 10, 50, 300].choose(&mut self.rng).expect("there are some");
        Weather {
            delay_ms: self.rng.random_range(1..20),
            jitter_ms: self.rng.random_range(0..40),
            lost,
            twice: *[0, 20, 200].choose(&mut self.rng).expect("there are some"),
        }
    }

    /// Nodes, then clients.
    fn hosts(&self) -> Vec<IpAddr> {
        let nodes = (0..self.nodes.len()).map(|index| self.nodes.ip(index));
        nodes.chain((0..self.clients).map(client_ip)).collect()
    }

    fn pick_other(&mut self, hosts: &[IpAddr], not: IpAddr) -> IpAddr {
        let others: Vec<IpAddr> = hosts.iter().copied().filter(|&host| host != not).collect();
        *others.choose(&mut self.rng).expect("there are several hosts")
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..=most))
    }

    fn note(&mut self, what: String) {
        let at = self.began.elapsed().as_millis();
        self.log.push(format!("{at:6} ms  {what}"));
    }
}

/// How much of a fault of data counts as time in which things break.
const LOSS_COUNTS: Duration = Duration::from_secs(1);
/// By how much wall clocks jump: a little, an hour, ten years. A node whose clock is more than ten
/// minutes behind a writer's refuses what it writes, so none goes back further.
const JUMPS_MS: [i64; 6] =
    [-9 * 60_000, -5_000, 5_000, 9 * 60_000, 3_600_000, 10 * 365 * 86_400_000];
/// How long a flapping link stays as it is.
const FLAP: Duration = Duration::from_millis(200);
