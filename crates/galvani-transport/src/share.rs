//! How the links an endpoint may accept are shared out among those who dial it.
//!
//! One certificate must not take them all, nor all clients together the room that nodes need: a
//! node that cannot reach its peers serves nobody. A link holds a seat for as long as it lives.
//! Next to read: `accept.rs`, which takes the seats.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::PeerIdentity;
use crate::windows::FrameRoom;

/// The seats of one endpoint.
pub(crate) struct Seats {
    taken: Mutex<Taken>,
    links_max: usize,
    frames_bytes_max: usize,
}

/// What one identity has.
struct Held {
    links: usize,
    /// Its part of the room for large frames.
    frames: Arc<FrameRoom>,
}

#[derive(Default)]
struct Taken {
    by: BTreeMap<PeerIdentity, Held>,
    clients: usize,
}

impl Seats {
    /// So many links in all, and so many bytes of large frames for each identity.
    pub(crate) fn new(links_max: usize, frames_bytes_max: usize) -> Arc<Seats> {
        Arc::new(Seats { taken: Mutex::default(), links_max, frames_bytes_max })
    }

    /// Links that clients hold.
    pub(crate) fn clients(&self) -> usize {
        self.taken.lock().clients
    }

    /// A seat for one more link of `who`, if its share and that of its kind leave one.
    pub(crate) fn take(self: &Arc<Self>, who: &PeerIdentity) -> Option<Seat> {
        let mut taken = self.taken.lock();
        let full = !who.is_node() && taken.clients >= clients_max(self.links_max);
        let its_own = taken.by.get(who).map_or(0, |held| held.links);
        if full || its_own >= identity_max(self.links_max) {
            return None;
        }
        taken.clients += usize::from(!who.is_node());
        let none = || Held { links: 0, frames: Arc::new(FrameRoom::of(self.frames_bytes_max)) };
        let held = taken.by.entry(who.clone()).or_insert_with(none);
        held.links += 1;
        Some(Seat { seats: self.clone(), who: who.clone(), frames: held.frames.clone() })
    }
}

/// One link's seat, given back on drop.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    who: PeerIdentity,
    /// The part of the room for large frames that all links of this identity share.
    pub(crate) frames: Arc<FrameRoom>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.clients -= usize::from(!self.who.is_node());
        match taken.by.get_mut(&self.who) {
            Some(held) if held.links > 1 => held.links -= 1,
            Some(_) | None => drop(taken.by.remove(&self.who)),
        }
    }
}

/// Links that one certificate may hold: a quarter. A node needs one for each lane of each side, at
/// most 64; of a client's certificate each process and lane takes one.
fn identity_max(links_max: usize) -> usize {
    (links_max / SHARES).max(1)
}

/// Links that all clients together may hold: a quarter stays for nodes and for own dials.
fn clients_max(links_max: usize) -> usize {
    links_max - links_max / SHARES
}

const SHARES: usize = 4;

#[cfg(test)]
mod tests {
    use super::Seats;
    use crate::{PeerIdentity, Role};

    fn client(name: &str) -> PeerIdentity {
        PeerIdentity::Client { name: name.into(), role: Role::ReadWrite }
    }

    #[test]
    fn nobody_gets_more_than_a_share_and_seats_come_back() {
        let seats = Seats::new(8, 1 << 20);
        let mut held: Vec<_> = (0..2).map(|_| seats.take(&client("a")).expect("room")).collect();
        assert!(seats.take(&client("a")).is_none());
        held.extend((0..2).map(|_| seats.take(&client("b")).expect("room")));
        held.extend((0..2).map(|_| seats.take(&client("c")).expect("room")));
        assert!(seats.take(&client("d")).is_none(), "clients have all that is theirs");
        let node = PeerIdentity::Node { id: [1; 16] };
        held.extend((0..2).map(|_| seats.take(&node).expect("kept for nodes")));
        assert!(seats.take(&node).is_none());
        held.clear();
        assert!(seats.take(&client("d")).is_some());
        assert!(seats.taken.lock().by.is_empty(), "nothing is kept of those who left");
    }
}
