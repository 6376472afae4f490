//! Messages between clients and nodes, and between nodes; and their bytes.
//!
//! A message is a small header (MessagePack, fields in order) and a body: value bytes carried raw
//! behind it, never copied through the codec. Everything that arrives is bounded before it is
//! allocated and checked before it is used. No sockets here: `galvani-transport` moves the frames.
//! The table of messages is `docs/protocol.md`. Read `message.rs`, then `codec.rs`.

pub mod codec;
pub mod failure;
pub mod feed;
pub mod layout;
pub mod message;
pub mod repair;
pub mod twin;
pub mod upkeep;
pub mod view;

pub use codec::{DecodeError, Frame, HEADER_BYTES_MAX, HeaderTooLong, encode, value_bytes};
pub use failure::{Answer, AppliedOutcome, Failure, Outcome, ReplicaError};
pub use message::Message;
pub use view::{ClusterView, NodeStatus};
