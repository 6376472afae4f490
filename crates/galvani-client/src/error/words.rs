//! Words of which the texts of errors are made.
//!
//! They say nothing about what went wrong and decide nothing. Next to read: `error.rs`, their only
//! reader. How long something took is in words in `galvani_model::span`.

use galvani_wire::failure::QuorumKind;
use galvani_wire::layout::Unfit;
use std::fmt;

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
