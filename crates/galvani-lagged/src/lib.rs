//! A replica that follows a cluster at a chosen delay, and shows any moment of its window.
//!
//! [`Lagged`] is a value over two engines: the **journal** holds every write that came and waits, the
//! **base** holds what was applied. It is in no layout and no quorum, sends nothing, reads no clock, and
//! talks to nobody: whoever drives it hands in what the change feed brought, and carries out what a
//! [`restore`] plans. Read `replica.rs`, then `journal.rs`, `as_of.rs`, `compare.rs`, `restore/`. Source:
//! algorithms 5.2; how to use it: `docs/recipes/lagged.md`.

pub mod as_of;
pub mod compare;
pub mod config;
pub mod control;
pub mod dir;
mod error;
mod growth;
mod journal;
mod keys;
mod replica;
pub mod restore;
pub mod select;
mod state;
mod status;
mod steer;
mod text;
mod verify;

pub use as_of::{AsOf, Found, Moment, Page, Place};
pub use config::LaggedConfig;
pub use dir::OpenError;
pub use error::LaggedError;
pub use galvani_protocol::Now;
pub use replica::{Arrivals, Lagged, Stepped, Stored};
pub use select::{Selection, Selector};
pub use state::Hole;
pub use status::Status;
pub use steer::{Change, Foreseen, Until};
pub use text::{Blob, Utc};
pub use verify::{Files, Verified};
