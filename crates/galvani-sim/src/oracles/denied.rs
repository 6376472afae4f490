//! A write answered "never stored" on every call is on no disk and never will be.

use crate::world::World;

/// Checks a write that has just been answered. Later commits are checked as they happen.
pub(crate) fn check(world: &World, write: usize) -> Result<(), String> {
    let dots = &world.history.writes[write].dots;
    if world.history.is_denied(write) && !dots.is_empty() {
        return Err(format!(
            "write {write} was answered \"never stored\" on every call, yet was stored as {dots:?}"
        ));
    }
    Ok(())
}
