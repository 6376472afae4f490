//! Who stood still accuses nobody: time in which a node could hear nothing is no evidence against others.
//!
//! Asked when a node that has just gone on says that another is down: by what is known to the world the
//! other was there and could be reached, long before and ever since. Only where the network loses and
//! delays nothing by itself. Source: `membership/swim.rs` of the protocol, `forgive_stillness`.

use crate::profile::Clocks;
use crate::world::World;

/// How soon after it went on: too soon for a suspicion that was raised since, in microseconds.
const SOON_MICROS: u64 = 500_000;
/// How long before it stood still all was well: longer than any suspicion lives, in microseconds.
const WELL_MICROS: u64 = 2_000_000;

/// Checks what `node` says of `other`.
pub(crate) fn check(world: &World, node: usize, other: usize) -> Result<(), String> {
    let Some((since, until)) = world.nodes[node].stood_still else { return Ok(()) };
    let profile = &world.profile;
    let steady = profile.loss == 0 && profile.slow == 0 && profile.slow_peers.is_none();
    let clocks = profile.clocks.is_none_or(|Clocks { speeds, .. }| !speeds);
    let wait = world.now.saturating_sub(until);
    if world.calm || wait > SOON_MICROS || !steady || !clocks || profile.slow_disks.is_some() {
        return Ok(());
    }
    let Some(peer) = world.nodes.get(other) else { return Ok(()) };
    let long_before = |at: u64| at + WELL_MICROS < since;
    let cut = world.net.has_cuts() || !long_before(world.healed_at);
    if !cut && peer.is_awake() && peer.boot > 0 && long_before(peer.disturbed_at) {
        let (stood, wait) = ((until - since) / 1_000, wait / 1_000);
        return Err(format!(
            "node {node} stood still for {stood} ms and says {wait} ms later that node {other} is down"
        ));
    }
    Ok(())
}
