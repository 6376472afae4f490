//! A hint goes only when its owner holds the record durably: then the owner answers for it.
//!
//! Asked when the release is committed, of the owner's disk. An owner whose disk lost something
//! since may have said so honestly. Next to read: `ack.rs`.

use crate::world::World;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::version::Dot;

/// Checks one hint that `node` no longer holds for `target`, and notes who answers for it now.
pub(crate) fn check(
    world: &mut World,
    node: usize,
    target: NodeId,
    shard: Shard,
    dot: Dot,
) -> Result<(), String> {
    let has = |at: &usize| world.nodes[*at].clock_on_disk(shard).contains(dot);
    let durable = |at: &usize| has(at) && !world.nodes[*at].unsynced.contains(&(shard, dot));
    // Where the layout has changed it may be for whoever owns the key now.
    let all = 0..if world.layouts.have_changed() { world.nodes.len() } else { 0 };
    let mut elsewhere = all.filter(|at| *at != node && durable(at));
    let target = world.by_id[&target];
    let owner = if durable(&target) { target } else { elsewhere.next().unwrap_or(target) };
    let at = &world.nodes[owner];
    let has = at.clock_on_disk(shard).contains(dot);
    let durable = has && !at.unsynced.contains(&(shard, dot));
    let excused = at.lost_data_at.is_some();
    if !durable && !excused {
        let what = if has { "has not synced it" } else { "does not have it" };
        return Err(format!("node {node} lets the hint of {dot} go, node {owner} {what}"));
    }
    let write = world.ledger.entry(dot).and_then(|entry| entry.write);
    if let Some(number) = write {
        let write = &mut world.history.writes[number];
        if (write.holders.remove(&node) || write.handed.remove(&node)) && has {
            write.handed.insert(owner);
        }
    }
    Ok(())
}
