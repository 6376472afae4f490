//! Tombstones and expired values: collected only by proof, all of them in the end, and nothing they
//! replaced comes back.
//!
//! When an expired value may be shown, `expiry.rs` asks. Next to read: `expiry.rs`, `same.rs`.

use crate::oracles::expiry;
use crate::oracles::reads::Seen;
use crate::world::World;
use galvani_model::ids::Shard;
use galvani_model::version::{Kind, PartitionClock, Version};

/// An owner whose disk lost something this recently may have said before what it knew then, in
/// microseconds: longer than a round of clocks may take.
pub(crate) const WORD_STANDS_MICROS: u64 = 6_000_000;

/// How long after its time an expired value may stay: until the clock is looked at, and a round.
pub(crate) const NOTICED_MS: u64 = 13_000;

fn has_taken_in(clock: &PartitionClock, tombstone: &Version) -> bool {
    tombstone.dots.iter().all(|&dot| clock.contains(dot)) && clock.covers(&tombstone.past)
}

/// Checks that a tombstone may go now: every owner has taken in it and all that it replaced.
pub(crate) fn proven(world: &World, shard: Shard, tombstone: &Version) -> Result<(), String> {
    for id in world.layout.owners(shard) {
        let node = world.by_id[&id];
        let lost = world.nodes[node].lost_data_at;
        let stands = WORD_STANDS_MICROS * world.slowest();
        let forgot = lost.is_some_and(|at| world.now <= at + stands);
        if !forgot && !has_taken_in(&world.nodes[node].clock_on_disk(shard), tombstone) {
            let dots = &tombstone.dots;
            return Err(format!(
                "{shard}: {dots:?} is collected, and node {node} lacks some of it"
            ));
        }
    }
    Ok(())
}

/// Whether an owner of a key that lost data unawares does not know of a tombstone that was collected: it
/// may show what that replaced until it does.
pub(crate) fn is_unaware(world: &World, key: usize) -> bool {
    let info = &world.keys[key];
    info.owners.iter().any(|&node| {
        if world.nodes[node].lost_unnoticed_at.is_none() {
            return false;
        }
        let clock = world.nodes[node].clock_on_disk(info.shard);
        let mut dots = world.ledger.dots_of(key).iter();
        dots.any(|&dot| {
            let mut burials = world.ledger.burials_of(dot).iter().peekable();
            let lacks = burials.peek().is_some() && !clock.contains(dot);
            lacks || burials.any(|burial| !clock.contains(burial.tombstone))
        })
    })
}

/// Checks that a read shows nothing that was replaced by a tombstone collected before it began. An owner
/// that lost part of its data unawares may show it until it has it back, and a tombstone whose record
/// every disk has lost deletes nothing.
pub(crate) fn stays(world: &World, read: usize, seen: &Seen) -> Result<(), String> {
    let asked = &world.history.reads[read];
    let (owners, shard) = (&world.keys[asked.key].owners, world.keys[asked.key].shard);
    let lost = owners.iter().filter_map(|&node| world.nodes[node].lost_unnoticed_at).max();
    let unaware = asked.met_unaware || lost >= Some(asked.started);
    if unaware && !asked.last {
        return Ok(());
    }
    for &write in seen.writes.keys() {
        let known = &world.history.writes[write];
        let is_held =
            |dot| owners.iter().any(|&node| world.nodes[node].clock_on_disk(shard).contains(dot));
        // Of an expired value itself each clock has its own opinion: `expiry.rs` asks that.
        let own = |dot| known.dots.contains(&dot);
        let buried = world.ledger.burials(&known.dots).any(|burial| {
            burial.at < asked.started && is_held(burial.tombstone) && !own(burial.tombstone)
        });
        if known.kind == Kind::Put && buried {
            return Err(format!("read {read} shows write {write}, which was deleted for good"));
        }
    }
    Ok(())
}

/// Checks that no owner keeps a tombstone or an expired value of a key that every owner is done with.
pub(crate) fn all_gone(world: &World, key: usize) -> Result<(), String> {
    let info = &world.keys[key];
    if info.is_lww() {
        return Ok(());
    }
    let clocks: Vec<PartitionClock> =
        info.owners.iter().map(|&node| world.nodes[node].clock_on_disk(info.shard)).collect();
    for &node in &info.owners {
        let object = world.nodes[node].object_on_disk(info.shard, &info.key);
        let long_ago = expiry::collectable_ms(world, node).saturating_sub(NOTICED_MS);
        let done = |version: &&Version| {
            (version.kind == Kind::Delete || version.has_ended(long_ago))
                && clocks.iter().all(|clock| has_taken_in(clock, version))
        };
        if let Some(left) = object.versions().iter().find(done) {
            let (what, dots) = (left.kind, &left.dots);
            return Err(format!("node {node} keeps {what:?} {dots:?} of {}", info.key));
        }
    }
    Ok(())
}
