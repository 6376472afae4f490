//! One consumer's session: which shards it looks at next, when a page goes out, and how it stands.
//!
//! It keeps no event that it has given out. What is ready waits in a draft until the consumer asks for
//! it, and is no more than one page. Next to read: `track.rs`, `page.rs`.

use super::page::{Draft, Lens};
use super::track::{HOLD_MICROS, Others, Track, Walk};
use crate::effect::ReplyTo;
use crate::ops::{Ctx, NOBODY};
use galvani_model::feed::{Filter, Visibility};
use galvani_model::ids::{NodeId, Shard};
use galvani_model::request::Quorum;
use galvani_model::store::StoreError;
use galvani_wire::Message;
use galvani_wire::feed::{FeedPage, FeedState};
use std::collections::{BTreeMap, BTreeSet};

/// A session whose consumer asks for nothing for so long is over, in microseconds.
const IDLE_MICROS: u64 = 30_000_000;
/// Time between two pages of a session that are not full, in microseconds: a busy shard's writes
/// travel together.
const LINGER_MICROS: u64 = 2_000;
/// How often it is worked out how a session stands, in microseconds.
const STATE_MICROS: u64 = 250_000;
/// For how long an owner's word counts as heard, in milliseconds.
const HEARD_MS: u64 = 4_000;

/// One consumer's way through some shards.
#[derive(Debug)]
pub(crate) struct Session {
    filter: Filter,
    tracks: BTreeMap<Shard, Track>,
    /// Shards in which something may be ready.
    stirred: BTreeSet<Shard>,
    /// The shard after which the next look begins, so that none waits for ever.
    turn: Option<Shard>,
    /// Pages given out.
    pages: u64,
    draft: Draft,
    asked: Option<Asked>,
    /// Since when nothing has been asked, in the lane's microseconds.
    idle_since: u64,
    /// When the last page went out.
    page_at: u64,
    state: FeedState,
    state_at: u64,
}

/// A page that is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) from: ReplyTo,
    /// Bytes of events that it may bring.
    pub(crate) credit: usize,
    /// When it goes out also if there is nothing in it, in the lane's microseconds.
    pub(crate) until: u64,
}

impl Session {
    /// A session in which nothing has been looked at.
    pub(crate) fn new(filter: Filter, tracks: BTreeMap<Shard, Track>, now: u64) -> Session {
        Session {
            filter,
            stirred: tracks.keys().copied().collect(),
            tracks,
            turn: None,
            pages: 0,
            draft: Draft::default(),
            asked: None,
            idle_since: now,
            page_at: 0,
            state: FeedState::default(),
            state_at: 0,
        }
    }

    /// Whether the shard is one of its.
    pub(crate) fn follows(&self, shard: Shard) -> bool {
        self.tracks.contains_key(&shard)
    }

    /// Its shards.
    pub(crate) fn shards(&self) -> impl Iterator<Item = Shard> + '_ {
        self.tracks.keys().copied()
    }

    /// Something may be ready in a shard, if it is one of its.
    pub(crate) fn stir(&mut self, shard: Shard) {
        if self.follows(shard) {
            self.stirred.insert(shard);
        }
    }

    /// It is worked out anew up to when it is complete.
    pub(crate) fn doubt(&mut self) {
        (self.state.complete_through_ms, self.state_at) = (0, 0);
        for track in self.tracks.values_mut() {
            track.complete_ms = 0;
        }
    }

    /// Whether writes of a shard wait for what other owners say.
    pub(crate) fn waits(&self, shard: Shard, now: u64) -> bool {
        let long = now.saturating_sub(HOLD_MICROS / 2);
        let waits = |track: &Track| track.waits_for_owners() || track.waits_for_past_since(long);
        self.tracks.get(&shard).is_some_and(waits)
    }

    /// Pages given out so far.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Ranges that its positions hold.
    pub(crate) fn ranges(&self) -> usize {
        self.tracks.values().map(|track| track.cursor.range_count()).sum()
    }

    /// The page that is waited for.
    pub(crate) fn asked(&self) -> Option<Asked> {
        self.asked
    }

    /// A page is waited for from now on. Returns one that was waited for before.
    pub(crate) fn ask(&mut self, asked: Asked) -> Option<Asked> {
        self.asked.replace(asked)
    }

    /// When something is to be done, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> u64 {
        let Some(asked) = &self.asked else { return self.idle_since + IDLE_MICROS };
        if self.draft.has_news() {
            return self.page_at + LINGER_MICROS;
        }
        if !self.stirred.is_empty() {
            return 0;
        }
        let tracks = self.tracks.values().filter_map(Track::next_deadline);
        tracks.fold(asked.until, u64::min)
    }

    /// Lets the consumer see what is ready, if it waits for that. False: the session is over.
    /// It reads at most `looks` records, and takes off what it has read.
    pub(crate) fn look(
        &mut self,
        ctx: &mut Ctx<'_>,
        number: u64,
        looks: &mut usize,
    ) -> Result<bool, StoreError> {
        let now = ctx.now.micros;
        let Some(asked) = self.asked else {
            return Ok(self.idle_since + IDLE_MICROS > now);
        };
        let due = |track: &Track| track.next_deadline().is_some_and(|due| due <= now);
        let due = self.tracks.iter().filter(|(_, track)| due(track)).map(|(shard, _)| *shard);
        self.stirred.extend(due);
        self.draft.may_look(*looks);
        let mut oldest_ms = None;
        while !self.draft.is_full(asked.credit) && !self.draft.is_tired() {
            let Some(shard) = self.next_shard() else { break };
            let looked = self.look_at(ctx, shard, asked.credit)?;
            oldest_ms = [oldest_ms, looked].into_iter().flatten().min();
        }
        *looks = self.draft.looks_left();
        let full = self.draft.is_full(asked.credit);
        let ripe = self.draft.has_news() && now >= self.page_at + LINGER_MICROS;
        if full || ripe || now >= asked.until {
            self.give(ctx, number, asked, oldest_ms);
        }
        Ok(true)
    }

    /// The shard whose turn it is to be looked at.
    fn next_shard(&self) -> Option<Shard> {
        let after = self.turn.and_then(|turn| {
            let mut rest =
                self.stirred.range((std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded));
            rest.next()
        });
        after.or(self.stirred.first()).copied()
    }

    /// Looks at one shard. Returns the time of the oldest write that is left in it.
    fn look_at(
        &mut self,
        ctx: &mut Ctx<'_>,
        shard: Shard,
        credit: usize,
    ) -> Result<Option<u64>, StoreError> {
        self.turn = Some(shard);
        let Some(track) = self.tracks.get_mut(&shard) else {
            self.stirred.remove(&shard);
            return Ok(None);
        };
        let needed = match self.filter.visibility {
            Visibility::Any => 0,
            Visibility::Quorum => usize::from(shard.n / 2 + 1) - 1,
        };
        let clocks = ctx.feed.heard.of(shard).map(|(_, word)| &word.clock).collect();
        let others = Others { clocks, needed };
        let lens = Lens { filter: &self.filter, buckets: &ctx.topology.buckets };
        let held = track.held();
        let mut walk = Walk::new(ctx.store, shard, track, &others, ctx.now.micros)?;
        self.draft.fill(ctx.store, &mut walk, shard, &lens, credit)?;
        let (left, oldest_ms, again) = (walk.left(), walk.oldest_ms(), walk.may_free_others());
        let news = held != self.tracks[&shard].held();
        if self.waits(shard, ctx.now.micros) {
            ctx.feed.heard.hurry(shard, news, ctx.now.micros);
        }
        if !self.draft.is_full(credit) && !self.draft.is_tired() && !again {
            self.stirred.remove(&shard);
        }
        if left == 0
            && let Some(track) = self.tracks.get_mut(&shard)
        {
            track.level_at_ms = ctx.now.unix_ms;
        }
        Ok(oldest_ms)
    }

    fn give(&mut self, ctx: &mut Ctx<'_>, number: u64, asked: Asked, oldest_ms: Option<u64>) {
        let now = ctx.now;
        if now.micros >= self.state_at + STATE_MICROS {
            self.state = self.state_now(ctx);
            self.state_at = now.micros;
        }
        self.state.oldest_ms = oldest_ms;
        self.state.now_ms = now.unix_ms;
        for track in self.tracks.values_mut() {
            track.cursor.settle();
        }
        let Draft { events, advances, .. } = core::mem::take(&mut self.draft);
        ctx.counters.feed_events += events.len() as u64;
        ctx.counters.feed_pages += 1;
        let page = FeedPage { session: number, events, advances, state: self.state.clone() };
        ctx.answer(asked.from, NOBODY, Message::FeedPage(page));
        self.asked = None;
        self.pages += 1;
        self.page_at = now.micros;
        self.idle_since = now.micros;
    }

    fn state_now(&mut self, ctx: &mut Ctx<'_>) -> FeedState {
        let now_ms = ctx.now.unix_ms;
        let mut state = FeedState { complete_through_ms: now_ms, ..FeedState::default() };
        let mut unheard: BTreeSet<NodeId> = BTreeSet::new();
        let (filter, tracks) = (&self.filter, &mut self.tracks);
        for (&shard, track) in tracks {
            let Ok(replica) = ctx.store.replica(shard) else {
                state.complete_through_ms = 0;
                continue;
            };
            let pending = track.cursor.pending(&replica.clock);
            if pending.is_empty() {
                track.level_at_ms = now_ms;
            }
            state.behind += pending.iter().map(|range| range.last - range.first + 1).sum::<u64>();
            state.held += track.held() as u64;
            state.unreadable += track.unreadable() as u64;
            let mut moments = Vec::new();
            let owners = ctx.topology.owners(shard);
            for node in owners.into_iter().filter(|&node| node != ctx.topology.node) {
                let mut heard = ctx.feed.heard.of(shard);
                let word = heard.find(|(owner, _)| *owner == node).map(|(_, word)| word);
                match word.filter(|word| word.whole && word.asked_ms + HEARD_MS > now_ms) {
                    // What it had then is delivered; else nothing is known of it.
                    Some(word) if track.cursor.pending(&word.clock).is_empty() => {
                        moments.push(word.asked_ms);
                    }
                    Some(_) => {}
                    None => drop(unheard.insert(node)),
                }
            }
            let complete =
                complete_through(&mut moments, track.level_at_ms, needed(filter, ctx, shard));
            // Once it is true it stays true.
            track.complete_ms = track.complete_ms.max(complete);
            state.complete_through_ms = state.complete_through_ms.min(track.complete_ms);
        }
        state.unheard = unheard.into_iter().collect();
        state
    }
}

/// Other owners of which some one must have a write that was acknowledged as its bucket asks.
fn needed(filter: &Filter, ctx: &Ctx<'_>, shard: Shard) -> usize {
    let asked = |name: &_| filter.buckets.is_empty() || filter.buckets.contains(name);
    let buckets = ctx.topology.buckets.iter();
    let buckets = buckets.filter(|(name, props)| props.n == shard.n && asked(name));
    let known = buckets.filter_map(|(_, props)| props.w.resolve(shard.n));
    usize::from(shard.n - least_acks(shard.n, known, filter.buckets.is_empty()))
}

/// How many owners have a write at least that was acknowledged as its bucket asks. `all`: of any bucket, also
/// one that this node has not heard of: most ask for a majority. One that asks for less is not foreseen.
fn least_acks(n: u8, known: impl Iterator<Item = u8>, all: bool) -> u8 {
    let usual = all.then(|| Quorum::Majority.resolve(n)).flatten();
    known.chain(usual).min().unwrap_or(1).min(n)
}

/// The latest moment before which nothing is missing: of this owner, and of so many others, all that
/// they had then is delivered. 0: there is none.
fn complete_through(moments: &mut [u64], level_at_ms: u64, needed: usize) -> u64 {
    moments.sort_unstable_by(|a, b| b.cmp(a));
    match needed {
        0 => level_at_ms,
        _ => moments.get(needed - 1).map_or(0, |&moment| moment.min(level_at_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::{complete_through, least_acks};

    #[test]
    fn a_feed_is_complete_up_to_when_enough_owners_were_heard() {
        assert_eq!(complete_through(&mut [], 50, 0), 50);
        assert_eq!(complete_through(&mut [], 50, 1), 0);
        assert_eq!(complete_through(&mut [40, 45], 50, 1), 45);
        assert_eq!(complete_through(&mut [40, 45], 50, 2), 40);
        assert_eq!(complete_through(&mut [40, 45], 42, 1), 42);
    }

    #[test]
    fn a_bucket_that_was_not_heard_of_may_ask_for_a_majority() {
        assert_eq!(least_acks(3, [3].into_iter(), false), 3, "of that bucket alone");
        assert_eq!(least_acks(3, [3].into_iter(), true), 2);
        assert_eq!(least_acks(5, [1, 5].into_iter(), true), 1);
        assert_eq!(least_acks(3, [].into_iter(), false), 1, "nothing is known of it");
    }
}
