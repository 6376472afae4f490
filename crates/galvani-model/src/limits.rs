//! Every bound in one place: what a peer, a client or a disk may make us hold or do.
//!
//! A constant carries its derivation. Limits a cluster may set for itself are fields of
//! [`Limits`]; the constants are what no setting may exceed.

use serde::{Deserialize, Serialize};

/// Most copies a bucket may keep. Seven survives three lost nodes with majorities.
pub const N_MAX: u8 = 7;
/// Longest key in bytes: a key is held in memory by every structure that names it.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest bucket name in bytes.
pub const BUCKET_NAME_BYTES_MAX: usize = 64;
/// Most buckets in a cluster: every node keeps them all in memory.
pub const BUCKETS_MAX: usize = 4096;
/// Largest value any bucket may allow, in bytes. A frame must hold a value and its header.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Default largest value of a bucket, in bytes.
pub const VALUE_BYTES_DEFAULT: usize = 1 << 20;
/// Most partitions: cursors and clocks are kept per partition.
pub const PARTITIONS_MAX: u16 = 4096;
/// Partitions of a new cluster unless said otherwise.
pub const PARTITIONS_DEFAULT: u16 = 256;
/// Most nodes in a layout.
pub const NODES_MAX: usize = 1024;
/// Most lanes of one node.
pub const LANES_MAX: u16 = 64;
/// Longest context token in bytes: over 3000 origins of one key. A key meets a new origin only when
/// one of its owners takes a new incarnation.
pub const CONTEXT_BYTES_MAX: usize = 64 << 10;
/// Siblings of one key from which clients warn (Riak's field-tested figure).
pub const SIBLINGS_WARN: usize = 25;
/// Siblings of one key from which a write that would add one more is refused.
pub const SIBLINGS_MAX: usize = 100;
/// Longest deadline a client may ask for, in milliseconds.
pub const TIMEOUT_MS_MAX: u32 = 60_000;
/// Deadline when the client names none, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u32 = 2_000;
/// How long a replica remembers a request id, in milliseconds (24 h): the window in which a retry
/// is recognised as the same write.
pub const REQUEST_ID_RETENTION_MS: u64 = 24 * 3600 * 1000;
/// Default bytes of values that the reads of one lane hold (256 MiB): twice what one read of the
/// largest value brings from [`N_MAX`] replicas that all differ (7 * 16 MiB), or 64 KiB for each of
/// 4,096 reads; a node of four lanes stays below 1 GiB.
pub const HELD_BYTES_DEFAULT: usize = 256 << 20;
/// Shortest time to live of a write, in milliseconds: below it the clocks of a cluster say little.
pub const TTL_MS_MIN: u64 = 1_000;
/// Longest time to live of a write, in milliseconds (ten years): a slip of units is refused.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
/// How far a client's clock may run ahead of a coordinator's before its writes are refused, in
/// milliseconds: far above any kept clock, far below what would freeze an `lww` bucket for a day.
pub const CLOCK_AHEAD_MS_MAX: u64 = 10 * 60 * 1000;
/// Most events of the application that one write carries.
pub const EMITS_MAX: usize = 16;
/// Bytes of topics, keys and payloads of the events that one write carries: they travel in the header
/// of each message that carries the record.
pub const EMIT_BYTES_MAX: usize = 256 << 10;
/// Most versions that a record names as replaced, or as left beside it: more than a key may have.
pub const SHOWN_DOTS_MAX: usize = 4 * SIBLINGS_MAX;
/// Most buckets, or topics, that a filter of the feed names.
pub const FEED_NAMES_MAX: usize = 256;
/// Longest position in a whole feed, in bytes: 4,096 shards of 1 KiB each.
pub const FEED_TOKEN_BYTES_MAX: usize = 4 << 20;
/// How long a record that no value needs stays in the log unless said otherwise, in milliseconds
/// (24 h): as long as a retry is known, so that no request row outlives its record by much.
pub const FEED_KEEP_MS_DEFAULT: u64 = REQUEST_ID_RETENTION_MS;
/// Bytes of records that no value needs which one lane keeps unless said otherwise: 10 GiB, which is a
/// day of 100 writes a second of 1 KiB each.
pub const FEED_BYTES_DEFAULT: u64 = 10 << 30;
/// Keys in one page of a listing.
pub const LIST_PAGE_MAX: usize = 1000;

/// Bounds that a node's configuration may tighten or widen, within the constants of this module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client requests one lane works on at once; more are refused as overloaded. Default 4096.
    pub inflight: usize,
    /// Bytes of values that operations under way on one lane may hold: reads until they are answered,
    /// writes as long as a stand-in may be asked. One alone may exceed it; beyond it, requests and
    /// further answers are refused as overloaded.
    /// Default [`HELD_BYTES_DEFAULT`].
    pub held_bytes: usize,
    /// Siblings from which a write that adds one is refused; four values that have expired and are
    /// not collected yet count for one. Default [`SIBLINGS_MAX`].
    pub siblings_max: usize,
    /// How long after a change the owners of a shard compare what they have taken in, in
    /// milliseconds; 0 turns anti-entropy off, which only tests should do. Default 1000: rare
    /// enough to cost nothing (some 100 bytes a changed shard and peer), and replication has long
    /// brought what is on its way.
    pub anti_entropy_ms: u32,
    /// How often a node reads all its rows through to see whether they are whole, in hours; 0:
    /// never. Default 168, a week: rot is rare, and a million rows cost some 20 minutes of reading
    /// spread over it.
    pub verify_hours: u32,
    /// Bytes of hints a node holds for one owner that is away, each of its lanes an equal part
    /// ([`Limits::of_lane`]); beyond it hints for that owner are refused and do not count for w. The
    /// last one may pass it by its record's head. Default 256 MiB. Nothing diverges: what the owner
    /// missed is found when clocks are compared.
    pub hint_bytes_per_owner: u64,
    /// The same in all. Default 1 GiB.
    pub hint_bytes: u64,
    /// Records a second that one lane's reads send to replicas they found lacking, or take in where the
    /// coordinator lacks them itself; what is beyond it is left to anti-entropy. Reads that wait for
    /// their repair are not counted. Default 2000: each costs about as much as a put, so a tenth of a core.
    pub read_repairs_per_second: u32,
    /// Requests a second that one client identity may send to one lane; more are refused as rate
    /// limited. Default 0: no such limit.
    pub client_requests_per_second: u32,
    /// Requests that an identity which was silent may send at once, where there is such a limit.
    /// Default 0: a second's worth.
    pub client_requests_burst: u32,
    /// How long after its expiry a value may be collected, in milliseconds. Default: twice
    /// [`CLOCK_AHEAD_MS_MAX`], so that the clocks of all owners have passed the expiry, whichever is
    /// slow. Reads show nothing of it from its expiry on, whatever this says.
    pub expiry_margin_ms: u32,
    /// How long a record that no value needs any more stays in the log, in milliseconds since it was
    /// written: how far back the feed reaches. Then it is trimmed, once every owner is known to need
    /// it no more. 0: never. Default [`FEED_KEEP_MS_DEFAULT`].
    pub feed_keep_ms: u64,
    /// Bytes of such records that one lane keeps, about; beyond them the oldest go although they are
    /// younger. Each of its shards has an equal share, so that a busy one takes nothing from the others. What
    /// live values need is not counted. 0: any number. Default [`FEED_BYTES_DEFAULT`].
    pub feed_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            inflight: 4096,
            held_bytes: HELD_BYTES_DEFAULT,
            siblings_max: SIBLINGS_MAX,
            anti_entropy_ms: 1000,
            verify_hours: 168,
            hint_bytes_per_owner: 256 << 20,
            hint_bytes: 1 << 30,
            read_repairs_per_second: 2_000,
            client_requests_per_second: 0,
            client_requests_burst: 0,
            expiry_margin_ms: 2 * CLOCK_AHEAD_MS_MAX as u32,
            feed_keep_ms: FEED_KEEP_MS_DEFAULT,
            feed_bytes: FEED_BYTES_DEFAULT,
        }
    }
}

/// More than a record takes whose value is the largest there may be.
const RECORD_BYTES_MAX: u64 = VALUE_BYTES_MAX as u64 + (1 << 20);

impl Limits {
    /// What one of so many lanes may do. Bounds of hints are a node's: each lane has its part of them,
    /// and room for one record of any size, as far as the node has.
    pub fn of_lane(&self, lanes: u16) -> Limits {
        let part = |bytes: u64| (bytes / u64::from(lanes.max(1))).max(bytes.min(RECORD_BYTES_MAX));
        Limits {
            hint_bytes_per_owner: part(self.hint_bytes_per_owner),
            hint_bytes: part(self.hint_bytes),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, VALUE_BYTES_MAX};

    #[test]
    fn each_lane_has_its_part_of_what_a_node_may_hold() {
        let node = Limits::default();
        let lane = node.of_lane(4);
        assert_eq!((lane.hint_bytes, lane.hint_bytes_per_owner), (256 << 20, 64 << 20));
        assert_eq!(lane.inflight, node.inflight);
        assert_eq!(node.of_lane(1).hint_bytes, node.hint_bytes);
        // The largest value there may be has room on a lane of many, unless the node has none.
        assert!(node.of_lane(64).hint_bytes_per_owner > VALUE_BYTES_MAX as u64);
        let small = Limits { hint_bytes: 1_000, ..Limits::default() };
        assert_eq!(small.of_lane(64).hint_bytes, 1_000);
    }
}
