//! One node: its disk, its lanes, and whether it lives.
//!
//! Starting opens the real store on the disk and makes real lanes; what the node knew in memory is
//! gone with its process. No decision about faults is made here. Next to read: `drive.rs`.

use crate::disk::Disk;
use crate::mutant::Mutant;
use crate::rng::Rng;
use crate::store::{Policies, SimStore};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{LaneIndex, NodeId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::store::ReplicaState;
use galvani_model::version::{Dot, Object, PartitionClock};
use galvani_protocol::{Input, Lane, LaneConfig, Topology};
use galvani_storage::engine::{Engine, MemoryEngine, Table};
use galvani_storage::format::{keys, rows};
use galvani_storage::{NodeStore, StoreConfig};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A lane and what waits for it.
pub(crate) struct LaneSlot {
    pub(crate) lane: Lane,
    pub(crate) store: SimStore,
    pub(crate) inbox: VecDeque<Input>,
    /// When its next tick is due, if one is on the queue.
    pub(crate) tick_at: Option<u64>,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Up,
    Paused,
    Stopping,
    Down,
}

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: Arc<Disk>,
    pub(crate) lanes: Vec<LaneSlot>,
    pub(crate) life: Life,
    /// Counts starts.
    pub(crate) boot: u64,
    /// Whether the last stop was clean and nothing happened to the disk since.
    pub(crate) clean: bool,
    /// Milliseconds its wall clock is ahead of the world's.
    pub(crate) wall_ahead_ms: i64,
    pub(crate) buckets: BTreeMap<BucketName, BucketProps>,
    /// Committed and not known to be synced.
    pub(crate) unsynced: BTreeSet<(Shard, Dot)>,
    pub(crate) backup: Option<MemoryEngine>,
    /// Dies after the next commit, before its effects.
    pub(crate) dies_mid_tick: bool,
    /// When it last was paused, stopped or started: calls older than this may stay unanswered.
    pub(crate) disturbed_at: u64,
    /// When its disk last lost anything that was committed.
    pub(crate) lost_data_at: Option<u64>,
}

/// What a start needs to know of the world.
pub(crate) struct Boot<'a> {
    pub(crate) lanes: u16,
    pub(crate) limits: &'a Limits,
    pub(crate) always_fsync: bool,
    pub(crate) topology: Arc<Topology>,
    pub(crate) policies: &'a Policies,
    pub(crate) mutant: Option<Mutant>,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        buckets: BTreeMap<BucketName, BucketProps>,
        mutant: Option<Mutant>,
    ) -> Node {
        Node {
            id,
            disk: Arc::new(Disk::new(mutant == Some(Mutant::TornBatches))),
            lanes: Vec::new(),
            life: Life::Down,
            boot: 0,
            clean: false,
            wall_ahead_ms: 0,
            buckets,
            unsynced: BTreeSet::new(),
            backup: None,
            dies_mid_tick: false,
            disturbed_at: 0,
            lost_data_at: None,
        }
    }

    /// Starts its process on whatever the disk holds.
    pub(crate) fn start(&mut self, boot: &Boot<'_>, rng: &mut Rng) {
        assert_eq!(self.life, Life::Down, "only a node that is down starts");
        let careless = boot.mutant == Some(Mutant::KeepsOrigins);
        let keep_origins = self.clean || careless;
        self.boot += 1;
        self.clean = false;
        self.dies_mid_tick = false;
        self.life = Life::Up;
        self.lanes = (0..boot.lanes)
            .map(|lane| {
                let lane = LaneIndex(lane);
                let config = StoreConfig { lane, lanes: boot.lanes, keep_origins };
                let opened = NodeStore::open(self.disk.clone(), config)
                    .expect("no damage is ordered on this disk, so it opens");
                let kept = if careless { Vec::new() } else { opened.kept };
                let config = LaneConfig {
                    lane,
                    limits: boot.limits.clone(),
                    always_fsync: boot.always_fsync,
                    boot: rng.bits128(),
                };
                LaneSlot {
                    lane: Lane::new(config, boot.topology.clone(), kept),
                    store: SimStore::new(opened.store, boot.policies.clone(), boot.mutant),
                    inbox: VecDeque::new(),
                    tick_at: None,
                }
            })
            .collect();
    }

    /// Ends its process: everything in memory is gone.
    pub(crate) fn end(&mut self) {
        self.lanes.clear();
        self.life = Life::Down;
    }

    pub(crate) fn is_down(&self) -> bool {
        self.life == Life::Down
    }

    /// Whether it takes in and sends messages now.
    pub(crate) fn is_awake(&self) -> bool {
        matches!(self.life, Life::Up | Life::Stopping)
    }

    /// The state of a shard as the disk has it.
    pub(crate) fn state_on_disk(&self, shard: Shard) -> ReplicaState {
        let key = keys::shard(shard);
        match self.disk.get(Table::Clocks, &key) {
            Ok(Some(row)) => rows::get(&key, &row).expect("no damage is ordered on this disk"),
            Ok(None) => ReplicaState::default(),
            Err(error) => panic!("no damage is ordered on this disk, yet: {error}"),
        }
    }

    /// The partition clock of a shard as the disk has it.
    pub(crate) fn clock_on_disk(&self, shard: Shard) -> PartitionClock {
        self.state_on_disk(shard).clock
    }

    /// A key as the disk has it.
    pub(crate) fn object_on_disk(&self, shard: Shard, key: &Key) -> Object {
        let row_key = keys::object(shard, key);
        match self.disk.get(Table::Objects, &row_key) {
            Ok(Some(row)) => rows::get(&row_key, &row).expect("no damage is ordered on this disk"),
            Ok(None) => Object::absent(),
            Err(error) => panic!("no damage is ordered on this disk, yet: {error}"),
        }
    }

    /// Whether the log of the disk has a record.
    pub(crate) fn has_record(&self, shard: Shard, dot: Dot) -> bool {
        matches!(self.disk.get(Table::Log, &keys::log(shard, dot)), Ok(Some(_)))
    }
}
