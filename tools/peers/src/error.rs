//! Why a load did not run, or an operation failed.

use std::io;

/// Why a load did not run, or an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// A socket or a file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// HTTP/2.
    #[error("http/2: {0}")]
    Http2(#[from] h2::Error),
    /// The server answered, and not with what was asked for.
    #[error("the server answered: {0}")]
    Refused(String),
    /// Bytes that are not the protocol.
    #[error("not {protocol}: {what}")]
    Malformed {
        /// Which protocol.
        protocol: &'static str,
        /// What came.
        what: String,
    },
    /// A key that was written is not there.
    #[error("the key {key} was written and is not there: fill first (--fill)")]
    Absent {
        /// Which.
        key: String,
    },
    /// What was asked of this program makes no sense.
    #[error("{0}")]
    Usage(String),
}
