//! Why a link ended, why a frame was not taken, and the codes links are closed with.
//!
//! Close codes travel on the wire and so are numbers with a fixed meaning; reasons are what this
//! side makes of them. Nothing here decides anything: `dial.rs`, `accept.rs` and `stream.rs` do.

use quinn::{ConnectionError, VarInt};
use thiserror::Error;

/// Number a connection is closed with. Codes below 256 are the transport's own, the rest is free
/// for the layers above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u32);

impl CloseCode {
    /// The side that closed had no complaint.
    pub const NORMAL: CloseCode = CloseCode(0);
    /// The endpoint is shutting down.
    pub const SHUTDOWN: CloseCode = CloseCode(1);
    /// A length prefix named more bytes than the class allows.
    pub const FRAME_TOO_LARGE: CloseCode = CloseCode(2);
    /// The peer may not open a stream of that class.
    pub const CLASS_REFUSED: CloseCode = CloseCode(3);
    /// The node that was reached is not the node that was wanted.
    pub const WRONG_NODE: CloseCode = CloseCode(4);
    /// Streams, their first bytes or their ends were not what the protocol says.
    pub const PROTOCOL_VIOLATION: CloseCode = CloseCode(5);
    /// An unfinished frame made no progress for too long.
    pub const SLOW_FRAME: CloseCode = CloseCode(6);
    /// The certificate chain is good, but its names are not those of a node or a client.
    pub const BAD_IDENTITY: CloseCode = CloseCode(7);
    /// No room for another link.
    pub const OVERLOADED: CloseCode = CloseCode(8);

    /// The first code that is free for the layers above.
    pub const FIRST_FREE: u32 = 256;

    /// A code of the layers above: `FIRST_FREE + number`, saturating.
    pub const fn application(number: u32) -> CloseCode {
        CloseCode(Self::FIRST_FREE.saturating_add(number))
    }

    /// The code with this number, for codes that come from elsewhere.
    pub const fn from_number(number: u32) -> CloseCode {
        CloseCode(number)
    }

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn varint(self) -> VarInt {
        VarInt::from_u32(self.0)
    }

    fn from_varint(code: VarInt) -> CloseCode {
        CloseCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
    }
}

/// Why a link is down. In every case nothing more arrives on it, frames still in its outboxes may
/// or may not have been delivered, and dialing again is the caller's choice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DownReason {
    /// Nothing complete was heard from the address in the time allowed. Try again later.
    #[error("no answer within the connect timeout")]
    ConnectTimeout,
    /// The address cannot be dialed from this socket (family, port 0, endpoint closed).
    #[error("cannot dial: {detail}")]
    Unreachable {
        /// What the QUIC library says.
        detail: String,
    },
    /// The peer or this endpoint has no room for another link. Try again later.
    #[error("refused for lack of room")]
    Refused,
    /// A certificate or the handshake was not accepted, by either side. Trying again cannot help.
    #[error("tls handshake failed: {detail}")]
    TlsFailed {
        /// What the TLS library says.
        detail: String,
    },
    /// The other side does not speak this protocol version. Trying again cannot help.
    #[error(
        "no common protocol version: this side speaks {}, the other one another",
        crate::protocol()
    )]
    WrongAlpn,
    /// The certificate is good but names neither node nor client as the protocol wants them.
    #[error("certificate does not name a valid peer")]
    BadIdentity,
    /// Another node than the expected one answered. The address book is wrong.
    #[error("another node answered")]
    WrongNode {
        /// Id of the node that answered.
        found: [u8; 16],
    },
    /// Nothing was heard for the idle timeout.
    #[error("silent for the idle timeout")]
    IdleTimeout,
    /// The peer closed the link.
    #[error("closed by peer with code {}", .code.number())]
    ClosedByPeer {
        /// The peer's code.
        code: CloseCode,
    },
    /// The peer restarted and does not know the connection any more. Dial again at once.
    #[error("peer restarted")]
    Reset,
    /// This side closed the link, by `close` or `shutdown`.
    #[error("closed here")]
    ClosedHere,
    /// The peer announced a frame over the limit.
    #[error("frame of {bytes} bytes exceeds {max}")]
    FrameTooLarge {
        /// The announced length.
        bytes: u32,
        /// The limit of the class.
        max: usize,
    },
    /// The peer left a frame unfinished for too long.
    #[error("unfinished frame made no progress")]
    SlowFrame,
    /// The peer opened a stream of a class it has no right to.
    #[error("stream class refused")]
    ClassRefused,
    /// The peer broke the stream or the QUIC protocol.
    #[error("protocol violation: {detail}")]
    ProtocolViolation {
        /// Which rule.
        detail: String,
    },
}

impl DownReason {
    /// Whether certificates or protocol versions are what keeps the two apart: trying again cannot help.
    pub fn is_distrust(&self) -> bool {
        match self {
            DownReason::TlsFailed { .. } | DownReason::WrongAlpn | DownReason::BadIdentity => true,
            DownReason::ClosedByPeer { code } => *code == CloseCode::BAD_IDENTITY,
            DownReason::ConnectTimeout
            | DownReason::Unreachable { .. }
            | DownReason::Refused
            | DownReason::WrongNode { .. }
            | DownReason::IdleTimeout
            | DownReason::Reset
            | DownReason::ClosedHere
            | DownReason::FrameTooLarge { .. }
            | DownReason::SlowFrame
            | DownReason::ClassRefused
            | DownReason::ProtocolViolation { .. } => false,
        }
    }

    pub(crate) fn violation(detail: &str) -> DownReason {
        DownReason::ProtocolViolation { detail: detail.to_owned() }
    }

    /// What the end of a QUIC connection means here.
    pub(crate) fn of_connection(error: &ConnectionError) -> DownReason {
        match error {
            ConnectionError::VersionMismatch => DownReason::WrongAlpn,
            ConnectionError::TransportError(e) => {
                of_transport_code(u64::from(e.code), || e.to_string())
            }
            ConnectionError::ConnectionClosed(e) => {
                of_transport_code(u64::from(e.error_code), || e.to_string())
            }
            ConnectionError::ApplicationClosed(e) => {
                DownReason::ClosedByPeer { code: CloseCode::from_varint(e.error_code) }
            }
            ConnectionError::Reset => DownReason::Reset,
            ConnectionError::TimedOut => DownReason::IdleTimeout,
            ConnectionError::LocallyClosed => DownReason::ClosedHere,
            ConnectionError::CidsExhausted => DownReason::Refused,
        }
    }
}

/// Why a frame was not put into an outbox. Nothing of it was kept or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The outbox is full: the peer or the network is slower than this side. Try again later.
    #[error("outbox is full")]
    Full,
    /// The link is down, shutting down or was never there.
    #[error("link is closed")]
    Closed,
    /// The frame is larger than the class allows; the peer would close the link over it.
    #[error("frame of {bytes} bytes exceeds {max}")]
    TooLarge {
        /// Length of the payload.
        bytes: usize,
        /// The limit of the class.
        max: usize,
    },
    /// Links with a client carry the client class only.
    #[error("class is not open on this link")]
    ClassNotOpen,
}

/// QUIC codes 0x100..0x200 carry a TLS alert in their low byte (RFC 9001, section 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// TLS alert 120, `no_application_protocol` (RFC 7301, section 3.2).
const ALERT_NO_ALPN: u64 = 0x100 + 120;

/// QUIC code `CONNECTION_REFUSED` (RFC 9000, section 20.1).
const CONNECTION_REFUSED: u64 = 0x2;

fn of_transport_code(code: u64, detail: impl FnOnce() -> String) -> DownReason {
    if code == ALERT_NO_ALPN {
        DownReason::WrongAlpn
    } else if code == CONNECTION_REFUSED {
        DownReason::Refused
    } else if CRYPTO_ERRORS.contains(&code) {
        DownReason::TlsFailed { detail: detail() }
    } else {
        DownReason::ProtocolViolation { detail: detail() }
    }
}

#[cfg(test)]
mod tests {
    use super::{CloseCode, DownReason, of_transport_code};

    #[test]
    fn transport_codes_become_typed_reasons() {
        let of = |code| of_transport_code(code, || "d".to_owned());
        let detail = "d".to_owned();
        assert_eq!(of(0x178), DownReason::WrongAlpn);
        assert_eq!(of(0x2), DownReason::Refused);
        assert_eq!(of(0x12a), DownReason::TlsFailed { detail: detail.clone() });
        assert_eq!(of(0xa), DownReason::ProtocolViolation { detail });
    }

    #[test]
    fn application_codes_stay_clear_of_our_own() {
        assert_eq!(CloseCode::application(0).number(), CloseCode::FIRST_FREE);
        assert_eq!(CloseCode::application(u32::MAX).number(), u32::MAX);
    }
}
