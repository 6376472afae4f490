//! A lane that nothing arrives at does not tick again and again: one that does burns a core.
//!
//! Judged after each tick. A tick of its own right after another is normal, and a few of them are; a
//! thousand in a row are a deadline that stays due. Next to read: `lane/due.rs` of the protocol.

use crate::packet::LaneAt;
use crate::world::{World, at};

/// Ticks in a row that a lane may have for nothing.
const SPINS_MAX: u32 = 1_000;

/// A lane whose next tick is due later than so rests, in microseconds.
const APART_MICROS: u64 = 5;

/// Whether a tick without inputs is followed by another of that kind at once.
pub(crate) fn is_spin(world: &World, lane: LaneAt) -> bool {
    let shown = world.nodes[lane.node].clock.shows(world.now);
    world.nodes[lane.node].lanes.get(lane.lane).is_some_and(|slot| {
        let due = slot.lane.next_deadline();
        slot.inbox.is_empty() && due.is_some_and(|due| due <= shown + APART_MICROS)
    })
}

/// Checks how many such ticks there were.
pub(crate) fn check(world: &World, lane: LaneAt) -> Result<(), String> {
    let Some(slot) = world.nodes[lane.node].lanes.get(lane.lane) else { return Ok(()) };
    if slot.spins > SPINS_MAX {
        let (who, due) = (at(lane), slot.lane.next_deadline());
        return Err(format!(
            "{who} has ticked {SPINS_MAX} times in a row for nothing, due {due:?}"
        ));
    }
    Ok(())
}
