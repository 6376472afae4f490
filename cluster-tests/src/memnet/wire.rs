//! The network in memory: datagrams that fly, are late, are lost, arrive twice, meet a cut.
//!
//! All of it follows from one generator and tokio's clock, so that the same seed gives the same
//! datagrams at the same times. A hash over all that were sent tells whether it did. Who is cut off
//! from whom is said per direction, by address. Next to read: `host.rs`, what a node sees of it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How the network treats datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Least time on the way, milliseconds; at least 1.
    pub delay_ms: u64,
    /// How much longer it may take: what is later may overtake.
    pub jitter_ms: u64,
    /// Datagrams lost, of a thousand.
    pub lost: u32,
    /// Datagrams that arrive twice, of a thousand.
    pub twice: u32,
}

impl Weather {
    /// What a quiet local network is like.
    pub const FAIR: Weather = Weather { delay_ms: 1, jitter_ms: 0, lost: 0, twice: 0 };
}

/// What the network has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams handed to a socket.
    pub arrived: u64,
    /// Of each datagram sent: when, from where, to where, how large.
    pub hash: u64,
}

/// The network. Clones of the handle are the same one.
#[derive(Debug)]
pub struct Wire {
    inner: Mutex<Inner>,
    /// Told when something flies that is due before all else.
    sooner: Notify,
}

#[derive(Debug)]
struct Inner {
    ports: BTreeMap<SocketAddr, Port>,
    flying: BTreeMap<(Instant, u64), Flying>,
    /// Datagrams and sockets so far.
    number: u64,
    rng: StdRng,
    weather: Weather,
    /// Nothing goes from the first to the second.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    began: Instant,
    traffic: Traffic,
}

/// A bound socket.
#[derive(Debug)]
struct Port {
    number: u64,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Flying {
    from: SocketAddr,
    to: SocketAddr,
    contents: Vec<u8>,
}

impl Wire {
    /// A fair network, and the task that delivers; it ends with the last handle.
    pub fn start(seed: u64) -> Arc<Wire> {
        let inner = Inner {
            ports: BTreeMap::new(),
            flying: BTreeMap::new(),
            number: 0,
            rng: StdRng::seed_from_u64(seed),
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
            began: Instant::now(),
            traffic: Traffic { hash: FNV_START, ..Traffic::default() },
        };
        let wire = Arc::new(Wire { inner: Mutex::new(inner), sooner: Notify::new() });
        let weak = Arc::downgrade(&wire);
        tokio::spawn(async move {
            while let Some(wire) = weak.upgrade() {
                wire.deliver().await;
            }
        });
        wire
    }

    /// From now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Nothing goes from `from` to `to` any more; what flies arrives.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.lock().cut.insert((from, to));
    }

    /// It does again.
    pub fn join(&self, from: IpAddr, to: IpAddr) {
        self.lock().cut.remove(&(from, to));
    }

    /// Takes a host's sockets away at once: it crashed. They send and receive nothing any more.
    pub fn unplug(&self, host: IpAddr) {
        self.lock().ports.retain(|addr, _| addr.ip() != host);
    }

    /// What has been done so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    /// Binds a socket; port 0 is one that nobody has. Returns its address and its number.
    pub(super) fn bind(&self, addr: SocketAddr) -> io::Result<(SocketAddr, u64)> {
        let mut inner = self.lock();
        inner.number += 1;
        let number = inner.number;
        let free = |port: &u16| !inner.ports.contains_key(&SocketAddr::new(addr.ip(), *port));
        let port = match addr.port() {
            0 => (FIRST_FREE_PORT..u16::MAX).find(free),
            port => Some(port).filter(free),
        };
        let port = port.ok_or(io::ErrorKind::AddrInUse)?;
        let addr = SocketAddr::new(addr.ip(), port);
        let port = Port { number, queue: VecDeque::new(), bytes: 0, waker: None };
        inner.ports.insert(addr, port);
        Ok((addr, number))
    }

    /// The socket is closed.
    pub(super) fn unbind(&self, addr: SocketAddr, number: u64) {
        let mut inner = self.lock();
        if inner.ports.get(&addr).is_some_and(|port| port.number == number) {
            inner.ports.remove(&addr);
        }
    }

    /// Sends one datagram, if the socket is still there.
    pub(super) fn send(&self, from: SocketAddr, number: u64, to: SocketAddr, contents: &[u8]) {
        let mut inner = self.lock();
        if inner.ports.get(&from).is_none_or(|port| port.number != number) {
            return;
        }
        let first = inner.flying.first_key_value().map(|(&key, _)| key);
        inner.send(Flying { from, to, contents: contents.to_vec() });
        if inner.flying.first_key_value().map(|(&key, _)| key) != first {
            self.sooner.notify_one();
        }
    }

    /// Takes what has arrived, `take` once for each, as long as it returns true.
    pub(super) fn receive(
        &self,
        addr: SocketAddr,
        number: u64,
        waker: &Waker,
        mut take: impl FnMut(usize, SocketAddr, &[u8]) -> bool,
    ) -> Poll<usize> {
        let mut inner = self.lock();
        let Some(port) = inner.ports.get_mut(&addr).filter(|port| port.number == number) else {
            return Poll::Pending;
        };
        let mut taken = 0;
        while let Some((from, contents)) = port.queue.front()
            && take(taken, *from, contents)
        {
            port.bytes -= contents.len();
            port.queue.pop_front();
            taken += 1;
        }
        if taken == 0 {
            port.waker = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(taken)
    }

    /// Waits for the next datagram that is due, or for one that is due sooner, and delivers.
    async fn deliver(&self) {
        let due = self.lock().flying.first_key_value().map(|(&(due, _), _)| due);
        // Far enough for an empty sky: what comes next tells.
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        let _ = tokio::time::timeout_at(due, self.sooner.notified()).await;
        let now = Instant::now();
        let mut woken = Vec::new();
        let mut inner = self.lock();
        while let Some(entry) = inner.flying.first_entry().filter(|entry| entry.key().0 <= now) {
            let flying = entry.remove();
            woken.extend(inner.arrive(flying));
        }
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the network panics")
    }
}

impl Inner {
    fn send(&mut self, flying: Flying) {
        let now = Instant::now();
        let micros = now.duration_since(self.began).as_micros() as u64;
        self.traffic.sent += 1;
        self.note(micros);
        self.note(address_number(flying.from));
        self.note(address_number(flying.to));
        self.note(flying.contents.len() as u64);
        let Weather { delay_ms, jitter_ms, lost, twice } = self.weather;
        // Always drawn, so that a cut changes nothing for others.
        let is_lost = self.rng.random_range(0..1_000) < lost;
        let is_twice = self.rng.random_range(0..1_000) < twice;
        let late = [0, 1].map(|_| delay_ms + self.rng.random_range(0..=jitter_ms));
        let is_cut = self.cut.contains(&(flying.from.ip(), flying.to.ip()));
        if is_lost || is_cut || flying.contents.len() > DATAGRAM_BYTES_MAX {
            return;
        }
        let at = |ms: u64| now + Duration::from_millis(ms.max(1));
        if is_twice {
            let copy = Flying { contents: flying.contents.clone(), ..flying };
            self.number += 1;
            self.flying.insert((at(late[1]), self.number), copy);
        }
        self.number += 1;
        self.flying.insert((at(late[0]), self.number), flying);
    }

    /// Hands a datagram to its socket; who is to be woken.
    fn arrive(&mut self, flying: Flying) -> Option<Waker> {
        let port = self.ports.get_mut(&flying.to)?;
        if port.bytes + flying.contents.len() > SOCKET_BYTES_MAX {
            return None;
        }
        port.bytes += flying.contents.len();
        port.queue.push_back((flying.from, flying.contents));
        self.traffic.arrived += 1;
        port.waker.take()
    }

    /// One step of FNV-1a, eight bytes at once.
    fn note(&mut self, number: u64) {
        self.traffic.hash = (self.traffic.hash ^ number).wrapping_mul(FNV_FACTOR);
        self.traffic.hash ^= self.traffic.hash >> 29;
    }
}

fn address_number(addr: SocketAddr) -> u64 {
    let host = match addr.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() as u64,
    };
    host << 16 | u64::from(addr.port())
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_FACTOR: u64 = 0x0000_0100_0000_01b3;
const FIRST_FREE_PORT: u16 = 40_000;
/// What a path of ordinary Ethernet lets pass.
const DATAGRAM_BYTES_MAX: usize = 1_472;
/// What a socket keeps while nobody reads; more is lost.
const SOCKET_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::{Weather, Wire};
    use std::net::SocketAddr;
    use std::task::{Poll, Waker};
    use std::time::Duration;

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7))
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_is_one_way_and_an_unplugged_socket_is_silent() {
        let wire = Wire::start(1);
        let (one, one_number) = wire.bind(addr(1)).expect("free");
        let (two, two_number) = wire.bind(addr(2)).expect("free");
        let arrived = |at, number| {
            wire.receive(at, number, Waker::noop(), |_, _, contents| contents == b"x").is_ready()
        };
        wire.cut(one.ip(), two.ip());
        wire.send(one, one_number, two, b"x");
        wire.send(two, two_number, one, b"x");
        // wait: virtual time, longer than any datagram flies
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!((arrived(one, one_number), arrived(two, two_number)), (true, false));
        wire.join(one.ip(), two.ip());
        wire.unplug(two.ip());
        wire.send(two, two_number, one, b"x");
        wire.send(one, one_number, two, b"x");
        // wait: virtual time, longer than any datagram flies
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!((arrived(one, one_number), arrived(two, two_number)), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_overtaken_and_what_comes_twice_is_there_twice() {
        let wire = Wire::start(1);
        let (one, number) = wire.bind(addr(1)).expect("free");
        let (two, two_number) = wire.bind(addr(2)).expect("free");
        wire.set_weather(Weather { delay_ms: 1, jitter_ms: 50, lost: 0, twice: 500 });
        for index in 0..100 {
            wire.send(one, number, two, &[index]);
        }
        // wait: virtual time, longer than any datagram flies
        tokio::time::sleep(Duration::from_millis(60)).await;
        let mut order = Vec::new();
        let take = |_, _, contents: &[u8]| {
            order.push(contents[0]);
            true
        };
        let taken = wire.receive(two, two_number, Waker::noop(), take);
        assert!(matches!(taken, Poll::Ready(taken) if taken > 100 && taken < 200), "{taken:?}");
        assert!(!order.is_sorted());
    }
}
