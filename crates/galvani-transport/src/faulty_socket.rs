//! The UDP socket of an endpoint that may have faults: drops, and sends late, what it is told to.
//!
//! It stands between QUIC and the kernel. While no faults are set everything passes through
//! untouched, batches included. What is late waits in a bounded queue; beyond the bound it is lost,
//! as in a router. Later datagrams to a peer never overtake earlier late ones.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until};

use crate::faults::{Faults, Outgoing};

/// A socket whose datagrams go by [`Faults`].
#[derive(Debug)]
pub(crate) struct FaultySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    faults: Faults,
    /// To the task that sends late; it ends with the socket.
    late: UnboundedSender<Late>,
    /// Bytes that wait in that task.
    waiting: Arc<AtomicUsize>,
}

/// A datagram that leaves later.
#[derive(Debug)]
struct Late {
    due: Instant,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
    contents: Vec<u8>,
}

impl FaultySocket {
    /// Puts `faults` before `inner`, and a task for what is late on `runtime`.
    pub(crate) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        faults: Faults,
        runtime: &Handle,
    ) -> FaultySocket {
        let (late, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        runtime.spawn(send_late(inner.clone(), queue, waiting.clone()));
        FaultySocket { inner, faults, late, waiting }
    }

    /// Sends those datagrams of `transmit` that are kept, at `due` or now. If the kernel takes the
    /// first of them and not all, the others are lost: so it goes on a bad network.
    fn send_some(
        &self,
        transmit: &Transmit<'_>,
        kept: &[bool],
        due: Option<Instant>,
    ) -> io::Result<()> {
        let mut first = true;
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for (contents, _) in transmit.contents.chunks(size).zip(kept).filter(|(_, kept)| **kept) {
            match due {
                None => {
                    let one = Transmit { contents, segment_size: None, ..transmit.clone() };
                    match self.inner.try_send(&one) {
                        Err(error) if first => return Err(error),
                        Ok(()) | Err(_) => first = false,
                    }
                }
                Some(due) => self.delay(transmit, contents, due),
            }
        }
        Ok(())
    }

    fn delay(&self, transmit: &Transmit<'_>, contents: &[u8], due: Instant) {
        let before = self.waiting.fetch_add(contents.len(), Ordering::Relaxed);
        if before + contents.len() > WAITING_BYTES_MAX {
            self.waiting.fetch_sub(contents.len(), Ordering::Relaxed);
            return;
        }
        let late = Late {
            due,
            destination: transmit.destination,
            ecn: transmit.ecn,
            src_ip: transmit.src_ip,
            contents: contents.to_vec(),
        };
        // The task ends only with its runtime: then nothing is sent any more.
        let _ = self.late.send(late);
    }
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.faults.any() {
            return self.inner.try_send(transmit);
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let datagrams = transmit.contents.len().div_ceil(size);
        match self.faults.outgoing(transmit.destination, datagrams) {
            Outgoing::Now => self.inner.try_send(transmit),
            Outgoing::Some { kept, later } => {
                let due = (!later.is_zero()).then(|| Instant::now() + later);
                self.send_some(transmit, &kept, due)
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &polled
            && self.faults.any()
        {
            for (buffer, meta) in bufs.iter_mut().zip(meta).take(*count) {
                let datagrams = meta.len.div_ceil(meta.stride.max(1));
                if let Some(kept) = self.faults.incoming(meta.addr, datagrams) {
                    meta.len = keep(buffer, meta.len, meta.stride, &kept);
                }
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Moves the kept datagrams of a buffer together; their bytes. A length of 0 is no datagram.
fn keep(buffer: &mut [u8], len: usize, stride: usize, kept: &[bool]) -> usize {
    let mut end = 0;
    for (index, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        let from = index * stride;
        let to = (from + stride).min(len);
        buffer.copy_within(from..to, end);
        end += to - from;
    }
    end
}

/// Sends what is late when it is due, until the socket is gone.
async fn send_late(
    inner: Arc<dyn AsyncUdpSocket>,
    mut queue: UnboundedReceiver<Late>,
    waiting: Arc<AtomicUsize>,
) {
    let mut poller = inner.clone().create_io_poller();
    let mut late: BTreeMap<(Instant, u64), Late> = BTreeMap::new();
    let mut last: BTreeMap<SocketAddr, Instant> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = late.first_key_value().map(|(&(due, _), _)| due);
        // Far enough for a queue that is empty: what comes next wakes it.
        let wake = next.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            biased;
            added = queue.recv() => {
                let Some(added) = added else { return };
                // In order, as on a path: jitter alone must not look like loss.
                let due = last.get(&added.destination).map_or(added.due, |&last| last.max(added.due));
                last.insert(added.destination, due);
                number += 1;
                late.insert((due, number), added);
            }
            () = sleep_until(wake) => {}
        }
        let now = Instant::now();
        last.retain(|_, due| *due > now);
        while let Some(entry) = late.first_entry().filter(|entry| entry.key().0 <= now) {
            let due = entry.remove();
            waiting.fetch_sub(due.contents.len(), Ordering::Relaxed);
            send_one(&inner, &mut poller, &due).await;
        }
    }
}

async fn send_one(
    inner: &Arc<dyn AsyncUdpSocket>,
    poller: &mut Pin<Box<dyn UdpPoller>>,
    late: &Late,
) {
    let transmit = Transmit {
        destination: late.destination,
        ecn: late.ecn,
        contents: &late.contents,
        segment_size: None,
        src_ip: late.src_ip,
    };
    while let Err(error) = inner.try_send(&transmit) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return;
        }
        if poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.is_err() {
            return;
        }
    }
}

/// Bytes that may wait to be sent late, per socket: a second of a saturated gigabit would be
/// more, the windows of a few links are less.
const WAITING_BYTES_MAX: usize = 16 << 20;
const IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
