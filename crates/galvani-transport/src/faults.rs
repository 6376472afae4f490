//! Faults set on purpose: which peers an endpoint is cut off from, loses or delays datagrams of.
//!
//! A [`Faults`] is a handle that every endpoint of a node shares. It decides about datagrams and
//! touches none: `faulty_socket.rs` does what it says. While nothing is set, asking costs one
//! relaxed load. The same seed and the same datagrams give the same decisions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// What happens to the datagrams between an endpoint and one address. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFaults {
    /// Nothing that is sent there leaves.
    pub cut_out: bool,
    /// Nothing that comes from there is heard.
    pub cut_in: bool,
    /// Datagrams of each direction that are lost, of a million.
    pub loss_ppm: u32,
    /// How much later what is sent there leaves.
    pub delay: Duration,
    /// How far each delay may be off, either way. At most `delay` counts.
    pub jitter: Duration,
}

/// The faults of all endpoints that share it, by the peer's address. A clone is the same handle.
#[derive(Clone, Debug)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Whether any are set: all that a datagram costs while none are.
    on: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    peers: BTreeMap<SocketAddr, PeerFaults>,
    random: u64,
}

/// What becomes of something that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// It leaves as it is.
    Now,
    /// Those datagrams of it that are kept leave, so much later.
    Some { kept: Vec<bool>, later: Duration },
}

impl Faults {
    /// No faults yet; `seed` decides which datagrams will be lost and how delays vary.
    pub fn new(seed: u64) -> Faults {
        let table = Table { peers: BTreeMap::new(), random: seed };
        Faults { inner: Arc::new(Inner { on: AtomicBool::new(false), table: Mutex::new(table) }) }
    }

    /// Sets these faults in place of all that were set; peers that are not named have none.
    pub fn set(&self, peers: impl IntoIterator<Item = (SocketAddr, PeerFaults)>) {
        let peers = peers.into_iter().filter(|(_, faults)| *faults != PeerFaults::default());
        let peers: BTreeMap<_, _> =
            peers.map(|(address, faults)| (plain(address), faults)).collect();
        let mut table = self.inner.table.lock();
        self.inner.on.store(!peers.is_empty(), Ordering::Relaxed);
        table.peers = peers;
    }

    /// Whether any faults are set.
    pub(crate) fn any(&self) -> bool {
        self.inner.on.load(Ordering::Relaxed)
    }

    /// What becomes of `datagrams` that are sent together.
    pub(crate) fn outgoing(&self, to: SocketAddr, datagrams: usize) -> Outgoing {
        let mut table = self.inner.table.lock();
        let Some(&faults) = table.peers.get(&plain(to)) else { return Outgoing::Now };
        let kept: Vec<bool> = match faults.cut_out {
            true => vec![false; datagrams],
            false => (0..datagrams).map(|_| !table.loses(faults.loss_ppm)).collect(),
        };
        let later = table.late(faults);
        match later.is_zero() && kept.iter().all(|kept| *kept) {
            true => Outgoing::Now,
            false => Outgoing::Some { kept, later },
        }
    }

    /// Which of so many datagrams that came together are heard; `None`: all of them.
    pub(crate) fn incoming(&self, from: SocketAddr, datagrams: usize) -> Option<Vec<bool>> {
        let mut table = self.inner.table.lock();
        let faults = *table.peers.get(&plain(from))?;
        match (faults.cut_in, faults.loss_ppm) {
            (true, _) => Some(vec![false; datagrams]),
            (false, 0) => None,
            (false, loss) => Some((0..datagrams).map(|_| !table.loses(loss)).collect()),
        }
    }
}

impl Table {
    fn loses(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.next() % MILLION < u64::from(ppm)
    }

    fn late(&mut self, faults: PeerFaults) -> Duration {
        let jitter = faults.jitter.min(faults.delay);
        if jitter.is_zero() {
            return faults.delay;
        }
        let spread = u64::try_from(jitter.as_micros() * 2 + 1).unwrap_or(u64::MAX);
        faults.delay - jitter + Duration::from_micros(self.next() % spread)
    }

    /// splitmix64: spread is all that is asked of it.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// An IPv4 peer of a socket that speaks both looks like an IPv6 one.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::{Faults, Outgoing, PeerFaults};
    use std::net::SocketAddr;
    use std::time::Duration;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_the_named_peer_is_cut_and_only_in_the_named_direction() {
        let (peer, other) = (address("127.0.0.1:1"), address("127.0.0.1:2"));
        let faults = Faults::new(1);
        assert!(!faults.any());
        faults.set([(peer, PeerFaults { cut_out: true, ..PeerFaults::default() })]);
        assert!(faults.any());
        let nothing = Outgoing::Some { kept: vec![false; 3], later: Duration::ZERO };
        assert_eq!(faults.outgoing(peer, 3), nothing);
        assert_eq!(faults.outgoing(address("[::ffff:127.0.0.1]:1"), 3), nothing, "as IPv6");
        assert_eq!(faults.incoming(peer, 3), None);
        assert_eq!(faults.outgoing(other, 3), Outgoing::Now);
        faults.set([(peer, PeerFaults { cut_in: true, ..PeerFaults::default() })]);
        assert_eq!(faults.outgoing(peer, 3), Outgoing::Now);
        assert_eq!(faults.incoming(peer, 2), Some(vec![false, false]));
        assert_eq!(faults.incoming(other, 2), None);
        faults.set([(peer, PeerFaults::default())]);
        assert!(!faults.any(), "nothing is no fault");
    }

    #[test]
    fn the_share_that_is_lost_is_near_what_was_asked_and_the_same_for_a_seed() {
        let peer = address("127.0.0.1:1");
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.set([(peer, PeerFaults { loss_ppm: 50_000, ..PeerFaults::default() })]);
            faults.incoming(peer, 100_000).expect("some are lost")
        };
        let lost = run(7).iter().filter(|kept| !**kept).count();
        assert!((4_700..5_300).contains(&lost), "{lost} of 100,000 at 5 %");
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn delays_stay_within_their_jitter_and_use_all_of_it() {
        let peer = address("127.0.0.1:1");
        let faults = Faults::new(3);
        let (delay, jitter) = (Duration::from_millis(50), Duration::from_millis(20));
        faults.set([(peer, PeerFaults { delay, jitter, ..PeerFaults::default() })]);
        let delays: Vec<Duration> = (0..1_000)
            .map(|_| match faults.outgoing(peer, 1) {
                Outgoing::Some { later, .. } => later,
                Outgoing::Now => panic!("not late"),
            })
            .collect();
        assert!(delays.iter().all(|late| (delay - jitter..=delay + jitter).contains(late)));
        let spread = *delays.iter().max().expect("many") - *delays.iter().min().expect("many");
        assert!(spread > jitter, "{spread:?}");
    }
}
