//! The ledger of one shard in a member of a group: what is handed out, and what the group is done with.
//!
//! A value: it reads no clock, sends nothing and stores nothing. Events come in as units; each waits,
//! is held by a consumer, and ends acknowledged or in the dead letters. Acknowledgements come in any
//! order, because a position is a set of writes. In ordered mode one unit of a key is held at a time,
//! the oldest first. Next to read: `driver.rs`, which feeds it. Source: algorithms 4.8.

mod tries;
mod unit;

use galvani_model::feed::Cursor;
use galvani_model::version::{Dot, PartitionClock};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tries::Care;
pub use unit::OnPoison;
use unit::State;
pub(crate) use unit::{Covers, Rules, Unit};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is under way in one shard.
#[derive(Debug)]
pub(crate) struct Ledger<T> {
    rules: Rules,
    /// Exactly what the group is done with, as far as this member knows.
    cursor: Cursor,
    units: BTreeMap<u64, Unit<T>>,
    /// What they take in memory.
    bytes: usize,
    /// Of each key, what waits or is held, oldest first.
    lines: BTreeMap<u64, VecDeque<u64>>,
    /// What may be handed out, by when.
    ready: BTreeSet<(u64, u64)>,
    /// Of that, dead letters that are retried: they are handed out while the shard stands still, too.
    ready_letters: BTreeSet<(u64, u64)>,
    /// What is held, by until when.
    held: BTreeSet<(u64, u64)>,
    dying: VecDeque<u64>,
    /// Writes whose last event is not done with.
    open: BTreeMap<Dot, u32>,
    /// Of those, writes of which an event was forgotten: the group is not done with them here.
    spoiled: BTreeSet<Dot>,
    /// Keys whose events go to the dead letters, and in which round that began.
    parked: BTreeMap<u64, u64>,
    /// Keys whose letters were retried, and in which round the last was done with.
    settled: BTreeMap<u64, u64>,
    /// Keys whose letters halt the shard, and in which round that began.
    halted: BTreeMap<u64, u64>,
    round: u64,
    /// Of writes that are not done with, how often an event was handed out, as it is kept or to be kept.
    tries: BTreeMap<Dot, u32>,
    tries_changed: bool,
    /// Events for which attempts are kept before they are handed out, still.
    wary: usize,
    /// What may be handed out once its attempt is kept, by when.
    unnoted: BTreeSet<(u64, u64)>,
    /// Units whose attempt is being kept.
    noting: Vec<u64>,
    /// Units whose attempt is kept, and that were not handed out since.
    noted: BTreeSet<u64>,
}

impl<T> Ledger<T> {
    /// The ledger of a shard whose group is at `cursor`.
    pub(crate) fn new(rules: Rules, cursor: Cursor) -> Ledger<T> {
        Ledger {
            rules,
            cursor,
            units: BTreeMap::new(),
            bytes: 0,
            lines: BTreeMap::new(),
            ready: BTreeSet::new(),
            ready_letters: BTreeSet::new(),
            held: BTreeSet::new(),
            dying: VecDeque::new(),
            open: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            parked: BTreeMap::new(),
            settled: BTreeMap::new(),
            halted: BTreeMap::new(),
            round: 0,
            tries: BTreeMap::new(),
            tries_changed: false,
            wary: 0,
            unnoted: BTreeSet::new(),
            noting: Vec::new(),
            noted: BTreeSet::new(),
        }
    }

    /// Takes a unit in, of so many bytes. Those of one write come one after the other, with nothing between
    /// them.
    pub(crate) fn add(
        &mut self,
        number: u64,
        line: Option<u64>,
        covers: Covers,
        bytes: usize,
        payload: T,
    ) {
        let mut attempt = 0;
        if let Covers::Write(dot) = covers {
            *self.open.entry(dot).or_default() += 1;
            attempt = self.tries.get(&dot).copied().unwrap_or(0);
        }
        let care = match covers {
            Covers::Write(_) => self.care_of(attempt),
            Covers::Gone(_) | Covers::Letter => Care::None,
        };
        let (state, error) = (State::Waiting { from_ms: 0 }, String::new());
        let unit = Unit { line, payload, attempt, error, bytes, covers, care, state };
        self.bytes += bytes;
        self.units.insert(number, unit);
        if let Some(line) = line {
            self.lines.entry(line).or_default().push_back(number);
            if self.parked.contains_key(&line) {
                return self.die(number, BEHIND);
            }
        }
        if attempt >= self.rules.max_deliver
            && let Some(unit) = self.units.get_mut(&number)
        {
            unit.error = UNDONE.to_owned();
            return self.poison(number);
        }
        self.arm(number);
    }

    /// The group need not see these writes.
    pub(crate) fn pass(&mut self, done: &PartitionClock, owed: &PartitionClock) {
        self.cursor.pass(done);
        self.cursor.owe_all(owed);
        self.cursor.settle();
    }

    /// Takes over what another member is done with. What it is done with is handed out no more.
    pub(crate) fn join(&mut self, other: &Cursor) {
        self.cursor.join(other);
        let cursor = &self.cursor;
        let known = self.tries.len();
        self.tries.retain(|dot, _| !cursor.delivered().contains(*dot));
        self.tries_changed |= self.tries.len() < known;
        let over = |unit: &Unit<T>| match unit.covers {
            Covers::Write(dot) => cursor.delivered().contains(dot),
            Covers::Gone(_) | Covers::Letter => false,
        };
        let idle = |unit: &Unit<T>| matches!(unit.state, State::Waiting { .. });
        let over: Vec<u64> =
            self.units.iter().filter(|(_, it)| idle(it) && over(it)).map(|(n, _)| *n).collect();
        for number in over {
            self.end(number);
        }
    }

    /// The next unit to hand out: it is held from now on, without an end until [`Ledger::progress`].
    pub(crate) fn hand(&mut self, now_ms: u64) -> Option<(u64, &Unit<T>)> {
        let from_ms = self.ready_ms().filter(|from_ms| *from_ms <= now_ms)?;
        let (_, number) = *self.may_be_handed().first()?;
        self.ready.remove(&(from_ms, number));
        self.ready_letters.remove(&(from_ms, number));
        self.noted.remove(&number);
        let unit = self.units.get_mut(&number).expect("what is ready is a unit");
        unit.attempt += 1;
        unit.state = State::Held { until_ms: u64::MAX };
        self.held.insert((u64::MAX, number));
        Some((number, unit))
    }

    /// A consumer has it and works on it: it has the whole time again.
    pub(crate) fn progress(&mut self, number: u64, now_ms: u64) {
        let Some(unit) = self.units.get_mut(&number) else { return };
        if let State::Held { until_ms } = unit.state {
            self.held.remove(&(until_ms, number));
            let until_ms = now_ms + self.rules.ack_wait_ms;
            unit.state = State::Held { until_ms };
            self.held.insert((until_ms, number));
        }
    }

    /// The consumer is done with it. A word that comes late counts too, whoever holds it now: the
    /// event was dealt with. `None`: there is no such unit any more.
    pub(crate) fn ack(&mut self, number: u64) -> Option<T> {
        if self.units.get(&number)?.state == State::Dying {
            return None;
        }
        self.end(number)
    }

    /// The consumer could not deal with it. It comes again after `delay_ms`, or after a pause that
    /// grows with every attempt, or not at all.
    pub(crate) fn nak(&mut self, number: u64, now_ms: u64, delay_ms: Option<u64>, why: &str) {
        let Some(unit) = self.units.get_mut(&number) else { return };
        let State::Held { until_ms } = unit.state else { return };
        self.held.remove(&(until_ms, number));
        self.count(number);
        let Some(unit) = self.units.get_mut(&number) else { return };
        let pause_ms = delay_ms.unwrap_or_else(|| backoff_ms(number, unit.attempt));
        unit.state = State::Waiting { from_ms: now_ms.saturating_add(pause_ms) };
        unit.error = why.to_owned();
        let parked = unit.line.is_some_and(|line| self.parked.contains_key(&line));
        let dies = unit.attempt >= self.rules.max_deliver || parked;
        match unit.covers {
            Covers::Write(_) | Covers::Letter if dies => self.poison(number),
            Covers::Write(_) | Covers::Letter | Covers::Gone(_) => self.arm(number),
        }
    }

    /// The consumer gives it up: no further attempt is made.
    pub(crate) fn term(&mut self, number: u64, why: &str) {
        let Some(unit) = self.units.get_mut(&number) else { return };
        let State::Held { until_ms } = unit.state else { return };
        self.held.remove(&(until_ms, number));
        unit.error = why.to_owned();
        match unit.covers {
            Covers::Write(_) | Covers::Letter => self.poison(number),
            Covers::Gone(_) => drop(self.end(number)),
        }
    }

    /// Takes back what was held for too long.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        while let Some((until_ms, number)) = self.held.first().copied() {
            if until_ms > now_ms {
                return;
            }
            self.nak(number, now_ms, None, "not acknowledged in time");
        }
    }

    /// Nothing more is handed out that is not held now: what waits is forgotten. It comes again, here
    /// or in another member, because the position does not cover it. `untaken`: what no consumer has
    /// taken yet is forgotten too, because none will.
    pub(crate) fn stop(&mut self, untaken: bool) {
        let waits = |unit: &Unit<T>| match unit.state {
            State::Waiting { .. } => true,
            State::Held { until_ms } => untaken && until_ms == u64::MAX,
            State::Dying => false,
        };
        let waiting: Vec<u64> =
            self.units.iter().filter(|(_, it)| waits(it)).map(|(n, _)| *n).collect();
        for number in waiting {
            self.forget(number);
        }
    }

    /// What is to become a dead letter; each is returned once.
    pub(crate) fn take_dying(&mut self) -> Vec<u64> {
        self.dying.drain(..).collect()
    }

    /// It is among the dead letters: the group is done with it.
    pub(crate) fn buried(&mut self, number: u64) -> Option<T> {
        self.end(number)
    }

    /// It could not be put among the dead letters: again.
    pub(crate) fn not_buried(&mut self, number: u64) {
        if self.units.contains_key(&number) {
            self.dying.push_back(number);
        }
    }

    /// A round of the member began: what is parked from now on is not in what that round lists.
    pub(crate) fn begin_round(&mut self, round: u64) {
        self.round = round;
    }

    /// Keys that have dead letters as listed in `round`: those that park their key, and those that
    /// halt the shard.
    pub(crate) fn set_parked(
        &mut self,
        listed: &BTreeSet<u64>,
        halting: &BTreeSet<u64>,
        round: u64,
    ) {
        let dying: BTreeSet<u64> = self.dying_lines().collect();
        let retried: BTreeSet<u64> = self.retried_lines().collect();
        self.settled.retain(|_, settled| *settled >= round);
        self.parked
            .retain(|line, since| *since >= round || dying.contains(line) || listed.contains(line));
        let counts = |line: &&u64| !retried.contains(*line) && !self.settled.contains_key(*line);
        let halting: BTreeSet<u64> = halting.iter().filter(counts).copied().collect();
        let parking: Vec<u64> = listed.iter().filter(counts).copied().collect();
        for line in parking {
            self.park(line, 0);
        }
        self.halted.retain(|line, since| {
            *since >= round || dying.contains(line) || halting.contains(line)
        });
        for line in halting {
            self.halted.entry(line).or_insert(0);
        }
    }

    /// Hands out the dead letters of a key again, before anything newer of it. False: some of its
    /// events are on their way to the letters; not now.
    pub(crate) fn retry(&mut self, line: u64, letters: Vec<(u64, T)>) -> bool {
        if self.dying_lines().chain(self.retried_lines()).any(|it| it == line) {
            return false;
        }
        self.parked.remove(&line);
        // What else halts the shard goes on halting it.
        self.halted.remove(&line);
        let was_first = self.lines.get(&line).and_then(|queue| queue.front().copied());
        // One that is held is finished first: only what waits can wait longer.
        let held = |number: &u64| {
            self.units.get(number).is_some_and(|it| matches!(it.state, State::Held { .. }))
        };
        let at = usize::from(was_first.as_ref().is_some_and(held));
        if let Some(first) = was_first {
            self.disarm(first);
        }
        for (number, payload) in letters.into_iter().rev() {
            let state = State::Waiting { from_ms: 0 };
            let (covers, error, care) = (Covers::Letter, String::new(), Care::None);
            // Letters come by the key, when somebody asks for them: they are not counted.
            let (attempt, bytes) = (0, 0);
            let unit =
                Unit { line: Some(line), payload, attempt, error, bytes, covers, care, state };
            self.units.insert(number, unit);
            self.lines.entry(line).or_default().insert(at, number);
        }
        let queued: Vec<u64> = self.lines.get(&line).into_iter().flatten().copied().collect();
        for number in queued {
            self.arm(number);
        }
        true
    }

    /// The unit, if it is still one.
    pub(crate) fn unit(&self, number: u64) -> Option<&Unit<T>> {
        self.units.get(&number)
    }

    /// What is not done with.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &T> {
        self.units.values().map(|unit| &unit.payload)
    }

    /// What the group is done with.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether a write was taken in, or is done with.
    pub(crate) fn knows(&self, dot: Dot) -> bool {
        self.open.contains_key(&dot) || self.cursor.delivered().contains(dot)
    }

    /// How many units are not done with.
    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    /// What they take in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of them are held.
    pub(crate) fn in_flight(&self) -> usize {
        self.held.len()
    }

    /// Whether it stands still.
    pub(crate) fn is_halted(&self) -> bool {
        !self.halted.is_empty()
    }

    /// When something can be handed out.
    pub(crate) fn ready_ms(&self) -> Option<u64> {
        let may = self.held.len() < self.rules.max_in_flight;
        self.may_be_handed().first().map(|(at, _)| *at).filter(|_| may)
    }

    /// When something has been held for too long.
    pub(crate) fn expires_ms(&self) -> Option<u64> {
        self.held.first().map(|(at, _)| *at).filter(|at| *at < u64::MAX)
    }

    /// Whether [`Ledger::take_dying`] has something.
    pub(crate) fn has_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// Whether dead letters of a key are being delivered again.
    pub(crate) fn retries(&self, line: u64) -> bool {
        self.retried_lines().any(|it| it == line)
    }

    fn poison(&mut self, number: u64) {
        let Some(unit) = self.units.get(&number) else { return };
        let (line, error) = (unit.line, unit.error.clone());
        match self.rules.on_poison {
            OnPoison::ParkKey => {
                self.die(number, &error);
                if let Some(line) = line {
                    self.park(line, self.round);
                }
            }
            OnPoison::Skip => self.die(number, &error),
            OnPoison::Halt => {
                self.die(number, &error);
                self.halted.insert(line.unwrap_or_default(), self.round);
            }
        }
    }

    /// From now on events of this key go to the dead letters.
    fn park(&mut self, line: u64, since: u64) {
        let known = self.parked.entry(line).or_insert(since);
        *known = (*known).max(since);
        let waits = |number: &u64| {
            self.units.get(number).is_some_and(|it| matches!(it.state, State::Waiting { .. }))
        };
        let queued = self.lines.get(&line).into_iter().flatten().copied();
        for number in queued.filter(waits).collect::<Vec<_>>() {
            self.die(number, BEHIND);
        }
    }

    fn die(&mut self, number: u64, why: &str) {
        self.disarm(number);
        self.leave_line(number);
        if let Some(unit) = self.units.get_mut(&number) {
            unit.state = State::Dying;
            unit.error = why.to_owned();
            self.dying.push_back(number);
        }
    }

    /// The unit is done with.
    fn end(&mut self, number: u64) -> Option<T> {
        let (unit, last) = self.remove(number)?;
        match unit.covers {
            Covers::Write(dot) if last => {
                // An event of it that nobody was given must come again, with the others.
                if !self.spoiled.remove(&dot) {
                    self.cursor.deliver(dot);
                    self.uncount(dot);
                    self.wary = self.wary.saturating_sub(1);
                }
            }
            Covers::Write(_) => {}
            Covers::Gone(gone) => self.cursor.pass(&gone),
            Covers::Letter => {
                if let Some(line) = unit.line {
                    self.settled.insert(line, self.round);
                }
            }
        }
        Some(unit.payload)
    }

    /// The unit is not done with, and not ours any more.
    fn forget(&mut self, number: u64) {
        let Some((unit, last)) = self.remove(number) else { return };
        if let Covers::Write(dot) = unit.covers {
            match last {
                true => drop(self.spoiled.remove(&dot)),
                false => drop(self.spoiled.insert(dot)),
            }
        }
    }

    /// Takes a unit out; true if it was the last of its write.
    fn remove(&mut self, number: u64) -> Option<(Unit<T>, bool)> {
        self.disarm(number);
        self.leave_line(number);
        let unit = self.units.remove(&number)?;
        self.noted.remove(&number);
        self.bytes -= unit.bytes;
        if let State::Held { until_ms } = unit.state {
            self.held.remove(&(until_ms, number));
        }
        let mut last = false;
        if let Covers::Write(dot) = unit.covers {
            let left = self.open.get(&dot).copied().unwrap_or(1) - 1;
            last = left == 0;
            match left {
                0 => drop(self.open.remove(&dot)),
                left => drop(self.open.insert(dot, left)),
            }
        }
        Some((unit, last))
    }

    /// Lets a unit be handed out if its turn has come.
    fn arm(&mut self, number: u64) {
        let Some(unit) = self.units.get(&number) else { return };
        let State::Waiting { from_ms } = unit.state else { return };
        let first = |line| self.lines.get(&line).and_then(|queue: &VecDeque<u64>| queue.front());
        let turn = !self.rules.ordered || unit.line.is_none_or(|line| first(line) == Some(&number));
        if turn && unit.care != Care::None && !self.noted.contains(&number) {
            self.unnoted.insert((from_ms, number));
        } else if turn {
            self.ready.insert((from_ms, number));
            if unit.covers == Covers::Letter {
                self.ready_letters.insert((from_ms, number));
            }
        }
    }

    fn disarm(&mut self, number: u64) {
        if let Some(Unit { state: State::Waiting { from_ms }, .. }) = self.units.get(&number) {
            self.unnoted.remove(&(*from_ms, number));
            self.ready.remove(&(*from_ms, number));
            self.ready_letters.remove(&(*from_ms, number));
        }
    }

    /// What may be handed out, by when: of a shard that stands still only letters that are retried.
    fn may_be_handed(&self) -> &BTreeSet<(u64, u64)> {
        if self.is_halted() { &self.ready_letters } else { &self.ready }
    }

    /// Takes a unit out of the line of its key, and lets the next one have its turn.
    fn leave_line(&mut self, number: u64) {
        let Some(line) = self.units.get(&number).and_then(|unit| unit.line) else { return };
        let Some(queue) = self.lines.get_mut(&line) else { return };
        queue.retain(|it| *it != number);
        match queue.front().copied() {
            Some(next) => self.arm(next),
            None => drop(self.lines.remove(&line)),
        }
    }

    fn dying_lines(&self) -> impl Iterator<Item = u64> {
        self.units.values().filter(|it| it.state == State::Dying).filter_map(|it| it.line)
    }

    fn retried_lines(&self) -> impl Iterator<Item = u64> {
        self.units.values().filter(|it| it.covers == Covers::Letter).filter_map(|it| it.line)
    }
}

/// The pause before an event is handed out again after so many attempts: doubled each time, and spread
/// over half of it, so that what failed together does not come again together.
fn backoff_ms(number: u64, attempt: u32) -> u64 {
    let most = (BACKOFF_FIRST_MS << attempt.saturating_sub(1).min(16)).min(BACKOFF_MAX_MS);
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&attempt.to_le_bytes());
    most / 2 + xxh3_64_with_seed(&bytes, JITTER_SEED) % (most / 2 + 1)
}

const BACKOFF_FIRST_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 30_000;
/// Separates the jitter from every other use of the hash.
const JITTER_SEED: u64 = 0x6761_6c76_6a69_7431; // "galvjit1"
/// The error of an event that members were given and never said a word of.
const UNDONE: &str = "members that were given it ended without a word";
/// The error of an event that did nothing wrong.
const BEHIND: &str = "an earlier event of this key is among the dead letters";

#[cfg(test)]
mod tests;
