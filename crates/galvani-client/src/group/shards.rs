//! Which shards a member has, and what it makes of a round that is over.
//!
//! Shards go to whom [`assign`] says. A member that has one too many takes in no more of it, waits for
//! what is held, keeps its position and only then gives it up; whoever is to have it waits for that, or
//! for the heartbeat to run out. Two may work on one for a moment: then events are delivered twice, and
//! positions merge.

use super::assign::assign;
use super::driver::{Driver, Item, Work, id_of};
use super::ledger::Ledger;
use super::names::{Class, LetterName, Pile};
use super::record::{Beat, Letter, Spec, Tries};
use super::round::{Burial, Kept, News, Report, Seen};
use crate::error::{Error, ErrorKind};
use crate::feed::{Control, Follower, events_of};
use galvani_model::feed::Cursor;
use galvani_model::ids::{Partition, Shard};
use galvani_model::limits::VALUE_BYTES_MAX;
use galvani_wire::feed::Begin;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Driver {
    /// Takes over what came of a round.
    pub(crate) fn on_report(&mut self, report: Report) {
        let Report { number, started, beat, buried, tried, not_erased, not_unmarked, kept, seen } =
            report;
        match beat {
            Ok(context) => {
                self.beat_after = context;
                self.on_beat(started);
            }
            Err(_) if self.store.client.shared.net.is_closed() => {
                let group = self.store.name.as_str();
                self.fail(Error::new("group", group, ErrorKind::Closed));
            }
            Err(error) => tracing::debug!(%error, "a heartbeat could not be written"),
        }
        for (shard, number, outcome) in buried {
            self.on_buried(shard, number, outcome.is_ok());
        }
        self.on_tried(tried);
        self.erase.extend(not_erased);
        self.unmark.extend(not_unmarked);
        let mut old = false;
        for Kept { shard, resets, outcome } in kept {
            let Some(work) = self.shards.get_mut(&shard) else { continue };
            work.keeping = false;
            match outcome {
                Ok((joined, context)) => {
                    work.context = context;
                    work.kept_ms = self.store.client.shared.net.links.network.unix_ms();
                    if let Some(joined) = joined {
                        old |= joined.resets > resets;
                        self.with(shard, |ledger, _| ledger.join(&joined));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, %shard, "a position could not be kept");
                    work.dirty = true;
                }
            }
        }
        if old {
            self.bell = None;
        }
        match seen {
            Ok(seen) => self.on_seen(number, seen),
            Err(error) if matches!(error.kind(), ErrorKind::GroupDamaged { .. }) => {
                self.fail(error);
            }
            Err(error) => tracing::debug!(%error, "the group could not be looked at"),
        }
    }

    fn on_beat(&mut self, started: Instant) {
        let lease = Duration::from_millis(self.options.lease_ms);
        if started.saturating_duration_since(self.last_beat) >= lease {
            // Others may have had its shards meanwhile: what they did is learnt by keeping positions.
            for work in self.shards.values_mut() {
                work.dirty = true;
            }
        }
        self.last_beat = started;
    }

    fn on_buried(&mut self, shard: Shard, number: u64, ok: bool) {
        let mut item = None;
        self.with(shard, |ledger, _| match ok {
            true => item = ledger.buried(number),
            false => ledger.not_buried(number),
        });
        if let Some(item) = item {
            if let Some(letter) = item.letter {
                // It was delivered again, in vain: no more of its key until that is asked for anew.
                self.unmark.insert(letter.pile);
            }
            if let Some(work) = self.shards.get_mut(&shard) {
                work.dirty = true;
            }
        }
    }

    fn on_seen(&mut self, number: u64, seen: Seen) {
        let Seen { roster, beats, news, loaded, tries } = seen;
        let now = Instant::now();
        self.absent.retain(|id, _| beats.get(id).is_some_and(Option::is_none));
        for (id, _) in beats.iter().filter(|(_, beat)| beat.is_none()) {
            self.absent.entry(*id).or_insert(now);
        }
        self.note_claims(&beats);
        if self.leave.is_some() {
            return;
        }
        let mut again = Vec::new();
        if let Some(News { spec, listed, again: marked }) = news {
            self.bell = Some(roster.bell);
            let Some(spec) = spec else {
                let group = self.store.name.to_string();
                let kind = ErrorKind::UnknownGroup { group };
                return self.fail(Error::new("group", self.store.name.as_str(), kind));
            };
            if spec.generation != self.spec.generation || spec.start != self.spec.start {
                return self.restart(spec);
            }
            self.take_over(loaded, tries);
            self.set_parked(number, &listed.letters);
            again = marked;
        }
        for (pile, letters) in again {
            self.deliver_again(pile, letters);
        }
        let alive: Vec<&Beat> = beats.values().flatten().collect();
        self.take_and_give(&alive);
    }

    /// The group was put somewhere else: everything is begun anew from there.
    fn restart(&mut self, spec: Spec) {
        let shards: Vec<Shard> = self.shards.keys().copied().collect();
        for shard in shards {
            self.agenda.remove(shard);
            self.loading.insert(shard);
        }
        self.shards.clear();
        self.states.clear();
        self.to_follow.clear();
        self.to_drop.clear();
        self.giving_up = false;
        self.erase.clear();
        (self.follower, self.epoch) = (None, 0);
        self.spec = spec;
        self.bell = None;
        self.round_at = Instant::now();
    }

    /// Begins to work on shards whose positions were read.
    fn take_over(
        &mut self,
        loaded: Vec<(Shard, Option<Cursor>, crate::context::Context)>,
        mut tries: BTreeMap<Shard, Tries>,
    ) {
        let start = match self.spec.start() {
            Ok(start) => start,
            Err(why) => {
                let error = self.store.damaged(&self.store.name.spec(), why);
                return self.fail(error);
            }
        };
        let rules = self.rules();
        for (shard, kept, context) in loaded {
            if !self.loading.remove(&shard) {
                continue;
            }
            let mut cursor = start.cursors.get(&shard).cloned().unwrap_or_default();
            cursor.resets = self.spec.generation;
            if let Some(kept) = kept {
                cursor.join(&kept);
            }
            let tries = tries.remove(&shard).filter(|it| it.generation == self.spec.generation);
            let tries = tries.unwrap_or_default().writes.into_iter().collect();
            let mut ledger = Ledger::new(rules, cursor);
            ledger.take_over(tries, self.is_suspect(shard));
            let work = Work {
                ledger,
                taken_at: Instant::now(),
                context,
                dirty: false,
                passed_since: None,
                keeping: false,
                kept_ms: 0,
                leaving: None,
                followed: false,
                epoch: 0,
            };
            self.shards.insert(shard, work);
        }
    }

    /// A shard that is worked on is followed, and no other: what is to change is done by
    /// [`Driver::follow`], for all at once.
    pub(crate) fn follow_or_not(&mut self, shard: Shard) {
        let Some(work) = self.shards.get_mut(&shard) else { return };
        let wanted = work.leaving.is_none() && !work.ledger.is_halted();
        if wanted == work.followed || self.leave.is_some() {
            return;
        }
        work.followed = wanted;
        if wanted {
            self.to_drop.remove(&shard);
            self.to_follow.insert(shard, Begin::At(work.ledger.cursor().clone()));
        } else {
            self.to_follow.remove(&shard);
            self.to_drop.insert(shard);
        }
    }

    /// Changes which shards are followed.
    pub(crate) fn follow(&mut self) {
        let (put, take) = (std::mem::take(&mut self.to_follow), std::mem::take(&mut self.to_drop));
        if let (Some(follower), false) = (&self.follower, take.is_empty()) {
            follower.control(Control::Take(take));
        }
        if put.is_empty() || self.leave.is_some() {
            return;
        }
        self.epoch = if self.follower.is_some() { self.epoch + 1 } else { 0 };
        for shard in put.keys() {
            if let Some(work) = self.shards.get_mut(shard) {
                work.epoch = self.epoch;
            }
        }
        match &self.follower {
            Some(follower) => follower.control(Control::Put(put, self.epoch)),
            None => {
                let (shared, filter) = (&self.store.client.shared, self.spec.filter.clone());
                self.follower = Some(Follower::start(shared, filter, put, CREDIT, false));
            }
        }
    }

    fn set_parked(&mut self, number: u64, letters: &[LetterName]) {
        let of = |shard: Shard, class: Class| {
            let piles = letters.iter().map(|letter| letter.pile);
            piles.filter(|it| it.shard == shard && it.class == class).map(|it| it.line).collect()
        };
        let shards: Vec<Shard> = self.shards.keys().copied().collect();
        for shard in shards {
            let (parked, halting) = (of(shard, Class::Parks), of(shard, Class::Halts));
            self.with(shard, |ledger, _| ledger.set_parked(&parked, &halting, number));
        }
    }

    fn deliver_again(&mut self, pile: Pile, letters: Vec<(LetterName, Letter)>) {
        if letters.is_empty() {
            self.unmark.insert(pile);
            return;
        }
        let directory = self.store.client.shared.directory();
        let mut items = Vec::new();
        for (name, letter) in letters {
            let mut event = letter.event;
            event.values = letter.values;
            let (raw, mut shown) = (Arc::new(event.clone()), Vec::new());
            events_of(pile.shard, event, &self.spec.filter.shows, &directory, &mut shown);
            let index = letter.index;
            if let Some(event) = shown.into_iter().nth(usize::from(index)) {
                self.last_number += 1;
                let item = Item { event, raw: Some(raw), index, letter: Some(name) };
                items.push((self.last_number, item));
            }
        }
        if items.is_empty() {
            // The group follows something else now.
            self.unmark.insert(pile);
            return;
        }
        let mut wait = false;
        self.with(pile.shard, |ledger, _| {
            wait = !ledger.retries(pile.line) && !ledger.retry(pile.line, items);
        });
        if wait {
            // Some of its events are on their way to the letters: after that.
            self.bell = None;
        }
    }

    /// Gives up what is others', and takes what is ours and free.
    fn take_and_give(&mut self, others: &[&Beat]) {
        let members: BTreeSet<u128> =
            others.iter().map(|beat| beat.id.0).chain([self.me.0]).collect();
        let mine = assign(&self.all_shards(), &members).remove(&self.me.0).unwrap_or_default();
        let claimed: BTreeSet<Shard> =
            others.iter().flat_map(|beat| beat.shards.iter().map(|it| it.shard)).collect();
        self.loading.retain(|shard| mine.contains(shard));
        let wait = Duration::from_millis(self.options.ack_wait_ms).min(RELEASE_PATIENCE);
        let until = Instant::now() + wait;
        let extra: Vec<Shard> =
            self.shards.keys().copied().filter(|shard| !mine.contains(shard)).collect();
        for shard in extra {
            let Some(work) = self.shards.get_mut(&shard) else { continue };
            if work.leaving.is_none() {
                work.leaving = Some(until);
                self.giving_up = true;
                self.with(shard, |ledger, _| ledger.stop(false));
            }
        }
        let free = |shard: &&Shard| {
            !self.shards.contains_key(*shard)
                && !self.loading.contains(*shard)
                && !claimed.contains(*shard)
        };
        let taken: Vec<Shard> = mine.iter().filter(free).copied().collect();
        if !taken.is_empty() {
            self.loading.extend(taken);
            self.round_at = Instant::now();
        }
    }

    fn all_shards(&self) -> BTreeSet<Shard> {
        let directory = self.store.client.shared.directory();
        let view = directory.view();
        let asked = &self.spec.filter.buckets;
        let named = view.buckets.iter().filter(|(it, _)| asked.is_empty() || asked.contains(it));
        let copies: BTreeSet<u8> = named.map(|(_, props)| props.n).collect();
        let partitions = view.layout.partitions();
        let of = |n: u8| (0..partitions).map(move |at| Shard { partition: Partition(at), n });
        copies.into_iter().flat_map(of).collect()
    }

    /// Gives up the shards that nothing of is held any more and whose positions are kept.
    pub(crate) fn give_up_shards(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (shard, work) in &self.shards {
            let Some(until) = work.leaving else { continue };
            let unkept = work.dirty || work.passed_since.is_some();
            if work.ledger.len() > 0 && now < until {
                continue;
            }
            match unkept {
                true if self.round.is_none() => self.round_at = self.round_at.min(now),
                true => {}
                false if work.keeping => {}
                false => over.push(*shard),
            }
        }
        for shard in over {
            self.shards.remove(&shard);
            self.agenda.remove(shard);
            // Others wait for the heartbeat that does not name it any more.
            self.round_at = now;
        }
        self.giving_up = self.shards.values().any(|work| work.leaving.is_some());
    }

    /// What goes to the dead letters in this round.
    pub(crate) fn burials(&mut self) -> Vec<Burial> {
        let buried_ms = self.store.client.shared.net.links.network.unix_ms();
        let class = Class::from(self.options.on_poison);
        let mut burials = Vec::new();
        for (shard, work) in &mut self.shards {
            for number in work.ledger.take_dying() {
                let Some(unit) = work.ledger.unit(number) else { continue };
                let Item { event, raw, index, letter } = &unit.payload;
                let (Some(line), Some(raw), Some(id)) = (unit.line, raw, id_of(event)) else {
                    continue;
                };
                let name = letter.clone().unwrap_or_else(|| LetterName {
                    pile: Pile { shard: *shard, class, line },
                    hlc: raw.head.hlc,
                    event: id.to_string(),
                });
                let size: usize = raw.values.iter().map(|value| value.len()).sum();
                let cut = size + LETTER_HEAD_MAX > VALUE_BYTES_MAX;
                if name.pile.class == Class::Halts && unit.attempt > 0 {
                    let (event, attempts) = (id.to_string(), unit.attempt);
                    let kind = ErrorKind::GroupHalted { shard: *shard, event, attempts };
                    self.notices.push_back(Error::new("group", self.store.name.as_str(), kind));
                }
                let letter = Letter {
                    shard: *shard,
                    event: raw.as_ref().clone(),
                    values: if cut { Vec::new() } else { raw.values.clone() },
                    cut,
                    index: *index,
                    attempts: unit.attempt,
                    error: unit.error.chars().take(ERROR_CHARS_MAX).collect(),
                    buried_ms,
                };
                burials.push(Burial { shard: *shard, number, name, letter });
            }
        }
        burials
    }
}

/// Bytes of events that one owner sends at once.
const CREDIT: u32 = 256 << 10;
/// How long what is held of a shard that goes to another member is waited for, at most.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);
/// Room for everything of a dead letter but its values: events of the application, and names.
const LETTER_HEAD_MAX: usize = 1 << 20;
/// Longest error text that is kept with a dead letter.
const ERROR_CHARS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::{Ledger, Work};
    use crate::context::Context;
    use crate::feed::Part;
    use crate::group::ledger::{OnPoison, Rules};
    use galvani_model::feed::Cursor;
    use galvani_model::ids::{Partition, Shard};
    use galvani_model::version::PartitionClock;

    /// Red if a page of before a shard stood still is taken in when it is followed again: what comes before
    /// that page was not, and of one key the order breaks.
    #[test]
    fn only_what_was_asked_for_last_is_taken_in() {
        let rules = Rules {
            ordered: true,
            max_in_flight: 1,
            max_deliver: 1,
            ack_wait_ms: 1,
            on_poison: OnPoison::Halt,
        };
        let mut work = Work {
            ledger: Ledger::new(rules, Cursor::anew(2)),
            taken_at: tokio::time::Instant::now(),
            context: Context::default(),
            dirty: false,
            passed_since: None,
            keeping: false,
            kept_ms: 0,
            leaving: None,
            followed: true,
            epoch: 5,
        };
        let part = |epoch: u64, resets: u32| Part {
            shard: Shard { partition: Partition(1), n: 3 },
            resets,
            epoch,
            events: Vec::new(),
            done: PartitionClock::new(),
            owed: PartitionClock::new(),
            gone: PartitionClock::new(),
        };
        assert!(work.takes(&part(5, 2)));
        assert!(!work.takes(&part(4, 2)), "of before it stood still");
        assert!(!work.takes(&part(5, 1)), "of before the group was put somewhere else");
        work.followed = false;
        assert!(!work.takes(&part(5, 2)), "it stands still");
    }
}
