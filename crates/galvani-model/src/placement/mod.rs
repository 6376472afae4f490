//! Who owns a key: layout table, preference lists, and how the table is computed.
//!
//! Q equal partitions for the cluster's life; a [`Layout`] is an explicit table partition ->
//! ordered owners, computed once (`targets.rs`, `assign.rs`, `order.rs`), stored, and named by
//! its content. The layout after it keeps all owners it can (`next.rs`). Fallbacks are derived from
//! the table (`preference.rs`). Nothing here moves data or knows who is alive. Read `layout.rs`
//! first, then `assign.rs`.

mod assign;
mod change;
mod fewest;
mod keep;
mod layout;
mod member;
mod next;
mod order;
mod plan;
mod preference;
mod record;
mod seat;
mod spread;
mod state;
mod targets;

#[cfg(test)]
mod tests;

pub use change::{Change, PlanError};
pub use layout::Layout;
pub use member::{Member, MemberError, WEIGHT_MAX, WEIGHT_NORMAL};
pub use plan::{Moves, NodeMoves, PartitionMoves, ZoneForce};
pub use record::{LayoutError, LayoutRecord};
pub use state::{Incoming, LayoutState, Owners, Pace, Phase, StateError, Transition};
