//! The exit codes, each with one meaning: scripts rely on them.
//!
//! The numbers never change. What failed decides the code in `report/client.rs`; the page that
//! people read is `galvani help exit-codes`, made from this table.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Something unexpected.
    Unexpected,
    /// The command line makes no sense.
    Usage,
    /// R replicas agree that the key has no value.
    NotFound,
    /// Several values, and nothing says which to take.
    Siblings,
    /// Refused, never stored.
    Refused,
    /// On some replicas, may spread.
    Unknown,
    /// A read that did not get its answers in time, or a wait that was in vain.
    TimedOut,
    /// No server reachable.
    NoServer,
    /// TLS, identity or permission.
    NotTrusted,
    /// A context is out of date: read again.
    OutOfDate,
    /// Ended by Ctrl-C or SIGTERM.
    Interrupted,
}

/// All of them, but the one of signals, in the order of their numbers.
pub(crate) const ALL: [Exit; 11] = [
    Exit::Done,
    Exit::Unexpected,
    Exit::Usage,
    Exit::NotFound,
    Exit::Siblings,
    Exit::Refused,
    Exit::Unknown,
    Exit::TimedOut,
    Exit::NoServer,
    Exit::NotTrusted,
    Exit::OutOfDate,
];

impl Exit {
    /// The number the process ends with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Unexpected => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Siblings => 4,
            Exit::Refused => 5,
            Exit::Unknown => 6,
            Exit::TimedOut => 7,
            Exit::NoServer => 8,
            Exit::NotTrusted => 9,
            Exit::OutOfDate => 10,
            Exit::Interrupted => 130,
        }
    }

    /// What it means, in one line.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Unexpected => "unexpected error",
            Exit::Usage => "usage: the command line makes no sense",
            Exit::NotFound => "key not found (r replicas agreed)",
            Exit::Siblings => "siblings, and nothing says which to take",
            Exit::Refused => {
                "refused, never stored: too large, r or w above n, overloaded, owners down"
            }
            Exit::Unknown => {
                "unknown: on some replicas, may spread; repeating is safe unless blind"
            }
            Exit::TimedOut => {
                "in time, a read got no answers, what was waited for did not come, or a repair \
                 left damage"
            }
            Exit::NoServer => "no server reachable",
            Exit::NotTrusted => "TLS, identity or permission",
            Exit::Interrupted => "Ctrl-C",
            Exit::OutOfDate => "plan or context out of date: plan or read again",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_code_has_its_own_number() {
        let codes: Vec<u8> = ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, (0..=10).collect::<Vec<u8>>());
    }
}
