//! Async client for Galvani, a leaderless replicated key-value store.
//!
//! ```no_run
//! use galvani_client::{Applied, Client, Merge, Quorum, Result};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let seed = "galvani://127.0.0.1:7070"; // one is enough
//! let db = Client::builder().seed(seed).identity_dir("me").connect().await?;
//!
//! db.put("greeting", "hello").blind().w(2).send().await?; // first write of the key
//! let read = db.get("greeting").r(Quorum::Majority).await?; // nothing is sent before .await
//! assert_eq!(read.one()?.as_deref(), Some(&b"hello"[..])); // or read.siblings
//! db.put("greeting", "hi").after(&read).send().await?; // replaces what was read
//! db.update("seen", |all| match all.len() { // read, merge, write
//!     0 => Merge::Put("yes".into()),
//!     _ => Merge::Keep,
//! }).await?;
//! match db.delete("greeting").after(&read).w(3).strict().send().await {
//!     Ok(done) => println!("{} acks, {} values left", done.acks, done.siblings_now),
//!     Err(e) if e.applied() == Applied::No => println!("never stored: {e}"),
//!     Err(e) => println!("may be stored, {:?}: {e}", e.applied()),
//! }
//! # Ok(()) }
//! ```
//!
//! One deadline covers a whole call, retries included, and travels to the servers. A retry carries
//! the same request id, so it never makes a second sibling; retries are limited to a tenth of the
//! calls. Requests go straight to a lane that owns the key. Every error says need and got, who
//! answered what, and whether a failed write can still appear ([`Error::applied`]).
//!
//! Every future here may be dropped at any time. A write that is dropped may or may not be stored.
//!
//! Read `client.rs` first, then `call.rs` (one call) and `net.rs` (links).

#![deny(missing_docs)]

mod admin;
mod answer;
mod bucket;
mod builder;
mod call;
mod client;
mod context;
mod deadline;
mod directory;
mod error;
mod failure;
mod feed;
mod get;
mod group;
mod health;
mod hedge;
mod layout;
mod list;
mod net;
mod put;
mod race;
mod repair;
mod request;
mod retry;
mod seeds;
mod stamp;
mod update;
mod view;

pub use admin::{Explanation, HolderState, NodeReport, ReplicaState};
pub use answer::{Read, ReplicaAnswer, Sibling, Written};
pub use bucket::Bucket;
pub use builder::Builder;
pub use client::Client;
pub use context::Context;
pub use error::{Applied, Attempt, Error, ErrorKind, Result, Trace};
pub use feed::{
    Change, Checkpoint, Emitted, Event, EventId, Feed, FeedBuilder, Gap, Old, OnGap, Op,
    ShownRecord, Source, Start,
};
pub use get::Get;
pub use group::{
    DeadLetter, Delivery, GroupBuilder, GroupMember, GroupShard, GroupStatus, LetterChoice,
    Member as GroupConsumer, OnPoison,
};
pub use hedge::Hedges;
pub use list::{List, ListedKey, Page};
pub use put::{ContextNotChosen, MaySend, Put, Ready};
pub use update::{Merge, Update};
pub use view::{Resolver, Value, View};

pub use bytes::Bytes;
pub use galvani_model::bucket::{
    BucketName, BucketNameError, BucketProps, ConflictPolicy, FeedMode,
};
pub use galvani_model::feed::{Cursor, FeedToken, Filter, Shows, TokenError, Visibility};
pub use galvani_model::hlc::Hlc;
pub use galvani_model::ids::{NodeId, Partition, RequestId, Shard};
pub use galvani_model::key::KeyError;
pub use galvani_model::placement::{Layout, LayoutState, Member, Pace, Phase, Transition};
pub use galvani_model::request::Quorum;
pub use galvani_model::store::{Damage, HintFigures};
pub use galvani_model::topic::{Topic, TopicError};
pub use galvani_model::version::{Dot, DotSet, Version};
pub use galvani_transport::pki::Identity;
pub use galvani_wire::failure::QuorumKind;
pub use galvani_wire::layout::Unfit;
pub use galvani_wire::repair::RepairState;
pub use galvani_wire::view::{
    Copying, Counters, LayoutChange, LinkDelay, LinkFaults, Refilling, UnequalShard,
};
pub use galvani_wire::{ClusterView, NodeStatus, Outcome, ReplicaError};

/// A future on the heap that may move between threads: what awaiting a request makes.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
