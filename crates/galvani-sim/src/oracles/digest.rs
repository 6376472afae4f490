//! I7: replicas with equal clocks have equal digests, and what a replica says of itself is what
//! its rows add up to (INV-1).

use crate::world::World;
use galvani_model::ids::Shard;

/// Checks every pair of owners of a shard whose nodes are up.
pub(crate) fn equal_clocks(world: &World, shard: Shard) -> Result<(), String> {
    let owners: Vec<usize> = world.layout.owners(shard).iter().map(|id| world.by_id[id]).collect();
    let states: Vec<_> =
        owners.iter().map(|&node| world.nodes[node].state_on_disk(shard)).collect();
    for one in 0..owners.len() {
        for two in one + 1..owners.len() {
            let same = states[one].clock == states[two].clock;
            if same && states[one].digest != states[two].digest {
                let (a, b) = (owners[one], owners[two]);
                return Err(format!(
                    "{shard}: nodes {a} and {b} have clock {} and digests {:?} and {:?}",
                    states[one].clock, states[one].digest, states[two].digest
                ));
            }
        }
    }
    Ok(())
}

/// Checks that clock, digest and arrivals of a shard are what log and objects add up to.
pub(crate) fn adds_up(world: &mut World, node: usize, shard: Shard) -> Result<(), String> {
    let said = world.nodes[node].state_on_disk(shard);
    let lane = usize::from(shard.partition.0 % world.profile.lanes);
    let Some(slot) = world.nodes[node].lanes.get_mut(lane) else { return Ok(()) };
    let derived = slot.store.inner().derive_state(shard);
    let derived = derived.map_err(|error| format!("node {node} {shard}: {error}"))?;
    let equal = said.clock == derived.clock
        && said.digest == derived.digest
        && said.tombstones == derived.tombstones
        && said.expiring == derived.expiring
        && said.arrivals == derived.arrivals;
    if equal {
        return Ok(());
    }
    Err(format!(
        "node {node} {shard}: says {} {:?} {}, rows add up to {} {:?} {}",
        said.clock, said.digest, said.arrivals, derived.clock, derived.digest, derived.arrivals
    ))
}
