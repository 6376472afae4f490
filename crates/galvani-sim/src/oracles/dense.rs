//! INV-3: a vnode's own counters are dense, 1 to its counter, and all in its clock.

use crate::node::Node;
use galvani_model::ids::Shard;

/// Checks one shard of a node that has just minted; says what is wrong.
pub(crate) fn check(node: &Node, shard: Shard) -> Option<String> {
    let state = node.state_on_disk(shard);
    let own = state.own?;
    let dense = state.clock.contiguous_after(own.origin, 0);
    let highest = state.clock.max_counter(own.origin);
    (dense != own.counter || highest != own.counter)
        .then(|| format!("{shard}: minted {}, dense up to {dense}, highest {highest}", own.counter))
}
