//! What a node tells of itself and of its cluster.
//!
//! Sent as they are to clients and tools; nothing here is used to decide a quorum.
//! Next to read: `message.rs`.

use core::net::SocketAddr;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{ClusterId, NodeId, Shard};
use galvani_model::placement::{Layout, Member, Pace, Phase};
use galvani_model::store::{Damage, HintFigures};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a client needs to find its way: sent once per connection, and again when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: String,
    /// The node that answers.
    pub node: NodeId,
    /// Who owns what, and where each lane listens: by whom reads are answered now.
    pub layout: Arc<Layout>,
    /// The layout's epoch: of two views of a cluster the one with the larger epoch is newer.
    pub epoch: u64,
    /// The change of the layout that is under way.
    pub change: Option<LayoutChange>,
    /// Every bucket.
    pub buckets: BTreeMap<BucketName, BucketProps>,
}

/// A change of the layout that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayoutChange {
    /// The layout before it.
    pub old: Arc<Layout>,
    /// The layout after it.
    pub new: Arc<Layout>,
    /// How far it is.
    pub phase: Phase,
    /// The epoch it began with.
    pub begun: u64,
    /// How fast new owners copy.
    #[serde(default)]
    pub pace: Pace,
}

/// How far the copying of a change is on one node, or one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copying {
    /// Shards that were or are to be caught up with.
    pub shards: u32,
    /// Those that are not done.
    pub left: u32,
    /// Records copied since this node began with it, or was started anew.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that old owners were seen to have and that are still to come.
    pub records_left: u64,
    /// Bytes a second lately.
    pub bytes_per_second: u64,
}

impl Copying {
    /// Adds another lane's, or node's.
    pub fn add(&mut self, other: &Copying) {
        self.shards += other.shards;
        self.left += other.left;
        self.records += other.records;
        self.bytes += other.bytes;
        self.records_left += other.records_left;
        self.bytes_per_second += other.bytes_per_second;
    }

    /// About how many bytes are still to come, by the mean of the records that came; `None` as long as
    /// none did.
    pub fn bytes_left(&self) -> Option<u64> {
        let mean = self.bytes.checked_div(self.records)?;
        Some(mean.saturating_mul(self.records_left))
    }
}

/// What a node, or one of its lanes, has yet to get back after its disk was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refilling {
    /// Shards that may lack something that the node had acked: it answers no reads of them.
    pub left: u32,
    /// Records that other owners were seen to have and that are still to come.
    pub records_left: u64,
    /// The owners that it has not caught up with yet.
    pub waits: Vec<NodeId>,
}

impl Refilling {
    /// Adds another lane's.
    pub fn add(&mut self, other: &Refilling) {
        self.left += other.left;
        self.records_left += other.records_left;
        self.waits.extend(&other.waits);
        self.waits.sort();
        self.waits.dedup();
    }
}

/// Figures of one node since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Puts and deletes coordinated and answered as stored.
    pub puts: u64,
    /// Gets coordinated and answered.
    pub gets: u64,
    /// Records of other coordinators taken in.
    pub replicated: u64,
    /// Copies that arrived again and changed nothing.
    pub duplicates: u64,
    /// Requests that failed because a quorum was not reached.
    pub quorum_failures: u64,
    /// Requests refused before anything was done.
    pub refused: u64,
    /// Of those, client requests beyond what the lane took on.
    pub turned_away: u64,
    /// Client requests above the rate of their identity: nothing was done for them.
    pub rate_limited: u64,
    /// Requests whose time was up before their turn came: nothing was done for them.
    pub expired: u64,
    /// Records sent to replicas that a read found lacking.
    pub repairs_sent: u64,
    /// Times a read left a record that a replica or its coordinator lacked to anti-entropy, for want of
    /// budget.
    pub repairs_skipped: u64,
    /// Retries recognised as writes already taken in.
    pub retries_recognised: u64,
    /// Versions dropped because a bucket of policy `lww` keeps one.
    pub lww_discarded: u64,
    /// Times a vnode took a new incarnation while running.
    pub incarnations: u64,
    /// Damaged rows quarantined.
    pub quarantined: u64,
    /// Shards compared with another owner.
    pub shards_compared: u64,
    /// Of those, shards that differed.
    pub shards_differing: u64,
    /// Records that anti-entropy brought.
    pub records_pulled: u64,
    /// Bytes of their values.
    pub bytes_pulled: u64,
    /// Hints taken in for owners that were away.
    pub hints_held: u64,
    /// Hints that found no room: neither held nor counted for a quorum.
    pub hints_refused: u64,
    /// Records sent to the owners of shards that are owned here no more.
    pub records_donated: u64,
    /// Hints that their owners have taken over durably.
    pub hints_delivered: u64,
    /// Records that hints brought here.
    pub hints_received: u64,
    /// Times a node was found to be down.
    pub members_lost: u64,
    /// Times a peer's lane fell silent towards a lane, so that others were asked first.
    pub breakers_opened: u64,
    /// Liveness datagrams that were not heeded: malformed, or of or about a stranger.
    pub datagrams_dropped: u64,
    /// Times another owner had an equal clock and a different digest: damage, or a bug.
    pub digests_unequal: u64,
    /// Pages of the feed given out.
    pub feed_pages: u64,
    /// Events in them.
    pub feed_events: u64,
    /// Tombstones collected here.
    pub tombstones_collected: u64,
    /// Expired values collected here.
    pub expired_collected: u64,
    /// Records trimmed from the log here.
    pub records_trimmed: u64,
    /// Bytes of their values.
    pub bytes_trimmed: u64,
    /// Digests that the data did not bear out, put right.
    pub digests_corrected: u64,
    /// Values that another owner held with an equal history and this one had lost, held again.
    pub readopted: u64,
    /// Rows read through to see whether they are whole.
    pub rows_verified: u64,
    /// Damaged rows written anew.
    pub rows_mended: u64,
    /// Damaged rows that are not written anew yet.
    pub rows_damaged: u64,
}

impl Counters {
    /// Adds another lane's figures.
    pub fn add(&mut self, other: &Counters) {
        self.puts += other.puts;
        self.gets += other.gets;
        self.replicated += other.replicated;
        self.duplicates += other.duplicates;
        self.quorum_failures += other.quorum_failures;
        self.refused += other.refused;
        self.turned_away += other.turned_away;
        self.rate_limited += other.rate_limited;
        self.expired += other.expired;
        self.repairs_sent += other.repairs_sent;
        self.repairs_skipped += other.repairs_skipped;
        self.retries_recognised += other.retries_recognised;
        self.lww_discarded += other.lww_discarded;
        self.incarnations += other.incarnations;
        self.quarantined += other.quarantined;
        self.shards_compared += other.shards_compared;
        self.shards_differing += other.shards_differing;
        self.records_pulled += other.records_pulled;
        self.bytes_pulled += other.bytes_pulled;
        self.hints_held += other.hints_held;
        self.hints_refused += other.hints_refused;
        self.records_donated += other.records_donated;
        self.hints_delivered += other.hints_delivered;
        self.hints_received += other.hints_received;
        self.members_lost += other.members_lost;
        self.breakers_opened += other.breakers_opened;
        self.datagrams_dropped += other.datagrams_dropped;
        self.digests_unequal += other.digests_unequal;
        self.feed_pages += other.feed_pages;
        self.feed_events += other.feed_events;
        self.tombstones_collected += other.tombstones_collected;
        self.expired_collected += other.expired_collected;
        self.records_trimmed += other.records_trimmed;
        self.bytes_trimmed += other.bytes_trimmed;
        self.digests_corrected += other.digests_corrected;
        self.readopted += other.readopted;
        self.rows_verified += other.rows_verified;
        self.rows_mended += other.rows_mended;
        self.rows_damaged += other.rows_damaged;
    }
}

/// Faults set on purpose between a node and another one. Clients are never affected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFaults {
    /// The other node.
    pub node: NodeId,
    /// Whether nothing sent to it leaves.
    pub cut_out: bool,
    /// Whether nothing it sends is heard.
    pub cut_in: bool,
    /// Datagrams lost of a million, in each direction: at most [`LinkFaults::LOSS_PPM_MAX`].
    pub loss_ppm: Option<u32>,
    /// How much later what is sent to it leaves.
    pub delay: Option<LinkDelay>,
}

/// A delay and how far it varies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDelay {
    /// At most [`LinkFaults::DELAY_MICROS_MAX`].
    pub micros: u32,
    /// Either way; at most `micros`.
    pub jitter_micros: u32,
}

impl LinkFaults {
    /// Everything is lost.
    pub const LOSS_PPM_MAX: u32 = 1_000_000;
    /// Ten seconds: longer than any link lives without an answer.
    pub const DELAY_MICROS_MAX: u32 = 10_000_000;

    /// No faults between a node and `node`.
    pub fn none(node: NodeId) -> LinkFaults {
        LinkFaults { node, cut_out: false, cut_in: false, loss_ppm: None, delay: None }
    }

    /// Adds what `more` sets: cuts add up, a loss or a delay takes the place of an old one, and one
    /// of 0 ends it.
    pub fn add(&mut self, more: &LinkFaults) {
        self.cut_out |= more.cut_out;
        self.cut_in |= more.cut_in;
        self.loss_ppm = more.loss_ppm.or(self.loss_ppm).filter(|ppm| *ppm > 0);
        self.delay = more.delay.or(self.delay).filter(|delay| delay.micros > 0);
    }

    /// Whether every number is within its bounds.
    pub fn is_bounded(&self) -> bool {
        let delay = self.delay.is_none_or(|delay| {
            delay.micros <= LinkFaults::DELAY_MICROS_MAX && delay.jitter_micros <= delay.micros
        });
        delay && self.loss_ppm.is_none_or(|ppm| ppm <= LinkFaults::LOSS_PPM_MAX)
    }
}

/// One node as it sees itself and its peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which node.
    pub node: NodeId,
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Lanes it runs.
    pub lanes: u16,
    /// `os` or `fsync`.
    pub durability: String,
    /// Bytes its data takes on disk.
    pub disk_bytes: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// CPU time spent so far, in microseconds.
    pub cpu_micros: u64,
    /// Bytes of frames received, from peers and clients.
    pub bytes_in: u64,
    /// Bytes of frames sent, to peers and clients.
    pub bytes_out: u64,
    /// Client requests under way.
    pub inflight: u32,
    /// Shards of which it is known to lack something that another owner has.
    pub shards_behind: u32,
    /// The epoch of the layout that it goes by.
    pub layout_epoch: u64,
    /// Shards of which it has yet to catch up with their old owners, while the layout changes.
    pub shards_copying: u32,
    /// What it has yet to get back after its disk was lost.
    pub refilling: Refilling,
    /// Shards that it owns no more and holds until all of them is with their new owners.
    pub shards_leaving: u32,
    /// Nodes that are no members and have told lately how they would be.
    pub applicants: Vec<Member>,
    /// Tombstones that wait until every owner is known to have taken in all that they replaced.
    pub tombstones: u64,
    /// Values that expire and are not collected yet.
    pub expiring: u64,
    /// Owners without which some of them cannot be collected, and since when those cannot be
    /// reached (milliseconds since 1970 on this node); 0: not heard of since this node started.
    pub collection_waits: BTreeMap<NodeId, u64>,
    /// Owners without which records of its log cannot be trimmed that nothing needs here.
    pub trim_waits: Vec<NodeId>,
    /// Hints it holds, by the owner they are for.
    pub hints: BTreeMap<NodeId, HintFigures>,
    /// Peers of which every lane can be reached from every lane of this node, and that no node
    /// found to be down.
    pub peers_up: Vec<NodeId>,
    /// Peers of which some lane cannot be reached from some lane of this node, and those that the
    /// nodes found to be down.
    pub peers_down: Vec<NodeId>,
    /// Peers that are up and did not answer a probe: they may still refute that.
    pub peers_suspect: Vec<NodeId>,
    /// Peers of which some lane did not answer some lane of this node lately.
    pub peers_silent: Vec<NodeId>,
    /// Faults that are set on purpose; none unless somebody breaks the cluster to see what happens.
    pub faults: Vec<LinkFaults>,
    /// Figures since it started, all lanes.
    pub counters: Counters,
    /// Damaged rows that are not written anew yet, by name: at most [`DAMAGED_NAMED_MAX`] of them.
    pub damaged: Vec<Damage>,
    /// How long a record stays in its log after it was written once it was replaced, in milliseconds, as
    /// it is now: less than `limits.feed_keep_ms` where `limits.feed_bytes` does not reach so far back.
    /// 0: for ever.
    pub feed_keep_ms: u64,
    /// Times its engine met a part of a data file that it could not read, since it started.
    pub unreadable: u64,
    /// Data files that the last repair found damaged: at most [`DAMAGED_NAMED_MAX`] of them.
    pub damaged_files: Vec<String>,
    /// Nodes under whose id several processes greeted this one and run, and where: at most
    /// [`TWINS_NAMED_MAX`] of each node.
    pub runs_twice: BTreeMap<NodeId, BTreeSet<SocketAddr>>,
    /// How far the copying of the layout's change is on it; zeros while none is under way.
    #[serde(default)]
    pub copying: Copying,
    /// Shards that it finds unequal to another owner's now, as far as it reaches them: at most
    /// [`DAMAGED_NAMED_MAX`] of them.
    pub unequal: Vec<UnequalShard>,
    /// All of those.
    pub unequal_all: u32,
}

/// A shard whose objects differ from another owner's although both have taken in the same: damage,
/// or a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnequalShard {
    /// The shard.
    pub shard: Shard,
    /// The other owner.
    pub peer: NodeId,
}

/// Processes of one node that a node names.
pub const TWINS_NAMED_MAX: usize = 8;

/// Damaged rows, and unequal shards, that a node names; all are counted.
pub const DAMAGED_NAMED_MAX: usize = 20;
