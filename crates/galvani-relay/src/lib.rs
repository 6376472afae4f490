//! Delivers outgoing events to where others can use them: files, commands, webhooks, Redis, NATS.
//!
//! At least once, in the order of each key, and with an id by which the target knows a duplicate. It knows
//! nothing of Galvani's feed: whoever reads that makes [`Outgoing`]s, gives them to [`Relay::deliver`]
//! in batches, and moves its cursor on when a batch is through. What each target promises is in
//! `docs/recipes/sinks.md`. Next to read: `courier.rs`, then the target of interest in `sink/`.

mod breaker;
mod courier;
mod error;
mod figures;
mod lanes;
mod outgoing;
mod relay;
mod settings;
mod sink;
mod target;

pub use courier::Delivered;
pub use error::{OpenError, Reason, RelayError};
pub use figures::{Figures, FiguresHandle};
pub use outgoing::Outgoing;
pub use relay::Relay;
pub use settings::{Retry, Secret, Settings};
pub use target::{Target, TargetError};
