//! The change feed, as a consumer follows it.
//!
//! `follower.rs` keeps sessions with the owners that serve the shards and opens them again elsewhere
//! when one is lost; `event.rs` is what a consumer is shown; `stream.rs` makes a stream of it, and
//! knows the position after each event. Nothing here stores a position: the consumer does.

mod event;
mod follower;
mod session;
mod stream;

pub(crate) use event::events_of;
pub use event::{Change, Checkpoint, Emitted, Event, EventId, Gap, Old, Op, ShownRecord, Source};
pub(crate) use follower::{Control, Follower, Page, Part, Word};
pub use stream::{Feed, FeedBuilder, OnGap, Start};
