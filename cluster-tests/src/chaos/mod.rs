//! A long run of real processes under random faults, and a verdict on its whole history.
//!
//! Many clients read and write shared keys (`workers.rs`) while nodes and links break and disks are
//! lost, full or damaged (`nemesis.rs`). What everyone did and had seen is kept (`ledger.rs`) and held
//! against the rules (`judge.rs`): while it goes on for what reads show, and whenever all owners agree
//! (`settle.rs`) for what is there. `cargo run --release -p galvani-cluster-tests --bin chaos`.

pub mod judge;
pub mod ledger;
pub mod memory;
pub mod nemesis;
pub mod report;
pub mod settle;
pub mod workers;

pub use judge::{Violation, What};
pub use nemesis::Fault;
pub use report::Report;

use crate::cluster::{Cluster, temporary};
use crate::history::Fate;
use crate::small_disk::SmallDisk;
use ledger::Ledger;
use memory::Watch;
use nemesis::Nemesis;
use std::sync::Arc;
use std::time::{Duration, Instant};
use workers::{Crowd, Field};

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which faults come in which order, and what clients do.
    pub seed: u64,
    /// Nodes of the cluster, 3 to 9; three copies of each key.
    pub nodes: u8,
    /// Clients at work at once.
    pub clients: usize,
    /// How long things are broken.
    pub time: Duration,
    /// Average pause of a client between requests.
    pub think: Duration,
    /// How far apart faults begin; drawn for each if there is none.
    pub beat: Option<Duration>,
    /// What may break.
    pub faults: Vec<Fault>,
    /// What breaks first, in this order, whatever the seed says.
    pub first: Vec<Fault>,
}

/// Starts a cluster, breaks it, mends it, and judges.
pub fn run(settings: &Settings) -> Report {
    // Unmounted before its cluster's files go: what is declared later is dropped earlier.
    let (cluster, small) = start(settings);
    let owner = owner_of_small(settings);
    let handles: Vec<_> = (0..settings.clients.div_ceil(CLIENTS_PER_HANDLE))
        .map(|index| {
            let near = &cluster.nodes()[index % cluster.nodes().len()];
            let builder = cluster.builder().zone(&near.zone).timeout(CALL);
            cluster.block_on(builder.connect()).expect("the cluster runs")
        })
        .collect();
    let judge = cluster.client();
    let ledger = Ledger::new(settings.seed, judge.cluster().layout.n());
    let field = Arc::new(Field::new(ledger, settings.think));
    let began = Instant::now();
    let memory = Watch::start(cluster.runtime().handle(), judge.clone());
    let crowd = Crowd::start(
        cluster.runtime().handle(),
        &field,
        &handles,
        0..settings.clients,
        settings.seed,
    );
    let small = small.as_ref().map(|disk| (owner.as_str(), disk));
    let mut nemesis = Nemesis::new(&cluster, &judge, &field, settings, small);
    nemesis.run(settings.time);
    let healed = Instant::now();
    let tally = cluster.block_on(crowd.stop());
    let mut violations = field.violations();
    let mut converged = None;
    if violations.is_empty() {
        match settle::settle(&cluster, &judge, &field, field.ledger.keys()) {
            Ok(_) => {
                converged = Some(healed.elapsed());
                violations.extend(settle::collected(&cluster, &judge).err());
            }
            Err(found) => violations.extend(found),
        }
    }
    let stories = violations.iter().take(STORIES).map(|violation| {
        let explained = match violation.key.is_empty() {
            true => String::new(),
            false => cluster.run(&["explain", &violation.key]).to_string(),
        };
        format!("{}{explained}", field.ledger.story(&violation.key))
    });
    Report {
        settings: settings.clone(),
        took: began.elapsed(),
        tally,
        keys: field.ledger.keys().len(),
        acked: field.ledger.count(Fate::Acked),
        excused: field.ledger.excused(),
        aliased: field.ledger.aliased(),
        half_replaced: field.ledger.half_replaced(),
        late_tombstones: field.ledger.late_tombstones(),
        judged: field.ledger.judged(),
        faults: nemesis.done.clone(),
        left_out: settings.wants(Fault::Full) && small.is_none(),
        filled_anew: nemesis.filled_anew,
        agreed: nemesis.agreed.clone(),
        converged,
        memory: memory.by_tenths(),
        stories: stories.collect(),
        violations,
    }
}

impl Settings {
    /// Whether this is among what may break.
    fn wants(&self, fault: Fault) -> bool {
        self.faults.contains(&fault) || self.first.contains(&fault)
    }
}

/// The cluster, and the disk of one of its nodes that can be full, if there is to be one and this machine
/// can make it.
fn start(settings: &Settings) -> (Cluster, Option<SmallDisk>) {
    let root = temporary();
    let home = root.path().join("dev").join(owner_of_small(settings));
    let wanted = settings.wants(Fault::Full);
    let small = if wanted { SmallDisk::mount(&home, DISK_MIB) } else { None };
    let nodes = settings.nodes.to_string();
    (Cluster::in_root(root, &["-n", &nodes, "--lanes", "1"]), small)
}

/// The node whose disk can be full.
fn owner_of_small(settings: &Settings) -> String {
    format!("n{}", settings.seed % u64::from(settings.nodes) + 1)
}

/// Room on that disk, in mebibytes: more than a long run writes. It takes memory only for what is there.
const DISK_MIB: u64 = 8 << 10;
/// The time of one call of a client.
const CALL: Duration = Duration::from_secs(2);
/// Clients that share links.
const CLIENTS_PER_HANDLE: usize = 4;
/// Keys whose whole story is told when something is wrong.
const STORIES: usize = 3;
