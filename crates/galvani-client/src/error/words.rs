//! Words of which the texts of errors are made.
//!
//! They say nothing about what went wrong and decide nothing. Next to read: `error.rs`, their only
//! reader but for [`Span`], which is shown elsewhere, too.

use galvani_wire::failure::QuorumKind;
use galvani_wire::layout::Unfit;
use std::fmt;
use std::time::Duration;

pub(super) fn unfit(why: Unfit) -> String {
    match why {
        Unfit::Unreachable => "it cannot be reached".to_owned(),
        Unfit::Silent => "it does not answer".to_owned(),
        Unfit::Holds { shards } => {
            format!("it holds {shards} shards from days when it was a member")
        }
        Unfit::Unreadable => "it cannot read what it holds".to_owned(),
    }
}

pub(super) fn verb(what: &QuorumKind) -> &'static str {
    match what {
        QuorumKind::R | QuorumKind::Pr => "answered",
        QuorumKind::W | QuorumKind::Pw | QuorumKind::Dw => "acked",
    }
}

/// A duration as people read it: `0.6 ms`, `40 ms`, `2.0 s`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1e3;
        match ms {
            ms if ms >= 950.0 => write!(f, "{:.1} s", ms / 1e3),
            ms if ms >= 10.0 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{ms:.1} ms"),
        }
    }
}

/// `: detail`, or nothing.
pub(super) struct Tail<'a>(pub(super) &'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}
