//! Every knob and bound of an endpoint, in one place.
//!
//! The defaults are those of a node; a client uses the same ones. Nothing here is read again after
//! `LaneEndpoint::bind`. Where a default differs from the QUIC library's own, the reason is beside
//! it: the library's defaults suit strangers on the internet, not peers that must notice a failure
//! within seconds.

use std::time::Duration;

use thiserror::Error;

use crate::{Class, Faults, Network};

/// Protocol name and version agreed on in the TLS handshake. Another version is another name.
pub const ALPN: &[u8] = b"galvani/9";

/// The same as text, for messages.
pub fn protocol() -> &'static str {
    std::str::from_utf8(ALPN).expect("the name above is ASCII")
}

/// Largest frame payload unless the configuration says otherwise: 16 MiB and room for a header.
pub const DEFAULT_FRAME_BYTES_MAX: usize = 17 << 20;

/// UDP payload that passes every ordinary Ethernet path, bytes.
pub const MTU_INTERNET: MtuBound = MtuBound(1_452);

/// UDP payload for loopback (MTU 65,536) that still keeps receive buffers small, bytes.
pub const MTU_LOOPBACK: MtuBound = MtuBound(16_000);

/// Settings of one endpoint. See each field for unit, bound and reason.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest payload of one frame, bytes, per class in the order of [`Class::ALL`]. Checked
    /// against the length prefix before anything is allocated; both ends must agree on it.
    pub frame_bytes_max: [usize; Class::COUNT],
    /// Bytes that may wait in one stream's outbox before `send` says `Full`. Default 64 MiB: all that
    /// one inbox hands over at once, and a frame more, can be passed on.
    /// A single frame larger than this still passes when the outbox is empty.
    pub outbox_bytes_max: usize,
    /// Bytes that may wait in the outboxes of all clients that dialed in together; each may hold as
    /// much as is still free, and 64 KiB in any case. Default 256 MiB.
    pub client_outboxes_bytes_max: usize,
    /// Bytes that QUIC may hold for all clients that dialed in, in each direction, about: sent and not
    /// acknowledged, received and not read. The n-th link gets an n-th of them, 64 KiB at least and what
    /// nodes have at most. Default 64 MiB.
    pub client_windows_bytes: usize,
    /// Bytes of clients' frames of which a part has come: what is larger than 64 KiB is read on only when
    /// there is room for all of it. At least the largest frame. Default 256 MiB.
    pub client_frames_bytes_max: usize,
    /// Bytes of received frames, per class, that wait for `recv_batch` before the streams of that
    /// class are read no more. Overshoot: one read per stream. Default 32 MiB.
    pub inbox_bytes_max: usize,
    /// Most events one `recv_batch` returns, so a lane keeps its other duties. Default 1,024.
    pub batch_events_max: usize,
    /// Most links alive at once, accepted and dialed. Further ones are refused. Default 4,096. One
    /// identity may hold a quarter of them, and a quarter is kept for nodes and own dials.
    pub links_max: usize,
    /// Most accepted handshakes under way at once; further ones are refused. Default 256.
    pub handshakes_max: usize,
    /// Handshakes under way above which an unproven address must answer a Retry first, so that
    /// spoofed sources cost no memory. At most `handshakes_max`. Default 32.
    pub retry_above: usize,
    /// How long a dialed link may take until both sides accepted it. Default 1 s.
    pub connect_timeout: Duration,
    /// How long a stranger may take to prove who it is and open its first stream. Default 5 s.
    pub handshake_timeout: Duration,
    /// Silence after which a link is lost. Default 5 s. The library's 30 s leaves requests
    /// hanging on a dead peer for half a minute.
    pub idle_timeout: Duration,
    /// How often an otherwise silent link is exercised. Default 1 s; well below `idle_timeout`,
    /// so that several losses in a row do not end a link.
    pub keep_alive: Duration,
    /// Most time between two reads of one unfinished frame before the link is closed. Default 10 s.
    pub frame_gap_max: Duration,
    /// Flow control window of one stream, bytes; the connection's is this for each class and one
    /// more, so one unread class cannot starve another. Default 1 MiB. Below 128 KiB it hurts
    /// throughput on loopback (measured); above, it bounds throughput to window / round trip.
    pub stream_window: u32,
    /// Bytes sent and not yet acknowledged per connection. Default 4 MiB; at least
    /// `stream_window` for each class, for the same reason. Below 256 KiB it hurts (measured).
    pub send_window: u64,
    /// Round trip assumed before the first measurement. Default 20 ms. The library's 333 ms makes
    /// one lost first packet cost a second.
    pub initial_rtt: Duration,
    /// Largest UDP payload path discovery may settle on. Default [`MTU_INTERNET`].
    pub mtu_upper_bound: MtuBound,
    /// Socket buffer asked for in each direction, bytes. Default 4 MiB; the kernel may grant less.
    pub socket_buffer: usize,
    /// Faults that may be set while the endpoint runs. Default none: the socket is QUIC's own.
    pub faults: Option<Faults>,
    /// Sockets, timers, wall clock and randomness. Default: the operating system's.
    pub network: Network,
}

impl Config {
    /// The default settings with jumbo datagrams, for endpoints that only speak over loopback.
    pub fn loopback() -> Self {
        Config { mtu_upper_bound: MTU_LOOPBACK, ..Config::default() }
    }

    /// The connection's window for what is received and not read, bytes: one for each class and one more.
    pub(crate) fn receive_window(&self) -> u32 {
        self.stream_window.saturating_mul(Class::COUNT as u32 + 1).min(1 << 30)
    }

    /// Largest payload of a frame of `class`, bytes.
    pub fn frame_bytes_max(&self, class: Class) -> usize {
        self.frame_bytes_max[class.index()].min(u32::MAX as usize)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            frame_bytes_max: [DEFAULT_FRAME_BYTES_MAX; Class::COUNT],
            outbox_bytes_max: 64 << 20,
            client_outboxes_bytes_max: 256 << 20,
            client_windows_bytes: 64 << 20,
            client_frames_bytes_max: 256 << 20,
            inbox_bytes_max: 32 << 20,
            batch_events_max: 1_024,
            links_max: 4_096,
            handshakes_max: 256,
            retry_above: 32,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            frame_gap_max: Duration::from_secs(10),
            stream_window: 1 << 20,
            send_window: 4 << 20,
            initial_rtt: Duration::from_millis(20),
            mtu_upper_bound: MTU_INTERNET,
            socket_buffer: 4 << 20,
            faults: None,
            network: Network::os(),
        }
    }
}

/// A UDP payload size QUIC may use, bytes: 1,200 (RFC 9000, section 14) to 65,507.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MtuBound(u16);

impl MtuBound {
    /// The size as a checked value.
    pub fn new(bytes: u16) -> Result<Self, MtuBoundError> {
        match bytes {
            1_200..=65_507 => Ok(MtuBound(bytes)),
            0..1_200 | 65_508..=u16::MAX => Err(MtuBoundError { bytes }),
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u16 {
        self.0
    }

    /// Whether ten datagrams of this size, which is what the library hands over at once, fit in
    /// the 64 KiB the kernel takes in one segmented send.
    pub(crate) const fn fits_segmented_send(self) -> bool {
        self.0 as usize * SEGMENTS_PER_SEND <= 65_507
    }
}

/// A datagram size QUIC cannot work with. Nothing happened; choose another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("datagram size {bytes} is outside 1200..=65507")]
pub struct MtuBoundError {
    /// The size that was asked for.
    pub bytes: u16,
}

/// Datagrams the QUIC library hands to the kernel in one call.
const SEGMENTS_PER_SEND: usize = 10;

#[cfg(test)]
mod tests {
    use super::{Config, MTU_INTERNET, MTU_LOOPBACK, MtuBound, MtuBoundError};
    use crate::Class;

    #[test]
    fn windows_leave_room_for_every_class() {
        let config = Config::default();
        assert!(config.send_window >= u64::from(config.stream_window) * Class::COUNT as u64);
        let one_more = config.frame_bytes_max.into_iter().max().unwrap_or_default();
        assert!(config.outbox_bytes_max >= config.inbox_bytes_max + one_more);
        assert!(config.client_frames_bytes_max >= one_more);
        assert!(config.keep_alive * 3 < config.idle_timeout);
        assert!(config.retry_above <= config.handshakes_max);
    }

    #[test]
    fn datagram_sizes_are_checked() {
        assert_eq!(MtuBound::new(1_199), Err(MtuBoundError { bytes: 1_199 }));
        assert_eq!(MtuBound::new(65_508), Err(MtuBoundError { bytes: 65_508 }));
        assert_eq!(MtuBound::new(1_452), Ok(MTU_INTERNET));
        assert!(MTU_INTERNET.fits_segmented_send());
        assert!(!MTU_LOOPBACK.fits_segmented_send());
    }
}
