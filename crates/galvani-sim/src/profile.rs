//! What a seed draws before anything happens: sizes, quorums, network, faults.
//!
//! Swarm testing: every fault class is on or off per seed, because a class that is always on hides
//! what another one would show. Small clusters, few keys, many orders. Next to read: `world.rs`.
//! Source: Groce et al. 2012, "Swarm Testing".

use crate::rng::Rng;
use core::fmt;
use galvani_model::bucket::{BucketName, BucketProps, ConflictPolicy};
use galvani_model::limits::Limits;
use galvani_model::request::Quorum;

/// How messages travel between lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// As over a connection: in order and reliable while it lives; a broken one loses what was on
    /// its way and says so.
    Stream,
    /// Single messages get lost, doubled and reordered, and nobody is told.
    Datagram,
}

/// The fault classes of a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Links between nodes are cut, one way or both, and healed.
    pub cut: bool,
    /// A node stops for a while and goes on.
    pub pause: bool,
    /// A process dies; every committed batch stays.
    pub crash: bool,
    /// A process dies between a tick's commit and its effects, or between two of them.
    pub crash_mid_tick: bool,
    /// A machine loses power: a prefix of its unsynced batches stays.
    pub power: bool,
    /// A node comes back without its data.
    pub wipe: bool,
    /// A node comes back with an older copy of its data.
    pub restore: bool,
    /// A node is stopped cleanly and started again.
    pub clean_stop: bool,
    /// A disk is full for a while.
    pub disk_full: bool,
    /// Commits fail and leave nothing.
    pub failed_commits: bool,
    /// Commits fail, and yet the batch is there afterwards.
    pub doubtful_commits: bool,
    /// Wall clocks jump.
    pub clock_jumps: bool,
    /// A volume is rolled back to a clean stop, mark and fingerprint included.
    pub rollback: bool,
    /// Rows rot.
    pub damage: bool,
    /// Syncs fail, and the node ends.
    pub failed_syncs: bool,
}

/// A bucket of a seed.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: BucketName,
    /// Its properties.
    pub props: BucketProps,
    /// Whether it is made while the run goes on.
    pub late: bool,
}

/// Everything a seed draws before anything happens.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Nodes.
    pub nodes: usize,
    /// Lanes of each node.
    pub lanes: u16,
    /// Partitions of the layout.
    pub partitions: u16,
    /// Buckets, the default one first.
    pub buckets: Vec<Bucket>,
    /// Whether every commit is fsynced.
    pub always_fsync: bool,
    /// Bounds of every lane.
    pub limits: Limits,
    /// How messages travel.
    pub regime: Regime,
    /// Longest usual delay of a message, in microseconds.
    pub delay_max: u64,
    /// Messages of a thousand that take far longer.
    pub slow: u64,
    /// Messages of a thousand that are lost (datagrams only).
    pub loss: u64,
    /// Messages of a thousand that are doubled (datagrams only).
    pub duplicates: u64,
    /// Whether messages are encoded and decoded on their way.
    pub codec: bool,
    /// Which faults happen.
    pub faults: Faults,
    /// Usual time between faults, in microseconds.
    pub fault_pace: u64,
    /// Clients.
    pub clients: usize,
    /// Keys, over all buckets.
    pub keys: usize,
    /// Operations all clients start.
    pub operations: usize,
    /// Longest pause of a client between operations, in microseconds.
    pub think_max: u64,
    /// Puts of a thousand that carry a time to live of their own.
    pub expiring: u64,
    /// How long faults and clients go on at most, in microseconds.
    pub run_micros: u64,
    /// How the layout changes while the run goes on, if it does.
    pub changes: Option<Changes>,
    /// Whether processes die between two effects of a tick, and not always before the first.
    pub among_effects: bool,
    /// Which clocks are wrong by far, if any is.
    pub clocks: Option<Clocks>,
    /// Whether the first start of a node is noted as a loss of its disk, as that of a real one is.
    pub notes_births: bool,
    /// How links of single nodes become slow, if they do.
    pub slow_peers: Option<SlowPeers>,
    /// How hard clients retry, if they do so more than usual.
    pub storm: Option<Storm>,
    /// Whether hints are the only way in which an owner comes to what it missed.
    pub hints_alone: bool,
    /// Which disks are slow, if any is.
    pub slow_disks: Option<SlowDisks>,
}

/// Nodes whose links are slow for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowPeers {
    /// The most that a message takes longer, in microseconds.
    pub longest: u64,
    /// Usual time between two such faults, in microseconds.
    pub pace: u64,
}

/// Clients that ask again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Deadline of their writes, and about how long they wait before they ask again, in milliseconds.
    pub patience_ms: u32,
    /// Calls of one write from which on they let it be.
    pub tries: usize,
    /// Calls that they send together.
    pub at_once: usize,
}

/// Commits that take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowDisks {
    /// The only node that has a slow disk, or all have one.
    pub only: Option<usize>,
    /// Commits of a thousand that take long.
    pub share: u64,
    /// How long they take at most, in microseconds.
    pub longest: u64,
}

/// Clocks that are wrong by far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Dates go ten years off, and back again.
    pub decades: bool,
    /// Clocks run at twice the speed, or at half of it.
    pub speeds: bool,
    /// Usual time between two such faults, in microseconds.
    pub pace: u64,
}

/// Changes of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Nodes that are there and are no members at the start.
    pub spares: usize,
    /// How often somebody asks for a change.
    pub count: u32,
    /// Usual time between them, in microseconds.
    pub pace: u64,
    /// Whether faults are aimed at the moments at which nodes and lanes go from one epoch to the next.
    pub borders: bool,
}

impl Profile {
    /// What `seed` draws.
    pub fn draw(seed: u64) -> Profile {
        let mut rng = Rng::new(seed, LABEL);
        let nodes = rng.between(3, 6) as usize;
        let stream = rng.chance(600);
        let buckets = draw_buckets(&mut rng, nodes);
        let mut limits = Limits { feed_bytes: 0, ..Limits::default() };
        if rng.chance(100) {
            limits.inflight = rng.between(2, 6) as usize;
        }
        if rng.chance(200) {
            limits.siblings_max = rng.between(2, 6) as usize;
        }
        let quiet = rng.chance(100);
        let faults = if quiet { Faults::default() } else { draw_faults(&mut rng) };
        let mut profile = Profile {
            nodes,
            lanes: rng.pick(&[1, 1, 2]),
            partitions: rng.pick(&[1, 2, 4, 8, 16]),
            buckets,
            always_fsync: rng.chance(350),
            limits,
            regime: if stream { Regime::Stream } else { Regime::Datagram },
            delay_max: rng.pick(&[500, 2_000, 10_000, 50_000]),
            slow: if rng.chance(400) { rng.between(5, 100) } else { 0 },
            loss: if stream || quiet { 0 } else { rng.pick(&[0, 10, 50, 200]) },
            duplicates: if stream || quiet { 0 } else { rng.pick(&[0, 20, 200]) },
            codec: rng.chance(300),
            faults,
            fault_pace: rng.pick(&[60_000, 200_000, 400_000, 1_500_000]),
            clients: rng.between(4, 8) as usize,
            keys: rng.between(3, 12) as usize,
            operations: rng.between(120, 320) as usize,
            think_max: rng.pick(&[5_000, 40_000, 200_000]),
            expiring: 0,
            run_micros: 20_000_000,
            changes: None,
            among_effects: false,
            clocks: None,
            slow_disks: None,
            notes_births: false,
            hints_alone: false,
            slow_peers: None,
            storm: None,
        };
        if !quiet {
            draw_later_faults(&mut rng, &mut profile.faults);
        }
        if rng.chance(100) {
            profile.limits.held_bytes = rng.between(60, 300) as usize;
        }
        // Ways of repair hide each other's bugs: half of the seeds must do without this one.
        profile.limits.anti_entropy_ms = rng.pick(&[0, 0, 0, 50, 300, 1_000]);
        profile.limits.hint_bytes_per_owner = rng.pick(&[u64::MAX, u64::MAX, u64::MAX, 200, 0]);
        if profile.limits.anti_entropy_ms > 0 {
            profile.limits.read_repairs_per_second = rng.pick(&[2_000, 2_000, 10, 0]);
        }
        if Rng::new(seed, ROOM_LABEL).chance(120) {
            // Room for two or three hints of whatever owners.
            profile.limits.hint_bytes = 400;
        }
        draw_hints_alone(&mut Rng::new(seed, HINTS_LABEL), &mut profile, quiet);
        draw_expiry(&mut Rng::new(seed, EXPIRY_LABEL), &mut profile);
        draw_trimming(&mut Rng::new(seed, TRIM_LABEL), &mut profile.limits);
        draw_changes(&mut Rng::new(seed, CHANGES_LABEL), &mut profile);
        if !quiet {
            let crashes = faults.crash_mid_tick;
            profile.among_effects = crashes && Rng::new(seed, DEATHS_LABEL).chance(300);
            profile.clocks = draw_clocks(&mut Rng::new(seed, CLOCKS_LABEL));
            profile.slow_disks = draw_slow_disks(&mut Rng::new(seed, DISKS_LABEL), nodes);
            profile.slow_peers = draw_slow_peers(&mut Rng::new(seed, PEERS_LABEL));
            profile.storm = draw_storm(&mut Rng::new(seed, STORM_LABEL));
        }
        profile.notes_births = Rng::new(seed, BIRTHS_LABEL).chance(300);
        profile
    }

    /// Nodes that are there, members or not.
    pub fn hosts(&self) -> usize {
        self.nodes + self.changes.map_or(0, |changes| changes.spares)
    }

    /// A quiet cluster for scripts: short fixed delays, no fault, no client of its own.
    pub fn quiet(nodes: usize, n: u8) -> Profile {
        let default = Bucket {
            name: BucketName::default_bucket(),
            props: BucketProps::with_copies(n),
            late: false,
        };
        Profile {
            nodes,
            lanes: 1,
            partitions: 4,
            buckets: vec![default],
            always_fsync: false,
            limits: Limits { anti_entropy_ms: 0, ..Limits::default() },
            regime: Regime::Stream,
            delay_max: 1_000,
            slow: 0,
            loss: 0,
            duplicates: 0,
            codec: true,
            faults: Faults::default(),
            fault_pace: 1_000_000,
            clients: 0,
            keys: 0,
            operations: 0,
            think_max: 0,
            expiring: 0,
            run_micros: 0,
            changes: None,
            among_effects: false,
            clocks: None,
            slow_disks: None,
            notes_births: false,
            hints_alone: false,
            slow_peers: None,
            storm: None,
        }
    }
}

fn draw_faults(rng: &mut Rng) -> Faults {
    Faults {
        cut: rng.chance(600),
        pause: rng.chance(400),
        crash: rng.chance(500),
        crash_mid_tick: rng.chance(300),
        power: rng.chance(400),
        wipe: rng.chance(200),
        restore: rng.chance(200),
        clean_stop: rng.chance(400),
        disk_full: rng.chance(250),
        failed_commits: rng.chance(300),
        doubtful_commits: rng.chance(150),
        clock_jumps: rng.chance(300),
        ..Faults::default()
    }
}

/// Drawn last, so that what a seed drew before these were added stays the same.
fn draw_later_faults(rng: &mut Rng, faults: &mut Faults) {
    faults.rollback = rng.chance(150);
    faults.damage = rng.chance(200);
    faults.failed_syncs = rng.chance(100);
    // Only a clean stop leaves what a volume can be rolled back to.
    faults.clean_stop |= faults.rollback;
}

/// From a generator of its own, so that a seed's other draws stay what they were. Other ways of repair
/// are off, there are nodes that can stand in, and owners that are away; in most of these seeds no disk
/// loses anything, so that all that was promised must be kept.
fn draw_hints_alone(rng: &mut Rng, profile: &mut Profile, quiet: bool) {
    if !rng.chance(60) {
        return;
    }
    profile.hints_alone = true;
    profile.limits.anti_entropy_ms = 0;
    profile.limits.read_repairs_per_second = 0;
    profile.limits.hint_bytes_per_owner = u64::MAX;
    profile.limits.hint_bytes = u64::MAX;
    let copies = profile.buckets.iter().map(|bucket| usize::from(bucket.props.n)).max();
    let (least, losing) = (copies.unwrap_or(1) + rng.between(1, 2) as usize, rng.chance(300));
    profile.nodes = profile.nodes.max(least);
    if quiet {
        return;
    }
    let faults = &mut profile.faults;
    faults.crash = true;
    faults.cut |= rng.chance(500);
    if !losing {
        (faults.power, faults.wipe, faults.restore) = (false, false, false);
        (faults.rollback, faults.damage) = (false, false);
    }
}

/// Likewise.
fn draw_expiry(rng: &mut Rng, profile: &mut Profile) {
    if rng.chance(350) {
        profile.expiring = rng.pick(&[50, 250, 700]);
        profile.limits.expiry_margin_ms = rng.pick(&[0, 500, 3_000]);
        for bucket in &mut profile.buckets {
            if rng.chance(150) {
                bucket.props.ttl_ms = rng.between(1_000, TTL_MS_LONGEST);
            }
        }
    }
}

/// Likewise. Nothing is trimmed where there is no anti-entropy.
fn draw_trimming(rng: &mut Rng, limits: &mut Limits) {
    if rng.chance(600) {
        limits.feed_keep_ms = rng.pick(&[200, 1_000, 3_000, 8_000]);
    }
}

/// Likewise. Layouts change only where anti-entropy copies what is to move, and where no disk comes back
/// with votes forgotten that it had once given: that is not borne.
fn draw_changes(rng: &mut Rng, profile: &mut Profile) {
    let faults = &profile.faults;
    let forgets = faults.restore || faults.rollback || faults.damage;
    if profile.limits.anti_entropy_ms == 0 || forgets || !rng.chance(500) {
        return;
    }
    profile.changes = Some(Changes {
        spares: rng.between(1, 2) as usize,
        count: rng.between(1, 5) as u32,
        pace: rng.pick(&[200_000, 800_000, 2_500_000]),
        borders: rng.chance(600),
    });
}

/// Likewise.
fn draw_clocks(rng: &mut Rng) -> Option<Clocks> {
    let (decades, speeds) = (rng.chance(80), rng.chance(80));
    let pace = rng.pick(&[100_000, 400_000, 1_500_000]);
    (decades || speeds).then_some(Clocks { decades, speeds, pace })
}

/// Likewise.
fn draw_slow_disks(rng: &mut Rng, nodes: usize) -> Option<SlowDisks> {
    let node = rng.index(nodes);
    let only = rng.chance(600).then_some(node);
    let share = rng.pick(&[20, 200, 1_000]);
    let longest = rng.pick(&[5_000, 40_000, 200_000]);
    rng.chance(100).then_some(SlowDisks { only, share, longest })
}

/// Likewise.
fn draw_slow_peers(rng: &mut Rng) -> Option<SlowPeers> {
    let longest = rng.pick(&[40_000, 150_000, 500_000]);
    let pace = rng.pick(&[300_000, 1_500_000]);
    rng.chance(120).then_some(SlowPeers { longest, pace })
}

/// Likewise.
fn draw_storm(rng: &mut Rng) -> Option<Storm> {
    let patience_ms = rng.pick(&[15, 50, 120]);
    let (tries, at_once) = (rng.between(8, 24) as usize, rng.between(2, 4) as usize);
    rng.chance(60).then_some(Storm { patience_ms, tries, at_once })
}

fn draw_buckets(rng: &mut Rng, nodes: usize) -> Vec<Bucket> {
    let mut draw = |name: BucketName, policy, late| {
        let n = if rng.chance(700) { 3 } else { rng.between(1, nodes.min(5) as u64) as u8 };
        let mut props = BucketProps::with_copies(n);
        props.policy = policy;
        if rng.chance(300) {
            props.r = Quorum::Exactly(rng.between(1, u64::from(n)) as u8);
            props.w = Quorum::Exactly(rng.between(1, u64::from(n)) as u8);
        }
        Bucket { name, props, late }
    };
    let name = |text: &str| text.parse().expect("literal bucket names are valid");
    let mut buckets = vec![draw(BucketName::default_bucket(), ConflictPolicy::Siblings, false)];
    let (second, late) = (draw(name("other"), ConflictPolicy::Siblings, false), name("late"));
    let lww = draw(name("lww"), ConflictPolicy::Lww, false);
    let late = draw(late, ConflictPolicy::Siblings, true);
    for (bucket, chance) in [(second, 400), (lww, 400), (late, 300)] {
        if rng.chance(chance) {
            buckets.push(bucket);
        }
    }
    buckets
}

const LABEL: u64 = 1;
const BIRTHS_LABEL: u64 = 0x6269_7274;
/// Separates these draws from all others of a seed.
const EXPIRY_LABEL: u64 = 0x7474_6c31;
const HINTS_LABEL: u64 = 0x6869_6e74;
const ROOM_LABEL: u64 = 0x726f_6f6d;
const PEERS_LABEL: u64 = 0x7065_6572;
const STORM_LABEL: u64 = 0x7374_6f72;
const TRIM_LABEL: u64 = 0x7472_696d;
const CHANGES_LABEL: u64 = 0x6c61_796f;
const CLOCKS_LABEL: u64 = 0x636c_6f63;
const DISKS_LABEL: u64 = 0x6469_736b;
const DEATHS_LABEL: u64 = 0x6465_6174;
/// Longest time to live of a run, in milliseconds: most end while it goes on.
pub(crate) const TTL_MS_LONGEST: u64 = 8_000;

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes x {} lanes, Q={}", self.nodes, self.lanes, self.partitions)?;
        for Bucket { name, props, .. } in &self.buckets {
            write!(f, ", {name} n={} r={} w={}", props.n, props.r, props.w)?;
        }
        let mode = if self.always_fsync { "fsync" } else { "os" };
        write!(f, "; {mode}, {:?}, delay {} us", self.regime, self.delay_max)?;
        let Limits { anti_entropy_ms, read_repairs_per_second, .. } = &self.limits;
        let Limits { hint_bytes_per_owner, hint_bytes, .. } = &self.limits;
        write!(f, ", anti-entropy {anti_entropy_ms} ms")?;
        write!(f, ", hints of {hint_bytes_per_owner} B an owner and {hint_bytes} B in all")?;
        write!(f, ", {read_repairs_per_second} repairs/s")?;
        if self.limits.feed_keep_ms > 0 {
            write!(f, ", records kept for {} ms", self.limits.feed_keep_ms)?;
        }
        if let Some(Changes { spares, count, pace, borders }) = self.changes {
            write!(f, ", {count} changes of the layout by {pace} us, {spares} spares")?;
            f.write_str(if borders { ", faults at their borders" } else { "" })?;
        }
        if self.expiring > 0 {
            let margin_ms = self.limits.expiry_margin_ms;
            write!(f, ", {} of 1000 expire, margin {margin_ms} ms", self.expiring)?;
        }
        if let Some(Clocks { decades, speeds, pace }) = self.clocks {
            write!(f, ", clocks by {pace} us")?;
            f.write_str(if decades { ", ten years off" } else { "" })?;
            f.write_str(if speeds { ", too fast or slow" } else { "" })?;
        }
        if self.among_effects {
            f.write_str(", deaths among effects")?;
        }
        if let Some(SlowPeers { longest, pace }) = self.slow_peers {
            write!(f, ", links slower by up to {longest} us, by {pace} us")?;
        }
        if let Some(Storm { patience_ms, tries, at_once }) = self.storm {
            write!(f, ", up to {tries} tries, {at_once} at once every {patience_ms} ms")?;
        }
        if self.hints_alone {
            f.write_str(", repair by hints alone")?;
        }
        if let Some(SlowDisks { only, share, longest }) = self.slow_disks {
            write!(f, ", {share} of 1000 commits take up to {longest} us")?;
            match only {
                Some(node) => write!(f, " on n{node}")?,
                None => f.write_str(" on all")?,
            }
        }
        write!(f, ", loss {} dup {} of 1000", self.loss, self.duplicates)?;
        write!(f, "; {:?}", self.faults)
    }
}
