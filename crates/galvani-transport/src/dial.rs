//! The task of one dial: connect, check who answered, open the streams, then serve the link.
//!
//! A TLS 1.3 client is through before the server has judged its certificate, so a dialed link is
//! only up once the server's first byte has come back: `LinkUp` means that both sides accepted.
//! A node opens a stream of every class, a client the client class only. Never retries.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::counters::count;
use crate::endpoint::Shared;
use crate::link::{Link, UpLink};
use crate::stream::read_class;
use crate::tls::peer_of;
use crate::{Class, CloseCode, DownReason, NODE_SERVER_NAME, PeerIdentity};

/// Runs a dialed link from its first packet to its `LinkDown`.
pub(crate) async fn run(
    shared: Arc<Shared>,
    link: Arc<Link>,
    addr: SocketAddr,
    expect: Option<[u8; 16]>,
) {
    let connecting = timeout(shared.config.connect_timeout, connect(&shared, &link, addr, expect));
    let result = tokio::select! {
        biased;
        () = link.given_up.notified() => Err(DownReason::ClosedHere),
        result = connecting => result.unwrap_or(Err(DownReason::ConnectTimeout)),
    };
    match result {
        Ok(dialed) => {
            let mut up = UpLink::announce(shared, link, dialed.connection, dialed.peer, None);
            for (class, streams) in dialed.streams {
                up.start(class, streams, class == Class::Client);
            }
            up.serve().await;
        }
        Err(reason) => {
            let code = match &reason {
                DownReason::WrongNode { .. } => CloseCode::WRONG_NODE,
                DownReason::BadIdentity => CloseCode::BAD_IDENTITY,
                DownReason::ProtocolViolation { .. } => CloseCode::PROTOCOL_VIOLATION,
                DownReason::ConnectTimeout
                | DownReason::Unreachable { .. }
                | DownReason::Refused
                | DownReason::TlsFailed { .. }
                | DownReason::WrongAlpn
                | DownReason::IdleTimeout
                | DownReason::ClosedByPeer { .. }
                | DownReason::Reset
                | DownReason::ClosedHere
                | DownReason::FrameTooLarge { .. }
                | DownReason::SlowFrame
                | DownReason::ClassRefused => CloseCode::NORMAL,
            };
            link.fail(reason.clone(), code, b"dial given up");
            let reason = link.finish(reason);
            shared.counters.count_cause(&reason);
            count(&shared.counters.dials_failed);
            shared.remove(&link, reason);
        }
    }
}

/// A dial both sides accepted.
struct Dialed {
    connection: Connection,
    peer: PeerIdentity,
    streams: Vec<(Class, (SendStream, RecvStream))>,
}

async fn connect(
    shared: &Shared,
    link: &Link,
    addr: SocketAddr,
    expect: Option<[u8; 16]>,
) -> Result<Dialed, DownReason> {
    let client = shared.client.lock().clone();
    let connecting = shared
        .endpoint
        .connect_with(client, addr, NODE_SERVER_NAME)
        .map_err(|e| DownReason::Unreachable { detail: e.to_string() })?;
    let connection = connecting.await.map_err(|e| DownReason::of_connection(&e))?;
    link.attach(&connection)?;
    let peer = peer_of(&connection)?;
    let PeerIdentity::Node { id: found } = peer else {
        return Err(DownReason::BadIdentity);
    };
    if expect.is_some_and(|id| id != found) {
        return Err(DownReason::WrongNode { found });
    }
    let streams = open_streams(link, &connection).await;
    let streams = streams.map_err(|violation| lost(&connection, violation))?;
    Ok(Dialed { connection, peer, streams })
}

/// Opens the streams, highest class first, and waits for the answer on the first.
async fn open_streams(
    link: &Link,
    connection: &Connection,
) -> Result<Vec<(Class, (SendStream, RecvStream))>, DownReason> {
    let mut streams = Vec::with_capacity(Class::COUNT);
    let lost = |_| DownReason::ClosedHere;
    for class in Class::ALL.into_iter().filter(|class| link.allows(*class)) {
        let (mut send, recv) = connection.open_bi().await.map_err(lost)?;
        send.write_all(&[class.wire_id()]).await.map_err(|_| DownReason::ClosedHere)?;
        streams.push((class, (send, recv)));
    }
    // Every link allows the client class, and it is the first of all.
    if let Some((class, (_, recv))) = streams.first_mut()
        && read_class(recv).await? != *class
    {
        return Err(DownReason::violation("answer of another class"));
    }
    Ok(streams)
}

/// The connection's own reason where it ended, else the given one.
fn lost(connection: &Connection, otherwise: DownReason) -> DownReason {
    match connection.close_reason() {
        Some(error) => DownReason::of_connection(&error),
        None => otherwise,
    }
}
