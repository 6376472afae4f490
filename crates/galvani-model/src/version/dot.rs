//! A dot: the name of one write, for ever.

use crate::ids::Origin;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The `counter`-th write (1, 2, 3, ... without holes) minted by one vnode incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who minted it.
    pub origin: Origin,
    /// Which of its writes, from 1.
    pub counter: u64,
}

impl Dot {
    /// The dot `(origin, counter)`.
    pub const fn new(origin: Origin, counter: u64) -> Dot {
        Dot { origin, counter }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.origin.short(), self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
