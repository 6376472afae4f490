//! Which shards are handled with care, because a member that is gone may have ended over one of their events,
//! and keeping the attempts that are made.
//!
//! A member that leaves in order strikes its name off the group. One whose name is there and whose heartbeat
//! is not has ended without a word: the shards that it named last, or any if nobody here has heard it, may
//! hold the event that ended it. Next to read: `ledger/tries.rs`.

use super::driver::Driver;
use super::record::{Beat, Tries};
use galvani_model::ids::{RequestId, Shard};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

impl Driver {
    /// Notes who has which shards, for when they are gone.
    pub(crate) fn note_claims(&mut self, beats: &BTreeMap<RequestId, Option<Beat>>) {
        self.claims.retain(|id, _| beats.contains_key(id));
        for (id, beat) in beats {
            if let Some(beat) = beat {
                self.claims.insert(*id, beat.shards.iter().map(|it| it.shard).collect());
            }
        }
    }

    /// Whether a member that is gone may have ended over an event of this shard.
    pub(crate) fn is_suspect(&self, shard: Shard) -> bool {
        let mut gone = self.absent.keys();
        gone.any(|id| self.claims.get(id).is_none_or(|claimed| claimed.contains(&shard)))
    }

    /// The attempts that are to be kept in this round.
    pub(crate) fn tries(&mut self, now: Instant) -> Vec<(Shard, Tries)> {
        let (now_ms, generation) = (self.ms(now), self.spec.generation);
        let mut free = !self.shards.values().any(|work| work.ledger.tries_one());
        let mut tries = Vec::new();
        for (shard, work) in &mut self.shards {
            if now >= work.taken_at + WARY {
                work.ledger.calm();
            }
            if let Some(of) = work.ledger.note(now_ms, &mut free) {
                let writes = of.into_iter().collect();
                tries.push((*shard, Tries { generation, writes }));
            }
        }
        tries
    }

    /// The attempts were kept, or could not be.
    pub(crate) fn on_tried(&mut self, tried: Vec<(Shard, bool)>) {
        for (shard, kept) in tried {
            self.with(shard, |ledger, _| ledger.noted(kept));
        }
        let now_ms = self.ms(Instant::now());
        let waits = self.shards.values().any(|work| work.ledger.awaits_note(now_ms));
        if waits && !self.shards.values().any(|work| work.ledger.tries_one()) {
            self.round_at = Instant::now();
        }
    }
}

/// How long after a shard was taken over what its former member held may come.
const WARY: Duration = Duration::from_secs(60);
