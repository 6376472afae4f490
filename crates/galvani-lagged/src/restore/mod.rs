//! Bringing keys back to what they were at a moment: what to do with each, as a value.
//!
//! Nothing here reads or writes a cluster. Whoever does so asks [`plan`] key by key, keeps the answers
//! and what came of them in a [`Report`], and can go on, or undo it all, from that file. What is
//! written is written after a read and under its context: it replaces exactly what was judged, and a
//! write that came in between stays beside it. Next to read: `plan.rs`, `report.rs`, `undo.rs`.

mod plan;
mod report;
mod undo;

pub use plan::{Job, Reason, Skipped, Step, WriteBack, plan, request_id};
pub use report::{Before, Entry, Line, Outcome, Report, ReportError, ReportWriter, SCHEMA};
pub use undo::undo;
