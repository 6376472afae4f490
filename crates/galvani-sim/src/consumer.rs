//! Consumers of the feed: one for each shard, each with one session at a time, somewhere.
//!
//! A consumer asks an owner for page after page; when it hears nothing, or is refused, it goes on with
//! another. Now and then it keeps its position, and now and then it crashes and goes on from what it
//! kept. What it was shown since is judged by `oracles/feed.rs`. It has dice of its own, and lives in
//! some seeds only. Next to read: `galvani-protocol/src/feed/`.

use crate::mutant::Mutant;
use crate::oracles::feed;
use crate::packet::{Event, LaneAt, Packet};
use crate::rng::Rng;
use crate::world::{World, at};
use galvani_model::feed::{Cursor, Filter, Visibility};
use galvani_model::ids::Shard;
use galvani_model::version::{Dot, PartitionClock};
use galvani_wire::Message;
use galvani_wire::feed::{Begin, FeedNext, FeedOpen, FeedPage};

/// Consumers of a world, and the chance by which they act.
#[derive(Debug)]
pub(crate) struct Consumers {
    pub(crate) all: Vec<Consumer>,
    dice: Rng,
    /// Whether all is at rest, and they see what is left.
    catching_up: bool,
}

/// One consumer.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) shard: Shard,
    pub(crate) visibility: Visibility,
    pub(crate) cursor: Cursor,
    /// What it was shown, in order, since it began.
    pub(crate) shown: Vec<Shown>,
    /// What it was told is gone: trimmed before it was shown.
    pub(crate) gone: PartitionClock,
    /// What it has kept: the position, and how much it had been shown then.
    kept: (Cursor, usize),
    session: Option<Session>,
    /// The number of its last question; answers to earlier ones are not heard.
    asked: u64,
    answered: bool,
    /// Whether the last page said that there is nothing more.
    pub(crate) level: bool,
}

/// An event as it was shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) dot: Dot,
    pub(crate) late: bool,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    at: LaneAt,
    boot: u64,
    number: u64,
    pages: u64,
}

/// Seeds of a thousand that have consumers.
const FOLLOWED: u64 = 350;
/// How long a consumer waits for an answer, in microseconds.
const PATIENCE_MICROS: u64 = 3_000_000;
/// How long a gateway waits for something new, in milliseconds.
const WAIT_MS: u32 = 300;
/// Virtual time in which a consumer has seen everything once all is at rest, in microseconds.
const CATCH_UP_MICROS: u64 = 60_000_000;

impl Consumers {
    /// Nobody yet.
    pub(crate) fn new(seed: u64) -> Consumers {
        Consumers { all: Vec::new(), dice: Rng::new(seed, 8), catching_up: false }
    }
}

impl World {
    /// Lets consumers follow the shards that hold keys, in some seeds.
    pub(crate) fn begin_to_follow(&mut self) {
        if !self.consumers.dice.chance(FOLLOWED) {
            return;
        }
        for shard in self.shards() {
            let dice = &mut self.consumers.dice;
            let visibility = match dice.chance(300) {
                true => Visibility::Quorum,
                false => Visibility::Any,
            };
            let wait = dice.between(1_000, 400_000);
            let consumer = self.consumers.all.len();
            self.consumers.all.push(Consumer {
                shard,
                visibility,
                cursor: Cursor::default(),
                shown: Vec::new(),
                gone: PartitionClock::new(),
                kept: (Cursor::default(), 0),
                session: None,
                asked: 0,
                answered: true,
                level: false,
            });
            self.queue.push(self.now + wait, Event::ConsumerNext { consumer });
        }
        self.coverage.add("feed.consumers", self.consumers.all.len() as u64);
    }

    /// A consumer asks its next question, unless faults have ended: then it is asked to finish later.
    pub(crate) fn consumer_next(&mut self, consumer: usize) {
        if self.is_over() {
            return;
        }
        if self.calm && !self.consumers.catching_up {
            return self.consumer_leaves(consumer);
        }
        match self.consumers.dice.below(100) {
            0..4 if !self.calm => self.crash_consumer(consumer),
            4..20 => {
                let this = &mut self.consumers.all[consumer];
                this.kept = (this.cursor.clone(), this.shown.len());
            }
            _ => {}
        }
        self.consumer_asks(consumer);
    }

    /// A consumer gives its session up, and hears no answer to that.
    fn consumer_leaves(&mut self, consumer: usize) {
        let this = &mut self.consumers.all[consumer];
        let Some(Session { at, boot, number, pages }) = this.session.take() else { return };
        this.asked += 1;
        let (ask, wait) = (this.asked, self.consumers.dice.between(20, self.profile.delay_max));
        let next = FeedNext { session: number, page: pages, credit: 1, wait_ms: 0, close: true };
        let message = Message::FeedNext(next);
        let packet = Packet::Question { to: at, boot, consumer, ask, message };
        self.queue.push(self.now + wait, Event::Arrive(Box::new(packet)));
    }

    fn crash_consumer(&mut self, consumer: usize) {
        let this = &mut self.consumers.all[consumer];
        let (cursor, shown) = this.kept.clone();
        this.cursor = cursor;
        this.shown.truncate(shown);
        this.session = None;
        self.coverage.add("feed.consumer_crashes", 1);
    }

    fn consumer_asks(&mut self, consumer: usize) {
        let shard = self.consumers.all[consumer].shard;
        let (to, boot, message) = match self.consumers.all[consumer].session {
            Some(session) => {
                let Session { at, boot, number, pages } = session;
                let credit = self.consumers.dice.pick(&[1, 300, 1 << 20]);
                let next = FeedNext {
                    session: number,
                    page: pages,
                    credit,
                    wait_ms: WAIT_MS,
                    close: false,
                };
                (at, boot, Message::FeedNext(next))
            }
            None => {
                let owners = self.layout.owners(shard);
                let node = self.by_id[&owners[self.consumers.dice.index(owners.len())]];
                let lane = usize::from(shard.partition.0 % self.profile.lanes);
                let this = &self.consumers.all[consumer];
                let filter = Filter { visibility: this.visibility, ..Filter::default() };
                let shards = vec![(shard, Begin::At(this.cursor.clone()))];
                let open = FeedOpen { filter, shards, timeout_ms: 1_000 };
                (LaneAt { node, lane }, self.nodes[node].boot, Message::FeedOpen(open))
            }
        };
        let this = &mut self.consumers.all[consumer];
        this.asked += 1;
        this.answered = false;
        let ask = this.asked;
        let message = self.through_codec(ask, false, message);
        self.trace.note(self.now, &[30, consumer as u64, ask], || {
            format!("consumer {consumer} of {shard} asks {}: {}", at(to), message.name())
        });
        let wait = self.consumers.dice.between(20, self.profile.delay_max);
        let packet = Packet::Question { to, boot, consumer, ask, message };
        self.queue.push(self.now + wait, Event::Arrive(Box::new(packet)));
        let patience = PATIENCE_MICROS + 2 * self.profile.delay_max;
        self.queue.push(self.now + patience, Event::ConsumerPatience { consumer, ask });
    }

    /// An answer leaves for a consumer.
    pub(crate) fn tell_consumer(
        &mut self,
        from: LaneAt,
        consumer: usize,
        ask: u64,
        message: Message,
    ) {
        let message = self.through_codec(ask, false, message);
        let wait = self.consumers.dice.between(20, self.profile.delay_max);
        let boot = self.nodes[from.node].boot;
        let packet = Packet::Told { from, boot, consumer, ask, message };
        self.queue.push(self.now + wait, Event::Arrive(Box::new(packet)));
    }

    /// An answer reaches a consumer.
    pub(crate) fn consumer_hears(
        &mut self,
        from: LaneAt,
        boot: u64,
        consumer: usize,
        ask: u64,
        message: Message,
    ) {
        let this = &mut self.consumers.all[consumer];
        if this.asked != ask || this.answered {
            return;
        }
        this.answered = true;
        let mut wait = self.consumers.dice.between(100, 50_000);
        match message {
            Message::FeedOpened(opened) if opened.elsewhere.is_empty() => {
                this.session = Some(Session { at: from, boot, number: opened.session, pages: 0 });
            }
            Message::FeedPage(page) => {
                if let Some(session) = &mut this.session {
                    session.pages += 1;
                }
                self.take_page(from, consumer, page);
            }
            _ => {
                this.session = None;
                self.coverage.add("feed.refused", 1);
                wait += 50_000;
            }
        }
        self.queue.push(self.now + wait, Event::ConsumerNext { consumer });
    }

    fn take_page(&mut self, from: LaneAt, consumer: usize, mut page: FeedPage) {
        self.coverage.add("feed.pages", 1);
        match self.mutant {
            Some(Mutant::FeedReorders) => page.events.reverse(),
            Some(Mutant::FeedRepeats) => page.events.extend(page.events.first().cloned()),
            Some(Mutant::FeedSkips) if page.events.len() > 1 => drop(page.events.remove(0)),
            _ => {}
        }
        let this = &mut self.consumers.all[consumer];
        for advance in &page.advances {
            this.cursor.pass(&advance.done);
            this.cursor.owe_all(&advance.owed);
            this.gone.union(&advance.gone);
            self.coverage.add("feed.gone", advance.gone.len());
            this.cursor.settle();
        }
        this.level = page.events.is_empty() && page.state.behind == 0;
        for event in &page.events {
            let shown = Shown { dot: event.head.dot, late: event.late };
            self.consumers.all[consumer].shown.push(shown);
            self.coverage.add("feed.events", 1);
            self.coverage.add("feed.late", u64::from(event.late));
            self.coverage.add("feed.dup_of", u64::from(event.dup_of.is_some()));
            if let Err(why) = feed::is_true(self, consumer, event) {
                self.violate("feed_shows_what_is", why);
                return;
            }
        }
        if let Err(why) = feed::is_complete_through(self, from.node, consumer, &page.state) {
            self.violate("feed_complete_through", why);
        }
    }

    /// A consumer has waited long enough.
    pub(crate) fn consumer_gives_up(&mut self, consumer: usize, ask: u64) {
        let this = &mut self.consumers.all[consumer];
        if this.asked != ask || this.answered {
            return;
        }
        this.answered = true;
        this.session = None;
        self.coverage.add("feed.silence", 1);
        self.queue.push(self.now + 1_000, Event::ConsumerNext { consumer });
    }

    /// At rest, consumers see what they have not seen yet, each from another owner than before.
    pub(crate) fn finish_feed(&mut self) {
        if self.is_over() || self.consumers.all.is_empty() {
            return;
        }
        self.consumers.catching_up = true;
        let until = self.now + CATCH_UP_MICROS;
        for consumer in 0..self.consumers.all.len() {
            self.consumers.all[consumer].session = None;
            self.consumers.all[consumer].level = false;
            self.queue.push(self.now, Event::ConsumerNext { consumer });
        }
        while !self.is_over() && self.now < until {
            self.run_until(self.now + 200_000);
            if self.consumers.all.iter().all(|consumer| consumer.level) {
                break;
            }
        }
        self.consumers.catching_up = false;
        self.run_until(self.now + 2 * PATIENCE_MICROS);
        for consumer in 0..self.consumers.all.len() {
            if self.is_over() {
                return;
            }
            if let Err(why) = feed::saw_all(self, consumer) {
                self.violate("feed_loses_nothing", why);
            }
            if let Err(why) = feed::saw_each_once(self, consumer) {
                self.violate("feed_shows_once", why);
            }
            if let Err(why) = feed::saw_in_order(self, consumer) {
                self.violate("feed_order", why);
            }
        }
    }
}
