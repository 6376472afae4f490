//! At the instant of an ack at least W distinct nodes hold the write, as durably as promised: owners,
//! or stand-ins with a hint. A strict write counts no stand-ins, and PW is of owners alone.
//!
//! Asked when the coordinator lets the ack go, of the disks themselves. Owners whose disk or machine
//! failed since the write was first sent are subtracted, because their acks may have been honest.

use crate::history::KeyInfo;
use crate::world::World;
use galvani_model::placement::{Owners, Phase};
use galvani_model::request::WriteOptions;
use galvani_wire::message::PutDone;
use std::collections::BTreeSet;

/// Checks an ack that leaves its coordinator, and notes who holds the write.
pub(crate) fn check(world: &mut World, done: &PutDone) -> Result<(), String> {
    let Some(number) = world.ledger.entry(done.dot).and_then(|entry| entry.write) else {
        return Err(format!("{} is acked, yet no node committed it", done.dot));
    };
    world.note_stand_ins(world.keys[world.history.writes[number].key].shard, done);
    let write = &world.history.writes[number];
    let info = &world.keys[write.key];
    let options = write.options;
    let Needs { n, w, pw, dw } = needs(options, info);
    // If the layout changed meanwhile the coordinator may go by owners of before or of after.
    let everybody: Vec<usize> = (0..world.nodes.len()).collect();
    let nobody = Vec::new();
    let (counted, owners) = match world.owners_stood(write.epoch) {
        true => (&info.owners[..usize::from(n)], &info.owners),
        false => (&everybody[..], &nobody),
    };
    let after_a_change = !owners.is_empty() && world.layouts.have_changed();
    let since = write.calls.first().map_or(world.now, |&call| world.history.calls[call].started);
    let (mut holding, mut durable) = (BTreeSet::new(), BTreeSet::new());
    // A node that lost data since may have acked honestly before; what it holds now may have come
    // back by repair, which syncs nothing.
    let (mut excused, mut excused_sync) = (0, 0);
    for &node in counted {
        let clock = world.nodes[node].clock_on_disk(info.shard);
        let held = write.dots.iter().filter(|&&dot| clock.contains(dot));
        let held: BTreeSet<_> = held.copied().collect();
        let lost_data = u8::from(world.nodes[node].lost_data_at >= Some(since));
        if held.is_empty() {
            excused += lost_data;
            excused_sync += lost_data;
            continue;
        }
        holding.insert(node);
        let unsynced = &world.nodes[node].unsynced;
        if held.iter().any(|&dot| !unsynced.contains(&(info.shard, dot))) {
            durable.insert(node);
        } else {
            excused_sync += lost_data;
        }
    }
    // Of these alone: stand-ins are no owners.
    let (owners_held, owners_excused) = (holding.len() as u8, excused);
    let may_stand_in = |node: &usize| !options.strict && !owners.contains(node);
    for node in (0..world.nodes.len()).filter(may_stand_in) {
        let lost_data = u8::from(world.nodes[node].lost_data_at >= Some(since));
        let held = write.dots.iter().filter(|&&dot| world.nodes[node].holds_hint(info.shard, dot));
        let held: BTreeSet<_> = held.copied().collect();
        if held.is_empty() {
            excused += lost_data;
            excused_sync += lost_data;
            continue;
        }
        holding.insert(node);
        if held.iter().any(|&dot| !world.nodes[node].unsynced.contains(&(info.shard, dot))) {
            durable.insert(node);
        } else {
            excused_sync += lost_data;
        }
    }
    let all: Vec<usize> = (0..world.nodes.len())
        .filter(|&node| world.nodes[node].holds(info.shard, &write.dots))
        .collect();
    let owning: Vec<usize> = {
        let clock = |node: &usize| world.nodes[*node].clock_on_disk(info.shard);
        let owns = |node: &usize| write.dots.iter().any(|&dot| clock(node).contains(dot));
        all.iter().copied().filter(owns).collect()
    };
    let need_durable = if world.profile.always_fsync { w.max(dw) } else { dw };
    let what = format!("write {number} ({}) w={w} dw={dw} of n={n}", done.dot);
    let (held, synced) = (holding.len() as u8, durable.len() as u8);
    if world.history.writes[number].acked_at.is_none() {
        // Of those that a read may ask from now on.
        let (old, new) =
            world.layout.write_sets(world.keys[world.history.writes[number].key].shard);
        let phase = world.layout.transition().map(|change| change.phase);
        let new = new.filter(|_| phase == Some(Phase::Switching));
        let of =
            |set: &Owners| set.iter().filter(|id| owning.contains(&world.by_id[id])).count() as u8;
        let least = new.iter().map(of).fold(of(&old), u8::min);
        world.history.writes[number].held_by = least;
        world.history.writes[number].holders.extend(&all);
        world.history.writes[number].owned_by.extend(&owning);
        let first = (world.now, all.into_iter().collect());
        world.history.writes[number].first_ack.get_or_insert(first);
    }
    if owners_held + owners_excused < pw {
        return Err(format!("{what} pw={pw}: acked, held by too few owners among {holding:?}"));
    }
    if held + excused < w {
        return Err(format!("{what}: acked, held by {holding:?} only"));
    }
    if synced + excused_sync < need_durable {
        return Err(format!("{what}: acked, synced on {durable:?} only, held by {holding:?}"));
    }
    world.coverage.add("acks.after_a_change", u64::from(after_a_change));
    Ok(())
}

/// How many must hold a write: of how many, in all, owners, and durably.
struct Needs {
    n: u8,
    w: u8,
    pw: u8,
    dw: u8,
}

fn needs(options: WriteOptions, info: &KeyInfo) -> Needs {
    let n = options.n.unwrap_or(info.props.n);
    // A default above a narrowed n means all of it.
    let w = options
        .w
        .map_or_else(|| info.props.w.resolve(n).unwrap_or(n), |w| w.resolve(n).unwrap_or(0));
    let pw = options.pw.and_then(|pw| pw.resolve(n)).unwrap_or(0);
    let dw = options.dw.and_then(|dw| dw.resolve(n)).unwrap_or(0);
    Needs { n, w: w.max(pw), pw, dw }
}
