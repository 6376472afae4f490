//! Only records that no owner needs are trimmed: all have taken them in, none shows them, and of a
//! tombstone some record is left that replaces it.
//!
//! Asked of the disks when a tick that trimmed is committed. What follows for a replica that lost its
//! disk or came back from an old copy, the other oracles see. Next to read: `buried.rs`.

use crate::oracles::buried::WORD_STANDS_MICROS;
use crate::world::World;
use galvani_model::ids::Shard;
use galvani_model::version::{Dot, Kind};
use std::collections::BTreeSet;

/// Checks that a record may be gone from `node` now. An owner that lost its disk may have said before
/// what it knew then. A node that lost an object without a trace takes its values for replaced; it
/// gets their records again with them. One whose log lost a record without a trace takes it for trimmed,
/// and a replica that is filled from it believes that until their digests are compared.
pub(crate) fn needless(world: &World, node: usize, shard: Shard, dot: Dot) -> Result<(), String> {
    // Of one that was never committed the disks know nothing either.
    let Some(entry) = world.ledger.entry(dot) else { return Ok(()) };
    let key = &entry.record.head.key;
    for id in world.layout.owners(shard) {
        let owner = world.by_id[&id];
        let lost = world.nodes[owner].lost_data_at;
        if lost.is_some_and(|at| world.now <= at + WORD_STANDS_MICROS * world.slowest()) {
            continue;
        }
        if !world.nodes[owner].clock_on_disk(shard).contains(dot) {
            return Err(format!("{shard}: node {node} trimmed {dot}, and node {owner} lacks it"));
        }
        let shows = |kind| kind == Kind::Put || owner == node;
        if !shows(entry.record.head.kind)
            || world.planted
            || world.vanished.contains(&dot)
            || world.nodes[node].damaged.contains_key(&shard)
        {
            continue;
        }
        let is_live = |dots: &[Dot]| dots.contains(&dot);
        let object = world.nodes[owner].object_if_whole(shard, key);
        if object.is_some_and(|object| object.versions().iter().any(|v| is_live(&v.dots))) {
            return Err(format!("{shard}: node {node} trimmed {dot}, live on node {owner}"));
        }
    }
    last_word(world, node, shard, dot)
}

/// Checks that a tombstone was not the last that told of what it replaced: a replica that lacks it, or works
/// a row out from its log, would show that again.
fn last_word(world: &World, node: usize, shard: Shard, dot: Dot) -> Result<(), String> {
    let Some(entry) = world.ledger.entry(dot) else { return Ok(()) };
    let head = &entry.record.head;
    let Some(&key) = world.key_index.get(&head.key) else { return Ok(()) };
    let at = &world.nodes[node];
    let unsure = world.planted || at.damaged.contains_key(&shard);
    if head.kind != Kind::Delete || world.keys[key].is_lww() || unsure {
        return Ok(());
    }
    let logged = |by| at.has_record(shard, by);
    match world.ledger.replaced_by(key, entry.write, &BTreeSet::from([dot]), &logged) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{shard}: node {node} trimmed {dot}, and has no record of what replaced it"
        )),
    }
}
