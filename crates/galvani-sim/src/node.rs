//! One node: its disk, its lanes, and whether it lives.
//!
//! Starting opens the real store on the disk and makes real lanes; what the node knew in memory is
//! gone with its process. No decision about faults is made here. Next to read: `drive.rs`.

use crate::amnesia::Forgotten;
use crate::clocks::Clock;
use crate::disk::Disk;
use crate::mutant::Mutant;
use crate::rng::Rng;
use crate::slow::Handled;
use crate::store::{Policies, SimStore};
use bytes::Bytes;
use core::ops::ControlFlow;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{LaneIndex, NodeId, Origin, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::placement::LayoutState;
use galvani_model::store::ReplicaState;
use galvani_model::version::{Dot, Object, PartitionClock};
use galvani_protocol::{Input, Lane, LaneConfig, Topology, facts_of_a_loss};
use galvani_storage::engine::{Engine, MemoryEngine, Table};
use galvani_storage::format::{keys, rows};
use galvani_storage::{MemoryConfig, NodeStore, StoreConfig, TrimmedRow, write_facts};
use galvani_wire::view::Counters;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A lane and what waits for it.
pub(crate) struct LaneSlot {
    pub(crate) lane: Lane,
    pub(crate) store: SimStore,
    pub(crate) inbox: VecDeque<Input>,
    /// When its next tick is due, if one is on the queue.
    pub(crate) tick_at: Option<u64>,
    /// What it was told of the cluster and has not heard yet, in order: an event is on the queue for each.
    pub(crate) told: VecDeque<Arc<Topology>>,
    /// When it last looked whether a disk takes writes again that did not, in its microseconds.
    pub(crate) disk_tried_at: u64,
    /// Ticks that follow one another at once though nothing arrived.
    pub(crate) spins: u32,
    /// The tick whose commit it waits for.
    pub(crate) writing: Option<Handled>,
    /// When it began, in its microseconds, and how many repairs its reads have sent since.
    pub(crate) began: u64,
    pub(crate) repairs: u64,
}

impl LaneSlot {
    /// Whether nothing waits for it but datagrams, of which there is no end.
    pub(crate) fn is_read(&self) -> bool {
        self.inbox.iter().all(|input| matches!(input, Input::Datagram { .. }))
    }
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
    /// Whether the disk has the mark of a clean stop.
    pub(crate) clean: bool,
    /// Whether the disk has other contents than its last process left there, and it shows.
    pub(crate) copied: bool,
    /// Its elapsed time.
    pub(crate) clock: Clock,
    /// Milliseconds its date is ahead of its elapsed time.
    pub(crate) wall_ahead_ms: i64,
    /// When the date was last set, in microseconds, and how far ahead it was before.
    pub(crate) set_from: Option<(u64, i64)>,
    pub(crate) buckets: BTreeMap<BucketName, BucketProps>,
    /// When it heard of those that it did not know from its first start on, by its own date.
    pub(crate) heard_of: BTreeMap<BucketName, u64>,
    /// What its lanes were told of the cluster last.
    pub(crate) topology: Option<Arc<Topology>>,
    /// What it has written down of the layout.
    pub(crate) layout: Arc<LayoutState>,
    /// Committed and not known to be synced.
    pub(crate) unsynced: BTreeSet<(Shard, Dot)>,
    pub(crate) backup: Option<SavedDisk>,
    /// The disk as the last clean stop left it, with its mark.
    pub(crate) clean_copy: Option<SavedDisk>,
    /// What it has forgotten since its volume was rolled back.
    pub(crate) rolled_back: BTreeMap<Shard, Forgotten>,
    /// Shards with a damaged row, and the table it is in.
    pub(crate) damaged: BTreeMap<Shard, Table>,
    /// Damaged rows that its earlier processes met.
    pub(crate) quarantined: u64,
    /// What the lanes of its earlier processes counted.
    pub(crate) counted: Counters,
    /// Dies after the next commit, before its effects.
    pub(crate) dies_mid_tick: bool,
    /// Its volume is rolled back as soon as it has minted a dot that is on its way to others.
    pub(crate) forgets_next_mint: bool,
    /// Whether the tick under way has minted.
    pub(crate) minted: bool,
    /// When it last was paused, stopped or started: calls older than this may stay unanswered.
    pub(crate) disturbed_at: u64,
    /// Between which moments it last stood still.
    pub(crate) stood_still: Option<(u64, u64)>,
    /// Whether its first start is noted as a loss, as that of a real node is.
    pub(crate) notes_birth: bool,
    /// When its disk last lost what it cannot know of: it answers reads all the same.
    pub(crate) lost_unnoticed_at: Option<u64>,
    /// When its disk last lost anything that was committed.
    pub(crate) lost_data_at: Option<u64>,
}

/// A copy of a disk, rotten rows included.
#[derive(Clone, Default)]
pub(crate) struct SavedDisk {
    pub(crate) rows: MemoryEngine,
    pub(crate) damaged: BTreeMap<Shard, Table>,
}

/// What a start needs to know of the world.
pub(crate) struct Boot<'a> {
    pub(crate) lanes: u16,
    pub(crate) limits: &'a Limits,
    pub(crate) always_fsync: bool,
    pub(crate) topology: Arc<Topology>,
    pub(crate) policies: &'a Policies,
    pub(crate) mutant: Option<Mutant>,
    /// When it starts, by its own elapsed time in microseconds.
    pub(crate) began: u64,
    /// Whether its stores remember committed rows.
    pub(crate) remembers: bool,
}

impl Boot<'_> {
    /// The limits that lanes are told of.
    fn told_limits(&self) -> Limits {
        let limits = self.limits.clone();
        match self.mutant {
            Some(Mutant::TakesEverythingOn) => Limits { inflight: 1 << 20, ..limits },
            Some(Mutant::HoldsEverything) => Limits { held_bytes: usize::MAX, ..limits },
            Some(Mutant::RepairsWithoutEnd) => {
                Limits { read_repairs_per_second: u32::MAX, ..limits }
            }
            Some(Mutant::HoardsHints) => {
                Limits { hint_bytes_per_owner: u64::MAX, hint_bytes: u64::MAX, ..limits }
            }
            _ => limits,
        }
    }
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        buckets: BTreeMap<BucketName, BucketProps>,
        layout: Arc<LayoutState>,
        voter: bool,
        mutant: Option<Mutant>,
    ) -> Node {
        Node {
            id,
            disk: Arc::new(Disk::new(mutant, voter)),
            lanes: Vec::new(),
            life: Life::Down,
            boot: 0,
            clean: false,
            copied: false,
            clock: Clock::new(),
            wall_ahead_ms: 0,
            set_from: None,
            buckets,
            heard_of: BTreeMap::new(),
            topology: None,
            layout,
            unsynced: BTreeSet::new(),
            backup: None,
            clean_copy: None,
            rolled_back: BTreeMap::new(),
            damaged: BTreeMap::new(),
            quarantined: 0,
            counted: Counters::default(),
            dies_mid_tick: false,
            forgets_next_mint: false,
            minted: false,
            disturbed_at: 0,
            stood_still: None,
            notes_birth: false,
            lost_unnoticed_at: None,
            lost_data_at: None,
        }
    }

    /// Starts its process on whatever the disk holds.
    pub(crate) fn start(&mut self, boot: &Boot<'_>, rng: &mut Rng) {
        assert_eq!(self.life, Life::Down, "only a node that is down starts");
        let careless = boot.mutant == Some(Mutant::KeepsOrigins);
        let keep_origins = match boot.mutant {
            Some(Mutant::KeepsOrigins) => true,
            Some(Mutant::KeepsOriginsAfterCrash) => !self.copied,
            Some(Mutant::TrustsCopies) => self.clean,
            _ => self.clean && !self.copied,
        };
        self.boot += 1;
        self.topology = Some(boot.topology.clone());
        let lost = self.copied || (self.boot == 1 && self.notes_birth);
        (self.clean, self.copied) = (false, false);
        self.disk.open_anew();
        // As the real node does: what an earlier run left to the operating system may be acked as
        // durable from now on.
        self.disk.sync().expect("no failure is ordered before it starts");
        if lost && boot.mutant != Some(Mutant::AnswersAtOnce) {
            let facts = facts_of_a_loss(self.id.0 ^ u128::from(self.boot));
            write_facts(self.disk.memory(), &facts).expect("nor while it does");
        }
        self.unsynced.clear();
        (self.dies_mid_tick, self.forgets_next_mint) = (false, false);
        self.life = Life::Up;
        self.lanes = (0..boot.lanes)
            .map(|lane| {
                let lane = LaneIndex(lane);
                // So little that it forgets all the time, and nothing where rows are damaged: what it
                // remembers would be read in their stead.
                let memory = match boot.remembers {
                    true => MemoryConfig { object_bytes: 2_000, record_bytes: 2_000, requests: 6 },
                    false => MemoryConfig::NONE,
                };
                let config = StoreConfig {
                    lane,
                    lanes: boot.lanes,
                    keep_origins,
                    memory,
                    checkpoint_every: 2,
                };
                let opened = NodeStore::open(self.disk.clone(), config)
                    .expect("clock rows can be read, damaged or not, so it opens");
                let kept = if careless { Vec::new() } else { opened.kept };
                let config = LaneConfig {
                    lane,
                    limits: boot.told_limits(),
                    always_fsync: boot.always_fsync,
                    boot: rng.bits128(),
                };
                LaneSlot {
                    lane: Lane::new(config, boot.topology.clone(), kept),
                    store: SimStore::new(opened.store, boot.policies.clone(), boot.mutant),
                    inbox: VecDeque::new(),
                    tick_at: None,
                    told: VecDeque::new(),
                    disk_tried_at: boot.began,
                    spins: 0,
                    writing: None,
                    began: boot.began,
                    repairs: 0,
                }
            })
            .collect();
    }

    /// A copy of its disk as it is now.
    pub(crate) fn save(&self) -> SavedDisk {
        SavedDisk { rows: self.disk.memory().snapshot(), damaged: self.damaged.clone() }
    }

    /// Ends its process: everything in memory is gone.
    pub(crate) fn end(&mut self) {
        self.quarantined = self.rows_quarantined();
        self.counted = self.counters();
        self.lanes.clear();
        self.life = Life::Down;
    }

    /// What its lanes counted, those of earlier processes included.
    pub(crate) fn counters(&self) -> Counters {
        let mut all = self.counted.clone();
        self.lanes.iter().for_each(|slot| all.add(slot.lane.counters()));
        all
    }

    /// Damaged rows met since the beginning.
    pub(crate) fn rows_quarantined(&mut self) -> u64 {
        let lanes = self.lanes.iter_mut().map(|slot| slot.store.inner().quarantined());
        self.quarantined + lanes.sum::<u64>()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.life == Life::Down
    }

    /// Whether it takes in and sends messages now.
    pub(crate) fn is_awake(&self) -> bool {
        matches!(self.life, Life::Up | Life::Stopping)
    }

    /// The state of a shard as the disk has it; of a damaged clock row what the log says, and what
    /// was trimmed from it.
    pub(crate) fn state_on_disk(&self, shard: Shard) -> ReplicaState {
        state_in(self.disk.memory(), shard).unwrap_or_else(|| {
            let mut clock = self.log_on_disk(shard);
            let key = keys::trimmed(shard);
            if let Ok(Some(row)) = self.disk.memory().get(Table::Meta, &key) {
                let trimmed: TrimmedRow = rows::get(&key, &row).expect("nothing damages it");
                clock.union(&trimmed.dots);
            }
            ReplicaState { clock, ..ReplicaState::default() }
        })
    }

    /// The dots of a shard's log on the disk.
    fn log_on_disk(&self, shard: Shard) -> PartitionClock {
        let mut clock = PartitionClock::new();
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let mut see = |key: &[u8], _: &[u8]| {
            if let Some(dot) = keys::dot_of_log(key) {
                clock.insert(dot);
            }
            ControlFlow::Continue(())
        };
        let disk = self.disk.memory();
        disk.scan(Table::Log, &prefix, end.as_deref(), usize::MAX, &mut see)
            .expect("a shard with a damaged clock row has no other damage");
        clock
    }

    /// The partition clock of a shard as the disk has it.
    pub(crate) fn clock_on_disk(&self, shard: Shard) -> PartitionClock {
        self.state_on_disk(shard).clock
    }

    /// The hints its disk has, of all its lanes: for whom, and of what.
    pub(crate) fn all_hints_on_disk(&self) -> BTreeSet<(NodeId, Shard, Dot)> {
        let mut hints = BTreeSet::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            hints.extend(keys::split_hint(key));
            ControlFlow::Continue(())
        };
        let seen = self.disk.memory().scan(Table::Hints, &[0], None, usize::MAX, &mut visit);
        seen.expect("a disk in memory can be read");
        hints
    }

    /// The highest counter of an origin among the hints on its disk that can be read.
    pub(crate) fn hinted_on_disk(&self, shard: Shard, origin: Origin) -> u64 {
        let mut last = 0;
        let mut visit = |key: &[u8], row: &[u8]| {
            if let Some((_, of, dot)) = keys::split_hint(key)
                && (of, dot.origin) == (shard, origin)
                && rows::get_record(key, &Bytes::copy_from_slice(row)).is_ok()
            {
                last = last.max(dot.counter);
            }
            ControlFlow::Continue(())
        };
        let seen = self.disk.memory().scan(Table::Hints, &[0], None, usize::MAX, &mut visit);
        seen.expect("a disk in memory can be read");
        last
    }

    /// A key as the disk has it.
    pub(crate) fn object_on_disk(&self, shard: Shard, key: &Key) -> Object {
        let row_key = keys::object(shard, key);
        match self.disk.memory().get(Table::Objects, &row_key) {
            Ok(Some(row)) => rows::get(&row_key, &row).expect("damaged shards were emptied"),
            Ok(None) => Object::absent(),
            Err(error) => panic!("damaged shards were emptied, yet: {error}"),
        }
    }

    /// A key as the disk has it; nothing of a damaged row.
    pub(crate) fn object_if_whole(&self, shard: Shard, key: &Key) -> Option<Object> {
        let row_key = keys::object(shard, key);
        let row = self.disk.memory().get(Table::Objects, &row_key).ok().flatten()?;
        rows::get(&row_key, &row).ok()
    }

    /// Whether a reader of the disk sees all these dots of a key, or what replaced them. Of a damaged
    /// row nothing is seen.
    pub(crate) fn shows(&self, shard: Shard, key: &Key, dots: &[Dot]) -> bool {
        let (clock, row_key) = (self.clock_on_disk(shard), keys::object(shard, key));
        let row = self.disk.memory().get(Table::Objects, &row_key).ok().flatten();
        let object = row.and_then(|row| rows::get::<Object>(&row_key, &row).ok());
        let versions = object.as_ref().map_or(&[][..], Object::versions);
        let covers = |dot| versions.iter().any(|version| version.past.contains(dot));
        dots.iter().all(|&dot| clock.contains(dot) || covers(dot))
    }

    /// Whether it holds a write of which these are the dots, as an owner or as a stand-in.
    pub(crate) fn holds(&self, shard: Shard, dots: &BTreeSet<Dot>) -> bool {
        let clock = self.clock_on_disk(shard);
        dots.iter().any(|&dot| clock.contains(dot) || self.holds_hint(shard, dot))
    }

    /// Whether the disk has a hint of a record, for whomever.
    pub(crate) fn holds_hint(&self, shard: Shard, dot: Dot) -> bool {
        let mut held = false;
        let mut see = |key: &[u8], _: &[u8]| {
            held |= keys::split_hint(key).is_some_and(|(_, of, held)| (of, held) == (shard, dot));
            core::ops::ControlFlow::Continue(())
        };
        let scanned = self.disk.memory().scan(Table::Hints, &[0], None, usize::MAX, &mut see);
        scanned.expect("a disk in memory can be read");
        held
    }

    /// Whether the log of the disk has a record.
    pub(crate) fn has_record(&self, shard: Shard, dot: Dot) -> bool {
        matches!(self.disk.memory().get(Table::Log, &keys::log(shard, dot)), Ok(Some(_)))
    }
}

/// The state that a shard's clock row and the arrivals since tell, if they are there and whole.
pub(crate) fn state_in(disk: &MemoryEngine, shard: Shard) -> Option<ReplicaState> {
    galvani_storage::stored_state(disk, shard).ok().flatten().map(|(state, _)| state)
}
