//! A whole cluster in one thread, from one seed.
//!
//! Real lanes (`galvani-protocol`) over the real store (`galvani-storage`) on a disk in memory, in a
//! world with virtual time, a faulty network, faulty machines and clients that remember. Oracles look
//! on, white-box, at every step. Nothing here has a clock, a thread or randomness of its own: the
//! seed decides everything. Read `profile.rs`, `world.rs`, `drive.rs`, then `oracles/`.

mod amnesia;
mod client;
mod clocks;
mod consumer;
mod damage;
mod disk;
mod drive;
mod faults;
mod hear;
mod history;
mod lag;
mod layouts;
mod ledger;
mod mutant;
mod net;
mod node;
mod noted;
mod oracles;
mod packet;
mod profile;
mod promised;
mod queue;
mod quiet;
mod report;
mod rng;
mod run;
mod script;
mod slow;
mod store;
mod storm;
mod tamper;
mod trace;
mod unguarded;
mod world;

pub use mutant::{Mutant, UnknownMutant};
pub use profile::{Bucket, Clocks, Faults, Profile, Regime, SlowDisks, SlowPeers, Storm};
pub use report::{Coverage, Outcome, Violation};
pub use rng::Rng;
pub use run::{RunOptions, run_seed};
pub use script::Script;
