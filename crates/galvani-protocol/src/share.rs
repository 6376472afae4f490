//! The share of a lane that work nobody waits for may have while clients wait: turns, one after another.
//!
//! A page of records or hints is one turn, whoever it comes from and whether it is taken in here or
//! given to another: what all peers together may cost a busy lane does not grow with their number.
//! After a page that took the lane long, on a slow disk or on cores that others use as well, the
//! next turn comes later: pages have a quarter of a busy lane's time, or a turn a second for each
//! peer that asks where that is more. A lane for which no client waits, neither here nor where its
//! answers go, gives a turn at once. It knows nothing of what a turn is used for.
//! Next to read: `sync/pull.rs`, `handoff/fetch.rs`, which ask for pages; both sides of them take turns.

/// Time between two turns of a busy lane, in microseconds.
pub(crate) const TURN_MICROS: u64 = 10_000;
/// Bytes that a page of records or hints may bring, their heads counted, where nobody waits.
const PAGE_BYTES: u32 = 256 << 10;
/// The same where clients wait for one of the two lanes: measured, it leaves them a fifth more.
const BUSY_PAGE_BYTES: u32 = 64 << 10;
/// Of so many parts of a busy lane's time pages may have one.
const PARTS: u64 = 4;
/// How far ahead turns are given out, in microseconds: of more than a hundred that wait some share a turn, so
/// that one whose turn is never used costs nobody more than this.
const AHEAD_MICROS: u64 = 1_000_000;

/// How large a page may be, in bytes. `busy` says whether clients wait.
pub(crate) fn page_bytes(busy: bool) -> u32 {
    match busy {
        false => PAGE_BYTES,
        true => BUSY_PAGE_BYTES,
    }
}

/// How long after it did something for another lane's client a lane counts as busy, in microseconds: on
/// a lane that is asked a hundred times a second there is always one that waits.
const SERVED_MICROS: u64 = 20_000;

/// When the next turn is free.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    free_at: u64,
    /// Until when it counts as busy for what it did last for another lane's client.
    serves_until: u64,
    /// Whether it did something for one in this tick, and in the one before: a commit may take long.
    serves: (bool, bool),
}

impl Share {
    /// Another lane asked for something that a client waits for there.
    pub(crate) fn served(&mut self, now: u64) {
        self.serves_until = now + SERVED_MICROS;
        self.serves.0 = true;
    }

    /// The tick is over.
    pub(crate) fn end_tick(&mut self) {
        self.serves = (false, self.serves.0);
    }

    /// Whether clients of other lanes wait for this one, as far as can be told from what was asked lately.
    pub(crate) fn serves(&self, now: u64) -> bool {
        now < self.serves_until || self.serves.0 || self.serves.1
    }

    /// Takes the next turn; when it is, in the lane's microseconds. `busy` says whether clients wait.
    pub(crate) fn take(&mut self, now: u64, busy: bool) -> u64 {
        if !busy {
            return now;
        }
        let at = self.free_at.max(now);
        self.free_at = (at + TURN_MICROS).min(now + AHEAD_MICROS);
        at
    }

    /// A page was taken in: no turn is given out for as long as one takes.
    pub(crate) fn rest(&mut self, now: u64, busy: bool) {
        if busy {
            self.free_at = self.free_at.max(now + TURN_MICROS);
        }
    }

    /// Pages took so much of the lane's time, up to now: turns that are not given out yet come later
    /// by three times as much, which clients have in between. However much it was, that is a second at
    /// most: repair must get on.
    pub(crate) fn paid(&mut self, micros: u64, now: u64, busy: bool) {
        if busy {
            let rest = micros.saturating_mul(PARTS - 1);
            let free_at = self.free_at.max(now).saturating_add(rest);
            self.free_at = free_at.min(now + AHEAD_MICROS);
        }
    }

    /// Takes the turn of a page that is given to a peer now; how long the peer is to wait before it asks for
    /// the next one, in milliseconds, 0 if clients do not wait.
    pub(crate) fn pause_ms(&mut self, now: u64, busy: bool) -> u16 {
        match busy {
            false => 0,
            true => {
                let next = self.take(now, busy) + TURN_MICROS;
                // A second and a turn at most.
                (next - now).div_ceil(1_000) as u16
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AHEAD_MICROS, SERVED_MICROS, Share, TURN_MICROS};

    #[test]
    fn turns_of_a_busy_lane_follow_each_other_and_an_idle_one_gives_all_at_once() {
        let mut share = Share::default();
        assert_eq!((share.take(50, false), share.take(50, false)), (50, 50));
        let turns: Vec<u64> = (0..4).map(|_| share.take(50, true)).collect();
        assert_eq!(turns, [0, 1, 2, 3].map(|turn| 50 + turn * TURN_MICROS));
        // Nobody who comes to a lane that has become idle waits for what was given out before.
        assert_eq!(share.take(60, false), 60);
        share.rest(80_000, true);
        assert_eq!(share.take(80_001, true), 80_000 + TURN_MICROS);
    }

    #[test]
    fn what_a_page_cost_moves_the_next_turn_of_a_busy_lane() {
        let mut share = Share::default();
        share.paid(3_000, 5_000, true);
        assert_eq!(share.take(5_000, true), 14_000, "three times as much for clients");
        share.paid(1_000, 6_000, true);
        assert_eq!(
            share.take(6_000, true),
            14_000 + TURN_MICROS + 3_000,
            "a turn that is given out stays"
        );
        share.paid(3_000, 5_000, false);
        assert_eq!(share.take(5_000, false), 5_000, "nobody waits");
        share.paid(60_000_000, 90_000, true);
        assert_eq!(share.take(90_000, true), 90_000 + AHEAD_MICROS, "it gets on all the same");
    }

    #[test]
    fn whoever_is_given_pages_is_told_when_the_next_is_due_and_never_to_go_away() {
        let mut share = Share::default();
        assert_eq!(share.pause_ms(0, false), 0);
        assert_eq!([0; 3].map(|now| share.pause_ms(now, true)), [10, 20, 30]);
        for _ in 0..1_000 {
            share.pause_ms(0, true);
        }
        assert_eq!(u64::from(share.pause_ms(0, true)) * 1_000, AHEAD_MICROS + TURN_MICROS);
    }

    #[test]
    fn a_lane_serves_for_two_turns_and_through_a_slow_commit() {
        let mut share = Share::default();
        assert!(!share.serves(5));
        share.served(5);
        assert!(share.serves(5 + 10 * SERVED_MICROS), "the tick's commit took that long");
        share.end_tick();
        assert!(share.serves(5 + 10 * SERVED_MICROS), "what came meanwhile is handled now");
        share.end_tick();
        assert!(share.serves(4 + SERVED_MICROS) && !share.serves(5 + SERVED_MICROS));
    }
}
