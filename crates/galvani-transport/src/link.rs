//! One link: a connection to one peer with its outboxes, and the task that watches over it.
//!
//! A link exists from `dial` or from a finished handshake until its one `LinkDown`. Whoever finds
//! a reason to end it calls `fail`; the first reason wins. `serve` runs while the link is up,
//! takes in the peer's streams, and reports the end only after the last frame.
//! Next to read: `stream.rs` for the two tasks per stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::counters::count;
use crate::endpoint::Shared;
use crate::outbox::{Outbox, OutboxLimits};
use crate::room::Room;
use crate::stream::{read_class, run_reader, run_writer};
use crate::windows::{FrameRoom, Windows};
use crate::{Class, CloseCode, Config, DownReason, Event, PeerIdentity, SendError};

/// Names a link within one endpoint. Never used twice by an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

impl LinkId {
    pub(crate) const fn new(number: u64) -> Self {
        LinkId(number)
    }

    #[cfg(test)]
    pub(crate) const fn test(number: u64) -> Self {
        LinkId(number)
    }

    /// The id as a number, for logs.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What QUIC measured on the network path of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// UDP payload path discovery has settled on so far, bytes.
    pub mtu: u16,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets held for lost and sent again.
    pub packets_lost: u64,
}

/// One link of an endpoint.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) tag: u64,
    pub(crate) dialed: bool,
    /// Whether all classes may be used, or the client class only.
    all_classes: bool,
    outboxes: [Outbox; Class::COUNT],
    progress: [Progress; Class::COUNT],
    ending: Mutex<Ending>,
    /// Wakes a dial that must be given up.
    pub(crate) given_up: Notify,
    /// Whether the connection is gone: nobody may wait for anything else then.
    over: watch::Sender<bool>,
}

/// How far one stream's reader is, for the watch over slow frames.
#[derive(Default)]
pub(crate) struct Progress {
    /// Reads that brought something.
    pub(crate) reads: AtomicU64,
    /// Whether an unfinished frame waits for the peer (and not for room in the inbox).
    pub(crate) partial: AtomicBool,
}

#[derive(Default)]
struct Ending {
    connection: Option<Connection>,
    reason: Option<DownReason>,
}

impl Link {
    pub(crate) fn new(
        id: LinkId,
        tag: u64,
        dialed: bool,
        all_classes: bool,
        config: &Config,
        of_clients: &Arc<Room>,
    ) -> Self {
        let is_client = !dialed && !all_classes;
        let outbox = |class| {
            let limits = OutboxLimits {
                frame_max: config.frame_bytes_max(class),
                bytes_max: config.outbox_bytes_max,
            };
            Outbox::new(limits, is_client.then(|| of_clients.clone()))
        };
        Link {
            id,
            tag,
            dialed,
            all_classes,
            outboxes: Class::ALL.map(outbox),
            progress: Default::default(),
            ending: Mutex::default(),
            given_up: Notify::new(),
            over: watch::Sender::new(false),
        }
    }

    pub(crate) fn send(&self, class: Class, parts: &[&[u8]]) -> Result<(), SendError> {
        self.open_outbox(class)?.append(parts)
    }

    pub(crate) fn send_with(
        &self,
        class: Class,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<(), SendError> {
        self.open_outbox(class)?.append_with(write)
    }

    /// Returns when the connection is gone.
    pub(crate) async fn is_over(&self) {
        // Its sender is this link.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Whether a client dialed it.
    pub(crate) fn is_clients(&self) -> bool {
        !self.dialed && !self.all_classes
    }

    /// The windows that it should have, if it was dialed by somebody else.
    fn windows(&self, shared: &Shared) -> Option<Windows> {
        match (self.dialed, self.all_classes) {
            (true, _) => None,
            (false, true) => Some(Windows::of_node(&shared.config)),
            (false, false) => Some(Windows::of_client(&shared.config, shared.seats.clients())),
        }
    }

    /// Attaches the connection, unless the link has been given up meanwhile.
    pub(crate) fn attach(&self, connection: &Connection) -> Result<(), DownReason> {
        let mut ending = self.ending.lock();
        match &ending.reason {
            Some(reason) => Err(reason.clone()),
            None => {
                ending.connection = Some(connection.clone());
                Ok(())
            }
        }
    }

    /// Ends the link for `reason`, telling the peer `code`. Only the first call has an effect.
    pub(crate) fn fail(&self, reason: DownReason, code: CloseCode, words: &[u8]) {
        let mut ending = self.ending.lock();
        if ending.reason.is_some() {
            return;
        }
        ending.reason = Some(reason);
        if let Some(connection) = &ending.connection {
            connection.close(code.varint(), words);
        }
        drop(ending);
        self.given_up.notify_one();
    }

    /// Hands a datagram to QUIC. Returns whether it was taken: only between nodes, while connected,
    /// and when it fits a packet.
    pub(crate) fn send_datagram(&self, payload: Bytes) -> bool {
        let connection = self.ending.lock().connection.clone();
        match connection {
            Some(connection) if self.all_classes => connection.send_datagram(payload).is_ok(),
            Some(_) | None => false,
        }
    }

    /// What QUIC measured on the path, while there is a connection.
    pub(crate) fn path(&self) -> Option<PathStats> {
        let ending = self.ending.lock();
        let path = ending.connection.as_ref()?.stats().path;
        Some(PathStats {
            rtt: path.rtt,
            mtu: path.current_mtu,
            packets_sent: path.sent_packets,
            packets_lost: path.lost_packets,
        })
    }

    /// Until when the peer's certificate is good, in seconds since 1970.
    pub(crate) fn peer_expires_s(&self) -> Option<u64> {
        let shown = self.ending.lock().connection.as_ref()?.peer_identity()?;
        let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        crate::expiry::expires_s(chain.first()?)
    }

    /// Takes in no more frames; what is queued still goes out.
    pub(crate) fn drain(&self) {
        for outbox in &self.outboxes {
            outbox.drain();
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.outboxes.iter().all(Outbox::is_drained)
    }

    /// Ends the link's outboxes and gives the reason it went down for: ours if we had one.
    pub(crate) fn finish(&self, found: DownReason) -> DownReason {
        for outbox in &self.outboxes {
            outbox.close();
        }
        let mut ending = self.ending.lock();
        ending.connection = None;
        ending.reason.get_or_insert(found).clone()
    }

    pub(crate) fn outbox(&self, class: Class) -> &Outbox {
        &self.outboxes[class.index()]
    }

    pub(crate) fn progress(&self, class: Class) -> &Progress {
        &self.progress[class.index()]
    }

    /// Whether streams of the class may exist on this link.
    pub(crate) fn allows(&self, class: Class) -> bool {
        match class {
            Class::Client => true,
            Class::Replication | Class::Background => self.all_classes,
        }
    }

    fn open_outbox(&self, class: Class) -> Result<&Outbox, SendError> {
        if !self.allows(class) {
            return Err(SendError::ClassNotOpen);
        }
        Ok(self.outbox(class))
    }
}

/// A link that is up: its connection, its streams' tasks and who is at the other end.
pub(crate) struct UpLink {
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Arc<Link>,
    pub(crate) connection: Connection,
    /// Where a client's large frames wait for room, beside that of all.
    frames: Option<Arc<FrameRoom>>,
    tasks: JoinSet<()>,
    streams_open: [bool; Class::COUNT],
}

impl UpLink {
    /// Announces the link to the lane.
    pub(crate) fn announce(
        shared: Arc<Shared>,
        link: Arc<Link>,
        connection: Connection,
        peer: PeerIdentity,
        frames: Option<Arc<FrameRoom>>,
    ) -> Self {
        count(&shared.counters.links_up);
        shared.inbox.push_control(Event::LinkUp {
            link: link.id,
            peer,
            remote: connection.remote_address(),
            dialed: link.dialed,
            tag: link.tag,
        });
        UpLink {
            shared,
            link,
            connection,
            frames,
            tasks: JoinSet::new(),
            streams_open: [false; Class::COUNT],
        }
    }

    /// Starts the reader and the writer of one stream. On a dialed link the class byte has been
    /// sent; `answered` says whether the peer's has been read too.
    pub(crate) fn start(
        &mut self,
        class: Class,
        streams: (SendStream, RecvStream),
        answered: bool,
    ) {
        let (send, recv) = streams;
        self.streams_open[class.index()] = true;
        // Priorities only order what waits; a stream that is already closed has nothing to order.
        let _ = send.set_priority(class.quic_priority());
        let (shared, link) = (self.shared.clone(), self.link.clone());
        let first = (!link.dialed).then_some(class.wire_id());
        self.tasks.spawn(run_writer(shared.clone(), link.clone(), class, send, first));
        let expect_class = link.dialed && !answered;
        let frames = self.frames.clone();
        self.tasks.spawn(run_reader(shared, link, class, recv, expect_class, frames));
    }

    /// Runs until the link is down and everything it brought is in the inbox.
    pub(crate) async fn serve(mut self) {
        let connection = self.connection.clone();
        let mut watch = SlowFrameWatch::new(self.shared.config.frame_gap_max);
        let mut windows = self.link.windows(&self.shared);
        windows.iter().for_each(|windows| windows.set(&connection));
        let mut ticks = interval(watch.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let error = loop {
            tokio::select! {
                biased;
                error = connection.closed() => break error,
                streams = connection.accept_bi(), if self.expects_streams() => {
                    if let Ok((send, recv)) = streams {
                        self.take_in(send, recv).await;
                    }
                }
                Ok(payload) = connection.read_datagram() => self.take_datagram(payload),
                _ = ticks.tick() => {
                    if let (Some(before), Some(now)) = (windows, self.link.windows(&self.shared))
                        && now.after(before) != before
                    {
                        now.after(before).set(&connection);
                        windows = Some(now.after(before));
                    }
                    if watch.is_stuck(&self.link) {
                        self.link.fail(DownReason::SlowFrame, CloseCode::SLOW_FRAME, b"slow frame");
                    }
                }
            }
        };
        // Readers end once they have read what had arrived; writers because the connection is gone.
        for class in Class::ALL {
            self.link.outbox(class).close();
        }
        self.link.over.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let reason = self.link.finish(DownReason::of_connection(&error));
        self.shared.counters.count_cause(&reason);
        count(&self.shared.counters.links_down);
        self.shared.remove(&self.link, reason);
    }

    /// Takes in a datagram of a node; a client has none to send.
    fn take_datagram(&self, payload: Bytes) {
        if !self.link.all_classes {
            let reason = DownReason::violation("datagram of a client");
            self.link.fail(reason, CloseCode::PROTOCOL_VIOLATION, b"datagram of a client");
            return;
        }
        let counters = &self.shared.counters;
        match self.shared.inbox.push_datagram(self.link.id, payload) {
            true => count(&counters.datagrams_in),
            false => count(&counters.datagrams_dropped),
        }
    }

    fn expects_streams(&self) -> bool {
        !self.link.dialed && !self.streams_open.iter().all(|open| *open)
    }

    /// Takes in a further stream of the peer.
    async fn take_in(&mut self, send: SendStream, mut recv: RecvStream) {
        let limit = self.shared.config.handshake_timeout;
        let class = match timeout(limit, read_class(&mut recv)).await {
            Ok(class) => class,
            Err(_elapsed) => Err(DownReason::SlowFrame),
        };
        match class {
            Ok(class) if !self.link.allows(class) => {
                let code = CloseCode::CLASS_REFUSED;
                self.link.fail(DownReason::ClassRefused, code, b"class refused");
            }
            Ok(class) if self.streams_open[class.index()] => {
                let reason = DownReason::violation("second stream of a class");
                let code = CloseCode::PROTOCOL_VIOLATION;
                self.link.fail(reason, code, b"second stream of a class");
            }
            Ok(class) => self.start(class, (send, recv), true),
            Err(reason) => {
                // A connection that ended meanwhile keeps its own reason.
                if self.connection.close_reason().is_none() {
                    let code = CloseCode::PROTOCOL_VIOLATION;
                    self.link.fail(reason, code, b"bad first byte");
                }
            }
        }
    }
}

/// Finds unfinished frames without progress, at no cost to the readers but two relaxed stores.
///
/// A stream only counts as stuck while no stream of a higher priority moves: those are sent first,
/// so an honest peer's background frame may rest for long.
struct SlowFrameWatch {
    period: Duration,
    seen: [u64; Class::COUNT],
    stuck: [u32; Class::COUNT],
}

impl SlowFrameWatch {
    fn new(gap_max: Duration) -> Self {
        SlowFrameWatch {
            period: (gap_max / WATCH_STEPS).max(Duration::from_millis(1)),
            seen: [0; Class::COUNT],
            stuck: [0; Class::COUNT],
        }
    }

    /// Called once a period. True when a frame has been without progress for all steps.
    fn is_stuck(&mut self, link: &Link) -> bool {
        let mut higher_moves = false;
        for class in Class::ALL {
            let index = class.index();
            let reads = link.progress(class).reads.load(Ordering::Relaxed);
            let partial = link.progress(class).partial.load(Ordering::Relaxed);
            let moved = reads != self.seen[index];
            self.seen[index] = reads;
            if moved || !partial || higher_moves {
                self.stuck[index] = 0;
            } else {
                self.stuck[index] += 1;
            }
            higher_moves |= moved;
        }
        self.stuck.iter().any(|steps| *steps >= WATCH_STEPS)
    }
}

/// Looks per longest gap: a stuck frame is noticed after one to one and a quarter gaps.
const WATCH_STEPS: u32 = 4;
