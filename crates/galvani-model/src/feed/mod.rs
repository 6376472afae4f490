//! Values of the change feed: how far a consumer is, and what it wants to see.
//!
//! A position names who minted a write, never a place in some replica's log: so it outlives nodes,
//! restarts and moves of partitions. Nothing here reads a log. Next to read: `cursor.rs`, `token.rs`;
//! then `galvani-protocol/src/feed/`, which fills positions. Source: algorithms 4.

mod cursor;
mod filter;
mod token;

pub use cursor::Cursor;
pub use filter::{Filter, Shows, Visibility};
pub use token::{FeedToken, TokenError};
