//! Versions: dots, exact dot sets, partition clocks, records, objects, contexts, digests.
//!
//! One write is one dot. What a write replaces is its `past`, an exact [`DotSet`]. What a replica
//! has taken in is its [`PartitionClock`]. An [`Object`] is the set of versions of one key that
//! nothing known replaces. The laws are stated on the types and held by `tests/` of this crate.
//! Read in this order: `dot.rs`, `dotset.rs`, `clock.rs`, `record.rs`, `object.rs`, `join.rs`,
//! `context.rs`, `digest.rs`. Sources: Preguica et al. 2010 (dotted version vectors),
//! Goncalves et al. 2017 (node-wide clocks).

mod clock;
mod context;
mod digest;
mod dot;
mod dotset;
mod join;
mod object;
mod record;

pub use clock::{PartitionClock, Range};
pub use context::{Context, ContextError, ContextKey};
pub use digest::{Digest, object_digest};
pub use dot::Dot;
pub use dotset::{DotSet, DotSetError};
pub use join::ReadJoin;
pub use object::{Applied, Object, Version};
pub use record::{Emit, Kind, Record, RecordHead, emits_fit, emitted_bytes, value_hash};
