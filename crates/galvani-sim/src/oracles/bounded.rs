//! Queues keep to their bounds: requests under way, operations that only listen, bytes of values, hints.
//!
//! Asked of a lane after each of its ticks, of the lane itself and of the limits that the seed drew: what
//! the lane was told may be a mutant's lie. What waits on its way to a lane is the network's, and not
//! judged. Repairs of reads keep to their budget, too. Source: invariant I9 of `docs/ARCHITECTURE.md`.

use crate::packet::LaneAt;
use crate::world::{World, at};
use galvani_model::store::Store;
use galvani_protocol::LINGERING_PER_INFLIGHT;

/// The longest row of a hint without its value, in bytes: the last hint may pass the bound by so much.
const HINT_HEAD_BYTES: u64 = 1_024;

/// Checks what one lane holds now.
pub(crate) fn check(world: &World, lane: LaneAt) -> Result<(), String> {
    let Some(slot) = world.nodes[lane.node].lanes.get(lane.lane) else { return Ok(()) };
    let (held, limits) = (&slot.lane, &world.profile.limits);
    let who = at(lane);
    if held.inflight() > limits.inflight {
        let (count, most) = (held.inflight(), limits.inflight);
        return Err(format!("{who} works on {count} requests, {most} are allowed"));
    }
    let lingering_max = limits.inflight.saturating_mul(LINGERING_PER_INFLIGHT);
    if held.lingering() > lingering_max {
        let count = held.lingering();
        return Err(format!("{who} has {count} answered operations, {lingering_max} are allowed"));
    }
    // One alone may hold what it needs, and one that is sent on is let in before its value counts.
    let (bytes, most) = (held.held_bytes(), limits.held_bytes);
    if bytes > most && bytes - held.held_most() > most {
        return Err(format!("{who} holds {bytes} bytes of values, of {most}"));
    }
    let mut all = 0;
    for (target, figures) in slot.store.hint_figures() {
        all += figures.bytes;
        let most = limits.hint_bytes_per_owner;
        if figures.bytes > most.saturating_add(HINT_HEAD_BYTES) {
            let bytes = figures.bytes;
            return Err(format!("{who} holds {bytes} bytes of hints for {target}, of {most}"));
        }
    }
    if all > limits.hint_bytes.saturating_add(HINT_HEAD_BYTES) {
        let most = limits.hint_bytes;
        return Err(format!("{who} holds {all} bytes of hints, of {most}"));
    }
    Ok(())
}

/// Checks how many repairs a lane's reads have sent since it began.
pub(crate) fn repairs(world: &World, lane: LaneAt) -> Result<(), String> {
    let Some(slot) = world.nodes[lane.node].lanes.get(lane.lane) else { return Ok(()) };
    let passed = world.nodes[lane.node].clock.shows(world.now) - slot.began;
    let per_second = u64::from(world.profile.limits.read_repairs_per_second);
    // It begins with a second's worth.
    let most = per_second + per_second * passed / 1_000_000;
    if slot.repairs > most {
        let (who, count) = (at(lane), slot.repairs);
        return Err(format!("{who} has sent {count} repairs in {passed} us, of {most}"));
    }
    Ok(())
}
