//! Liveness recovers: when faults are over, no lane holds a node for down. A suspicion may come up
//! at any time, where a round trip takes about as long as a probe may.

use crate::world::World;
use galvani_protocol::Standing;

/// Checks what every lane holds of every other node. All run, and have for some seconds.
pub(crate) fn check(world: &World) -> Result<(), String> {
    for (node, known) in world.nodes.iter().enumerate() {
        for (lane, slot) in known.lanes.iter().enumerate() {
            let others = world.nodes.iter().enumerate().filter(|(other, _)| *other != node);
            for (other, peer) in others {
                if slot.lane.standing(peer.id) == Standing::Down {
                    return Err(format!("n{node}.{lane} holds n{other} for down"));
                }
            }
        }
    }
    Ok(())
}
