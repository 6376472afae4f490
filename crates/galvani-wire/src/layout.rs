//! Messages by which a cluster decides on its layout and goes from one to the next.
//!
//! One decision an epoch, made by a majority of the members of the layout before it; then everybody is
//! told. Next to read: `galvani-protocol/src/layout/`; `galvani-model/src/placement/state.rs`.
//! Source: Rystsov 2018 (CASPaxos); Lamport 2001 (Paxos made simple).

use crate::codec::DecodeError;
use bytes::Bytes;
use galvani_model::ids::NodeId;
use galvani_model::placement::{Layout, LayoutState, Pace};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What an administrator asks of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeLayout {
    /// What is wanted.
    pub wish: Wish,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
}

/// What is wanted of the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// Change to a layout. Asking again for one that is on its way, or there, is no error.
    Begin {
        /// The layout.
        next: Arc<Layout>,
        /// The epoch that whoever asks saw: another one, and nothing is done. So a wish that comes
        /// late does not begin again what was given up since.
        after: u64,
        /// How fast new owners are to copy.
        pace: Pace,
    },
    /// Give a change up.
    Abort {
        /// The epoch that it began with: a wish that comes late ends no other change.
        begun: u64,
    },
    /// Let new owners copy at another pace.
    Pace {
        /// The epoch that the change began with.
        begun: u64,
        /// The pace.
        pace: Pace,
    },
}

/// The number of a proposal: whoever has the larger one goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with every try.
    pub round: u64,
    /// Who proposes.
    pub node: NodeId,
}

impl Default for Ballot {
    /// Smaller than any that is proposed.
    fn default() -> Ballot {
        Ballot { round: 0, node: NodeId(0) }
    }
}

/// Asks a member to promise that it accepts nothing with a smaller ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The epoch to be decided on.
    pub epoch: u64,
    /// The proposal's number.
    pub ballot: Ballot,
}

/// Asks a member to accept a state as that of its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The proposal's number.
    pub ballot: Ballot,
    /// What is proposed.
    pub state: LayoutState,
}

/// A member's answer to a [`Prepare`] or an [`Accept`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    /// It will accept nothing smaller than this ballot.
    Promised {
        /// The ballot.
        ballot: Ballot,
        /// What it has accepted for that epoch.
        accepted: Option<(Ballot, Box<LayoutState>)>,
    },
    /// It has accepted what came with this ballot, durably.
    Accepted {
        /// The ballot.
        ballot: Ballot,
    },
    /// What it keeps of that epoch, and it has every vote it ever gave: it was asked for nothing else.
    Kept(Box<Promise>),
    /// It has promised itself to a larger ballot.
    Outbid(Ballot),
    /// That epoch is decided on: here it is, or a later one.
    Decided(Box<LayoutState>),
    /// It does not know the epoch before, or the state cannot follow it.
    Behind {
        /// The epoch it knows.
        epoch: u64,
    },
    /// What it keeps of that epoch; its disk may lack votes that it gave.
    Forgot(Box<Promise>),
}

/// What a voter keeps on its disk: all it has said of the epoch that comes next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The epoch.
    pub epoch: u64,
    /// It accepts nothing smaller.
    pub promised: Ballot,
    /// What it has accepted last.
    pub accepted: Option<(Ballot, LayoutState)>,
}

impl Promise {
    /// As it is kept.
    pub fn to_bytes(&self) -> Bytes {
        rmp_serde::to_vec(self).expect("our own types always encode").into()
    }

    /// From what was kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Promise, DecodeError> {
        let read = rmp_serde::from_slice(bytes);
        read.map_err(|error| DecodeError::Header { why: error.to_string() })
    }
}

/// Asks a lane of a node that is no member whether it may become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskJoiner {
    /// The epoch that whoever asks goes by.
    pub epoch: u64,
}

/// What a lane of a node that is no member has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinerIs {
    /// The epoch it goes by.
    pub epoch: u64,
    /// Shards that it holds and does not own: from days when its node was a member.
    pub held: u32,
}

/// Why a node cannot become a member now. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unfit {
    /// A lane of it cannot be reached from the member that was asked: it does not run, not at that
    /// address, or its certificate is of another cluster.
    Unreachable,
    /// A lane of it does not answer.
    Silent,
    /// It holds data from days when it was a member, which it has yet to hand over.
    Holds {
        /// Shards that one of its lanes holds.
        shards: u32,
    },
    /// It cannot read what it holds.
    Unreadable,
}

/// Asks a lane how far it is in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskProgress {
    /// The epoch.
    pub epoch: u64,
}

/// How far a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The epoch it goes by: it refuses what is older.
    pub epoch: u64,
    /// Shards of which it has yet to catch up with their old owners.
    pub left: u32,
    /// A mark of the buckets it knows: equal for equal ones.
    pub buckets: u32,
}
