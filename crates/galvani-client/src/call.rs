//! One call: attempts at one lane after another, within one deadline, until one answers.
//!
//! All attempts of a write carry the same request id, time, context and value, so they are one
//! write to the servers. A node that is late (`health.rs`), or silent for a quarter of the call's
//! time, is joined by another attempt and still listened to; a read is asked of the next owner
//! before that, within an allowance (`hedge.rs`). Retries come out of the client's budget; an
//! attempt that never left does not count. A coordinator that knows that owners are down is
//! believed unless one other that is at hand says otherwise. What the servers' answers mean is in
//! `failure.rs`.

use crate::client::Shared;
use crate::deadline::Deadline;
use crate::directory::{Directory, Route, Target};
use crate::error::{Applied, Attempt, Error, ErrorKind, Trace};
use crate::failure::{kind_of, verdict};
use crate::health::Standing;
use crate::net::Fault;
use crate::race::first;
use crate::request::{Make, Request, Tries};
use crate::retry::{Fate, jittered, pause};
use galvani_model::bucket::BucketName;
use galvani_model::ids::{NodeId, RequestId};
use galvani_model::span::Span;
use galvani_transport::SendError;
use galvani_wire::message::Failed;
use galvani_wire::{AppliedOutcome, Message, Outcome};
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What is asked, of whom, and until when.
pub(crate) struct Plan<'a, T> {
    pub(crate) op: &'static str,
    /// What it is about, for errors.
    pub(crate) subject: &'a (dyn Fn() -> String + Send + Sync),
    pub(crate) bucket: Option<&'a BucketName>,
    pub(crate) route: Route,
    pub(crate) deadline: Deadline,
    /// The id all attempts of a write share; `None` for what is no write.
    pub(crate) write: Option<RequestId>,
    /// Whether it changes anything, so that an unknown end is a doubt.
    pub(crate) changes: bool,
    /// Whether a late node is joined by another before it counts as silent: for requests that cost
    /// little.
    pub(crate) hedge: bool,
    pub(crate) make: &'a Make<'a>,
    /// The reply that is wanted; anything else is handed back.
    pub(crate) accept: fn(Message) -> Result<T, Box<Message>>,
}

impl<T> Plan<'_, T> {
    /// Whether it may be asked twice early: it changes nothing, and costs little.
    fn is_cheap_read(&self) -> bool {
        self.hedge && !self.changes
    }
}

/// Runs the plan to its reply or its error.
pub(crate) async fn run<T>(shared: &Shared, plan: Plan<'_, T>) -> Result<T, Error> {
    shared.budget.earn();
    if plan.is_cheap_read() {
        shared.hedging.earn();
    }
    let tried = plan.route.iter().map(|_| 0).collect();
    let tries = Tries::default();
    let mut call = Call {
        shared,
        plan,
        tries: &tries,
        tried,
        flights: Vec::new(),
        attempts: Vec::new(),
        fate: Fate::new(),
        cause: None,
        retries: 0,
        launch_at: None,
        hedge_at: None,
        late_at: None,
        stall_at: None,
        opinion_until: None,
    };
    call.launch();
    loop {
        if call.flights.is_empty() && call.launch_at.is_none() {
            return Err(call.into_error());
        }
        let woken = timeout_at(call.wake_at(), first(&mut call.flights)).await;
        match woken {
            Ok((flight, outcome)) => {
                if let Some(result) = call.on_outcome(&flight, outcome) {
                    return result.map_err(|Stopped| call.into_error());
                }
            }
            Err(_) => {
                if call.plan.deadline.has_passed() || call.opinion_is_late() {
                    return Err(call.into_error());
                }
                call.on_timer();
            }
        }
    }
}

/// A call under way.
struct Call<'a, T> {
    shared: &'a Shared,
    plan: Plan<'a, T>,
    tries: &'a Tries,
    /// How often each lane of the route was tried.
    tried: SmallVec<[u32; 8]>,
    flights: Vec<Flight<'a>>,
    attempts: Vec<Attempt>,
    fate: Fate,
    /// The most telling failure so far.
    cause: Option<Cause>,
    retries: u32,
    /// When the next attempt starts.
    launch_at: Option<Instant>,
    /// When the first attempt of a read has taken longer than its node's usual ones.
    hedge_at: Option<Instant>,
    /// When the last attempt counts as late.
    late_at: Option<Instant>,
    /// When the attempts under way count as silent.
    stall_at: Option<Instant>,
    /// After a node refused because owners are down: how long another may take to contradict.
    opinion_until: Option<Instant>,
}

/// One attempt under way.
struct Flight<'a> {
    target: Target,
    began: Instant,
    /// Whether it was sent because another took long.
    is_hedge: bool,
    /// Whether it has left, when that was last looked at.
    left: bool,
    request: Request<'a>,
}

impl Future for Flight<'_> {
    type Output = Result<Message, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.request).poll(cx)
    }
}

/// The call ends without a reply; why is in the call's cause.
struct Stopped;

/// Why an attempt failed, the less telling first.
enum Cause {
    /// It got no answer.
    Fault { node: String, fault: Fault },
    /// A server refused or failed it.
    Server(Failed),
    /// A server said something that is no answer to it.
    Nonsense { what: String },
}

impl Cause {
    fn weight(&self) -> u8 {
        match self {
            Cause::Fault { .. } => 0,
            // A last word outweighs all; then whoever spoke of replicas.
            Cause::Server(failed) if verdict(&failed.failure).retry.is_none() => 3,
            Cause::Server(failed) => 1 + u8::from(!failed.answers.is_empty()),
            Cause::Nonsense { .. } => 3,
        }
    }
}

impl<'a, T> Call<'a, T> {
    fn launch(&mut self) {
        self.launch_at = None;
        if let Some(index) = self.choose(|_, _| true) {
            self.launch_at_lane(index);
        }
    }

    fn launch_at_lane(&mut self, index: usize) {
        self.tried[index] += 1;
        let target = self.plan.route[index];
        let links = &self.shared.net.links;
        let (node, make) = (Some(target.node), self.plan.make);
        let request = Request::start(links, target.addr, node, make, Some(self.tries));
        let (began, left) = (Instant::now(), request.was_sent());
        let flight = Flight { target, began, is_hedge: false, left, request };
        let late_after = self.late_after(&flight);
        let usual = left && self.plan.is_cheap_read() && self.flights.is_empty();
        let hedge_after = usual.then(|| self.shared.net.links.hedge_after(target.addr)).flatten();
        self.hedge_at = hedge_after.map(|after| began + after.min(late_after));
        self.late_at = Some(began + late_after);
        self.stall_at = Some(began + self.plan.deadline.stall_after());
        self.flights.push(flight);
    }

    /// The least tried lane that fits; of those one that answers, an owner, one nearby, the first.
    fn choose(&self, fits: impl Fn(usize, &Target) -> bool) -> Option<usize> {
        let links = &self.shared.net.links;
        let rank = |&index: &usize| {
            let target = &self.plan.route[index];
            let standing = links.standing(target.addr);
            (self.tried[index], standing, !target.owner, !target.near, index)
        };
        let lanes = 0..self.plan.route.len();
        lanes.filter(|&index| fits(index, &self.plan.route[index])).min_by_key(rank)
    }

    /// How long this attempt may take before it counts as late.
    fn late_after(&self, flight: &Flight<'_>) -> Duration {
        let most = self.plan.deadline.stall_after();
        match flight.left {
            true => self.shared.net.links.pace(flight.target.addr).late_after(most),
            false => CONNECT_MAX.min(most),
        }
    }

    fn wake_at(&self) -> Instant {
        let timers =
            [self.launch_at, self.hedge_at, self.late_at, self.stall_at, self.opinion_until];
        timers.into_iter().flatten().fold(self.plan.deadline.at(), Instant::min)
    }

    fn opinion_is_late(&self) -> bool {
        self.opinion_until.is_some_and(|until| until <= Instant::now())
    }

    /// `None`: the call goes on.
    fn on_outcome(
        &mut self,
        flight: &Flight<'a>,
        outcome: Result<Message, Fault>,
    ) -> Option<Result<T, Stopped>> {
        match outcome {
            Ok(Message::Failed(failed)) => self.on_failed(flight, failed),
            Ok(message) => match (self.plan.accept)(message) {
                Ok(reply) => {
                    self.note_late(flight);
                    return Some(Ok(reply));
                }
                Err(message) => {
                    let what = format!("the reply is a {}", message.name());
                    self.note(flight, what.clone());
                    self.fate.note_unknown();
                    self.blame(Cause::Nonsense { what });
                    Err(Stopped)
                }
            },
            Err(fault) => self.on_fault(flight, fault),
        }
        .err()
        .map(Err)
    }

    fn on_failed(&mut self, flight: &Flight<'a>, failed: Failed) -> Result<(), Stopped> {
        let verdict = verdict(&failed.failure);
        let kind = kind_of(&failed, self.plan.bucket, flight.began.elapsed(), &self.directory());
        self.note(flight, kind.to_string());
        self.fate.note_answer(failed.applied);
        if failed.applied == AppliedOutcome::No {
            self.tries.take_back();
        }
        let down = failed.answers.iter().filter(|one| one.outcome == Outcome::Unreachable);
        let down: SmallVec<[NodeId; 8]> = down.map(|one| one.node).collect();
        if verdict.overloaded {
            self.shared.hedging.note_overload();
        }
        self.blame(Cause::Server(failed));
        if verdict.stale {
            self.shared.stale.notify_one();
        }
        let after = verdict.retry.ok_or(Stopped)?;
        if verdict.once {
            return self.second_opinion(&down);
        }
        self.retry_after(after);
        Ok(())
    }

    /// Owners are known to be down, and waiting brings none back in the time of a call. The node
    /// that says so may be the one that is cut off: one other that a request reaches at once, and
    /// that is not among the missing, may contradict, soon.
    fn second_opinion(&mut self, down: &[NodeId]) -> Result<(), Stopped> {
        let first = self.opinion_until.is_none();
        let until = Instant::now() + self.plan.deadline.stall_after();
        self.opinion_until.get_or_insert(until);
        if !self.flights.is_empty() {
            return Ok(());
        }
        let links = &self.shared.net.links;
        let other = self.choose(|index, target| {
            self.tried[index] == 0
                && !down.contains(&target.node)
                && links.is_up(target.addr)
                && links.standing(target.addr) != Standing::Suspect
        });
        match other {
            Some(index) if first && self.take_retry() => {
                self.launch_at_lane(index);
                Ok(())
            }
            Some(_) | None => Err(Stopped),
        }
    }

    fn on_fault(&mut self, flight: &Flight<'a>, fault: Fault) -> Result<(), Stopped> {
        let (sent, distrust) = (fault.was_sent(), fault.is_distrust());
        self.note(flight, fault.to_string());
        if sent {
            self.fate.note_unknown();
        }
        let hopeless = match &fault {
            Fault::NotSent(SendError::TooLarge { .. } | SendError::ClassNotOpen)
            | Fault::Closed => true,
            Fault::NotSent(SendError::Full | SendError::Closed)
            | Fault::NotDialed(_)
            | Fault::WrongNode
            | Fault::Lost(_) => false,
        };
        if fault == Fault::WrongNode {
            self.shared.stale.notify_one();
        }
        let node = self.directory().name_of(flight.target.node);
        self.blame(Cause::Fault { node, fault });
        let untried = self.tried.contains(&0);
        let opinion = self.opinion_until.is_some() && self.flights.is_empty();
        if hopeless || (distrust && !untried) || opinion {
            return Err(Stopped);
        }
        if !sent && untried {
            // Nothing was asked of anyone yet: no pause, and no retry is spent.
            self.launch_at = Some(Instant::now());
        } else {
            self.retry_after(Duration::ZERO);
        }
        Ok(())
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.launch_at.is_some_and(|at| at <= now) {
            self.launch();
        } else if self.hedge_at.is_some_and(|at| at <= now) {
            self.on_unusual();
        } else if self.late_at.is_some_and(|at| at <= now) {
            self.on_late(now);
        } else if self.stall_at.is_some_and(|at| at <= now) {
            self.stall_at = None;
            for flight in &self.flights {
                self.shared.net.links.note_silence(flight.target.addr);
            }
            // As long as nobody was asked, asking another is not a retry.
            let unasked = self.flights.iter().all(|flight| !flight.request.was_sent());
            let untried = self.tried.contains(&0);
            if (unasked && untried) || (self.tried.len() > 1 && self.take_retry()) {
                self.launch();
            }
        }
    }

    /// A read takes longer than is usual at its node: the next lane that is at hand is asked as well,
    /// if the allowance has one left. Else it may still turn out late.
    fn on_unusual(&mut self) {
        self.hedge_at = None;
        let links = &self.shared.net.links;
        let next = self.choose(|index, target| {
            self.tried[index] == 0
                && links.standing(target.addr) == Standing::Good
                && links.is_up(target.addr)
        });
        let Some(index) = next.filter(|_| self.shared.hedging.take()) else { return };
        self.launch_at_lane(index);
        if let Some(flight) = self.flights.last_mut() {
            flight.is_hedge = true;
        }
    }

    /// The last attempt is late: another lane that nothing speaks against is asked as well.
    fn on_late(&mut self, now: Instant) {
        self.late_at = None;
        let unasked = self.flights.iter().all(|flight| !flight.request.was_sent());
        let Some(mut flight) = self.flights.pop() else { return };
        let just_left = flight.request.was_sent() && !flight.left;
        flight.left = flight.request.was_sent();
        if just_left {
            // It took its time to connect; now it has that of an answer.
            self.late_at = Some(now + self.late_after(&flight));
        }
        self.flights.push(flight);
        let links = &self.shared.net.links;
        let fresh = self.choose(|index, target| {
            self.tried[index] == 0
                && links.standing(target.addr) != Standing::Suspect
                && (!unasked || links.is_up(target.addr))
        });
        let Some(index) = fresh.filter(|_| !just_left) else { return };
        // As long as nobody was asked, asking another is not a retry.
        if unasked || (self.plan.hedge && self.take_retry()) {
            self.launch_at_lane(index);
        }
    }

    /// Another lane, `first`, answered what these have not, though they were asked before it: they are
    /// asked last until they are heard of, and count as silent if they had the time.
    fn note_late(&self, first: &Flight<'_>) {
        if first.is_hedge {
            self.shared.hedging.note_won();
        }
        let links = &self.shared.net.links;
        for flight in &self.flights {
            let (took, late_after) = (flight.began.elapsed(), self.late_after(flight));
            if took >= late_after {
                links.note_silence(flight.target.addr);
            } else if flight.left && flight.began < first.began {
                links.note_overtaken(flight.target.addr, took, flight.began + late_after);
            }
        }
    }

    /// Another attempt, if there is one to spend and time for it: after a jittered pause, at
    /// least `least`, and spread over half as much again, so that those who were refused together
    /// do not come together.
    fn retry_after(&mut self, least: Duration) {
        let network = &self.shared.net.links.network;
        let least = jittered(network, least, least * 3 / 2);
        let at = Instant::now() + least + pause(network, self.retries);
        if self.launch_at.is_none() && at < self.plan.deadline.at() && self.take_retry() {
            self.launch_at = Some(at);
        }
    }

    fn take_retry(&mut self) -> bool {
        let allowed =
            self.retries < u32::from(self.shared.settings.retries) && self.shared.budget.spend();
        self.retries += u32::from(allowed);
        allowed
    }

    fn note(&mut self, flight: &Flight<'a>, outcome: String) {
        let node = self.directory().name_of(flight.target.node);
        self.attempts.push(Attempt { node, took: flight.began.elapsed(), outcome });
    }

    fn blame(&mut self, cause: Cause) {
        let before = self.cause.as_ref().map(Cause::weight);
        if before.is_none_or(|before| before <= cause.weight()) {
            self.cause = Some(cause);
        }
    }

    fn directory(&self) -> Directory {
        self.shared.directory()
    }

    /// The error of the call; what is still under way has an unknown end.
    fn into_error(mut self) -> Error {
        let directory = self.directory();
        let after = self.plan.deadline.elapsed();
        let mut silent = Vec::new();
        for flight in std::mem::take(&mut self.flights) {
            let sent = flight.request.was_sent();
            let outcome = if sent { "no answer" } else { "no connection yet" };
            if sent {
                self.fate.note_unknown();
            }
            silent.push(format!("{} {outcome}", directory.name_of(flight.target.node)));
            self.note(&flight, outcome.to_owned());
        }
        let mut answers = Vec::new();
        let kind = match self.cause.take() {
            Some(Cause::Server(failed)) => {
                answers = crate::answer::named(&failed.answers, &directory);
                kind_of(&failed, self.plan.bucket, after, &directory)
            }
            Some(Cause::Nonsense { what }) => ErrorKind::Protocol { what },
            Some(Cause::Fault { node, fault }) if silent.is_empty() => {
                self.kind_of_fault(&node, &fault)
            }
            Some(Cause::Fault { .. }) | None => {
                let lost = self.attempts.iter().rev().skip(silent.len()).rev();
                let lost = lost.map(|one| format!("{} {}", one.node, one.outcome));
                let detail = lost.chain(silent).collect::<Vec<_>>().join(", ");
                ErrorKind::Timeout { after, detail }
            }
        };
        let kind = match kind {
            // A server that ran out of time itself, and did not say for whom it waited.
            ErrorKind::Timeout { after, detail } if detail.is_empty() => {
                ErrorKind::Timeout { after, detail: asked(&self.attempts) }
            }
            kind => kind,
        };
        let applied = match self.plan.changes {
            true => self.fate.applied(),
            false => Applied::No,
        };
        let trace = Trace { request_id: self.plan.write, attempts: self.attempts, answers };
        Error::new(self.plan.op, (self.plan.subject)(), kind)
            .with_applied(applied)
            .with_trace(trace)
    }

    fn kind_of_fault(&self, node: &str, fault: &Fault) -> ErrorKind {
        let detail = format!("{node} {fault}");
        match fault {
            _distrusted if fault.is_distrust() => ErrorKind::Tls { detail },
            Fault::NotSent(SendError::TooLarge { bytes, max }) => {
                ErrorKind::TooLarge { size: *bytes as u64, limit: *max as u64 }
            }
            Fault::NotSent(SendError::Full) => ErrorKind::Overloaded { retry_after: FULL_PAUSE },
            Fault::Closed => ErrorKind::Closed,
            Fault::Lost(_) => ErrorKind::ConnectionLost { detail },
            Fault::NotSent(SendError::Closed | SendError::ClassNotOpen)
            | Fault::NotDialed(_)
            | Fault::WrongNode => {
                let each = self.attempts.iter().map(|attempt| {
                    let Attempt { node, took, outcome } = attempt;
                    format!("{node} {outcome} ({})", Span(*took))
                });
                ErrorKind::Unreachable { detail: each.collect::<Vec<_>>().join(", ") }
            }
        }
    }
}

/// Who was asked, each node once: `asked n1, n2`.
fn asked(attempts: &[Attempt]) -> String {
    let mut nodes: Vec<&str> = Vec::new();
    for attempt in attempts {
        if !nodes.contains(&attempt.node.as_str()) {
            nodes.push(&attempt.node);
        }
    }
    if nodes.is_empty() { String::new() } else { format!("asked {}", nodes.join(", ")) }
}

/// Time to connect, after which a lane that is connected is asked instead: several round trips.
const CONNECT_MAX: Duration = Duration::from_millis(100);
/// How long a full outbox takes to drain, roughly.
const FULL_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::{Attempt, asked};
    use std::time::Duration;

    #[test]
    fn who_was_asked_is_named_once() {
        let attempt = |node: &str| Attempt {
            node: node.to_owned(),
            took: Duration::ZERO,
            outcome: "no answer".to_owned(),
        };
        assert_eq!(asked(&[]), "");
        assert_eq!(asked(&[attempt("n2"), attempt("n1"), attempt("n2")]), "asked n2, n1");
    }
}
