//! Where all links of an endpoint put what they received, and the lane takes it out in batches.
//!
//! One lock per batch on either side, and a wake-up only when the lane is asleep. Bounded in
//! bytes per class: a stream whose class is over its bound is not read on, so QUIC flow control
//! holds back that peer, and a flood of one class never keeps another class out.
//! Next to read: `stream.rs`, which fills it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Class, Config, DownReason, LinkId, PeerIdentity};

/// What an endpoint tells its lane. For each link: frames only between its `LinkUp` and its
/// `LinkDown`; exactly one `LinkDown` for each `dial` and each `LinkUp`, and nothing after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both sides accepted each other.
    LinkUp {
        /// The link.
        link: LinkId,
        /// Who the peer's certificate names.
        peer: PeerIdentity,
        /// Where the peer is. An address proves nothing and may change later.
        remote: SocketAddr,
        /// Whether this side dialed.
        dialed: bool,
        /// The number given to `dial`; 0 for accepted links.
        tag: u64,
    },
    /// A frame arrived whole. Frames of one class on one link arrive in the order sent.
    Frame {
        /// The link it came on.
        link: LinkId,
        /// The stream class it came on.
        class: Class,
        /// When it arrived; it may have waited here since.
        arrived: Instant,
        /// Its bytes. They share the read buffer: copy what is kept for long.
        payload: Bytes,
    },
    /// A datagram of a node arrived. It may be late, and others may have been lost.
    Datagram {
        /// The link it came on.
        link: LinkId,
        /// Its bytes.
        payload: Bytes,
    },
    /// The link is gone, or a dial failed.
    LinkDown {
        /// The link.
        link: LinkId,
        /// The number given to `dial`; 0 for accepted links.
        tag: u64,
        /// Why.
        reason: DownReason,
    },
}

/// The events of one endpoint that its lane has not taken yet.
pub(crate) struct Inbox {
    state: Mutex<State>,
    space: [Notify; Class::COUNT],
    bytes_max: usize,
    control_max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Event>,
    bytes: [usize; Class::COUNT],
    /// Queued events that are no frames.
    control: usize,
    /// Queued datagrams.
    datagrams: usize,
    waiting: Option<Waker>,
    /// Nobody will take events any more: drop them and hold nobody back.
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(config: &Config) -> Self {
        Inbox {
            state: Mutex::new(State::default()),
            space: Default::default(),
            bytes_max: config.inbox_bytes_max,
            control_max: config.links_max.saturating_mul(CONTROL_PER_LINK),
        }
    }

    /// Adds a `LinkUp` or `LinkDown`. Always taken in; `is_swamped` bounds how many there can be.
    pub(crate) fn push_control(&self, event: Event) {
        let mut state = self.state.lock();
        if !state.closed {
            state.control += 1;
            state.queue.push_back(event);
        }
        wake(state);
    }

    /// Adds frames of one stream, in order. Returns whether the class may take more.
    pub(crate) fn push_frames(&self, link: LinkId, class: Class, frames: &mut Vec<Bytes>) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            frames.clear();
            return true;
        }
        let arrived = tokio::time::Instant::now().into_std();
        for payload in frames.drain(..) {
            state.bytes[class.index()] += cost(&payload);
            state.queue.push_back(Event::Frame { link, class, arrived, payload });
        }
        let more = state.bytes[class.index()] < self.bytes_max;
        wake(state);
        more
    }

    /// Adds a datagram, if there is room. Returns whether there was.
    pub(crate) fn push_datagram(&self, link: LinkId, payload: Bytes) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.datagrams >= DATAGRAMS_MAX {
            return false;
        }
        state.datagrams += 1;
        state.queue.push_back(Event::Datagram { link, payload });
        wake(state);
        true
    }

    /// Waits until the class may take more.
    pub(crate) async fn space(&self, class: Class) {
        loop {
            let mut notified = pin!(self.space[class.index()].notified());
            // Registered before the check, so a drain between the two is not missed.
            notified.as_mut().enable();
            if self.has_space(class) {
                return;
            }
            notified.await;
        }
    }

    /// Moves up to `max` events to the end of `out`; pending while there are none. Returns how many
    /// were moved: 0 only after `close`.
    pub(crate) fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        out: &mut Vec<Event>,
        max: usize,
    ) -> Poll<usize> {
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            if state.closed {
                return Poll::Ready(0);
            }
            match &mut state.waiting {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let taken = state.queue.len().min(max.max(1));
        let before = state.bytes;
        out.reserve(taken);
        for _ in 0..taken {
            let Some(event) = state.queue.pop_front() else {
                break;
            };
            match &event {
                Event::Frame { class, payload, .. } => {
                    state.bytes[class.index()] -= cost(payload);
                }
                Event::Datagram { .. } => state.datagrams -= 1,
                Event::LinkUp { .. } | Event::LinkDown { .. } => state.control -= 1,
            }
            out.push(event);
        }
        let after = state.bytes;
        drop(state);
        for index in 0..Class::COUNT {
            if before[index] >= self.bytes_max && after[index] < self.bytes_max {
                self.space[index].notify_waiters();
            }
        }
        Poll::Ready(taken)
    }

    /// Keeps what is queued but takes in nothing more and holds nobody back.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        wake(state);
        for space in &self.space {
            space.notify_waiters();
        }
    }

    /// Whether so many link events wait that no further link should be accepted.
    pub(crate) fn is_swamped(&self) -> bool {
        self.state.lock().control >= self.control_max
    }

    /// Bytes held for a class.
    pub(crate) fn bytes(&self, class: Class) -> usize {
        self.state.lock().bytes[class.index()]
    }

    fn has_space(&self, class: Class) -> bool {
        let state = self.state.lock();
        state.closed || state.bytes[class.index()] < self.bytes_max
    }
}

/// Wakes the lane, if it sleeps, after the lock is released.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waker = state.waiting.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What a frame counts for: empty frames cost memory too.
fn cost(payload: &Bytes) -> usize {
    payload.len() + size_of::<Event>()
}

/// Datagrams that may wait for the lane: some seconds' worth of a large cluster's.
const DATAGRAMS_MAX: usize = 1_024;

/// Link events that may wait per permitted link: one up, one down, for two generations.
const CONTROL_PER_LINK: usize = 4;

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Instant;

    use bytes::Bytes;

    use super::{DATAGRAMS_MAX, Event, Inbox};
    use crate::{Class, Config, LinkId};

    fn frames(count: usize, len: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![7; len]); count]
    }

    fn drain(inbox: &Inbox, max: usize) -> Vec<Event> {
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        let _ = inbox.poll_drain(&mut cx, &mut out, max);
        out
    }

    #[test]
    fn one_full_class_leaves_the_others_room() {
        let config = Config { inbox_bytes_max: 1_000, ..Config::default() };
        let inbox = Inbox::new(&config);
        let link = LinkId::test(1);
        assert!(!inbox.push_frames(link, Class::Client, &mut frames(1, 1_000)));
        assert!(inbox.push_frames(link, Class::Replication, &mut frames(1, 10)));
        assert!(!inbox.has_space(Class::Client));
        assert_eq!(drain(&inbox, 1).len(), 1);
        assert!(inbox.has_space(Class::Client));
    }

    #[test]
    fn batches_are_bounded_and_in_order() {
        let inbox = Inbox::new(&Config::default());
        let link = LinkId::test(1);
        for n in 0..10_u8 {
            inbox.push_frames(link, Class::Client, &mut vec![Bytes::from(vec![n])]);
        }
        let mut seen = drain(&inbox, 4);
        assert_eq!(seen.len(), 4);
        seen.extend(drain(&inbox, 100));
        let order: Vec<u8> = seen
            .iter()
            .map(|event| match event {
                Event::Frame { payload, .. } => payload[0],
                _ => unreachable!("only frames"),
            })
            .collect();
        assert_eq!(order, (0..10).collect::<Vec<u8>>());
        assert_eq!(inbox.bytes(Class::Client), 0);
    }

    #[test]
    fn a_frame_tells_when_it_came_not_when_it_was_taken() {
        let inbox = Inbox::new(&Config::default());
        let before = Instant::now();
        inbox.push_frames(LinkId::test(1), Class::Replication, &mut frames(1, 1));
        let after = Instant::now();
        while Instant::now() == after {}
        let [Event::Frame { arrived, .. }] = drain(&inbox, 10)[..] else { panic!("one frame") };
        assert!((before..=after).contains(&arrived));
    }

    #[test]
    fn datagrams_that_nobody_takes_are_dropped_at_the_bound() {
        let inbox = Inbox::new(&Config::default());
        let link = LinkId::test(1);
        let taken = (0..DATAGRAMS_MAX + 5)
            .filter(|_| inbox.push_datagram(link, Bytes::from_static(b"x")))
            .count();
        assert_eq!(taken, DATAGRAMS_MAX);
        assert_eq!(drain(&inbox, 1).len(), 1);
        assert!(inbox.push_datagram(link, Bytes::from_static(b"y")), "one was taken");
    }

    #[test]
    fn closing_drops_what_comes_later_and_ends_the_wait() {
        let inbox = Inbox::new(&Config::default());
        let link = LinkId::test(1);
        inbox.push_frames(link, Class::Client, &mut frames(1, 1));
        inbox.close();
        inbox.push_frames(link, Class::Client, &mut frames(1, 1));
        assert_eq!(drain(&inbox, 10).len(), 1);
        let mut cx = Context::from_waker(Waker::noop());
        let end = inbox.poll_drain(&mut cx, &mut Vec::new(), 10);
        assert_eq!(end, Poll::Ready(0));
    }
}
