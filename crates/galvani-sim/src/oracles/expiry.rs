//! A value that expires is shown until its end and not after it, by the clock of the node that answers,
//! and collected only after it.
//!
//! What every replica must agree on, the end itself, is compared with what the client asked for when
//! its record is first committed. That nothing it replaced comes back `buried.rs` asks.

use crate::packet::LaneAt;
use crate::world::World;
use galvani_model::version::{Kind, Version};
use galvani_wire::message::GetDone;
use std::collections::BTreeSet;

/// The longest that a read waits, in microseconds.
const READ_MICROS_MAX: u64 = 1_500_000;

/// Checks a read's answer as it leaves the owner that made it.
pub(crate) fn shown(world: &mut World, at: LaneAt, done: &GetDone) -> Result<(), String> {
    let node = at.node;
    let now_ms = world.said_ms;
    for sibling in &done.siblings {
        let Some(entry) = world.ledger.entry(sibling.dot) else { continue };
        let (head, shard) = (&entry.record.head, entry.shard);
        let its_lane = usize::from(shard.partition.0 % world.profile.lanes) == at.lane;
        let made_here =
            its_lane && world.layout.owners(shard).iter().any(|id| world.by_id[id] == node);
        // Else it is sent on for another lane, whose clock it was.
        if !made_here || !head.expires() {
            continue;
        }
        let over = now_ms >= head.expires_ms;
        // A replica that lost its disk is told by others that it was deleted or collected.
        let dots: BTreeSet<_> = match entry.write {
            Some(write) => world.history.writes[write].dots.clone(),
            None => BTreeSet::from([sibling.dot]),
        };
        let hidden = world.ledger.is_buried(&dots);
        let (dot, ends_ms) = (sibling.dot, head.expires_ms);
        match sibling.kind {
            Kind::Put if over => {
                return Err(format!("node {node} shows {dot} at {now_ms}, it ended at {ends_ms}"));
            }
            // Worked out before the clock was turned back, while the read waited for others.
            Kind::Delete if !over && was_over(world, node, head.expires_ms) => {
                world.coverage.add("expiry.turned_back", 1);
            }
            Kind::Delete if !over && !hidden => {
                return Err(format!("node {node} hides {dot} at {now_ms}, it ends at {ends_ms}"));
            }
            Kind::Put => world.coverage.add("expiry.shown", 1),
            Kind::Delete => world.coverage.add("expiry.over", 1),
            Kind::Emit => return Err(format!("node {node} shows events {dot} as a version")),
        }
    }
    Ok(())
}

/// Whether a value had ended by a node's clock as it was before it was last set, no longer ago than a
/// read may take.
fn was_over(world: &World, node: usize, ends_ms: u64) -> bool {
    let set = world.nodes[node].set_from;
    set.is_some_and(|(at, ahead_ms)| {
        let longest = READ_MICROS_MAX * world.slowest() + world.slow_micros();
        at + longest >= world.now && world.clock_if_set_ms(node, ahead_ms) >= ends_ms
    })
}

/// Checks that what a node collects is no value any more, and has not been for the margin.
pub(crate) fn over(world: &World, node: usize, version: &Version) -> Result<(), String> {
    // By the date of the tick that collects, which may have been set since, while its disk was slow.
    if version.kind == Kind::Put && !version.has_ended(before_margin(world, world.said_ms)) {
        let (dots, ends_ms) = (&version.dots, version.expires_ms);
        return Err(format!("node {node} collects {dots:?}, which ends at {ends_ms}"));
    }
    Ok(())
}

/// What has expired by then a node may collect, in milliseconds since 1970.
pub(crate) fn collectable_ms(world: &World, node: usize) -> u64 {
    before_margin(world, world.clock_ms(node))
}

fn before_margin(world: &World, now_ms: u64) -> u64 {
    now_ms.saturating_sub(u64::from(world.profile.limits.expiry_margin_ms))
}
