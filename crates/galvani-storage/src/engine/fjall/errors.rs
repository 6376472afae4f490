//! fjall's errors in our words.
//!
//! The disk's own errors keep their number; anything that says "these bytes are not what was
//! written" is [`EngineError::Corrupt`]. fjall's enums are non-exhaustive, so what a later version
//! adds counts as damage: the safe reading. Next to read: `../error.rs`.

use std::io;

use super::space::SpaceGuard;
use crate::engine::{EngineError, IoStep, Table};

/// The error for `error`, met at `step`, in `table` if it was a read of one.
pub(super) fn translate(
    step: IoStep,
    table: Option<Table>,
    error: &fjall::Error,
    space: &SpaceGuard,
) -> EngineError {
    match error {
        fjall::Error::Io(source) => io_error(step, table, source, space),
        fjall::Error::Storage(fjall::LsmError::Io(source)) => io_error(step, table, source, space),
        fjall::Error::Poisoned => EngineError::ReadOnly,
        fjall::Error::Locked => EngineError::Locked,
        fjall::Error::InvalidVersion(_)
        | fjall::Error::Storage(fjall::LsmError::InvalidVersion(_)) => EngineError::Version,
        damage => EngineError::Corrupt { table, what: damage.to_string() },
    }
}

fn io_error(
    step: IoStep,
    table: Option<Table>,
    source: &io::Error,
    space: &SpaceGuard,
) -> EngineError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            space.full_error(matches!(step, IoStep::Commit | IoStep::Sync))
        }
        // A read past the end of a file, or bytes that do not decode.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData if step != IoStep::Commit => {
            EngineError::Corrupt { table, what: source.to_string() }
        }
        _ => EngineError::from_io(step, source),
    }
}
