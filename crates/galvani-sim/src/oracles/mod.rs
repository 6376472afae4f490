//! The oracles: what must hold, each in a file of its own, asked at the instant it can break.
//!
//! A check looks and says what is wrong; it changes nothing. What the seed itself destroyed (disks
//! wiped, put back or cut short) is subtracted by what is really gone, never by rule of thumb.

pub(crate) mod ack;
pub(crate) mod alive;
pub(crate) mod answered;
pub(crate) mod bounded;
pub(crate) mod buried;
pub(crate) mod claims;
pub(crate) mod denied;
pub(crate) mod dense;
pub(crate) mod digest;
pub(crate) mod expiry;
pub(crate) mod feed;
pub(crate) mod handed;
pub(crate) mod hinted;
pub(crate) mod kept;
pub(crate) mod list;
pub(crate) mod monotone;
pub(crate) mod overlap;
pub(crate) mod reads;
pub(crate) mod same;
pub(crate) mod spins;
pub(crate) mod still;
pub(crate) mod trimmed;
pub(crate) mod vanish;
