//! Links to lanes: dialed on demand, shared by all calls, and the requests under way on them.
//!
//! One background task takes everything that arrives and completes the waiting requests. A request
//! enters a link's outbox only once the link is up, so one that never got that far is known never
//! to have been sent. A link that goes down fails its requests at once. What each address costs is
//! remembered (`health.rs`), and one that is suspect is probed now and then. Never retries;
//! `call.rs` does. Next to read: `request.rs`, the future of one attempt.

use crate::health::{Health, Pace, Standing};
use crate::request::Request;
use galvani_transport::pki::Identity;
use galvani_transport::{
    BindError, CloseCode, Config, DownReason, Event, LaneEndpoint, LinkId, Network, PeerIdentity,
    SendError, Transport, TransportKeys,
};
use galvani_wire::{Frame, Message};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The client's endpoint. Dropping it closes every link and fails every request.
pub(crate) struct Net {
    pub(crate) links: Arc<Links>,
    closing: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What calls and the background task share.
pub(crate) struct Links {
    pub(crate) transport: Transport,
    /// Wall clock and randomness.
    pub(crate) network: Network,
    pub(crate) table: Mutex<Table>,
    pub(crate) next_id: AtomicU64,
    /// Told when a link broke or came back: the view may be old.
    stale: Arc<Notify>,
}

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) by_addr: HashMap<SocketAddr, LinkId>,
    health: HashMap<SocketAddr, Health>,
    /// Of all addresses together.
    pace: Health,
    pub(crate) closed: bool,
}

/// One link, being dialed or up.
pub(crate) struct Link {
    pub(crate) addr: SocketAddr,
    /// The node at the other end, once the link is up.
    pub(crate) peer: Option<[u8; 16]>,
    /// Requests that wait for it to be up.
    pub(crate) waiting: Vec<oneshot::Sender<Result<(), Fault>>>,
    /// Requests that wait for their reply, in the order they were sent: they fail in it too.
    pub(crate) pending: BTreeMap<u64, Pending>,
}

/// A request that waits for its reply.
pub(crate) struct Pending {
    pub(crate) waiter: oneshot::Sender<Result<Message, Fault>>,
    pub(crate) sent: Instant,
}

/// Why an attempt got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The link could not be made; nothing was sent.
    #[error("{0}")]
    NotDialed(DownReason),
    /// Another node lives at that address; nothing was sent.
    #[error("another node answered")]
    WrongNode,
    /// The outbox did not take the frame; nothing was sent.
    #[error("{0}")]
    NotSent(SendError),
    /// The link broke after the request was sent: it may have arrived.
    #[error("{0}")]
    Lost(DownReason),
    /// The client is closed. Whether the request arrived is unknown.
    #[error("the client is closed")]
    Closed,
}

impl Fault {
    /// Whether the request may have arrived.
    pub(crate) fn was_sent(&self) -> bool {
        match self {
            Fault::NotDialed(_) | Fault::WrongNode | Fault::NotSent(_) => false,
            Fault::Lost(_) | Fault::Closed => true,
        }
    }

    /// Whether certificates or protocol versions are what keeps the two apart.
    pub(crate) fn is_distrust(&self) -> bool {
        match self {
            Fault::NotDialed(reason) | Fault::Lost(reason) => reason.is_distrust(),
            Fault::WrongNode | Fault::NotSent(_) | Fault::Closed => false,
        }
    }
}

impl Net {
    /// Binds `addr` and starts the background task on the current runtime.
    pub(crate) fn start(
        addr: SocketAddr,
        identity: &Identity,
        config: Config,
        stale: Arc<Notify>,
    ) -> Result<Net, BindError> {
        let network = config.network.clone();
        let mut reset_key = [0; 64];
        network.fill_random(&mut reset_key);
        let keys = TransportKeys { reset_key, cid_key: network.random_u64() };
        let endpoint = LaneEndpoint::bind(addr, identity, &keys, config)?;
        let links = Arc::new(Links {
            transport: endpoint.transport(),
            network,
            table: Mutex::default(),
            next_id: AtomicU64::new(1),
            stale,
        });
        let closing = Arc::new(Notify::new());
        let task = tokio::spawn(serve(endpoint, links.clone(), closing.clone()));
        Ok(Net { links, closing, task: Mutex::new(Some(task)) })
    }

    /// Whether [`Net::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.task.lock().is_none()
    }

    /// Delivers what is in the outboxes, closes all links and waits for that.
    pub(crate) async fn close(&self) {
        self.closing.notify_one();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // An error means that the task is gone already, which is what was wanted.
            let _ = task.await;
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

impl Links {
    /// Whether `addr` should be asked. One that was silent is probed in the background, by whoever
    /// asks first once its cool-down is over, and is good again once anything arrives from it.
    pub(crate) fn standing(self: &Arc<Self>, addr: SocketAddr) -> Standing {
        let mut table = self.table.lock();
        let Some(health) = table.health.get_mut(&addr) else { return Standing::Good };
        let standing = health.standing(Instant::now());
        if standing == Standing::Good || table.closed || !table.takes_probe(addr) {
            return standing;
        }
        let known = table.by_addr.get(&addr).and_then(|id| table.links.get(id));
        match known.map(|link| link.peer.is_some()) {
            Some(true) => {
                drop(table);
                // Nobody waits for the reply: that it arrives is what is wanted.
                drop(Request::start(self, addr, None, &|_| Message::Describe, None));
            }
            Some(false) => {}
            None => {
                self.dial(&mut table, addr);
            }
        }
        standing
    }

    /// Until when the certificate is good that `addr` showed, in seconds since 1970, while there is a link.
    pub(crate) fn expires_s(&self, addr: SocketAddr) -> Option<u64> {
        let link = *self.table.lock().by_addr.get(&addr)?;
        self.transport.peer_expires_s(link)
    }

    /// Whether a request to `addr` would leave at once.
    pub(crate) fn is_up(&self, addr: SocketAddr) -> bool {
        let table = self.table.lock();
        let link = table.by_addr.get(&addr).and_then(|id| table.links.get(id));
        link.is_some_and(|link| link.peer.is_some())
    }

    /// What requests to `addr`, and to all addresses, take: the slower of the two.
    pub(crate) fn pace(&self, addr: SocketAddr) -> Pace {
        let table = self.table.lock();
        let own = table.health.get(&addr).map(Health::pace).unwrap_or_default();
        own.slower(table.pace.pace())
    }

    /// How long a read may take at `addr` before the next owner is asked as well; as at all addresses
    /// while too little is known of this one.
    pub(crate) fn hedge_after(&self, addr: SocketAddr) -> Option<Duration> {
        let table = self.table.lock();
        let own = table.health.get(&addr).and_then(Health::hedge_after);
        own.or_else(|| table.pace.hedge_after())
    }

    /// Remembers that another answered before `addr`, which had `took` and is to be heard of by
    /// `owes_until`.
    pub(crate) fn note_overtaken(&self, addr: SocketAddr, took: Duration, owes_until: Instant) {
        if let Some(health) = self.table.lock().health.get_mut(&addr) {
            health.note_overtaken(took, owes_until);
        }
    }

    /// Remembers that a request to `addr` has had no answer for long.
    pub(crate) fn note_silence(&self, addr: SocketAddr) {
        self.table.lock().note_silence(addr);
    }

    /// Starts a link. Under the table's lock, so that its events find the entry.
    pub(crate) fn dial<'t>(&self, table: &'t mut Table, addr: SocketAddr) -> &'t mut Link {
        let id = self.transport.dial(addr, None, 0);
        table.by_addr.insert(addr, id);
        table.links.entry(id).or_insert(Link {
            addr,
            peer: None,
            waiting: Vec::new(),
            pending: BTreeMap::new(),
        })
    }

    fn take_in(&self, event: Event) {
        match event {
            Event::LinkUp { link, peer, .. } => self.link_up(link, &peer),
            Event::Frame { link, payload, .. } => match Frame::decode(payload) {
                Ok(frame) => self.reply(link, frame),
                Err(error) => {
                    let why = error.to_string();
                    tracing::debug!(link = link.number(), why, "undecodable frame");
                    self.transport.close(link, CloseCode::PROTOCOL_VIOLATION, &why);
                }
            },
            // Nodes send none to clients.
            Event::Datagram { .. } => {}
            Event::LinkDown { link, reason, .. } => self.link_down(link, &reason),
        }
    }

    fn link_up(&self, id: LinkId, peer: &PeerIdentity) {
        let mut table = self.table.lock();
        let Some(link) = table.links.get_mut(&id) else { return };
        link.peer = peer.node_id();
        let (addr, waiting) = (link.addr, std::mem::take(&mut link.waiting));
        let came_back = table.health.get_mut(&addr).is_some_and(Health::note_alive);
        drop(table);
        for waiter in waiting {
            // A waiter that is gone has given up.
            let _ = waiter.send(Ok(()));
        }
        if came_back {
            self.stale.notify_one();
        }
    }

    fn reply(&self, id: LinkId, frame: Frame) {
        let mut table = self.table.lock();
        let Some(link) = table.links.get_mut(&id) else { return };
        let (addr, pending) = (link.addr, link.pending.remove(&frame.id));
        let took = pending.as_ref().map(|pending| pending.sent.elapsed());
        table.note_reply(addr, took.filter(|_| !matches!(frame.message, Message::Failed(_))));
        drop(table);
        if let Some(Pending { waiter, .. }) = pending {
            let _ = waiter.send(Ok(frame.message));
        }
    }

    fn link_down(&self, id: LinkId, reason: &DownReason) {
        let mut table = self.table.lock();
        let Some(link) = table.links.remove(&id) else { return };
        if table.by_addr.get(&link.addr) == Some(&id) {
            table.by_addr.remove(&link.addr);
        }
        let was_up = link.peer.is_some();
        if !was_up {
            table.note_silence(link.addr);
        }
        drop(table);
        tracing::debug!(addr = %link.addr, %reason, was_up, "link down");
        for waiter in link.waiting {
            let _ = waiter.send(Err(Fault::NotDialed(reason.clone())));
        }
        for Pending { waiter, .. } in link.pending.into_values() {
            let _ = waiter.send(Err(Fault::Lost(reason.clone())));
        }
        if was_up {
            self.stale.notify_one();
        }
    }
}

impl Table {
    fn note_silence(&mut self, addr: SocketAddr) {
        if self.health.len() >= HEALTH_MAX {
            // Layouts came and went: what is good is as good when forgotten.
            self.health.retain(|_, health| !health.is_good());
        }
        self.health.entry(addr).or_default().note_silence(Instant::now());
    }

    /// `took`: what the request took, if it was done.
    fn note_reply(&mut self, addr: SocketAddr, took: Option<Duration>) {
        if self.health.len() < HEALTH_MAX {
            self.health.entry(addr).or_default();
        }
        if let Some(health) = self.health.get_mut(&addr) {
            health.note_alive();
            took.into_iter().for_each(|took| health.note_done(took));
        }
        took.into_iter().for_each(|took| self.pace.note_done(took));
    }

    fn takes_probe(&mut self, addr: SocketAddr) -> bool {
        self.health.get_mut(&addr).is_some_and(|health| health.takes_probe(Instant::now()))
    }
}

/// The background task: takes in events until the client is closed or dropped.
async fn serve(mut endpoint: LaneEndpoint, links: Arc<Links>, closing: Arc<Notify>) {
    // Also when the task is aborted or its runtime goes away, nobody may be left waiting.
    let _ending = Ending(links.clone());
    let mut events = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = closing.notified() => break,
            count = endpoint.recv_batch(&mut events) => {
                if count == 0 {
                    return;
                }
                events.drain(..).for_each(|event| links.take_in(event));
            }
        }
    }
    links.table.lock().closed = true;
    endpoint.shutdown(CLOSE_LIMIT).await;
    while endpoint.recv_batch(&mut events).await > 0 {
        events.drain(..).for_each(|event| links.take_in(event));
    }
}

/// Fails everything that waits when the background task ends, however it ends.
struct Ending(Arc<Links>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        table.closed = true;
        table.by_addr.clear();
        let links = std::mem::take(&mut table.links);
        drop(table);
        for link in links.into_values() {
            for waiter in link.waiting {
                let _ = waiter.send(Err(Fault::NotDialed(DownReason::ClosedHere)));
            }
            for Pending { waiter, .. } in link.pending.into_values() {
                let _ = waiter.send(Err(Fault::Closed));
            }
        }
    }
}

/// Addresses whose health is kept; more than the lanes of a large cluster.
const HEALTH_MAX: usize = 4096;
/// Time to deliver what is in the outboxes when the client is closed.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);
