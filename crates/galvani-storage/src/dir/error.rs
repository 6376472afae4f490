//! Why a data directory cannot be used.
//!
//! Each variant says what happened to the directory, and what its owner does next. Nothing here
//! touches a file. Next to read: `mod.rs`.

use std::io;

use super::DirIdentity;

/// What was being done when the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirStep {
    /// Making the directory and its identity.
    Create,
    /// Taking the lock.
    Lock,
    /// Reading identity and marks.
    Read,
    /// Writing or removing the clean-stop mark.
    Mark,
}

/// Why a data directory cannot be used. Nothing was changed, except where [`DirError::Io`] says
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirError {
    /// There is no data directory here: create one or give another path.
    #[error("no data directory here")]
    Empty,
    /// There is a data directory here already: open it or give another path.
    #[error("a data directory is here already")]
    Exists,
    /// Another process uses it: stop that one first.
    #[error("in use by process {}", pid.map_or("unknown".into(), |pid| pid.to_string()))]
    Locked {
        /// The process that wrote its number into the lock file, if it did.
        pid: Option<u32>,
    },
    /// A newer release wrote it: run that release.
    #[error("data format {found} is newer than {supported}, the newest this release reads")]
    NewerFormat {
        /// The directory's format.
        found: u32,
        /// The newest format this release reads.
        supported: u32,
    },
    /// An earlier release wrote it in a format that this one does not read: run that release, export
    /// what is wanted, and let the node start with an empty directory.
    #[error(
        "data format {found} is older than {supported}, the only one this release reads: export \
         with the release that wrote it, and start with an empty directory"
    )]
    OlderFormat {
        /// The directory's format.
        found: u32,
        /// The format this release reads.
        supported: u32,
    },
    /// It is another node's or another cluster's: give the right path or the right ids.
    #[error(
        "belongs to node {} of cluster {}, not to node {} of cluster {}",
        found.node, found.cluster, expected.node, expected.cluster
    )]
    Belongs {
        /// Whose it is.
        found: DirIdentity,
        /// Whose it should be.
        expected: DirIdentity,
    },
    /// The identity file is torn or altered. The data beside it may be whole, but whose it is is
    /// not known: let the node join anew with an empty directory.
    #[error("the identity file is damaged: {what}")]
    Damaged {
        /// What is wrong with it, for people.
        what: String,
    },
    /// The operating system refused. A failed `Create` may leave an unfinished directory, which
    /// can be created again; a failed `Mark` leaves the next start unclean.
    #[error("data directory failed at {step:?}: {kind}")]
    Io {
        /// What was being done.
        step: DirStep,
        /// The class of the failure.
        kind: io::ErrorKind,
        /// The system's error number, where there was one.
        os_code: Option<i32>,
    },
}

impl DirError {
    pub(super) fn io(step: DirStep, source: &io::Error) -> DirError {
        DirError::Io { step, kind: source.kind(), os_code: source.raw_os_error() }
    }
}
