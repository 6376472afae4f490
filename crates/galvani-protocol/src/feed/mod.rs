//! The change feed at an owner that serves it: sessions of consumers, and their pages.
//!
//! The log that every write is part of is the outbox; nothing is written for the feed. A gateway is an
//! owner of the shards it serves: what it lacks comes to it as to any owner, so it reads its own log
//! only, and asks the others for their clocks alone. Consumers keep their positions; a session is only
//! what saves sending them with each question. Nothing is sent unasked, so a slow consumer costs its
//! positions in memory and nothing else. It never holds up a write, and never keeps a record back from
//! being trimmed. Next to read: `track.rs`, `page.rs`, `clocks.rs`. Source: algorithms 4.

pub(crate) mod clocks;
mod page;
mod session;
mod track;

use crate::effect::ReplyTo;
use crate::ops::{Ctx, NOBODY};
use crate::replica::as_replica_error;
use crate::serve;
use clocks::OwnersHeard;
use galvani_model::feed::Cursor;
use galvani_model::ids::Shard;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::feed::{Begin, FeedNext, FeedOpen, FeedOpened};
use galvani_wire::message::Failed;
use session::{Asked, Session};
use std::collections::BTreeMap;
use track::Track;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Sessions of one lane.
const SESSIONS_MAX: usize = 256;
/// Ranges that the positions of a lane's sessions hold when they are opened: some 50 MB.
const RANGES_MAX: usize = 1 << 20;
/// Records that all sessions of a lane read in a tick, those that are kept out included: a few
/// milliseconds of its work.
const LOOKS_MAX: usize = 2_048;
/// Records that each of them reads in [`BUSY_MICROS`] while clients wait for the lane: some 13,000 a second,
/// more than a lane takes in that is that busy. A share for all together would let none of many keep up.
const LOOKS_BUSY: usize = 64;
/// For how long that is counted, in microseconds; also how long they rest at most once it is used up.
const BUSY_MICROS: u64 = 5_000;
/// Longest wait for something new, in milliseconds.
const WAIT_MS_MAX: u32 = 10_000;
/// Separates numbers of sessions from every other use of the hash.
const SESSION_SEED: u64 = 0x6761_6c76_7365_7331; // "galvses1"

/// The sessions of a lane.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    sessions: BTreeMap<u64, Session>,
    last: u64,
    /// The session that was looked at last.
    turn: u64,
    share: Share,
    pub(crate) heard: OwnersHeard,
}

/// What sessions may read while clients wait for the lane, in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// When the stretch began, in the lane's microseconds.
    began: u64,
    /// Records that were read in it.
    read: usize,
    /// How much may be read in it while clients wait; `None` when none waited at the last look.
    allowed: Option<usize>,
}

impl Share {
    /// Records that so many sessions may read now.
    fn looks(&mut self, now: u64, busy: bool, sessions: usize) -> usize {
        self.allowed = busy.then_some((LOOKS_BUSY * sessions).min(LOOKS_MAX));
        if now >= self.began + BUSY_MICROS {
            (self.began, self.read) = (now, 0);
        }
        self.allowed.map_or(LOOKS_MAX, |allowed| allowed.saturating_sub(self.read))
    }

    /// Before that nothing is read, in the lane's microseconds.
    fn rests_until(&self) -> u64 {
        let is_used_up = self.allowed.is_some_and(|allowed| self.read >= allowed);
        if is_used_up { self.began + BUSY_MICROS } else { 0 }
    }
}

impl Feeds {
    /// A shard has taken something in.
    pub(crate) fn note_change(&mut self, shard: Shard) {
        if self.heard.follows(shard) {
            self.note_heard(shard);
        }
    }

    /// Something was heard that may set writes of a shard free.
    fn note_heard(&mut self, shard: Shard) {
        for session in self.sessions.values_mut() {
            session.stir(shard);
        }
    }

    /// Buckets have changed: what was said of completeness was said of those that were known.
    pub(crate) fn on_topology(&mut self) {
        for session in self.sessions.values_mut() {
            session.doubt();
        }
    }

    /// Whether nobody follows anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let sessions = self.sessions.values().map(Session::next_deadline).min();
        let sessions = sessions.map(|due| due.max(self.share.rests_until()));
        [sessions, self.heard.next_deadline()].into_iter().flatten().min()
    }

    /// Nothing that was given out in this tick may be sent. Returns whom that was to be told.
    pub(crate) fn unsay(&mut self) -> Vec<ReplyTo> {
        let sessions = core::mem::take(&mut self.sessions);
        self.heard.forget(|_| false);
        sessions.into_values().filter_map(|session| Some(session.asked()?.from)).collect()
    }

    fn end(&mut self, session: u64) -> Option<Session> {
        let ended = self.sessions.remove(&session);
        self.tidy();
        ended
    }

    /// Forgets what was heard of shards that nobody follows any more.
    fn tidy(&mut self) {
        let sessions = &self.sessions;
        self.heard.forget(|shard| sessions.values().any(|session| session.follows(shard)));
    }

    /// A number that nobody can guess: a session shows what its opener was allowed to see.
    fn number(&mut self, boot: u128) -> u64 {
        self.last += 1;
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&boot.to_le_bytes());
        bytes[16..].copy_from_slice(&self.last.to_le_bytes());
        xxh3_64_with_seed(&bytes, SESSION_SEED)
    }
}

/// The layout has another state: sessions end that follow a shard which others are read from now.
pub(crate) fn on_layout(ctx: &mut Ctx<'_>) {
    ctx.feed.heard.doubt();
    let elsewhere = |session: &Session| session.shards().any(|s| serve::reads(ctx, s).is_err());
    let over = ctx.feed.sessions.iter().filter(|(_, session)| elsewhere(session));
    let over: Vec<u64> = over.map(|(&number, _)| number).collect();
    for number in over {
        let asked = ctx.feed.end(number).and_then(|session| session.asked());
        if let Some(asked) = asked {
            fail(ctx, asked.from, Failure::NoSession);
        }
    }
}

/// Opens a session.
pub(crate) fn on_open(ctx: &mut Ctx<'_>, from: ReplyTo, open: FeedOpen) {
    match opened(ctx, open) {
        Ok(opened) => ctx.answer(from, NOBODY, Message::FeedOpened(opened)),
        Err(failure) => fail(ctx, from, failure),
    }
}

fn opened(ctx: &mut Ctx<'_>, open: FeedOpen) -> Result<FeedOpened, Failure> {
    let FeedOpen { filter, shards, timeout_ms: _ } = open;
    if ctx.feed.sessions.len() >= SESSIONS_MAX {
        return Err(Failure::TooManySessions { limit: SESSIONS_MAX as u32 });
    }
    if filter.buckets.iter().any(|bucket| !ctx.topology.buckets.contains_key(bucket)) {
        return Err(Failure::UnknownBucket);
    }
    let (mut tracks, mut began, mut elsewhere) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (shard, begin) in shards {
        if serve::reads(ctx, shard).is_err() {
            elsewhere.push(shard);
            began.push(None);
            continue;
        }
        let (cursor, told) = match begin {
            Begin::At(cursor) => (cursor, None),
            Begin::Now => {
                let state = ctx.store.replica(shard);
                let state =
                    state.map_err(|error| Failure::Coordinator(as_replica_error(&error)))?;
                let cursor = Cursor::at(state.clock.clone());
                (cursor.clone(), Some(cursor))
            }
        };
        began.push(told);
        tracks.insert(shard, Track::at(cursor));
    }
    let held = ctx.feed.sessions.values().map(Session::ranges).sum::<usize>();
    let wanted: usize = tracks.values().map(|track| track.cursor.range_count()).sum();
    if held + wanted > RANGES_MAX {
        return Err(Failure::TooManySessions { limit: ctx.feed.sessions.len() as u32 });
    }
    ctx.feed.heard.follow(tracks.keys().copied());
    let number = ctx.feed.number(ctx.config.boot);
    ctx.feed.sessions.insert(number, Session::new(filter, tracks, ctx.now.micros));
    Ok(FeedOpened { session: number, began, elsewhere })
}

/// A consumer asks for a page. It is answered by [`poll`].
pub(crate) fn on_next(ctx: &mut Ctx<'_>, from: ReplyTo, next: FeedNext) {
    let now = ctx.now.micros;
    let known = ctx.feed.sessions.get_mut(&next.session);
    match known.filter(|session| session.pages() == next.page && !next.close) {
        Some(session) => {
            let until = now + u64::from(next.wait_ms.min(WAIT_MS_MAX)) * 1_000;
            let before = session.ask(Asked { from, credit: next.credit as usize, until });
            // Whoever asks twice at once has given up the first.
            if let Some(before) = before {
                fail(ctx, before.from, Failure::NoSession);
            }
        }
        None => {
            let ended = ctx.feed.end(next.session);
            if let Some(before) = ended.and_then(|session| session.asked()) {
                fail(ctx, before.from, Failure::NoSession);
            }
            fail(ctx, from, Failure::NoSession);
        }
    }
}

/// Answers whoever waits for a page and has something to see, and ends sessions that are idle. Once a
/// tick, after all that arrived in it is taken in. While clients wait for this lane
/// sessions keep to their share of it.
pub(crate) fn poll(ctx: &mut Ctx<'_>, stopping: bool) {
    let now = ctx.now.micros;
    let sessions = ctx.feed.sessions.len();
    let mut looks = ctx.feed.share.looks(now, ctx.busy, sessions.max(1));
    if looks == 0 && !stopping {
        return;
    }
    let allowed = looks;
    let sessions = ctx.feed.sessions.iter();
    let due = sessions.filter(|(_, it)| stopping || it.next_deadline() <= now);
    let mut due: Vec<u64> = due.map(|(number, _)| *number).collect();
    // All sessions together read so much in a tick; whoever came short is first in the next.
    let at = due.partition_point(|&number| number <= ctx.feed.turn);
    due.rotate_left(at);
    for number in due {
        let Some(mut session) = ctx.feed.sessions.remove(&number) else { continue };
        if looks > 0 {
            ctx.feed.turn = number;
        }
        let failure = match session.look(ctx, number, &mut looks) {
            _ if stopping => Failure::Stopping,
            Ok(true) => {
                ctx.feed.sessions.insert(number, session);
                continue;
            }
            Ok(false) => Failure::NoSession,
            Err(error) => Failure::Coordinator(as_replica_error(&error)),
        };
        ctx.feed.tidy();
        if let Some(asked) = session.asked() {
            fail(ctx, asked.from, failure);
        }
    }
    ctx.feed.share.read += allowed - looks;
}

fn fail(ctx: &mut Ctx<'_>, to: ReplyTo, failure: Failure) {
    let failed = Failed { failure, applied: AppliedOutcome::No, answers: Vec::new() };
    ctx.answer(to, NOBODY, Message::Failed(failed));
}
