//! A blocking read is answered only once r replicas hold what it shows; so where two reads must meet,
//! the later one shows that, or what replaced it.
//!
//! Asked of the disks when the answer is heard. Owners that lost data since the read began are
//! subtracted; those that lose it afterwards are taken off the confirmed read.

use crate::history::Confirmed;
use crate::ledger::covers_any;
use crate::oracles::overlap;
use crate::oracles::reads::Seen;
use crate::world::World;
use std::collections::BTreeSet;

/// Checks an answered read against earlier confirmed ones, and notes it if it is one.
pub(crate) fn check(world: &mut World, read: usize, seen: &Seen) -> Result<(), String> {
    let asked = &world.history.reads[read];
    // Which replicas were asked is known of owners that stood.
    if !world.owners_stood(asked.epoch) {
        return Ok(());
    }
    let (key, started) = (asked.key, asked.started);
    let (n, r) = overlap::quorum(world, read);
    let info = &world.keys[key];
    let replicas = &info.owners[..usize::from(n)];
    for earlier in world.history.confirmed.iter().filter(|earlier| earlier.key == key) {
        let holders = replicas.iter().filter(|node| earlier.holders.contains(node)).count();
        let must_meet = holders + usize::from(r) > usize::from(n);
        if earlier.at > started || !must_meet || info.is_lww() {
            continue;
        }
        let covered = |write: &&usize| {
            let dots = &world.history.writes[**write].dots;
            covers_any(&seen.context, dots) || world.ledger.is_buried(dots)
        };
        if let Some(write) = earlier.writes.iter().find(|write| !covered(write)) {
            return Err(format!(
                "read {read} (r={r} of {n}) misses write {write}, which read {} confirmed on {:?}",
                earlier.read, earlier.holders
            ));
        }
    }
    if !asked.options.blocking_repair {
        return Ok(());
    }
    let dots: Vec<_> = seen.writes.values().copied().collect();
    let holds = |node: &&usize| world.nodes[**node].shows(info.shard, &info.key, &dots);
    let holders: BTreeSet<usize> = replicas.iter().filter(holds).copied().collect();
    let lost = |node: &&usize| {
        !holders.contains(node) && world.nodes[**node].lost_data_at >= Some(started)
    };
    let excused = replicas.iter().filter(lost).count();
    if holders.len() + excused < usize::from(r) {
        return Err(format!("blocking read {read} (r={r} of {n}) shows what {holders:?} hold"));
    }
    world.coverage.add("reads.confirmed", 1);
    let changed = world.layouts.have_changed();
    world.coverage.add("reads.confirmed_after_a_change", u64::from(changed));
    let writes = seen.writes.keys().copied().collect();
    world.history.confirmed.push(Confirmed { read, key, writes, dots, holders, at: world.now });
    Ok(())
}
