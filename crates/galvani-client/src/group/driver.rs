//! The task of a member: takes in what its shards' feed brings, hands it out, and hears what came of it.
//!
//! It waits for whatever comes first and does that; what goes through the store is done by a round under
//! way (`round.rs`), so that handing out never waits for it. Which shards it has is decided when a round
//! is over (`shards.rs`). Next to read: `ledger.rs`, the rules of one shard.

use super::agenda::{Agenda, Entry};
use super::ledger::{Covers, Ledger, Rules};
use super::member::{Delivery, Told};
use super::names::{LetterName, Pile, line_of};
use super::record::{Beat, BeatShard, Options, Roster, Spec};
use super::round::{self, Job, Report};
use super::store::GroupStore;
use crate::BoxFuture;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::feed::{Event, EventId, Gap, events_of};
use crate::feed::{Follower, Page, Part, Word};
use galvani_model::ids::{RequestId, Shard};
use galvani_model::version::{Emit, PartitionClock};
use galvani_wire::feed::{Begin, FeedEvent, FeedState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// An event under way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) event: Event,
    /// The whole write, for the dead letters; `None`: writes that are gone.
    pub(crate) raw: Option<Arc<FeedEvent>>,
    pub(crate) index: u16,
    /// The dead letter that it is.
    pub(crate) letter: Option<LetterName>,
}

/// A shard that this member works on.
pub(crate) struct Work {
    pub(crate) ledger: Ledger<Item>,
    pub(crate) taken_at: Instant,
    /// What was read or written last of its position.
    pub(crate) context: Context,
    /// Whether something was done since its position was kept.
    pub(crate) dirty: bool,
    /// Since when writes were passed over that its kept position does not have.
    pub(crate) passed_since: Option<Instant>,
    /// Whether its position is being kept.
    pub(crate) keeping: bool,
    pub(crate) kept_ms: u64,
    /// It is given up once nothing of it is held, or then.
    pub(crate) leaving: Option<Instant>,
    pub(crate) followed: bool,
    /// Which time it is that this follower follows it.
    pub(crate) epoch: u64,
}

impl Work {
    /// Whether a part of a page is what comes next. One of an earlier time may still be on its way when the
    /// shard is followed again, and what comes before it is not here.
    pub(crate) fn takes(&self, part: &Part) -> bool {
        let is_next = part.epoch == self.epoch && part.resets == self.ledger.cursor().resets;
        is_next && self.followed && self.leaving.is_none()
    }
}

/// The task of a member.
pub(crate) struct Driver {
    pub(crate) store: GroupStore,
    pub(crate) me: RequestId,
    pub(crate) joined_ms: u64,
    pub(crate) options: Options,
    pub(crate) spec: Spec,
    pub(crate) follower: Option<Follower>,
    pub(crate) shards: BTreeMap<Shard, Work>,
    pub(crate) loading: BTreeSet<Shard>,
    pub(crate) agenda: Agenda,
    pub(crate) states: BTreeMap<u64, FeedState>,
    pub(crate) last_number: u64,
    pub(crate) notices: VecDeque<Error>,
    pub(crate) fatal: Option<Error>,
    /// Shards to be followed from there, and shards to be followed no more.
    pub(crate) to_follow: BTreeMap<Shard, Begin>,
    pub(crate) to_drop: BTreeSet<Shard>,
    /// How often the follower was told to follow shards.
    pub(crate) epoch: u64,
    /// Whether some shards are about to be given up.
    pub(crate) giving_up: bool,
    pub(crate) round: Option<BoxFuture<'static, Report>>,
    pub(crate) rounds: u64,
    pub(crate) round_at: Instant,
    /// No round begins before that: what fails at once is not tried again at once.
    pub(crate) round_floor: Instant,
    pub(crate) beat_after: Context,
    /// When the last heartbeat that was written began to be.
    pub(crate) last_beat: Instant,
    pub(crate) bell: Option<u64>,
    pub(crate) absent: BTreeMap<RequestId, Instant>,
    /// Shards that each member named last.
    pub(crate) claims: BTreeMap<RequestId, BTreeSet<Shard>>,
    pub(crate) erase: BTreeSet<LetterName>,
    pub(crate) unmark: BTreeSet<Pile>,
    pub(crate) leave: Option<Leave>,
    pub(crate) base: Instant,
    out: mpsc::Sender<Result<Delivery>>,
    listening: bool,
    told: mpsc::UnboundedReceiver<Told>,
    teller: mpsc::UnboundedSender<Told>,
}

/// A member that is about to go.
pub(crate) struct Leave {
    pub(crate) reply: Option<oneshot::Sender<Result<()>>>,
    /// When it goes, whatever is held.
    pub(crate) until: Instant,
}

impl Driver {
    pub(crate) fn new(
        store: GroupStore,
        spec: Spec,
        options: Options,
        me: RequestId,
        out: mpsc::Sender<Result<Delivery>>,
        (teller, told): (mpsc::UnboundedSender<Told>, mpsc::UnboundedReceiver<Told>),
    ) -> Driver {
        let (now, joined_ms) = (Instant::now(), store.client.shared.net.links.network.unix_ms());
        Driver {
            store,
            me,
            joined_ms,
            options,
            spec,
            follower: None,
            shards: BTreeMap::new(),
            loading: BTreeSet::new(),
            agenda: Agenda::default(),
            states: BTreeMap::new(),
            last_number: 0,
            notices: VecDeque::new(),
            fatal: None,
            to_follow: BTreeMap::new(),
            to_drop: BTreeSet::new(),
            epoch: 0,
            giving_up: false,
            round: None,
            rounds: 0,
            round_at: now,
            round_floor: now,
            beat_after: Context::default(),
            last_beat: now,
            bell: None,
            absent: BTreeMap::new(),
            claims: BTreeMap::new(),
            erase: BTreeSet::new(),
            unmark: BTreeSet::new(),
            leave: None,
            base: now,
            out,
            listening: true,
            told,
            teller,
        }
    }

    /// Goes on until the member leaves, or cannot go on.
    pub(crate) async fn run(mut self) {
        loop {
            let now = Instant::now();
            while let Some(shard) = self.agenda.expired(self.ms(now)) {
                self.with(shard, |ledger, now_ms| ledger.expire(now_ms));
            }
            if self.giving_up {
                self.give_up_shards(now);
            }
            self.follow();
            if self.has_left(now) {
                return self.go().await;
            }
            if self.round.is_none() && now >= self.round_at.max(self.round_floor) {
                self.start_round(now);
            }
            let ready = self.may_hand_out(now);
            let intake = self.follower.is_some() && self.leave.is_none() && !self.agenda.is_full();
            let wake = self.wake(now);
            tokio::select! {
                told = self.told.recv() => match told {
                    Some(told) => self.on_told(told),
                    None => return,
                },
                report = under_way(&mut self.round) => {
                    self.round = None;
                    self.on_report(report);
                }
                permit = self.out.clone().reserve_owned(), if ready => match permit {
                    Ok(permit) => {
                        if let Some(delivery) = self.hand_out() {
                            permit.send(delivery);
                        }
                    }
                    Err(_) => self.listening = false,
                },
                word = next_word(&mut self.follower), if intake => self.on_word(word),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Milliseconds since the member began.
    pub(crate) fn ms(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_millis() as u64
    }

    /// Changes a ledger, and looks at what the shard has to do then.
    pub(crate) fn with(&mut self, shard: Shard, change: impl FnOnce(&mut Ledger<Item>, u64)) {
        let now_ms = self.ms(Instant::now());
        let Some(work) = self.shards.get_mut(&shard) else { return };
        let tried = work.ledger.tries_one();
        change(&mut work.ledger, now_ms);
        let ledger = &work.ledger;
        // What stands still must not keep the others from going on.
        let (units, bytes) =
            if ledger.is_halted() { (0, 0) } else { (ledger.len(), ledger.bytes()) };
        self.agenda.set(
            shard,
            Entry {
                ready_ms: ledger.ready_ms(),
                expires_ms: ledger.expires_ms(),
                units,
                bytes,
                in_flight: ledger.in_flight(),
            },
        );
        let next = tried && !ledger.tries_one();
        if ledger.has_dying() || next || ledger.awaits_note(now_ms) {
            self.round_at = Instant::now();
        }
        self.follow_or_not(shard);
    }

    fn wake(&self, now: Instant) -> Instant {
        let agenda = self.agenda.wake_ms(self.ms(now));
        let agenda = agenda.map(|at| self.base + Duration::from_millis(at));
        let round = self.round.is_none().then_some(self.round_at.max(self.round_floor));
        let leave = self.leave.as_ref().map(|leave| leave.until);
        let leaving = |work: &Work| work.leaving.filter(|_| self.giving_up);
        let until = self.shards.values().filter_map(leaving);
        let all = agenda.into_iter().chain(round).chain(leave).chain(until);
        // What has passed already was looked at just now, and waits for something else.
        let next = all.filter(|at| *at > now).min();
        next.unwrap_or(now + IDLE).min(now + IDLE)
    }

    fn may_hand_out(&self, now: Instant) -> bool {
        if !self.listening {
            return false;
        }
        if !self.notices.is_empty() {
            return true;
        }
        // Without a heartbeat for a lease others may have its shards already.
        let lease = Duration::from_millis(self.options.lease_ms);
        self.fatal.is_none()
            && self.leave.is_none()
            && now.saturating_duration_since(self.last_beat) < lease
            && self.agenda.in_flight() < self.rules().max_in_flight
            && self.agenda.ready(self.ms(now)).is_some()
    }

    fn hand_out(&mut self) -> Option<Result<Delivery>> {
        if let Some(error) = self.notices.pop_front() {
            return Some(Err(error));
        }
        let shard = self.agenda.ready(self.ms(Instant::now()))?;
        let mut handed = None;
        let teller = self.teller.clone();
        self.with(shard, |ledger, now_ms| {
            handed = ledger.hand(now_ms).map(|(number, unit)| {
                let Item { event, letter, .. } = &unit.payload;
                let retried = letter.is_some();
                Delivery::new(event.clone(), unit.attempt, retried, (shard, number), teller)
            });
        });
        handed.map(Ok)
    }

    fn on_told(&mut self, told: Told) {
        match told {
            Told::Taken(shard, number) => self.with(shard, |ledger, now_ms| {
                ledger.progress(number, now_ms);
            }),
            Told::Ack(shard, number) => {
                let mut done = None;
                self.with(shard, |ledger, _| done = ledger.ack(number));
                if let Some(item) = done {
                    if let Some(letter) = item.letter {
                        // Then it is looked whether it was the last of its key.
                        self.erase.insert(letter);
                        self.bell = None;
                        self.round_at = Instant::now();
                    }
                    if let Some(work) = self.shards.get_mut(&shard) {
                        work.dirty = true;
                    }
                }
            }
            Told::Nak { shard, number, delay, why } => {
                let delay_ms = delay.map(|delay| delay.as_millis() as u64);
                self.with(shard, |ledger, now_ms| ledger.nak(number, now_ms, delay_ms, &why));
            }
            Told::Term { shard, number, why } => {
                self.with(shard, |ledger, _| ledger.term(number, &why));
            }
            Told::Leave(reply) => {
                let wait = Duration::from_millis(self.options.ack_wait_ms);
                self.begin_leave(Some(reply), Instant::now() + wait);
            }
        }
    }

    fn on_word(&mut self, word: Option<Word>) {
        match word {
            Some(Word::Page(page)) => self.on_page(page),
            Some(Word::Ended(session)) => drop(self.states.remove(&session)),
            Some(Word::Began(..) | Word::Unserved(_) | Word::Following(_)) => {}
            Some(Word::Failed(error)) => self.fail(*error),
            // The client is closed: what it does next fails.
            None => self.follower = None,
        }
    }

    fn on_page(&mut self, page: Page) {
        self.states.insert(page.session, page.state);
        for part in page.parts {
            if self.shards.get(&part.shard).is_some_and(|work| work.takes(&part)) {
                self.on_part(part);
            }
        }
    }

    fn on_part(&mut self, part: Part) {
        let Part { shard, resets: _, epoch: _, events, done, owed, gone } = part;
        let directory = self.store.client.shared.directory();
        let mut units = Vec::new();
        // What is done with only when consumers say so.
        let mut open = gone.clone();
        for event in events {
            let dot = event.head.dot;
            if self.shards.get(&shard).is_some_and(|work| work.ledger.knows(dot)) {
                open.insert(dot);
                continue;
            }
            let (line, raw) = (line_of(&event.head.key), Arc::new(event.clone()));
            // Each of a write's events holds all of them; they share it, and one is counted.
            let mut bytes = bytes_of(&event);
            let mut shown = Vec::new();
            events_of(shard, event, &self.spec.filter.shows, &directory, &mut shown);
            for (index, event) in shown.into_iter().enumerate() {
                open.insert(dot);
                let (raw, index) = (Some(raw.clone()), index as u16);
                let item = Item { event, raw, index, letter: None };
                units.push((Some(line), Covers::Write(dot), ITEM_BYTES + bytes, item));
                bytes = 0;
            }
        }
        if !gone.is_empty() {
            let event = Event::Gap(Gap { shard, gone: gone.clone() });
            let item = Item { event, raw: None, index: 0, letter: None };
            units.push((None, Covers::Gone(gone), ITEM_BYTES, item));
        }
        let passed: PartitionClock = open.missing_from(&done).into_iter().collect();
        if let Some(work) = self.shards.get_mut(&shard)
            && !passed.is_empty()
        {
            work.passed_since.get_or_insert_with(Instant::now);
        }
        let mut last = self.last_number;
        self.with(shard, |ledger, _| {
            ledger.pass(&passed, &owed);
            for (line, covers, bytes, item) in units {
                last += 1;
                ledger.add(last, line, covers, bytes, item);
            }
        });
        self.last_number = last;
    }

    pub(crate) fn rules(&self) -> Rules {
        let Options { ordered, max_in_flight, max_deliver, ack_wait_ms, on_poison, lease_ms: _ } =
            self.options;
        let max_in_flight = max_in_flight as usize;
        Rules { ordered, max_in_flight, max_deliver, ack_wait_ms, on_poison }
    }

    /// Tells the consumer that this member cannot go on, and why; then it leaves.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.fatal.is_none() {
            self.fatal = Some(error.clone());
            self.notices.push_back(error);
            self.begin_leave(None, Instant::now() + FAIL_PATIENCE);
        }
    }

    fn begin_leave(&mut self, reply: Option<oneshot::Sender<Result<()>>>, until: Instant) {
        match &mut self.leave {
            Some(leave) => leave.reply = reply.or(leave.reply.take()),
            None => self.leave = Some(Leave { reply, until }),
        }
        self.follower = None;
        self.loading.clear();
        let shards: Vec<Shard> = self.shards.keys().copied().collect();
        for shard in shards {
            if let Some(work) = self.shards.get_mut(&shard) {
                work.leaving = Some(until);
            }
            self.with(shard, |ledger, _| ledger.stop(true));
        }
        self.giving_up = true;
        self.round_at = Instant::now();
    }

    /// Whether everything is given up that can be.
    fn has_left(&self, now: Instant) -> bool {
        let Some(leave) = &self.leave else { return false };
        let quiet = self.shards.is_empty() && self.round.is_none() && self.erase.is_empty();
        (quiet && (self.notices.is_empty() || !self.listening))
            || now >= leave.until + FAIL_PATIENCE
    }

    /// Takes its name off the group, and ends.
    async fn go(mut self) {
        let me = self.me;
        let mut left = self.store.unbeat(me).await;
        let strike = |roster: &mut Roster| roster.members.retain(|it| *it != me);
        let struck = self.store.change_roster(strike).await;
        left = left.and(struck);
        if let Some(error) = self.fatal.take() {
            left = Err(error);
        } else if !self.shards.is_empty() {
            left = left.and(Err(super::not_kept(&self.store.name)));
        }
        if let Some(reply) = self.leave.and_then(|leave| leave.reply) {
            // Nobody waits for it if leaving was given up.
            let _ = reply.send(left);
        }
    }

    fn start_round(&mut self, now: Instant) {
        self.rounds += 1;
        let period = beat_every(self.options.lease_ms);
        (self.round_at, self.round_floor) = (now + period, now + ROUND_GAP);
        let job = self.job(now);
        self.round = Some(Box::pin(round::run(self.store.clone(), job)));
    }

    fn job(&mut self, now: Instant) -> Job {
        let keep_all = self.leave.is_some();
        let mut keep = Vec::new();
        for (shard, work) in &mut self.shards {
            work.ledger.begin_round(self.rounds);
            let passed = work.passed_since.is_some_and(|since| {
                keep_all || work.leaving.is_some() || now - since >= PASSED_KEPT_AFTER
            });
            if work.dirty || passed {
                (work.dirty, work.passed_since, work.keeping) = (false, None, true);
                keep.push((*shard, work.ledger.cursor().clone(), work.context.clone()));
            }
        }
        let gone_for = Duration::from_millis(self.options.lease_ms) * STRIKE_AFTER_LEASES;
        let strike = self.absent.iter().filter(|(_, since)| now - **since >= gone_for);
        let strike = strike.map(|(id, _)| *id).collect();
        Job {
            number: self.rounds,
            beat: self.beat(),
            beat_after: self.beat_after.clone(),
            fingerprint: self.spec.filter.fingerprint(),
            bury: self.burials(),
            tries: self.tries(now),
            erase: std::mem::take(&mut self.erase),
            unmark: std::mem::take(&mut self.unmark),
            keep,
            strike,
            load: self.loading.clone(),
            mine: self.shards.keys().copied().chain(self.loading.iter().copied()).collect(),
            bell: self.bell,
        }
    }

    fn beat(&self) -> Beat {
        let at_ms = self.store.client.shared.net.links.network.unix_ms();
        let working = self.shards.iter().map(|(shard, work)| BeatShard {
            shard: *shard,
            waiting: work.ledger.len() as u64,
            in_flight: work.ledger.in_flight() as u64,
            halted: work.ledger.is_halted(),
            kept_ms: work.kept_ms,
        });
        let claimed = self.loading.iter().map(|shard| BeatShard {
            shard: *shard,
            waiting: 0,
            in_flight: 0,
            halted: false,
            kept_ms: 0,
        });
        let units = self.shards.values().flat_map(|work| work.ledger.payloads());
        let oldest = units.filter_map(|item| Some(item.raw.as_ref()?.head.hlc.unix_ms()));
        let lag = |state: &FeedState| Some(state.now_ms.saturating_sub(state.oldest_ms?));
        Beat {
            id: self.me,
            joined_ms: self.joined_ms,
            at_ms,
            lease_ms: self.options.lease_ms,
            shards: working.chain(claimed).collect(),
            unread: self.states.values().map(|state| state.behind).sum(),
            lag_ms: self.states.values().filter_map(lag).max().unwrap_or(0),
            oldest_ms: oldest.min().unwrap_or(0),
        }
    }
}

/// The name of an event; `None`: it tells of writes that are gone, or of how far the feed is.
pub(crate) fn id_of(event: &Event) -> Option<EventId> {
    match event {
        Event::Changed(change) => Some(change.id()),
        Event::Emitted(emitted) => Some(emitted.id()),
        Event::Record(shown) => Some(EventId::Write(shown.record.head.dot)),
        Event::Gap(_) | Event::Checkpoint(_) => None,
    }
}

/// What is in an event: its key, its values, and the events of the application.
fn bytes_of(event: &FeedEvent) -> usize {
    let values: usize = event.values.iter().map(|value| value.len()).sum();
    let emits: usize = event.head.emits.iter().map(Emit::bytes).sum();
    event.head.key.bytes().len() + values + emits
}

async fn under_way(round: &mut Option<BoxFuture<'static, Report>>) -> Report {
    match round {
        Some(round) => round.await,
        None => std::future::pending().await,
    }
}

async fn next_word(follower: &mut Option<Follower>) -> Option<Word> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}

/// How often a member goes its round: often enough for two heartbeats of a lease to be lost.
fn beat_every(lease_ms: u64) -> Duration {
    Duration::from_millis(lease_ms / 4).min(BEAT_EVERY)
}

/// What an event takes in memory beside its bytes, about.
const ITEM_BYTES: usize = 1 << 10;
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// From the beginning of a round to that of the next, at least.
const ROUND_GAP: Duration = Duration::from_millis(50);
/// How long it sleeps if there is nothing to wake for.
const IDLE: Duration = Duration::from_secs(1);
/// Writes that were only passed over are kept in the position so late: keeping it is a write too, which
/// is passed over in turn.
const PASSED_KEPT_AFTER: Duration = Duration::from_secs(60);
/// Leases after which a member without a heartbeat is struck off the group.
const STRIKE_AFTER_LEASES: u32 = 3;
/// How long a member that cannot go on tries to leave in order.
const FAIL_PATIENCE: Duration = Duration::from_secs(5);
