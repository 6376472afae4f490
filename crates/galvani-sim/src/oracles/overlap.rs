//! Where the replicas a read asks must meet those that hold a write, it shows that write or what
//! replaced it.
//!
//! Holders are counted white-box: owners that held the write when it was first acked and have not
//! lost it since. With r + w > n and no lost disk that is the usual promise of overlap. An owner that has
//! lost it with its disk counts, too, if it can know that, and while one of them has kept the write:
//! it answers no read before it has it again.

use crate::ledger::covers_any;
use crate::oracles::reads::Seen;
use crate::world::World;

/// Checks an answered read.
pub(crate) fn check(world: &World, read: usize, seen: &Seen) -> Result<(), String> {
    let asked = &world.history.reads[read];
    let info = &world.keys[asked.key];
    let (n, r) = quorum(world, read);
    let (replicas, stood) = (&info.owners[..usize::from(n)], world.owners_stood(asked.epoch));
    for (number, write) in world.history.writes.iter().enumerate() {
        let before = write.acked_at.is_some_and(|acked| acked <= asked.started);
        if write.key != asked.key || !before {
            continue;
        }
        // A hint is not read from, also at a node that has become an owner since.
        let holds = |node: &&usize| write.holders.contains(node) && write.owned_by.contains(node);
        let holders = replicas.iter().filter(holds).count();
        let met = stood && holders + usize::from(r) > usize::from(n);
        let must_meet = met
            || match world.layouts.have_changed() {
                true => survives_changes(world, number, (n, r)),
                false => survives_losses(world, number, replicas, usize::from(r)),
            };
        if !must_meet {
            continue;
        }
        let covered = covers_any(&seen.context, &write.dots);
        let hlc = write.dots.first().and_then(|&dot| world.ledger.entry(dot));
        let outranked =
            info.is_lww() && hlc.is_some_and(|entry| seen.hlc_max >= entry.record.head.hlc);
        // Deleted, and nothing is left to show: what a read shows of it `buried.rs` asks.
        let buried = world.ledger.is_buried(&write.dots);
        if !covered && !outranked && !buried {
            return Err(format!(
                "read {read} (r={r} of {n}) missed write {number}, held by {:?}",
                write.holders
            ));
        }
    }
    Ok(())
}

/// Whether a read of r of these owners must meet a write over the disks that were lost since it was acked.
fn survives_losses(world: &World, number: usize, replicas: &[usize], r: usize) -> bool {
    let write = &world.history.writes[number];
    let Some((at, held_by)) = &write.first_ack else { return false };
    let owners = &world.keys[write.key].owners;
    let ackers = || owners.iter().filter(|node| held_by.contains(node));
    let kept = ackers().any(|node| write.holders.contains(node));
    let knows = |node: &usize| world.nodes[*node].lost_unnoticed_at.is_none_or(|lost| lost < *at);
    let asked = ackers().filter(|node| replicas.contains(node)).count();
    let majority = 2 * ackers().count() > owners.len();
    kept && majority && ackers().all(knows) && asked + r > replicas.len()
}

/// Whether a write that a majority of owners held when it was acked must be met by a read that asks a
/// majority, whatever became of the owners: as long as no disk lost anything since it was first sent.
fn survives_changes(world: &World, number: usize, (n, r): (u8, u8)) -> bool {
    let write = &world.history.writes[number];
    let props = &world.keys[write.key].props;
    let whole = n == props.n && write.options.n.is_none_or(|n| n == props.n);
    let since = write.calls.first().map_or(world.now, |&call| world.history.calls[call].started);
    let lost = world.nodes.iter().any(|node| node.lost_data_at >= Some(since));
    whole && !lost && 2 * r > n && 2 * write.held_by > n
}

/// How many replicas a read asked, and how many had to answer.
pub(crate) fn quorum(world: &World, read: usize) -> (u8, u8) {
    let asked = &world.history.reads[read];
    let props = &world.keys[asked.key].props;
    let n = asked.options.n.unwrap_or(props.n);
    let default = props.r.resolve(n).unwrap_or(n);
    (n, asked.options.r.and_then(|r| r.resolve(n)).unwrap_or(default))
}
