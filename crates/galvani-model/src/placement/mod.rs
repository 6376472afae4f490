//! Who owns a key: layout table, preference lists, and how the table is computed.
//!
//! Q equal partitions for the cluster's life; a [`Layout`] is an explicit table partition ->
//! ordered owners, computed once (`targets.rs`, `assign.rs`, `order.rs`), stored, and named by
//! its content. Fallbacks are derived from it (`preference.rs`). Nothing here moves data or knows
//! who is alive. Read `layout.rs` first, then `assign.rs`.

mod assign;
mod layout;
mod member;
mod order;
mod preference;
mod record;
mod spread;
mod targets;

#[cfg(test)]
mod tests;

pub use layout::Layout;
pub use member::{Member, MemberError, WEIGHT_MAX, WEIGHT_NORMAL};
pub use record::{LayoutError, LayoutRecord};
