//! When which shard of a member has something to do: so that a member with many shards looks only at
//! those, and all of them have their turn.
//!
//! A value; times are milliseconds of whatever clock its owner reads. Next to read: `driver.rs`.

use galvani_model::ids::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// What a shard has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it can hand something out.
    pub(crate) ready_ms: Option<u64>,
    /// When something it handed out has been held for too long.
    pub(crate) expires_ms: Option<u64>,
    /// Events that are not done with.
    pub(crate) units: usize,
    /// What they take in memory.
    pub(crate) bytes: usize,
    /// Of those, events that consumers hold.
    pub(crate) in_flight: usize,
}

/// What all shards have to do.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: BTreeMap<Shard, (Entry, u64)>,
    /// By when, then by whose turn was the longest ago.
    ready: BTreeSet<(u64, u64, Shard)>,
    expires: BTreeSet<(u64, Shard)>,
    turns: u64,
    units: usize,
    bytes: usize,
    in_flight: usize,
}

impl Agenda {
    /// This is what the shard has to do now. It goes to the end of those that can at the same time.
    pub(crate) fn set(&mut self, shard: Shard, entry: Entry) {
        self.remove(shard);
        self.turns += 1;
        if let Some(at) = entry.ready_ms {
            self.ready.insert((at, self.turns, shard));
        }
        if let Some(at) = entry.expires_ms {
            self.expires.insert((at, shard));
        }
        self.units += entry.units;
        self.bytes += entry.bytes;
        self.in_flight += entry.in_flight;
        self.entries.insert(shard, (entry, self.turns));
    }

    /// The shard is not ours any more.
    pub(crate) fn remove(&mut self, shard: Shard) {
        let Some((entry, turn)) = self.entries.remove(&shard) else { return };
        if let Some(at) = entry.ready_ms {
            self.ready.remove(&(at, turn, shard));
        }
        if let Some(at) = entry.expires_ms {
            self.expires.remove(&(at, shard));
        }
        self.units -= entry.units;
        self.bytes -= entry.bytes;
        self.in_flight -= entry.in_flight;
    }

    /// The shard whose turn it is to hand something out.
    pub(crate) fn ready(&self, now_ms: u64) -> Option<Shard> {
        self.ready.first().filter(|(at, ..)| *at <= now_ms).map(|(.., shard)| *shard)
    }

    /// A shard that is to take something back.
    pub(crate) fn expired(&self, now_ms: u64) -> Option<Shard> {
        self.expires.first().filter(|(at, _)| *at <= now_ms).map(|(_, shard)| *shard)
    }

    /// When that changes next.
    pub(crate) fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let ready = self.ready.first().map(|(at, ..)| *at).filter(|at| *at > now_ms);
        ready.into_iter().chain(self.expires.first().map(|(at, _)| *at)).min()
    }

    /// Whether so many events are not done with, or so large ones, that no more are to be taken in.
    pub(crate) fn is_full(&self) -> bool {
        self.units >= UNITS_MAX || self.bytes >= BYTES_MAX
    }

    /// Events that consumers hold, in all.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// Events that a member takes in before it waits for some to be done with.
const UNITS_MAX: usize = 2_000;
/// What they may take in memory before it does. A page that is on its way then still comes.
const BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::{Agenda, BYTES_MAX, Entry, UNITS_MAX};
    use galvani_model::ids::{Partition, Shard};

    fn shard(at: u16) -> Shard {
        Shard { partition: Partition(at), n: 3 }
    }

    #[test]
    fn shards_that_always_have_something_take_turns() {
        let ready = Entry { ready_ms: Some(0), units: 1, ..Entry::default() };
        let mut agenda = Agenda::default();
        (0..3).for_each(|at| agenda.set(shard(at), ready));
        let mut turns = Vec::new();
        for _ in 0..6 {
            let next = agenda.ready(5).expect("all can");
            turns.push(next.partition.0);
            agenda.set(next, ready);
        }
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    /// Red if only their number counts, or if one that is done with goes on counting.
    #[test]
    fn it_is_full_with_many_events_or_with_large_ones() {
        let mut agenda = Agenda::default();
        let large = Entry { units: 1, bytes: BYTES_MAX / 2, ..Entry::default() };
        agenda.set(shard(1), large);
        assert!(!agenda.is_full());
        agenda.set(shard(2), large);
        assert!(agenda.is_full());
        agenda.set(shard(2), Entry { bytes: 1, ..large });
        assert!(!agenda.is_full());
        agenda.set(shard(3), Entry { units: UNITS_MAX - 2, ..Entry::default() });
        assert!(agenda.is_full());
        agenda.remove(shard(3));
        assert!(!agenda.is_full());
    }

    #[test]
    fn it_wakes_for_what_comes_first() {
        let mut agenda = Agenda::default();
        let entry =
            Entry { ready_ms: Some(70), expires_ms: Some(50), units: 2, bytes: 8, in_flight: 1 };
        agenda.set(shard(1), entry);
        assert_eq!((agenda.wake_ms(10), agenda.ready(10)), (Some(50), None));
        assert_eq!(agenda.expired(50), Some(shard(1)));
        agenda.set(shard(1), Entry { expires_ms: None, in_flight: 0, ..entry });
        assert_eq!((agenda.wake_ms(60), agenda.in_flight()), (Some(70), 0));
        agenda.remove(shard(1));
        assert_eq!((agenda.wake_ms(0), agenda.units, agenda.bytes), (None, 0, 0));
    }
}
