//! Why a lagged replica did not do what it was asked.
//!
//! Each variant says what happened to the replica and what to do now. Errors of opening a directory
//! are in `dir.rs`. Next to read: `replica.rs`.

use crate::state::Hole;
use crate::text::Utc;
use galvani_model::bucket::BucketName;
use galvani_model::ids::{RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, PartitionClock};
use galvani_storage::engine::EngineError;

/// Why a lagged replica did not do what it was asked. Unless a variant says otherwise nothing has
/// changed.
#[derive(Debug, thiserror::Error)]
pub enum LaggedError {
    /// The disk is full. Nothing of the page was kept: hand the same page in again when there is room.
    #[error("the disk is full: free some space, the replica goes on by itself")]
    Full,
    /// A write to the disk failed, and whether it is there is not known. Close the replica and open it
    /// again: then it knows.
    #[error("a write to the disk failed and may be there all the same: start the replica again")]
    InDoubt,
    /// The journal could not be read or written.
    #[error("the journal failed: {0}")]
    Journal(EngineError),
    /// The base could not be read or written.
    #[error("the base failed: {0}")]
    Base(#[from] StoreError),
    /// A row of the journal is not what was written there. What waits behind it can still be read as
    /// of a moment, and is never applied: seed a new directory, and keep this one until it is full.
    #[error(
        "a row of the journal is damaged ({what}): seed a new directory, keep this one for now"
    )]
    Damaged {
        /// Which row, for people.
        what: String,
    },
    /// A record is not what its head says. Nothing of the page was kept: ask for it again.
    #[error("{shard}: the record of {dot} is damaged; ask for the page again")]
    NotIntact {
        /// Its shard.
        shard: Shard,
        /// Its name.
        dot: Dot,
    },
    /// A position speaks of writes that were not handed in. Nothing of the page was kept; taking the
    /// position for true would lose them.
    #[error("{shard}: the position is ahead of the records, it is done with {missing} as well")]
    Ahead {
        /// The shard.
        shard: Shard,
        /// What was not handed in.
        missing: PartitionClock,
    },
    /// The moment is before the earliest that can be shown exactly: the base does not go back.
    #[error(
        "this replica shows moments from {} on, {} is before that: ask for a later one, or look in a backup",
        Utc(*earliest_ms), Utc(*asked_ms)
    )]
    BeforeHorizon {
        /// What was asked for, in milliseconds since 1970.
        asked_ms: u64,
        /// The earliest moment, in milliseconds since 1970.
        earliest_ms: u64,
    },
    /// The moment has not come yet: nothing is known of it.
    #[error(
        "{} is in the future: the moment shown now is {}, ask for that or an earlier one",
        Utc(*asked_ms), Utc(*now_ms)
    )]
    Future {
        /// What was asked for, in milliseconds since 1970.
        asked_ms: u64,
        /// Now, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Writes of that time were gone at all nodes before they came here: what was there is not known.
    #[error(
        "what was there at {} is not known: the nodes dropped writes of {} to {} before they came here; \
         ask for a moment before or after that", Utc(*asked_ms), Utc(hole.from_ms), Utc(hole.until_ms)
    )]
    Unknown {
        /// What was asked for, in milliseconds since 1970.
        asked_ms: u64,
        /// The time of which it is not known.
        hole: Hole,
    },
    /// The cluster has no bucket of this name, as far as the replica has been told.
    #[error("no bucket {:?} is known here; these are: {known}", bucket.as_str())]
    NoBucket {
        /// What was asked for.
        bucket: BucketName,
        /// Those there are, for people.
        known: String,
    },
    /// The key was written after the moment, and that is in the base already, which does not go back.
    #[error(
        "{key} was written after that moment, last at {}, and that is applied already: ask for a later moment",
        Utc(*since_ms)
    )]
    Blurred {
        /// The key.
        key: Key,
        /// When it was last written, as far as that is applied, in milliseconds since 1970.
        since_ms: u64,
    },
    /// It has not caught up with its cluster yet, so it knows of no moment what was there.
    #[error(
        "this replica has not caught up with its cluster yet: wait until `status` says it is protected"
    )]
    NotSeeded,
    /// The write is in the base already, so what was before it cannot be shown.
    #[error(
        "{dot} is applied already: this replica shows moments from {} on", Utc(*earliest_ms)
    )]
    Applied {
        /// The write.
        dot: Dot,
        /// The earliest moment, in milliseconds since 1970.
        earliest_ms: u64,
    },
    /// No write of this name has come here.
    #[error("no write {dot} has come here: look up its name with `galvani explain KEY`")]
    UnknownDot {
        /// The name.
        dot: Dot,
    },
    /// No write with this request id waits here.
    #[error("no write of request {request} waits here: it never came, or is applied already")]
    UnknownRequest {
        /// The request id.
        request: RequestId,
    },
    /// The base is past that point already.
    #[error("the base is past that point already, and does not go back")]
    Behind,
    /// The lag is out of range.
    #[error(
        "a lag is at most {} days, {lag_ms} ms are more: the journal holds all that is written in that time",
        max_ms / 86_400_000
    )]
    LagRange {
        /// What was asked for, in milliseconds.
        lag_ms: u64,
        /// The most there is, in milliseconds.
        max_ms: u64,
    },
    /// A key or prefix cannot be one.
    #[error("{bucket}: a prefix of {bytes} bytes is longer than any key")]
    Prefix {
        /// The bucket.
        bucket: BucketName,
        /// Its length.
        bytes: usize,
    },
}

impl LaggedError {
    /// What an error of the journal's engine means.
    pub(crate) fn journal(error: EngineError) -> LaggedError {
        if error.is_in_doubt() {
            return LaggedError::InDoubt;
        }
        match error {
            EngineError::Full { .. } => LaggedError::Full,
            error => LaggedError::Journal(error),
        }
    }

    /// What an error of the base means.
    pub(crate) fn base(error: StoreError) -> LaggedError {
        match error {
            StoreError::Full => LaggedError::Full,
            StoreError::InDoubt { .. } => LaggedError::InDoubt,
            StoreError::Corrupt { .. } | StoreError::Failed { .. } => LaggedError::Base(error),
        }
    }
}
