//! Figures for `galvani status`: what each lane counted, and what the process costs.
//!
//! A lane publishes a copy now and then; nobody waits for a lane to answer. Reading the process's
//! cost asks the kernel and never fails the request. Next to read: `shared.rs`.

use crate::clock::Clock;
use crate::config::DurabilityMode;
use crate::faults::NodeFaults;
use crate::repair::RepairFigures;
use crate::shared::Shared;
use galvani_model::ids::NodeId;
use galvani_model::store::{Damage, HintFigures};
use galvani_storage::engine::Engine;
use galvani_wire::NodeStatus;
use galvani_wire::view::{Copying, Counters, DAMAGED_NAMED_MAX, Refilling, UnequalShard};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What one lane last published.
#[derive(Clone, Debug, Default)]
pub(crate) struct LaneFigures {
    pub(crate) counters: Counters,
    pub(crate) inflight: u32,
    /// Whether its engine fails again and again soon after it was opened.
    pub(crate) engine_fails: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) shards_behind: u32,
    pub(crate) layout_epoch: u64,
    pub(crate) shards_copying: u32,
    pub(crate) shards_leaving: u32,
    pub(crate) copying: Copying,
    pub(crate) refilling: Refilling,
    pub(crate) tombstones: u64,
    /// Values that expire and are not collected yet.
    pub(crate) expiring: u64,
    pub(crate) collection_waits: BTreeMap<NodeId, u64>,
    pub(crate) feed_keep_ms: u64,
    pub(crate) trim_waits: Vec<NodeId>,
    pub(crate) hints: BTreeMap<NodeId, HintFigures>,
    pub(crate) peers_up: Vec<NodeId>,
    pub(crate) peers_down: Vec<NodeId>,
    /// Said by lane 0 only.
    pub(crate) peers_suspect: Vec<NodeId>,
    pub(crate) peers_silent: Vec<NodeId>,
    pub(crate) repair: RepairFigures,
    /// Damaged rows, the first of them.
    pub(crate) damaged: Vec<Damage>,
    /// Shards found unequal to another owner's, the first of them, and how many there are.
    pub(crate) unequal: Vec<UnequalShard>,
    pub(crate) unequal_all: u32,
    /// Said by lane 0 only.
    pub(crate) runs_twice: BTreeMap<NodeId, BTreeSet<SocketAddr>>,
}

/// The node's status, from every lane's latest figures.
pub(crate) fn status<E: Engine>(
    shared: &Shared<E>,
    clock: &Clock,
    durability: DurabilityMode,
) -> NodeStatus {
    let lanes = shared.figures();
    let mut counters = Counters::default();
    for lane in &lanes {
        counters.add(&lane.counters);
    }
    let mut hints: BTreeMap<NodeId, HintFigures> = BTreeMap::new();
    for (&owner, held) in lanes.iter().flat_map(|lane| &lane.hints) {
        hints.entry(owner).or_default().add(held);
    }
    let mut collection_waits: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (&owner, &since) in lanes.iter().flat_map(|lane| &lane.collection_waits) {
        let known = collection_waits.entry(owner).or_insert(since);
        *known = since.min(*known);
    }
    let kept_ms = lanes.iter().map(|lane| lane.feed_keep_ms).filter(|ms| *ms > 0);
    let mut copying = Copying::default();
    lanes.iter().for_each(|lane| copying.add(&lane.copying));
    let mut refilling = Refilling::default();
    lanes.iter().for_each(|lane| refilling.add(&lane.refilling));
    let (peers_up, peers_down) = peers(&lanes, shared.topology().node);
    let any = |of: fn(&LaneFigures) -> &Vec<NodeId>| -> Vec<NodeId> {
        let nodes: BTreeSet<NodeId> = lanes.iter().flat_map(of).copied().collect();
        nodes.into_iter().collect()
    };
    NodeStatus {
        node: shared.topology().node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: clock.uptime().as_secs(),
        lanes: lanes.len() as u16,
        durability: durability.to_string(),
        disk_bytes: shared.disk_bytes(clock.now().micros),
        memory_bytes: resident_bytes(),
        cpu_micros: cpu_micros(),
        bytes_in: lanes.iter().map(|lane| lane.bytes_in).sum(),
        bytes_out: lanes.iter().map(|lane| lane.bytes_out).sum(),
        inflight: lanes.iter().map(|lane| lane.inflight).sum(),
        hints,
        tombstones: lanes.iter().map(|lane| lane.tombstones).sum(),
        expiring: lanes.iter().map(|lane| lane.expiring).sum(),
        collection_waits,
        trim_waits: any(|lane| &lane.trim_waits),
        shards_behind: lanes.iter().map(|lane| lane.shards_behind).sum(),
        layout_epoch: lanes.iter().map(|lane| lane.layout_epoch).min().unwrap_or(0),
        refilling,
        shards_copying: lanes.iter().map(|lane| lane.shards_copying).sum(),
        shards_leaving: lanes.iter().map(|lane| lane.shards_leaving).sum(),
        applicants: shared.applicants(clock.now().micros),
        peers_suspect: any(|lane| &lane.peers_suspect),
        peers_silent: any(|lane| &lane.peers_silent),
        peers_up,
        peers_down,
        faults: shared.faults.as_ref().map(NodeFaults::current).unwrap_or_default(),
        counters,
        damaged: damaged(&lanes),
        feed_keep_ms: kept_ms.min().unwrap_or(0),
        unreadable: shared.engine.unreadable(),
        damaged_files: shared.files.damaged(),
        copying,
        runs_twice: lanes.first().map(|lane| lane.runs_twice.clone()).unwrap_or_default(),
        unequal: lanes
            .iter()
            .flat_map(|lane| lane.unequal.iter().copied())
            .take(DAMAGED_NAMED_MAX)
            .collect(),
        unequal_all: lanes.iter().map(|lane| lane.unequal_all).sum(),
    }
}

/// Damaged rows of all lanes by name, the first of them.
pub(crate) fn damaged(lanes: &[LaneFigures]) -> Vec<Damage> {
    let rows = lanes.iter().flat_map(|lane| &lane.damaged);
    rows.take(DAMAGED_NAMED_MAX).cloned().collect()
}

/// Peers that are up and those that are not. A peer is up when every lane here reaches every lane
/// there: then any key can be asked for. A lane that has not published yet reaches nobody.
fn peers(lanes: &[LaneFigures], me: NodeId) -> (Vec<NodeId>, Vec<NodeId>) {
    let known = lanes.iter().flat_map(|lane| lane.peers_up.iter().chain(&lane.peers_down));
    let known: BTreeSet<NodeId> = known.copied().filter(|&node| node != me).collect();
    known.into_iter().partition(|node| lanes.iter().all(|lane| lane.peers_up.contains(node)))
}

fn cpu_micros() -> u64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000 + spent.tv_nsec as u64 / 1000
}

/// Resident memory by the kernel's own count; 0 where it does not tell.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::{LaneFigures, peers};
    use galvani_model::ids::NodeId;

    #[test]
    fn a_peer_is_up_when_every_lane_reaches_it() {
        let ids = |ids: &[u128]| ids.iter().map(|&id| NodeId(id)).collect::<Vec<_>>();
        let lane = |up: &[u128], down: &[u128]| LaneFigures {
            peers_up: ids(up),
            peers_down: ids(down),
            ..LaneFigures::default()
        };
        // The own node stands in them too: its other lanes are peers of a lane.
        let both = [lane(&[1, 2, 3], &[4]), lane(&[1, 2], &[3, 4])];
        assert_eq!(peers(&both, NodeId(1)), (ids(&[2]), ids(&[3, 4])));
        let silent = [lane(&[2], &[]), LaneFigures::default()];
        assert_eq!(peers(&silent, NodeId(1)), (ids(&[]), ids(&[2])));
    }
}
