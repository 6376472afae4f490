//! QUIC endpoints, identities and coalesced streams.
//!
//! A [`LaneEndpoint`] is one UDP socket with one QUIC endpoint on it, meant for one lane: it dials
//! and accepts links, checks who is at the other end, and moves frames (byte strings) over one
//! long-lived stream per [`Class`]. It knows nothing of what a frame means and never retries one.
//!
//! Flow: `endpoint` starts `dial` and `accept`, which make a `link`; a link has an `outbox` and
//! two tasks (`stream`) per class and reports everything into the endpoint's `inbox`.
//! Next to read: `endpoint.rs`, then `link.rs`, `stream.rs` and `peer.rs`.

mod accept;
mod certify;
mod class;
mod config;
mod counters;
mod dial;
mod endpoint;
mod expiry;
mod faults;
mod faulty_socket;
mod frame;
mod inbox;
mod keys;
mod link;
mod network;
mod outbox;
mod peer;
pub mod pki;
mod reason;
mod room;
mod share;
mod signing;
mod socket;
mod stream;
mod tls;
mod windows;

pub use certify::NodeKey;
pub use class::Class;
pub use config::{
    ALPN, Config, DEFAULT_FRAME_BYTES_MAX, MTU_INTERNET, MTU_LOOPBACK, MtuBound, MtuBoundError,
    protocol,
};
pub use counters::Counters;
pub use endpoint::{BindError, LaneEndpoint, Transport};
pub use faults::{Faults, PeerFaults};
pub use inbox::Event;
pub use keys::{KeysError, TransportKeys};
pub use link::{LinkId, PathStats};
pub use network::{CustomNetwork, Network};
pub use peer::{NODE_SERVER_NAME, PeerIdentity, PeerIdentityError, Role};
pub use reason::{CloseCode, DownReason, SendError};
pub use signing::{
    ANSWER_BYTES_MAX, AskError, Asked, QUESTION_BYTES_MAX, SignerError, SigningEndpoint, ask,
};
pub use socket::SocketBuffers;
