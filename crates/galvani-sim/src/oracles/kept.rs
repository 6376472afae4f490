//! No acked write is lost: in the end every owner has it, live or replaced by a write whose writer
//! had seen it, unless every node that held it at its ack has lost its disk.

use crate::world::World;
use galvani_model::version::Version;

/// Checks one acked write on every owner, after logs were exchanged.
pub(crate) fn check(world: &World, number: usize) -> Result<(), String> {
    let write = &world.history.writes[number];
    if write.acked_at.is_none() || (write.holders.is_empty() && write.handed.is_empty()) {
        return Ok(());
    }
    let info = &world.keys[write.key];
    for &node in &info.owners {
        let clock = world.nodes[node].clock_on_disk(info.shard);
        let Some(&dot) = write.dots.iter().find(|&&dot| clock.contains(dot)) else {
            let holders = &write.holders;
            return Err(format!(
                "write {number} was acked, {holders:?} hold it, node {node} does not"
            ));
        };
        let object = world.nodes[node].object_on_disk(info.shard, &info.key);
        let live = object.versions().iter().any(|v| v.dots.iter().any(|d| write.dots.contains(d)));
        let here = |by| clock.contains(by);
        let by = world.ledger.replaced_by(write.key, Some(number), &write.dots, &here);
        let hlc = world.ledger.entry(dot).map(|entry| entry.record.head.hlc);
        let outranked = info.is_lww() && object.versions().iter().any(|v| Some(v.hlc) >= hlc);
        let buried = world.ledger.is_buried(&write.dots);
        if !(live || by.is_some() || outranked || buried) {
            return Err(format!("write {number} ({dot}) was acked and is gone on node {node}"));
        }
        // By a dot that this node has: of a dot that every disk lost nobody knows whose it was.
        let known = write.dots.iter().copied().filter(|&dot| clock.contains(dot)).collect();
        let by = world.ledger.replaced_by(write.key, Some(number), &known, &here);
        // A hidden version shows nothing and stays until its own end.
        let of_write = |v: &Version| v.dots.iter().any(|d| write.dots.contains(d));
        let shown = object.versions().iter().any(|v| !v.hidden && of_write(v));
        if let (true, Some(by), false) = (shown, by, info.is_lww()) {
            return Err(format!("write {number} ({dot}) is live on node {node}, replaced by {by}"));
        }
    }
    Ok(())
}
