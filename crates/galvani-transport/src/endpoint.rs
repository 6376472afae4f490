//! The endpoint of one lane: bind, dial, send, receive in batches, shut down.
//!
//! A [`LaneEndpoint`] belongs to one lane and hands out cheap [`Transport`] handles for everything
//! but receiving. Whether it accepts links follows from its identity: a node's does, a client's
//! only dials. It spawns tasks per connection and stream, never per message, and runs on a
//! current-thread runtime as well as on a multi-threaded one.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn::{ClientConfig, Endpoint};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::counters::{LiveCounters, count};
use crate::faulty_socket::FaultySocket;
use crate::inbox::Inbox;
use crate::link::Link;
use crate::pki::Identity;
use crate::room::Room;
use crate::share::Seats;
use crate::tls::{self, Credentials};
use crate::windows::FrameRoom;
use crate::{
    Class, CloseCode, Config, Counters, DownReason, Event, LinkId, PathStats, PeerIdentity,
    PeerIdentityError, SendError, SocketBuffers, TransportKeys, accept, dial,
};

/// One QUIC endpoint on one UDP socket. Dropping it closes every link without draining.
pub struct LaneEndpoint {
    transport: Transport,
}

impl LaneEndpoint {
    /// Binds `addr` (port 0: any) with `identity` and starts to accept links if it is a node's.
    /// Must be called inside a tokio runtime with I/O and time enabled.
    pub fn bind(
        addr: SocketAddr,
        identity: &Identity,
        keys: &TransportKeys,
        config: Config,
    ) -> Result<Self, BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let credentials = Credentials::parse(identity)?;
        let server = match credentials.own.is_node() {
            true => Some(credentials.server(&config)?),
            false => None,
        };
        let accepts = server.is_some();
        let client = credentials.client(&config)?;
        let endpoint_config = tls::endpoint(keys, &config)?;
        let (mut socket, buffers) = config
            .network
            .bind(addr, config.socket_buffer)
            .map_err(|source| BindError::Socket { addr, source })?;
        if let Some(faults) = config.faults.clone() {
            socket = Arc::new(FaultySocket::new(socket, faults, &runtime));
        }
        let quic = config.network.runtime();
        let endpoint = Endpoint::new_with_abstract_socket(endpoint_config, server, socket, quic)
            .map_err(|source| BindError::Socket { addr, source })?;
        let local_addr =
            endpoint.local_addr().map_err(|source| BindError::Socket { addr, source })?;
        let shared = Arc::new(Shared {
            endpoint,
            client: Mutex::new(client),
            own: credentials.own,
            local_addr,
            buffers,
            inbox: Inbox::new(&config),
            seats: Seats::new(config.links_max, config.client_frames_bytes_max / 4),
            client_room: Arc::new(Room::new(config.client_outboxes_bytes_max)),
            frame_room: FrameRoom::of(config.client_frames_bytes_max),
            config,
            links: Mutex::default(),
            next_link: AtomicU64::new(1),
            handshakes: AtomicUsize::new(0),
            counters: LiveCounters::default(),
            drained: Notify::new(),
            accepting: AtomicBool::new(accepts),
            runtime,
        });
        if accepts {
            shared.runtime.spawn(accept::run(shared.clone()));
        }
        Ok(LaneEndpoint { transport: Transport { shared } })
    }

    /// Waits for events and appends all there are, up to the configured batch, to `out`. Returns
    /// how many; 0 once the endpoint has been shut down and everything was taken.
    /// Cancel safe: events are taken in the same poll that returns.
    pub async fn recv_batch(&mut self, out: &mut Vec<Event>) -> usize {
        let shared = &self.transport.shared;
        let max = shared.config.batch_events_max;
        poll_fn(|cx| shared.inbox.poll_drain(cx, out, max)).await
    }

    /// A handle for everything but receiving.
    pub fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Ends the endpoint: accepts and sends nothing new, delivers what is in the outboxes until
    /// `limit` has passed, closes all links with [`CloseCode::SHUTDOWN`] and waits for that to
    /// reach the network. Returns whether everything was delivered to the peers' transports.
    /// Events that arrived stay available to `recv_batch`, the `LinkDown`s included.
    pub async fn shutdown(&mut self, limit: Duration) -> bool {
        let shared = &self.transport.shared;
        let deadline = Instant::now() + limit;
        shared.accepting.store(false, Ordering::Relaxed);
        shared.endpoint.set_server_config(None);
        let drained = timeout_at(deadline, shared.drain()).await.is_ok();
        for link in shared.all_links() {
            link.fail(DownReason::ClosedHere, CloseCode::SHUTDOWN, b"shutdown");
        }
        // The closing packets must leave even if draining used up the time.
        let close_by = deadline.max(Instant::now() + CLOSE_GRACE);
        let _ = timeout_at(close_by, shared.removed_all()).await;
        shared.endpoint.close(CloseCode::SHUTDOWN.varint(), b"shutdown");
        // Idle means that QUIC's closing period is over, several probe timeouts later; all that is
        // needed is that the closing packets have left.
        let _ = timeout(CLOSE_GRACE, shared.endpoint.wait_idle()).await;
        shared.inbox.close();
        drained
    }
}

impl std::ops::Deref for LaneEndpoint {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.transport
    }
}

impl Drop for LaneEndpoint {
    fn drop(&mut self) {
        let shared = &self.transport.shared;
        shared.accepting.store(false, Ordering::Relaxed);
        shared.inbox.close();
        for link in shared.all_links() {
            link.fail(DownReason::ClosedHere, CloseCode::NORMAL, b"dropped");
        }
        shared.endpoint.close(CloseCode::NORMAL.varint(), b"dropped");
    }
}

/// A cheap, cloneable handle on an endpoint: dial, send, close and look, from any thread.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

impl Transport {
    /// Starts a link to `addr` and returns its name at once; `LinkUp` or `LinkDown` follows, both
    /// with `tag`. With `expect`, any other node is refused as `WrongNode`. Frames may be sent
    /// before `LinkUp`: they wait in the outbox and are dropped if the dial fails.
    pub fn dial(&self, addr: SocketAddr, expect: Option<[u8; 16]>, tag: u64) -> LinkId {
        let shared = &self.shared;
        let room = shared.link_count() < shared.config.links_max;
        let link = shared.register(tag, true, shared.own.is_node());
        let id = link.id;
        if room {
            shared.runtime.spawn(dial::run(shared.clone(), link, addr, expect));
        } else {
            count(&shared.counters.dials_failed);
            let reason = link.finish(DownReason::Refused);
            shared.remove(&link, reason);
        }
        id
    }

    /// Puts one frame, the `parts` one after the other, into the outbox of a link's class. All
    /// frames of a tick leave in one write, when the task that sends them next yields.
    pub fn send(&self, link: LinkId, class: Class, parts: &[&[u8]]) -> Result<(), SendError> {
        let link = self.link(link)?;
        self.note(link.send(class, parts))
    }

    /// As [`Transport::send`] with a frame that `write` appends to the buffer, so it is encoded in
    /// place. `write` must only append, and must not send on the same link.
    pub fn send_with(
        &self,
        link: LinkId,
        class: Class,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<(), SendError> {
        let link = self.link(link)?;
        self.note(link.send_with(class, write))
    }

    /// Sends a datagram over a link between nodes. It may be lost: whatever keeps it from being
    /// sent (no link, no room, too large for a packet) is counted and otherwise silent.
    pub fn send_datagram(&self, link: LinkId, payload: Bytes) {
        let sent = self.link(link).is_ok_and(|link| link.send_datagram(payload));
        let counters = &self.shared.counters;
        count(if sent { &counters.datagrams_out } else { &counters.datagrams_dropped });
    }

    /// Closes a link at once, undelivered frames included; its `LinkDown` says `ClosedHere` and
    /// the peer's says `ClosedByPeer` with `code`. A link that is already down is left alone.
    pub fn close(&self, link: LinkId, code: CloseCode, reason: &str) {
        if let Ok(link) = self.link(link) {
            link.fail(DownReason::ClosedHere, code, reason.as_bytes());
        }
    }

    /// Bytes waiting in a link's outbox of a class; 0 for a link that is down.
    pub fn outbox_bytes(&self, link: LinkId, class: Class) -> usize {
        self.link(link).map_or(0, |link| link.outbox(class).bytes())
    }

    /// Bytes of received frames of a class that wait for `recv_batch`.
    pub fn inbox_bytes(&self, class: Class) -> usize {
        self.shared.inbox.bytes(class)
    }

    /// The address the endpoint is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Who this endpoint is.
    pub fn identity(&self) -> &PeerIdentity {
        &self.shared.own
    }

    /// The socket buffers the kernel granted.
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.shared.buffers
    }

    /// Shows and believes what `identity` says from now on, which must name the same peer. Links that
    /// are up stay up: what was agreed on when they were made is not asked again.
    pub fn renew(&self, identity: &Identity) -> Result<(), BindError> {
        let shared = &self.shared;
        let credentials = Credentials::parse(identity)?;
        if credentials.own != shared.own {
            return Err(BindError::OtherPeer);
        }
        let client = credentials.client(&shared.config)?;
        if shared.own.is_node() {
            let server = credentials.server(&shared.config)?;
            // Set to none while it shuts down, and that stays.
            if shared.accepting.load(Ordering::Relaxed) {
                shared.endpoint.set_server_config(Some(server));
            }
        }
        *shared.client.lock() = client;
        Ok(())
    }

    /// Until when the certificate is good that the other side of a link showed, in seconds since 1970.
    pub fn peer_expires_s(&self, link: LinkId) -> Option<u64> {
        self.link(link).ok()?.peer_expires_s()
    }

    /// What QUIC measured on a link's path; `None` while it is not connected.
    pub fn path(&self, link: LinkId) -> Option<PathStats> {
        self.link(link).ok()?.path()
    }

    /// Links that exist, dials under way included.
    pub fn link_count(&self) -> usize {
        self.shared.link_count()
    }

    /// A copy of the endpoint's totals.
    pub fn counters(&self) -> Counters {
        self.shared.counters.snapshot()
    }

    fn link(&self, id: LinkId) -> Result<Arc<Link>, SendError> {
        let links = self.shared.links.lock();
        links.get(&id).cloned().ok_or(SendError::Closed)
    }

    fn note(&self, result: Result<(), SendError>) -> Result<(), SendError> {
        if result == Err(SendError::Full) {
            count(&self.shared.counters.sends_full);
        }
        result
    }
}

/// What the tasks of an endpoint share.
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    /// What dialing needs; another one once the identity was renewed.
    pub(crate) client: Mutex<ClientConfig>,
    pub(crate) own: PeerIdentity,
    local_addr: SocketAddr,
    buffers: SocketBuffers,
    pub(crate) inbox: Inbox,
    pub(crate) seats: Arc<Seats>,
    /// What waits for all clients together.
    client_room: Arc<Room>,
    pub(crate) frame_room: FrameRoom,
    pub(crate) config: Config,
    links: Mutex<BTreeMap<LinkId, Arc<Link>>>,
    next_link: AtomicU64,
    /// Accepted handshakes under way.
    pub(crate) handshakes: AtomicUsize,
    pub(crate) counters: LiveCounters,
    /// Told whenever a writer has ended or a link is gone.
    pub(crate) drained: Notify,
    /// Whether incoming links are wanted.
    pub(crate) accepting: AtomicBool,
    pub(crate) runtime: Handle,
}

impl Shared {
    /// Makes a link and puts it on the list.
    pub(crate) fn register(&self, tag: u64, dialed: bool, all_classes: bool) -> Arc<Link> {
        let id = LinkId::new(self.next_link.fetch_add(1, Ordering::Relaxed));
        let link = Link::new(id, tag, dialed, all_classes, &self.config, &self.client_room);
        let link = Arc::new(link);
        self.links.lock().insert(id, link.clone());
        link
    }

    /// Takes a link off the list and reports its end.
    pub(crate) fn remove(&self, link: &Link, reason: DownReason) {
        self.links.lock().remove(&link.id);
        self.inbox.push_control(Event::LinkDown { link: link.id, tag: link.tag, reason });
        self.drained.notify_waiters();
    }

    pub(crate) fn link_count(&self) -> usize {
        self.links.lock().len()
    }

    fn all_links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    /// Waits until every outbox is empty and its stream finished.
    async fn drain(&self) {
        loop {
            let mut notified = std::pin::pin!(self.drained.notified());
            notified.as_mut().enable();
            let links = self.all_links();
            for link in &links {
                link.drain();
            }
            if links.iter().all(|link| link.is_drained()) {
                return;
            }
            notified.await;
        }
    }

    /// Waits until every link has reported its end.
    async fn removed_all(&self) {
        loop {
            let mut notified = std::pin::pin!(self.drained.notified());
            notified.as_mut().enable();
            if self.link_count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Why an endpoint was not made. Nothing was left open.
#[derive(Debug, Error)]
pub enum BindError {
    /// Not called inside a tokio runtime.
    #[error("no tokio runtime")]
    NoRuntime,
    /// The address cannot be bound: in use, not ours, or no permission.
    #[error("cannot bind {addr}")]
    Socket {
        /// The address.
        addr: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The identity's files are not certificates and a key in PEM.
    #[error("identity is not readable pem")]
    BadPem,
    /// The certificate names neither a node nor a client.
    #[error("identity names no peer")]
    Identity(#[source] PeerIdentityError),
    /// The certificate is another peer's than the one the endpoint was bound with.
    #[error("the identity is another peer's")]
    OtherPeer,
    /// Certificate and key do not belong together or are of an unknown kind.
    #[error("identity not usable for tls")]
    Tls(#[source] rustls::Error),
    /// The TLS library lacks the cipher suite QUIC starts with.
    #[error("no cipher suite for quic")]
    NoCipherSuite,
    /// A configuration field is outside what QUIC can express.
    #[error("{field} is out of bounds")]
    OutOfBounds {
        /// The field's name.
        field: &'static str,
    },
}

/// Time for closing packets to leave when draining used up all there was.
const CLOSE_GRACE: Duration = Duration::from_millis(200);
