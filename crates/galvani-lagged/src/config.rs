//! How a lagged replica is set up, and the bounds of it.
//!
//! The lag is the only knob, and it may be changed while the replica runs; how long nodes keep what they
//! have is only for its alarms. What belongs to the cluster is written into the directory when it is
//! made, and compared at every start. Next to read: `dir.rs`.

use galvani_model::ids::ClusterId;

/// What a lagged replica must know before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaggedConfig {
    /// The cluster it follows.
    pub cluster: ClusterId,
    /// Into how many partitions that cluster's keys fall: fixed for its life.
    pub partitions: u16,
    /// How long a write waits before it reaches the base, in milliseconds, `0..=`[`LAG_MS_MAX`]. Of a
    /// directory that is there already the lag it was last set to counts, not this one.
    pub lag_ms: u64,
    /// How long the cluster's nodes keep what nothing needs any more, in milliseconds
    /// (`limits.feed_keep_ms`): how long the replica may be away. 0: for ever. The nodes do not tell.
    pub feed_keep_ms: u64,
}

/// The longest lag, in milliseconds (90 days): a slip of units is refused. The journal holds all that
/// is written in that time.
pub const LAG_MS_MAX: u64 = 90 * 24 * 3600 * 1000;

/// Most records that one step applies: a step holds them in memory, and other calls wait for it.
pub const STEP_RECORDS_MAX: usize = 1024;

/// Bytes of records that one step applies, the last one counted whole: a few ticks of a lane.
pub const STEP_BYTES_MAX: u64 = 8 << 20;

/// Keys that one page of a scan looks at.
pub const PAGE_KEYS_MAX: usize = 1000;

/// How often the clock of a replica to which nothing comes is written down, in milliseconds: what a
/// restart may add to the lag, beside the time it was down.
pub(crate) const TICK_NOTED_MS: u64 = 10_000;

/// Request rows of the base that one step looks at, to forget the old ones: several times what one
/// step adds.
pub(crate) const SWEEP_ROWS: usize = 2 * STEP_RECORDS_MAX;
