//! Hints alone deliver: what stand-ins said they hold is with its owners in the end, and no hint is left.
//!
//! Asked at rest, in runs without any other way of repair, before anything is read or exchanged. What was
//! never promised (an owner that was silent when the ack left, and that nobody stood in for) is not
//! asked for. Next to read: `promised.rs`.

use crate::promised::State;
use crate::world::World;

/// Checks every promise of the run.
pub(crate) fn check(world: &World) -> Result<(), String> {
    for (at, node) in world.nodes.iter().enumerate() {
        if let Some((owner, shard, dot)) = node.all_hints_on_disk().first() {
            let owner = world.by_id[owner];
            return Err(format!("node {at} still holds {dot} of {shard} for node {owner}"));
        }
    }
    for (promise, state) in &world.promises {
        let what = match state {
            State::Held => "has said that it holds",
            State::Given => "has given away",
            State::Gone => continue,
        };
        let (owner, holder, dot) = (promise.owner, promise.holder, promise.dot);
        if !world.nodes[owner].clock_on_disk(promise.shard).contains(dot) {
            return Err(format!("node {holder} {what} {dot} for node {owner}, which lacks it"));
        }
    }
    Ok(())
}
