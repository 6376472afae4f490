//! Delivers a batch through a sink: lanes side by side, tries again, one prober while the target is down.
//!
//! All that is under way lives in the future of [`Courier::deliver`], so dropping it leaves nothing
//! behind. What the target took before is remembered by id until a batch is through, and is not sent
//! again. Next to read: `lanes.rs`, `breaker.rs`.

use crate::breaker::{Allowance, Breaker};
use crate::error::{Reason, RelayError};
use crate::figures::FiguresHandle;
use crate::lanes::{Progress, cut};
use crate::outgoing::Outgoing;
use crate::settings::Retry;
use crate::sink::{Failure, Sent, Sink};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// What a delivered batch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// Events that the target has, now or from before.
    pub events: usize,
    /// Those among them that the target, or this relay, knew already.
    pub duplicates: usize,
    /// Tries that failed on the way.
    pub retried: u64,
}

/// Brings batches to one sink.
pub(crate) struct Courier<S> {
    sink: S,
    breaker: Breaker,
    rules: Rules,
    /// Ids that were taken in a delivery that was dropped or given up.
    taken: HashSet<String>,
}

/// What does not change, and the figures.
pub(crate) struct Rules {
    pub(crate) target: String,
    pub(crate) max_in_flight: usize,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) figures: FiguresHandle,
}

/// Why a delivery ends before all is delivered: the lane, and what its head met.
type Stop = (usize, Reason);

impl<S: Sink> Courier<S> {
    pub(crate) fn new(sink: S, rules: Rules) -> Courier<S> {
        let breaker = Breaker::new(rules.retry.clone());
        Courier { sink, breaker, rules, taken: HashSet::new() }
    }

    /// See [`Relay::deliver`](crate::Relay::deliver).
    pub(crate) async fn deliver(
        &mut self,
        batch: Vec<Outgoing>,
    ) -> Result<Delivered, Box<RelayError>> {
        let mut delivered = Delivered { events: batch.len(), ..Delivered::default() };
        let batch = self.new_ones(batch, &mut delivered);
        if let Some((at, why)) =
            batch.iter().enumerate().find_map(|(at, event)| Some((at, event.fault()?)))
        {
            let (id, subject) = (batch[at].id.clone(), batch[at].subject.clone());
            let target = self.rules.target.clone();
            let reason = Reason::Refused { why };
            return Err(Box::new(RelayError { id, subject, target, reason, unsent: batch }));
        }
        let lanes = cut(batch, self.sink.by_key());
        let mut progress = Progress::new(&lanes, Instant::now());
        match self.run(&lanes, &mut progress, &mut delivered).await {
            Ok(()) => {
                self.taken.clear();
                Ok(delivered)
            }
            Err(stop) => Err(Box::new(given_up(&self.rules.target, lanes, progress, stop))),
        }
    }

    /// The events that were not taken in a delivery that ended early.
    fn new_ones(&mut self, batch: Vec<Outgoing>, delivered: &mut Delivered) -> Vec<Outgoing> {
        if self.taken.is_empty() {
            return batch;
        }
        let known = |event: &Outgoing| self.taken.contains(&event.id);
        let (old, new): (Vec<_>, Vec<_>) = batch.into_iter().partition(known);
        old.iter().for_each(|_| self.rules.figures.known_here());
        delivered.duplicates += old.len();
        new
    }

    async fn run(
        &mut self,
        lanes: &[Vec<Outgoing>],
        progress: &mut Progress,
        delivered: &mut Delivered,
    ) -> Result<(), Stop> {
        let Courier { sink, breaker, rules, taken } = self;
        let (sink, rules) = (&*sink, &*rules);
        let _clear = NoneInFlight(&rules.figures);
        let run_max = sink.run_max();
        let mut flights = FuturesUnordered::new();
        let mut stop: Option<Stop> = None;
        loop {
            let mut wake = None;
            while stop.is_none() {
                let now = Instant::now();
                let limit = match breaker.allowance(now) {
                    Allowance::All => rules.max_in_flight,
                    Allowance::Probe => 1,
                    Allowance::NoneUntil(until) => {
                        wake = Some(until);
                        break;
                    }
                };
                if flights.len() >= limit {
                    break;
                }
                let Some((lane, next)) = progress.start(now) else {
                    wake = progress.next_ready();
                    break;
                };
                let events = &lanes[lane][next..];
                let events = &events[..events.len().min(run_max)];
                let patience = sink.timed().then_some(rules.attempt_timeout);
                flights.push(async move { (lane, next, try_once(sink, events, patience).await) });
            }
            rules.figures.in_flight(flights.len());
            if flights.is_empty() && (stop.is_some() || progress.next_ready().is_none()) {
                return stop.map_or(Ok(()), Err);
            }
            tokio::select! {
                Some((lane, next, sent)) = flights.next(), if !flights.is_empty() => {
                    let names = lanes[lane][next..next + sent.taken].iter().map(|e| e.id.clone());
                    taken.extend(names);
                    delivered.duplicates += sent.known;
                    let met = settle(rules, breaker, progress, lane, sent, &mut delivered.retried);
                    stop = stop.or(met.map(|reason| (lane, reason)));
                }
                () = until(wake), if wake.is_some() => {}
            }
        }
    }
}

/// Notes what became of a try. Returns why to stop, if it is.
fn settle(
    rules: &Rules,
    breaker: &mut Breaker,
    progress: &mut Progress,
    lane: usize,
    sent: Sent,
    retried: &mut u64,
) -> Option<Reason> {
    let now = Instant::now();
    if sent.taken > 0 {
        breaker.on_taken(now);
        rules.figures.taken(sent.taken, sent.known);
        progress.took(lane, sent.taken);
    }
    let (why, down, pause) = match sent.failure {
        None => {
            progress.ready_at(lane, now);
            return None;
        }
        Some(Failure::Passing { why }) => (why, false, None),
        Some(Failure::Down { why, pause }) => (why, true, pause),
        Some(Failure::Refused { why }) => {
            rules.figures.failed(&why, false);
            return Some(Reason::Refused { why });
        }
        Some(Failure::Unusable { why }) => {
            rules.figures.failed(&why, false);
            return Some(Reason::Unusable { why });
        }
    };
    breaker.on_failure(now, down, pause);
    let (tries, since) = progress.tries(lane);
    // A run of which a part was taken has failed for the first time with the event that is its head now.
    let (tries, since) = if tries == 0 { (1, now) } else { (tries, since) };
    let after = now - since;
    let last_try = rules.retry.tries_max.is_some_and(|max| tries >= max)
        || rules.retry.give_up_after.is_some_and(|most| after >= most);
    rules.figures.failed(&why, !last_try);
    if last_try {
        return Some(Reason::GaveUp { tries, after, why });
    }
    *retried += 1;
    tracing::debug!(target_name = %rules.target, tries, why, "a delivery is tried again");
    let at = now + rules.retry.wait(tries);
    let at = rules.retry.give_up_after.map_or(at, |most| at.min(since + most));
    progress.ready_at(lane, at);
    None
}

/// One try, which ends when its time is up.
async fn try_once<S: Sink>(sink: &S, events: &[Outgoing], patience: Option<Duration>) -> Sent {
    let Some(patience) = patience else {
        return sink.send(events).await;
    };
    let late = |_| {
        let why = format!("no answer within {} ms", patience.as_millis());
        Sent::failed(Failure::passing(why))
    };
    timeout(patience, sink.send(events)).await.unwrap_or_else(late)
}

fn given_up(
    target: &str,
    lanes: Vec<Vec<Outgoing>>,
    progress: Progress,
    (stopped, reason): Stop,
) -> RelayError {
    let taken = progress.into_taken();
    let failed = &lanes[stopped][taken[stopped]];
    let (id, subject) = (failed.id.clone(), failed.subject.clone());
    let rest = lanes.into_iter().zip(taken).flat_map(|(lane, taken)| lane.into_iter().skip(taken));
    RelayError { id, subject, target: target.to_owned(), reason, unsent: rest.collect() }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Nothing is under way once a delivery has ended or was dropped.
struct NoneInFlight<'a>(&'a FiguresHandle);

impl Drop for NoneInFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight(0);
    }
}

#[cfg(test)]
mod tests;
