//! Every request is answered before its deadline and the way back are over, unless its node was
//! disturbed or the way there is not reliable.

use crate::client::SLACK_MICROS;
use crate::world::World;

/// Checks a call whose client has run out of patience.
pub(crate) fn check(world: &World, call: usize) -> Result<(), String> {
    let asked = &world.history.calls[call];
    let node = &world.nodes[asked.node];
    let undisturbed = node.is_awake() && node.disturbed_at < asked.started;
    if undisturbed && node.life != crate::node::Life::Stopping {
        let waited = (world.now - asked.started) / 1000;
        let slack = SLACK_MICROS / 1000;
        return Err(format!(
            "call {call} to node {} got no answer in {waited} ms ({slack} ms beyond its time)",
            asked.node
        ));
    }
    Ok(())
}
