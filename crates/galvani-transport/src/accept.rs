//! Taking in links: the accept loop and the handshake of one incoming connection.
//!
//! Until a stranger has proved who it is, it costs bounded memory (`tls.rs` bounds the bytes, this
//! file the number) and bounded time; above a mark it must first prove its address by a Retry.
//! Then its share of the links counts (`share.rs`).
//! A link is only reported once the peer's first stream has come, which a dialing side opens after
//! it has accepted us. Everything refused is counted by cause.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::time::timeout;

use crate::counters::count;
use crate::endpoint::Shared;
use crate::link::UpLink;
use crate::stream::read_class;
use crate::tls::peer_of;
use crate::{Class, CloseCode, DownReason, PeerIdentity};

/// Accepts connections until the endpoint is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let config = &shared.config;
        let under_way = shared.handshakes.load(Ordering::Relaxed);
        let full = under_way >= config.handshakes_max
            || shared.link_count() + under_way >= config.links_max
            || shared.inbox.is_swamped();
        if full || !shared.accepting.load(Ordering::Relaxed) {
            count(&shared.counters.refused_full);
            incoming.refuse();
            continue;
        }
        if under_way >= config.retry_above && incoming.may_retry() {
            count(&shared.counters.retries);
            // `may_retry` has just said that this connection may be told to.
            let _ = incoming.retry();
            continue;
        }
        let handshake = Handshake::begin(shared.clone());
        shared.runtime.spawn(handshake.run(incoming));
    }
}

/// Counts a handshake as under way for as long as it lives.
struct Handshake {
    shared: Arc<Shared>,
}

impl Handshake {
    fn begin(shared: Arc<Shared>) -> Self {
        shared.handshakes.fetch_add(1, Ordering::Relaxed);
        Handshake { shared }
    }

    /// Runs an accepted link from its first packet to its `LinkDown`.
    async fn run(self, incoming: Incoming) {
        let shared = self.shared.clone();
        let limit = shared.config.handshake_timeout;
        let accepted = match timeout(limit, accept(incoming)).await {
            Ok(accepted) => accepted,
            Err(_elapsed) => Err(DownReason::ConnectTimeout),
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(reason) => return shared.counters.count_refused(&reason),
        };
        let (connection, peer) = (accepted.connection, accepted.peer);
        let Some(seat) = shared.seats.take(&peer) else {
            count(&shared.counters.refused_share);
            connection.close(CloseCode::OVERLOADED.varint(), b"too many links of this identity");
            return;
        };
        let all_classes = peer.is_node();
        let link = shared.register(0, false, all_classes);
        drop(self);
        // A fresh link has not been given up by anyone.
        let _ = link.attach(&connection);
        if !shared.accepting.load(Ordering::Relaxed) {
            link.drain();
        }
        let frames = (!all_classes).then(|| seat.frames.clone());
        let mut up = UpLink::announce(shared, link, connection, peer, frames);
        up.start(Class::Client, accepted.streams, true);
        up.serve().await;
        drop(seat);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.shared.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose peer is known and has opened its first stream.
struct Accepted {
    connection: Connection,
    peer: PeerIdentity,
    streams: (SendStream, RecvStream),
}

async fn accept(incoming: Incoming) -> Result<Accepted, DownReason> {
    let of_error = |e| DownReason::of_connection(&e);
    let connection = incoming.accept().map_err(of_error)?.await.map_err(of_error)?;
    match first_stream(&connection).await {
        Ok((peer, streams)) => Ok(Accepted { connection, peer, streams }),
        Err(reason) => {
            if let Some(error) = connection.close_reason() {
                return Err(DownReason::of_connection(&error));
            }
            let code = match &reason {
                DownReason::BadIdentity => CloseCode::BAD_IDENTITY,
                DownReason::ClassRefused => CloseCode::CLASS_REFUSED,
                DownReason::ConnectTimeout
                | DownReason::Unreachable { .. }
                | DownReason::Refused
                | DownReason::TlsFailed { .. }
                | DownReason::WrongAlpn
                | DownReason::WrongNode { .. }
                | DownReason::IdleTimeout
                | DownReason::ClosedByPeer { .. }
                | DownReason::Reset
                | DownReason::ClosedHere
                | DownReason::FrameTooLarge { .. }
                | DownReason::SlowFrame
                | DownReason::ProtocolViolation { .. } => CloseCode::PROTOCOL_VIOLATION,
            };
            connection.close(code.varint(), b"handshake refused");
            Err(reason)
        }
    }
}

/// Waits for the first stream, which carries the client class on every link.
async fn first_stream(
    connection: &Connection,
) -> Result<(PeerIdentity, (SendStream, RecvStream)), DownReason> {
    let peer = peer_of(connection)?;
    let (send, mut recv) =
        connection.accept_bi().await.map_err(|e| DownReason::of_connection(&e))?;
    match read_class(&mut recv).await? {
        Class::Client => Ok((peer, (send, recv))),
        Class::Replication | Class::Background if peer.is_node() => {
            Err(DownReason::violation("first stream of another class"))
        }
        Class::Replication | Class::Background => Err(DownReason::ClassRefused),
    }
}
