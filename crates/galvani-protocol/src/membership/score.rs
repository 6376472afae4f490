//! What one lane's own asks say of its peers: how fast they answer, and who has fallen silent.
//!
//! A breaker opens when several asks in a row were not answered in time, and closes with the next
//! answer, whatever it says. It only advises: asks that have nobody else to go to go out all the
//! same, and each of them is a probe. Integers only. Next to read: `swim.rs`, `route.rs`.

use crate::effect::{Effect, PeerLane};
use crate::ops::{ASKS_PER_OP, NOBODY, of_ask_id};
use galvani_model::quantile::Recent;
use galvani_wire::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// No peer counts as silent sooner, in microseconds: far above a healthy round trip, far below the
/// usual deadline.
const PATIENCE_MICROS: u64 = 300_000;
/// Times a peer's usual latency that it may take.
const PATIENCE_FACTOR: u64 = 8;
/// The most that comes of it, in microseconds: a peer that was very slow may still be found silent.
const PATIENCE_MICROS_MAX: u64 = 2_000_000;
/// Asks in a row without an answer that open the breaker: one or two may be lost work of the peer's.
const SILENT_MAX: u32 = 3;
/// How often a request that could go elsewhere goes to a peer whose breaker is open, in microseconds.
const PROBE_MICROS: u64 = 500_000;
/// When this lane itself was late by so much, in microseconds, asks get as much again: their
/// answers may be in its inbox.
const STILL_MICROS: u64 = 100_000;
/// No request that was sent on is asked of a second owner sooner, in microseconds.
const HEDGE_MICROS_MIN: u64 = 5_000;
/// Of how many reads that are sent on one may be asked of a second owner before the first is late.
const READS_PER_HEDGE: u32 = 20;
/// Such second asks that may be saved up.
const HEDGES_MAX: u32 = 20;
/// Asks given up on whose answers are still recognised. The oldest are forgotten first.
const LATE_MAX: usize = 1_024;

/// The scores of a lane.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    peers: BTreeMap<PeerLane, Score>,
    /// Asks under way.
    asks: BTreeMap<u64, Ask>,
    /// When those that clients wait for have taken too long.
    due: BTreeSet<(u64, u64)>,
    /// Asks that took too long and may yet be answered.
    late: BTreeMap<u64, Ask>,
    /// How long reads took lately that were sent on to a peer.
    sent_on: BTreeMap<PeerLane, Recent>,
    /// Reads sent on that no second ask was made for.
    earned: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    to: PeerLane,
    sent: u64,
    /// When it has taken too long; `None` for background work, which may take its time.
    due: Option<u64>,
    /// Whether it is a whole request sent on: how long that takes is not the peer's alone.
    forwarded: bool,
    /// Whether that is a read.
    reads: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Score {
    /// Moving average of the time to an answer, in microseconds; 0: none yet.
    latency: u64,
    /// The shortest time to an answer so far, in microseconds; 0: none yet.
    best: u64,
    inflight: u64,
    /// Asks in a row without an answer.
    silent: u32,
    /// When the next probe may go, while the breaker is open.
    open_until: Option<u64>,
}

impl Scores {
    /// An ask leaves.
    pub(crate) fn on_effect(&mut self, effect: &Effect, now: u64) {
        let Effect::Ask { to, id, forwarded, message } = effect else { return };
        if of_ask_id(*id).0 == NOBODY {
            return;
        }
        let score = self.peers.entry(*to).or_default();
        let due = (*forwarded || is_waited_for(message)).then(|| now + score.patience());
        if let Some(due) = due {
            score.inflight += 1;
            self.due.insert((due, *id));
        }
        let reads = *forwarded && matches!(message, Message::Get(_) | Message::List(_));
        self.asks.insert(*id, Ask { to: *to, sent: now, due, forwarded: *forwarded, reads });
        if reads {
            self.earned = (self.earned + 1).min(HEDGES_MAX * READS_PER_HEDGE);
        }
    }

    /// An ask was answered; `done` unless that was a refusal, which says nothing of how long things
    /// take. Returns by how much it came later than that peer's best, in microseconds, if a client
    /// waits for it.
    pub(crate) fn on_answer(&mut self, id: u64, done: bool, now: u64) -> Option<u64> {
        let ask = self.take(id).or_else(|| self.late.remove(&id))?;
        let score = self.peers.entry(ask.to).or_default();
        (score.silent, score.open_until) = (0, None);
        let mut delay = None;
        if ask.due.is_some() && done {
            let took = now.saturating_sub(ask.sent).max(1);
            score.latency = match score.latency {
                0 => took,
                usual => (usual * 7 + took) / 8,
            };
            if ask.reads {
                self.sent_on.entry(ask.to).or_default().note(Duration::from_micros(took));
            }
            if !ask.forwarded {
                score.best = match score.best {
                    0 => took,
                    best => best.min(took),
                };
                delay = Some(took - score.best);
            }
        }
        delay
    }

    /// What peers did at best counts no more: the way to them may have become longer.
    pub(crate) fn forget_best(&mut self) {
        for score in self.peers.values_mut() {
            score.best = 0;
        }
    }

    /// An ask never left: that says nothing of the peer.
    pub(crate) fn on_undelivered(&mut self, id: u64) {
        self.take(id);
    }

    /// A link came or went: what was asked over the old one is not held against the peer.
    pub(crate) fn on_link(&mut self, peer: PeerLane) {
        let of = |asks: &BTreeMap<u64, Ask>| -> Vec<u64> {
            asks.iter().filter(|(_, ask)| ask.to == peer).map(|(&id, _)| id).collect()
        };
        for id in of(&self.asks) {
            self.take(id);
        }
        for id in of(&self.late) {
            self.late.remove(&id);
        }
        if let Some(score) = self.peers.get_mut(&peer) {
            *score = Score { latency: score.latency, best: score.best, ..Score::default() };
        }
    }

    /// Notes who has been silent for too long. Returns how many breakers opened.
    pub(crate) fn poll(&mut self, now: u64) -> u64 {
        self.forgive_stillness(now);
        let mut opened = 0;
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            let ask = self.take(id).expect("whatever is due is under way");
            let score = self.peers.entry(ask.to).or_default();
            score.silent = score.silent.saturating_add(1);
            if score.silent >= SILENT_MAX && score.open_until.is_none() {
                score.open_until = Some(now + PROBE_MICROS);
                opened += 1;
            }
            self.late.insert(id, ask);
            if self.late.len() > LATE_MAX {
                self.late.pop_first();
            }
        }
        opened
    }

    /// When [`Scores::poll`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Whether a peer has fallen silent.
    pub(crate) fn is_open(&self, peer: PeerLane) -> bool {
        self.peers.get(&peer).is_some_and(|score| score.open_until.is_some())
    }

    /// Peers that have fallen silent.
    pub(crate) fn open(&self) -> impl Iterator<Item = PeerLane> {
        self.peers.iter().filter(|(_, score)| score.open_until.is_some()).map(|(&peer, _)| peer)
    }

    /// As [`Scores::is_open`], but lets one request through now and then, as a probe.
    pub(crate) fn is_passed_over(&mut self, peer: PeerLane, now: u64) -> bool {
        match self.peers.get_mut(&peer).and_then(|score| score.open_until.as_mut()) {
            None => false,
            Some(until) if *until <= now => {
                *until = now + PROBE_MICROS;
                false
            }
            Some(_) => true,
        }
    }

    /// How long a peer may take before another one is asked as well, in microseconds.
    pub(crate) fn patience(&self, peer: PeerLane) -> u64 {
        self.peers.get(&peer).copied().unwrap_or_default().patience()
    }

    /// How long a read that is sent on to a peer may take before another owner may be asked as well, in
    /// microseconds: what 95 of 100 took, once that is known, and never longer than its patience.
    pub(crate) fn hedge_after(&self, peer: PeerLane) -> u64 {
        let patience = self.patience(peer);
        let p95 = self.sent_on.get(&peer).and_then(Recent::p95);
        // Far below 2^64: it is a little over a minute at most.
        let p95 = p95.map(|p95| p95.as_micros() as u64);
        p95.map_or(patience, |p95| p95.max(HEDGE_MICROS_MIN).min(patience))
    }

    /// Whether a read may be asked of one more owner before the first is late: a twentieth of them may.
    pub(crate) fn take_hedge(&mut self) -> bool {
        // Its own ask will have earned, too.
        let left = self.earned.checked_sub(READS_PER_HEDGE + 1);
        self.earned = left.unwrap_or(self.earned);
        left.is_some()
    }

    /// The operation that made these asks is over, and nobody is held to them any more.
    pub(crate) fn forget_background(&mut self, op: u64) {
        let first = op * ASKS_PER_OP;
        let of_op: Vec<u64> =
            self.asks.range(first..first + ASKS_PER_OP).map(|(&id, _)| id).collect();
        for id in of_op {
            if self.asks.get(&id).is_some_and(|ask| ask.due.is_none()) {
                self.asks.remove(&id);
            }
        }
    }

    /// What one more ask of a peer costs: latency times asks under way, in powers of two, so that
    /// only a clear difference changes who is asked.
    pub(crate) fn cost(&self, peer: PeerLane) -> u32 {
        let score = self.peers.get(&peer).copied().unwrap_or_default();
        score.latency.saturating_mul(score.inflight + 1).checked_ilog2().unwrap_or(0)
    }

    fn take(&mut self, id: u64) -> Option<Ask> {
        let ask = self.asks.remove(&id)?;
        if let Some(due) = ask.due {
            self.due.remove(&(due, id));
            let score = self.peers.entry(ask.to).or_default();
            score.inflight = score.inflight.saturating_sub(1);
        }
        Some(ask)
    }

    fn forgive_stillness(&mut self, now: u64) {
        let Some(&(first, _)) = self.due.first() else { return };
        if now <= first.saturating_add(STILL_MICROS) {
            return;
        }
        let overdue: Vec<(u64, u64)> =
            self.due.iter().copied().take_while(|(due, _)| *due <= now).collect();
        for (due, id) in overdue {
            self.due.remove(&(due, id));
            let later = now + STILL_MICROS;
            self.due.insert((later, id));
            if let Some(ask) = self.asks.get_mut(&id) {
                ask.due = Some(later);
            }
        }
    }
}

impl Score {
    fn patience(self) -> u64 {
        let usual = self.latency.saturating_mul(PATIENCE_FACTOR);
        usual.clamp(PATIENCE_MICROS, PATIENCE_MICROS_MAX)
    }
}

/// Whether a client waits for the answer to what a lane asks of another.
pub(crate) fn is_waited_for(message: &Message) -> bool {
    match message {
        Message::Replicate(replicate) => replicate.timeout_ms > 0,
        Message::Hint(hint) => hint.record.timeout_ms > 0,
        Message::Supply(supply) => supply.timeout_ms > 0,
        Message::Fetch(_) | Message::FetchPage(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
