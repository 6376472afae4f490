//! Room that the outboxes of all clients' links share, so that many who do not read take no more together
//! than few.
//!
//! An outbox may hold as much as is still free for all, so each of many greedy ones gets an equal part, and
//! as much again stays for whoever comes next; and a little in any case, for refusals and small answers.
//! Only counts; `outbox.rs` asks. Source: Choudhury and Hahne (1998), dynamic queue length thresholds.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of many outboxes.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Room {
        Room { used: AtomicUsize::new(0), bytes_max }
    }

    /// Whether an outbox that counts `counted` bytes already may hold `bytes`.
    pub(crate) fn allows(&self, bytes: usize, counted: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        let free = self.bytes_max.saturating_sub(used + bytes.saturating_sub(counted));
        bytes <= free.max(SMALL_BYTES)
    }

    /// An outbox that counted `before` holds `now`.
    pub(crate) fn recount(&self, before: usize, now: usize) {
        // Of one outbox under its lock: what is taken off was added before.
        if now >= before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}

/// What an outbox may hold whatever the others do: some hundred small answers.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::{Room, SMALL_BYTES};

    const MIB: usize = 1 << 20;

    /// Fills an outbox with frames of `frame` bytes until one is refused.
    fn fill(room: &Room, held: &mut usize, frame: usize) {
        while room.allows(*held + frame, *held) {
            room.recount(*held, *held + frame);
            *held += frame;
        }
    }

    #[test]
    fn many_take_no_more_together_than_there_is_and_leave_as_much_as_each_has() {
        for links in [1_usize, 7, 100] {
            let room = Room::new(256 * MIB);
            let mut held = vec![0; links];
            // Those who came first give back what they wrote, and all ask again.
            for _ in 0..50 {
                for held in &mut held {
                    room.recount(*held, *held / 2);
                    *held /= 2;
                    fill(&room, held, 4_096);
                }
            }
            let all: usize = held.iter().sum();
            assert!(all <= 256 * MIB, "{links}: {all}");
            assert!(all >= 100 * MIB, "{links}: {all}");
            let free = 256 * MIB - all;
            assert!(room.allows(free / 2, 0), "{links}: a new one gets its part");
        }
    }

    #[test]
    fn small_answers_pass_whatever_the_others_do() {
        let room = Room::new(0);
        let mut held = 0;
        fill(&room, &mut held, 1_024);
        assert_eq!(held, SMALL_BYTES);
        room.recount(held, 0);
        assert_eq!(room.used.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}
