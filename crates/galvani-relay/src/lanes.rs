//! A batch, cut into lanes: events of one order key, in their order.
//!
//! One event or run of a lane is under way at a time, so nothing overtakes anything in its lane; lanes do
//! not wait for each other. Next to read: `courier.rs`.

use crate::outgoing::Outgoing;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use tokio::time::Instant;

/// Cuts a batch into lanes, by order key or all into one.
pub(crate) fn cut(batch: Vec<Outgoing>, by_key: bool) -> Vec<Vec<Outgoing>> {
    if !by_key {
        return if batch.is_empty() { Vec::new() } else { vec![batch] };
    }
    let mut lane_of: HashMap<Bytes, usize> = HashMap::new();
    let mut lanes: Vec<Vec<Outgoing>> = Vec::new();
    for event in batch {
        let lane = *lane_of.entry(event.order_key.clone()).or_insert(lanes.len());
        if lane == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[lane].push(event);
    }
    lanes
}

/// How far each lane of a batch is.
pub(crate) struct Progress {
    lanes: Vec<Lane>,
    /// Lanes with something to send and nothing under way, by when they may go on.
    ready: BTreeSet<(Instant, usize)>,
}

#[derive(Clone)]
struct Lane {
    length: usize,
    taken: usize,
    /// Tries of the event at the head, and when the first was made.
    tries: u32,
    since: Instant,
}

impl Progress {
    /// Nothing is taken, all lanes may start.
    pub(crate) fn new(lanes: &[Vec<Outgoing>], now: Instant) -> Progress {
        let lane =
            |events: &Vec<Outgoing>| Lane { length: events.len(), taken: 0, tries: 0, since: now };
        Progress {
            lanes: lanes.iter().map(lane).collect(),
            ready: (0..lanes.len()).map(|lane| (now, lane)).collect(),
        }
    }

    /// A lane that may send now, and how many of its events were taken. It is not ready any more.
    pub(crate) fn start(&mut self, now: Instant) -> Option<(usize, usize)> {
        let first = *self.ready.first()?;
        if first.0 > now {
            return None;
        }
        self.ready.remove(&first);
        let lane = &mut self.lanes[first.1];
        if lane.tries == 0 {
            lane.since = now;
        }
        lane.tries += 1;
        Some((first.1, lane.taken))
    }

    /// More of a lane was taken.
    pub(crate) fn took(&mut self, lane: usize, count: usize) {
        let lane = &mut self.lanes[lane];
        lane.taken += count;
        debug_assert!(lane.taken <= lane.length, "a sink took more than it was given");
        if count > 0 {
            lane.tries = 0;
        }
    }

    /// The lane may go on at that time, if anything is left of it.
    pub(crate) fn ready_at(&mut self, lane: usize, at: Instant) {
        if self.lanes[lane].taken < self.lanes[lane].length {
            self.ready.insert((at, lane));
        }
    }

    /// When the next lane may send.
    pub(crate) fn next_ready(&self) -> Option<Instant> {
        self.ready.first().map(|(at, _)| *at)
    }

    /// Tries of the lane's head, and when the first was made.
    pub(crate) fn tries(&self, lane: usize) -> (u32, Instant) {
        (self.lanes[lane].tries, self.lanes[lane].since)
    }

    /// How many events of each lane were taken.
    pub(crate) fn into_taken(self) -> Vec<usize> {
        self.lanes.into_iter().map(|lane| lane.taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn batch(names: &[(&str, &str)]) -> Vec<Outgoing> {
        let event = |&(key, id): &(&str, &str)| {
            Outgoing::new(
                id.into(),
                "t".into(),
                Bytes::copy_from_slice(key.as_bytes()),
                "{}".into(),
            )
        };
        names.iter().map(event).collect()
    }

    fn ids(lanes: &[Vec<Outgoing>]) -> Vec<String> {
        let ids = |lane: &Vec<Outgoing>| lane.iter().map(|e| e.id.as_str()).collect::<String>();
        lanes.iter().map(ids).collect()
    }

    #[test]
    fn a_batch_is_cut_by_key_or_stays_whole() {
        let all = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")];
        assert_eq!(ids(&cut(batch(&all), true)), ["13", "25", "4"]);
        assert_eq!(ids(&cut(batch(&all), false)), ["12345"]);
        assert!(cut(Vec::new(), false).is_empty());
    }

    #[test]
    fn a_lane_under_way_is_not_started_again_and_a_waiting_one_not_early() {
        let now = Instant::now();
        let lanes = cut(batch(&[("a", "1"), ("b", "2"), ("a", "3")]), true);
        let mut progress = Progress::new(&lanes, now);
        assert_eq!(progress.start(now), Some((0, 0)));
        assert_eq!(progress.start(now), Some((1, 0)));
        assert_eq!(progress.start(now), None);
        progress.took(0, 1);
        let later = now + Duration::from_secs(1);
        progress.ready_at(0, later);
        assert_eq!(progress.start(now), None);
        assert_eq!(progress.next_ready(), Some(later));
        assert_eq!(progress.start(later), Some((0, 1)));
        progress.took(0, 1);
        progress.ready_at(0, later);
        assert_eq!(progress.next_ready(), None, "nothing is left of it");
    }
}
