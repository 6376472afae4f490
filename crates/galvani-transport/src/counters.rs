//! What an endpoint counted since it was bound.
//!
//! The live counters are relaxed atomics touched once per batch, never read on the hot path; a
//! [`Counters`] value is a copy taken for an operator or a test. Totals only grow.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::DownReason;

/// A copy of an endpoint's totals. Values are read one by one, so they may differ by a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Links that came up, dialed and accepted.
    pub links_up: u64,
    /// Links that came up and went down again.
    pub links_down: u64,
    /// Dials that never became a link.
    pub dials_failed: u64,
    /// Incoming handshakes refused because certificates or TLS were not accepted.
    pub refused_tls: u64,
    /// Incoming handshakes refused because no protocol version was common.
    pub refused_alpn: u64,
    /// Incoming handshakes given up because they took too long.
    pub refused_slow: u64,
    /// Incoming handshakes refused for lack of room.
    pub refused_full: u64,
    /// Incoming links refused because their identity, or all clients together, have their share.
    pub refused_share: u64,
    /// Incoming handshakes whose certificate names no valid peer.
    pub refused_identity: u64,
    /// Incoming handshakes that ended for another reason, the peer's own close among them.
    pub refused_other: u64,
    /// Incoming connection attempts that were told to prove their address first.
    pub retries: u64,
    /// Streams of a class the peer had no right to.
    pub classes_refused: u64,
    /// Length prefixes over the limit.
    pub frames_oversized: u64,
    /// Links closed over an unfinished frame without progress.
    pub frames_slow: u64,
    /// Links closed because the peer broke the protocol.
    pub violations: u64,
    /// Dialed links closed because another node answered.
    pub wrong_nodes: u64,
    /// Links that ended because the peer had restarted.
    pub resets: u64,
    /// Frames received whole.
    pub frames_in: u64,
    /// Stream bytes received, length prefixes included.
    pub bytes_in: u64,
    /// Frames handed to QUIC.
    pub frames_out: u64,
    /// Stream bytes handed to QUIC, length prefixes included.
    pub bytes_out: u64,
    /// Sends refused because an outbox was full.
    pub sends_full: u64,
    /// Datagrams taken in.
    pub datagrams_in: u64,
    /// Datagrams handed to QUIC.
    pub datagrams_out: u64,
    /// Datagrams dropped here: no room, no link, or too large.
    pub datagrams_dropped: u64,
}

macro_rules! live_counters {
    ($($name:ident),* $(,)?) => {
        /// The live counters behind a [`Counters`].
        #[derive(Debug, Default)]
        pub(crate) struct LiveCounters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl LiveCounters {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

live_counters!(
    links_up,
    links_down,
    dials_failed,
    refused_tls,
    refused_alpn,
    refused_slow,
    refused_full,
    refused_share,
    refused_identity,
    refused_other,
    retries,
    classes_refused,
    frames_oversized,
    frames_slow,
    violations,
    wrong_nodes,
    resets,
    frames_in,
    bytes_in,
    frames_out,
    bytes_out,
    sends_full,
    datagrams_in,
    datagrams_out,
    datagrams_dropped,
);

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Adds `amount`.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl LiveCounters {
    /// Counts the cause a link went down for, as far as it has a counter of its own.
    pub(crate) fn count_cause(&self, reason: &DownReason) {
        match reason {
            DownReason::FrameTooLarge { .. } => count(&self.frames_oversized),
            DownReason::SlowFrame => count(&self.frames_slow),
            DownReason::ClassRefused => count(&self.classes_refused),
            DownReason::ProtocolViolation { .. } => count(&self.violations),
            DownReason::WrongNode { .. } => count(&self.wrong_nodes),
            DownReason::Reset => count(&self.resets),
            DownReason::ConnectTimeout
            | DownReason::Unreachable { .. }
            | DownReason::Refused
            | DownReason::TlsFailed { .. }
            | DownReason::WrongAlpn
            | DownReason::BadIdentity
            | DownReason::IdleTimeout
            | DownReason::ClosedByPeer { .. }
            | DownReason::ClosedHere => {}
        }
    }

    /// Counts an incoming handshake that did not become a link.
    pub(crate) fn count_refused(&self, reason: &DownReason) {
        match reason {
            DownReason::TlsFailed { .. } => count(&self.refused_tls),
            DownReason::WrongAlpn => count(&self.refused_alpn),
            DownReason::ConnectTimeout | DownReason::IdleTimeout => count(&self.refused_slow),
            DownReason::Refused => count(&self.refused_full),
            DownReason::BadIdentity => count(&self.refused_identity),
            DownReason::FrameTooLarge { .. }
            | DownReason::SlowFrame
            | DownReason::ClassRefused
            | DownReason::ProtocolViolation { .. }
            | DownReason::WrongNode { .. }
            | DownReason::Reset
            | DownReason::Unreachable { .. }
            | DownReason::ClosedByPeer { .. }
            | DownReason::ClosedHere => {
                self.count_cause(reason);
                count(&self.refused_other);
            }
        }
    }
}
