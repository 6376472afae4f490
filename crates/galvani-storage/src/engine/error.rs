//! Why an engine did not do what it was asked, and what that did to the data.
//!
//! Every variant says which of three holds: nothing was written, the batch is in doubt (whole or
//! absent after the next open), or a read found damage. Next to read: `fjall/errors.rs`.

use std::io;

use super::Table;
use galvani_model::store::StoreError;

/// What the engine was doing when the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStep {
    /// Opening or recovering the files.
    Open,
    /// Reading a row.
    Read,
    /// Making room for a batch, before any of it was written.
    Flush,
    /// Writing a batch.
    Commit,
    /// Forcing batches to the disk.
    Sync,
    /// Asking the file system for its free space.
    FreeSpace,
}

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The file system is full, or has less free than the reserve.
    ///
    /// Not `in_doubt`: nothing was written, the same batch may be tried later. `in_doubt`: the
    /// write itself met the end of the disk; read-only until [`super::Engine::reopen`].
    #[error("storage is full: {free_bytes} bytes free, {reserve_bytes} kept back")]
    Full {
        /// Bytes free when last asked.
        free_bytes: u64,
        /// Bytes that commits may not use.
        reserve_bytes: u64,
        /// True if the batch may still appear after the next open.
        in_doubt: bool,
    },
    /// The operating system failed the engine. After a failed `Commit` or `Sync` the batch is in
    /// doubt and the engine is read-only until reopened; a failed `Read` changed nothing.
    #[error("storage failed at {step:?}: {kind}")]
    Io {
        /// What was being done.
        step: IoStep,
        /// The class of the failure.
        kind: io::ErrorKind,
        /// The system's error number, where there was one.
        os_code: Option<i32>,
    },
    /// Bytes on disk are not what was written. Nothing was changed; the rows concerned must come
    /// from other replicas.
    #[error("storage is damaged: {what}")]
    Corrupt {
        /// The table read, if damage was met while reading one.
        table: Option<Table>,
        /// What was found, for people.
        what: String,
    },
    /// An earlier write failed: no further writes until [`super::Engine::reopen`]. Nothing of this
    /// batch was written. Reads go on.
    #[error("storage is read-only after a failed write")]
    ReadOnly,
    /// A sync failed: what the disk has of the last moments is not known, and a second sync would
    /// say that all is well. Nothing of this batch was written, nothing more ever is, not even
    /// after [`super::Engine::reopen`], which is refused too: end the process and start again.
    #[error("storage is shut since a failed sync: only a new start may write again")]
    Lost,
    /// The engine could not keep up for [`super::STALL_MAX`]. Nothing was written; retry.
    #[error("storage is stalled: nothing accepted for {waited_ms} ms")]
    Stalled {
        /// How long the commit waited, in milliseconds.
        waited_ms: u64,
    },
    /// Another holder has the engine's files open. Nothing was changed.
    #[error("storage is in use by another holder")]
    Locked,
    /// The files were written by an engine this one cannot read. Nothing was changed.
    #[error("storage has an unsupported engine format")]
    Version,
    /// The engine is closed: a reopen failed. Everything committed is still on disk; reopen again.
    #[error("storage is closed")]
    Closed,
}

impl EngineError {
    /// True if the batch that met this error may still be there after the next open.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            EngineError::Full { in_doubt, .. } => *in_doubt,
            EngineError::Io { step, .. } => match step {
                IoStep::Commit | IoStep::Sync => true,
                IoStep::Open | IoStep::Read | IoStep::Flush | IoStep::FreeSpace => false,
            },
            EngineError::Corrupt { .. }
            | EngineError::ReadOnly
            | EngineError::Lost
            | EngineError::Stalled { .. }
            | EngineError::Locked
            | EngineError::Version
            | EngineError::Closed => false,
        }
    }

    /// This error, met after the batch was written and before it was synced. Only a sync that
    /// failed is one: another lane's failed write makes the engine read-only, and opening it again
    /// decides what became of this batch.
    pub(crate) fn in_doubt_at_sync(self) -> EngineError {
        if self.is_in_doubt() {
            return self;
        }
        let step = match self {
            EngineError::Lost => IoStep::Sync,
            _ => IoStep::Commit,
        };
        EngineError::Io { step, kind: io::ErrorKind::Other, os_code: None }
    }

    /// The error for `source` met at `step`.
    pub(crate) fn from_io(step: IoStep, source: &io::Error) -> EngineError {
        EngineError::Io { step, kind: source.kind(), os_code: source.raw_os_error() }
    }
}

/// What an engine's error means to the machines.
pub(crate) fn store_error(error: EngineError) -> StoreError {
    match error {
        EngineError::Full { .. } => StoreError::Full,
        EngineError::Corrupt { what, .. } => StoreError::Corrupt { what },
        EngineError::Io { .. }
        | EngineError::ReadOnly
        | EngineError::Lost
        | EngineError::Stalled { .. }
        | EngineError::Locked
        | EngineError::Version
        | EngineError::Closed => StoreError::Failed { what: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineError, IoStep};

    #[test]
    fn only_a_failed_sync_is_taken_for_one() {
        let step = |error: EngineError| match error.in_doubt_at_sync() {
            error @ EngineError::Io { step, .. } if error.is_in_doubt() => step,
            other => panic!("in doubt, got {other}"),
        };
        assert_eq!(step(EngineError::ReadOnly), IoStep::Commit, "another lane's write failed");
        assert_eq!(step(EngineError::Closed), IoStep::Commit);
        assert_eq!(step(EngineError::Lost), IoStep::Sync);
    }
}
