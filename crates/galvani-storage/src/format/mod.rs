//! Bytes on disk: the keys and rows of every table, versioned and checksummed.
//!
//! The only place that knows them (with `galvani-wire` for the network). `docs/formats.md` draws
//! each one. A row that does not check out gives a [`RowError`], never a panic, never a guess.
//! Next to read: `keys.rs`, `rows.rs`.

pub mod keys;
pub mod rows;

pub use rows::RowError;
