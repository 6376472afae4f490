//! One attempt: a message to one lane, and the future of its reply.
//!
//! Waits for the link, then sends, then waits for the reply. Dropping it takes its entry out of
//! the table, so a cancelled call leaves nothing behind; a late reply is then nobody's.

use crate::net::{Fault, Links, Pending};
use galvani_model::ids::NodeId;
use galvani_transport::{Class, DownReason, LinkId, SendError};
use galvani_wire::{HEADER_BYTES_MAX, HeaderTooLong, Message, encode};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Makes the message at the moment it is sent, so that it carries the time that is left, and whether an
/// earlier attempt may have arrived.
pub(crate) type Make<'a> = dyn Fn(Try) -> Message + Send + Sync + 'a;

/// Which attempt of a call a message is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// None before it may have reached a node.
    First,
    /// An earlier one may have.
    Again,
}

/// Attempts of one call that may have done something: sent, and not refused for certain.
#[derive(Debug, Default)]
pub(crate) struct Tries(AtomicU32);

impl Tries {
    /// One more is sent now.
    fn another(&self) -> Try {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Try::First,
            _ => Try::Again,
        }
    }

    /// One of them did nothing: it never left, or its node says so.
    pub(crate) fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request to one lane.
pub(crate) struct Request<'a> {
    links: Arc<Links>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    make: &'a Make<'a>,
    tries: Option<&'a Tries>,
    stage: Stage,
}

enum Stage {
    /// Waits for the link to be up.
    Dialing(oneshot::Receiver<Result<(), Fault>>),
    /// Sent on this link under this id.
    Sent { link: LinkId, id: u64, reply: oneshot::Receiver<Result<Message, Fault>> },
    /// Failed before it was sent.
    Failed(Fault),
    /// The outcome was given out.
    Over,
}

impl<'a> Request<'a> {
    /// Sends the message to `addr` at once if there is a link, else dials it first. With `expect`,
    /// no other node gets to see it.
    pub(crate) fn start(
        links: &Arc<Links>,
        addr: SocketAddr,
        expect: Option<NodeId>,
        make: &'a Make<'a>,
        tries: Option<&'a Tries>,
    ) -> Request<'a> {
        let (links, stage) = (links.clone(), Stage::Over);
        let mut request = Request { links, addr, expect, make, tries, stage };
        request.stage = request.begin(true);
        request
    }

    /// Whether it may have reached the node.
    pub(crate) fn was_sent(&self) -> bool {
        match &self.stage {
            Stage::Sent { .. } => true,
            Stage::Dialing(_) | Stage::Failed(_) | Stage::Over => false,
        }
    }

    fn begin(&self, may_dial: bool) -> Stage {
        let mut table = self.links.table.lock();
        if table.closed {
            return Stage::Failed(Fault::NotDialed(DownReason::ClosedHere));
        }
        let known = table.by_addr.get(&self.addr).copied();
        let (id, link) = match known.and_then(|id| Some((id, table.links.get_mut(&id)?))) {
            Some((id, link)) if link.peer.is_some() => (id, link),
            Some((_, link)) => return wait_for(&mut link.waiting),
            None if may_dial => {
                return wait_for(&mut self.links.dial(&mut table, self.addr).waiting);
            }
            None => return Stage::Failed(Fault::NotDialed(DownReason::ClosedHere)),
        };
        if self.expect.is_some_and(|node| link.peer != Some(node.to_bytes())) {
            return Stage::Failed(Fault::WrongNode);
        }
        let request_id = self.links.next_id.fetch_add(1, Ordering::Relaxed);
        let (waiter, reply) = oneshot::channel();
        link.pending.insert(request_id, Pending { waiter, sent: Instant::now() });
        drop(table);
        // Encoded outside the lock: a value may be large.
        let message = (self.make)(self.tries.map_or(Try::First, Tries::another));
        let mut encoded = Ok(());
        let write = |out: &mut _| encoded = encode(request_id, false, &message, out);
        let sent = self.links.transport.send_with(id, Class::Client, write).and_then(|()| {
            let max = HEADER_BYTES_MAX;
            encoded.map_err(|HeaderTooLong { bytes }| SendError::TooLarge { bytes, max })
        });
        match sent {
            Ok(()) => Stage::Sent { link: id, id: request_id, reply },
            Err(error) => {
                self.forget(id, request_id);
                if let Some(tries) = self.tries {
                    tries.take_back();
                }
                Stage::Failed(match error {
                    SendError::Closed => Fault::NotDialed(DownReason::ClosedHere),
                    SendError::Full | SendError::TooLarge { .. } | SendError::ClassNotOpen => {
                        Fault::NotSent(error)
                    }
                })
            }
        }
    }

    fn forget(&self, link: LinkId, id: u64) {
        if let Some(link) = self.links.table.lock().links.get_mut(&link) {
            link.pending.remove(&id);
        }
    }
}

fn wait_for(waiting: &mut Vec<oneshot::Sender<Result<(), Fault>>>) -> Stage {
    let (waiter, up) = oneshot::channel();
    // Those that gave up leave now and then, so that a dial under way holds little more than it
    // must, and a burst of requests does not search the list each time.
    if waiting.len().is_power_of_two() {
        waiting.retain(|waiter| !waiter.is_closed());
    }
    waiting.push(waiter);
    Stage::Dialing(up)
}

impl Future for Request<'_> {
    type Output = Result<Message, Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.stage {
                Stage::Dialing(up) => {
                    let up = ready!(Pin::new(up).poll(cx));
                    this.stage = match up {
                        Ok(Ok(())) => this.begin(false),
                        Ok(Err(fault)) => Stage::Failed(fault),
                        Err(_) => Stage::Failed(Fault::NotDialed(DownReason::ClosedHere)),
                    };
                }
                Stage::Sent { reply, .. } => {
                    let reply = ready!(Pin::new(reply).poll(cx));
                    this.stage = Stage::Over;
                    return Poll::Ready(reply.unwrap_or(Err(Fault::Closed)));
                }
                Stage::Failed(fault) => {
                    let fault = fault.clone();
                    this.stage = Stage::Over;
                    return Poll::Ready(Err(fault));
                }
                Stage::Over => return Poll::Pending,
            }
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Stage::Sent { link, id, .. } = self.stage {
            self.forget(link, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Request;
    use crate::net::Net;
    use galvani_transport::pki::ClusterCa;
    use galvani_transport::{Config, Event, LaneEndpoint, Role, TransportKeys};
    use galvani_wire::Message;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_dropped_request_leaves_nothing_behind() {
        let ca = ClusterCa::create("c0ffee").expect("made");
        let node = ca.issue_node(&format!("{:032x}", 1), &[]).expect("issued");
        let keys = TransportKeys::generate().expect("randomness");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = LaneEndpoint::bind(any, &node, &keys, Config::loopback()).expect("bound");
        let addr = server.local_addr();
        let client = ca.issue_client("test", Role::Admin).expect("issued");
        let stale = Arc::new(Notify::new());
        let net = Net::start(any, &client, Config::loopback(), stale).expect("bound");

        let mut request = Request::start(&net.links, addr, None, &|_| Message::Status, None);
        let mut events = Vec::new();
        let arrived = |events: &[Event]| {
            events.iter().any(|event| match event {
                Event::Frame { .. } => true,
                Event::LinkUp { .. } | Event::Datagram { .. } | Event::LinkDown { .. } => false,
            })
        };
        while !arrived(&events) {
            tokio::select! {
                _ = &mut request => panic!("nobody replies"),
                _ = server.recv_batch(&mut events) => {}
            }
        }
        let pending = || {
            let table = net.links.table.lock();
            table.links.values().map(|link| link.pending.len()).sum::<usize>()
        };
        assert!(request.was_sent());
        assert_eq!(pending(), 1);
        drop(request);
        assert_eq!(pending(), 0);
    }

    #[tokio::test]
    async fn closing_fails_what_waits() {
        let ca = ClusterCa::create("c0ffee").expect("made");
        let client = ca.issue_client("test", Role::Admin).expect("issued");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let stale = Arc::new(Notify::new());
        let net = Net::start(any, &client, Config::loopback(), stale).expect("bound");
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let request = Request::start(&net.links, nobody, None, &|_| Message::Status, None);
        let (outcome, ()) = tokio::join!(request, net.close());
        assert!(!outcome.expect_err("closed").was_sent());
        let later = Request::start(&net.links, nobody, None, &|_| Message::Status, None).await;
        assert!(!later.expect_err("closed").was_sent());
    }
}
