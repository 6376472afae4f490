//! What one node or client has of the network in memory: sockets, a clock that may be wrong, its
//! own randomness, and a gate that stands it still.
//!
//! A host that is paused runs neither its lanes nor QUIC; what arrives waits in its sockets, as for
//! a process that got SIGSTOP. Next to read: `wire.rs`.

use crate::memnet::wire::Wire;
use galvani_transport::CustomNetwork;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// One host. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Host {
    wire: Arc<Wire>,
    ip: IpAddr,
    began: tokio::time::Instant,
    /// What its wall clock showed when it began, and how much it has jumped since.
    wall_ms: Arc<AtomicU64>,
    rng: Arc<Mutex<StdRng>>,
    gate: Arc<Gate>,
}

impl Host {
    /// A host on `wire` whose wall clock shows `wall_ms` now.
    pub fn new(wire: Arc<Wire>, ip: IpAddr, wall_ms: u64, seed: u64) -> Host {
        let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let began = tokio::time::Instant::now();
        let wall_ms = Arc::new(AtomicU64::new(wall_ms));
        Host { wire, ip, began, wall_ms, rng, gate: Arc::new(Gate::default()) }
    }

    /// Its wall clock jumps.
    pub fn jump(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms.cast_unsigned(), Ordering::Relaxed);
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Stands it still, or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.gate.close(paused);
    }

    /// A future that stands still with the host.
    pub fn gated<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Gated { gate: self.gate.clone(), future: Box::pin(future) }
    }
}

impl CustomNetwork for Host {
    fn bind(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let wanted = SocketAddr::new(self.ip, addr.port());
        let (addr, number) = self.wire.bind(wanted)?;
        Ok(Arc::new(Socket { wire: self.wire.clone(), addr, number }))
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(HostRuntime { host: self.clone() })
    }

    fn unix_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed) + self.began.elapsed().as_millis() as u64
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        self.rng.lock().expect("no holder panics").fill_bytes(bytes);
    }
}

/// Timers of tokio's clock; tasks that stand still with the host.
#[derive(Debug)]
struct HostRuntime {
    host: Host,
}

impl Runtime for HostRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(self.host.gated(future));
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[derive(Debug)]
struct Socket {
    wire: Arc<Wire>,
    addr: SocketAddr,
    /// Which of the sockets that were ever bound there.
    number: u64,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.wire.unbind(self.addr, self.number);
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(size) {
            self.wire.send(self.addr, self.number, transmit.destination, contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let take = |index: usize, addr: SocketAddr, contents: &[u8]| {
            if index == bufs.len() {
                return false;
            }
            let len = contents.len().min(bufs[index].len());
            bufs[index][..len].copy_from_slice(&contents[..len]);
            meta[index] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            true
        };
        self.wire.receive(self.addr, self.number, cx.waker(), take).map(Ok)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Lets futures through or not.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    closed: bool,
    /// Tasks that came while it was closed, in their order.
    waiting: Vec<Waker>,
}

impl Gate {
    fn close(&self, closed: bool) {
        let mut state = self.state.lock().expect("no holder panics");
        state.closed = closed;
        if !closed {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().expect("no holder panics");
        match state.closed {
            true => {
                state.waiting.push(cx.waker().clone());
                Poll::Pending
            }
            false => Poll::Ready(()),
        }
    }
}

struct Gated<F> {
    gate: Arc<Gate>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.gate.poll(cx) {
            Poll::Ready(()) => self.future.as_mut().poll(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}
