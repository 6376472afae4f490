//! One lane by hand: requests, and what stands in for owners that are away.
//!
//! Pins down single steps that whole clusters in the simulator pass too quickly to be looked at.

mod bench;
mod collect;
mod durable;
mod expiry;
mod feed;
mod handoff;
mod handoff_disk;
mod layout;
mod liveness;
mod no_writes_on_read;
mod overload;
mod read_repair;
mod refill;
mod requests;
mod retried;
mod stand_ins;
mod steward;
mod unsaid;
mod unwanted;
mod votes;
