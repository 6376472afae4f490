//! A feed as a stream of events, and the position after each of them.
//!
//! The position belongs to the consumer: [`Feed::token`] is what it keeps, best together with what it
//! made of the events. A feed that is opened with it goes on exactly there, with whatever owner, also
//! after nodes were lost. Nothing is delivered twice to one feed; what came after the kept position
//! comes again to the next one. Next to read: `follower.rs`.

use super::event::{Checkpoint, Event, Gap, events_of};
use super::follower::{Control, Follower, Page, Part, Word};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures_core::Stream;
use galvani_model::bucket::BucketName;
use galvani_model::feed::{Cursor, FeedToken, Filter, Shows, Visibility};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{Partition, Shard};
use galvani_model::topic::Topic;
use galvani_model::version::{Dot, PartitionClock};
use galvani_wire::feed::{Begin, FeedState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Where a feed begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// With what is written from now on.
    Now,
    /// With all that is kept: every value there is, and whatever else the log still has.
    Beginning,
    /// With writes of this moment and later, by the writers' clocks. All that is kept is looked through.
    At(SystemTime),
    /// Where another feed of the same question was.
    Token(FeedToken),
}

/// What becomes of a feed when writes it has not shown are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// It ends with [`ErrorKind::FeedGap`]. Its position stays before the gap.
    #[default]
    Fail,
    /// It tells [`Event::Gap`] and goes on. What was deleted meanwhile may never be told.
    Tell,
    /// It tells [`Event::Gap`] and shows that shard anew from the beginning: every value there is. A
    /// consumer forgets what it knows of the shard first.
    Restart,
}

/// A feed that is not open yet.
#[derive(Clone, Debug)]
#[must_use = "a feed is opened by `subscribe`"]
pub struct FeedBuilder {
    client: Client,
    filter: Filter,
    /// Names of nodes, which are looked up when it is opened.
    authors: Vec<String>,
    visibility: Option<Visibility>,
    bad: Option<ErrorKind>,
    start: Start,
    on_gap: Option<OnGap>,
    credit: u32,
    checkpoint_every: Duration,
}

impl FeedBuilder {
    pub(crate) fn new(client: Client) -> FeedBuilder {
        FeedBuilder {
            client,
            filter: Filter::default(),
            authors: Vec::new(),
            visibility: None,
            bad: None,
            start: Start::Now,
            on_gap: None,
            credit: CREDIT,
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }

    /// Only keys of this bucket; said more than once: of these. Default: of any.
    pub fn bucket(mut self, name: impl AsRef<str>) -> FeedBuilder {
        match name.as_ref().parse::<BucketName>() {
            Ok(name) => self.filter.buckets.push(name),
            Err(error) => self.bad = Some(ErrorKind::BucketName(error)),
        }
        self
    }

    /// Only keys that start with this.
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> FeedBuilder {
        self.filter.prefix = prefix.into();
        self
    }

    /// Events of applications with this topic, and no writes of keys; said more than once: with these.
    /// They are shown once most owners have them, unless [`FeedBuilder::visibility`] says otherwise.
    pub fn topic(mut self, topic: Topic) -> FeedBuilder {
        match &mut self.filter.shows {
            Shows::Topics(topics) => topics.push(topic),
            Shows::Changes | Shows::Records => self.filter.shows = Shows::Topics(vec![topic]),
        }
        self
    }

    /// Events of applications with any topic, and no writes of keys.
    pub fn any_topic(mut self) -> FeedBuilder {
        self.filter.shows = Shows::Topics(Vec::new());
        self
    }

    /// Only writes that this node coordinated, by its name; said more than once: these nodes. The others are
    /// passed over where the log is.
    pub fn author(mut self, node: impl Into<String>) -> FeedBuilder {
        self.authors.push(node.into());
        self
    }

    /// Whole records, whatever their buckets show. Needs the role `admin`.
    pub fn records(mut self) -> FeedBuilder {
        self.filter.shows = Shows::Records;
        self
    }

    /// No values, where buckets would show them.
    pub fn keys_only(mut self) -> FeedBuilder {
        self.filter.values = false;
        self
    }

    /// From when on an event is shown. Default: at once; events of applications once most owners have
    /// them.
    pub fn visibility(mut self, visibility: Visibility) -> FeedBuilder {
        self.visibility = Some(visibility);
        self
    }

    /// Where it begins. Default: now.
    pub fn from(mut self, start: Start) -> FeedBuilder {
        self.start = start;
        self
    }

    /// Only writes of this moment and later, by the writers' clocks; wherever it begins. A feed that is
    /// resumed says again what it said at first.
    pub fn since(mut self, moment: SystemTime) -> FeedBuilder {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.filter.since = Some(Hlc::from_unix_ms(since.as_millis() as u64));
        self
    }

    /// What becomes of it when writes it has not shown are gone. Default: it fails, unless it begins at
    /// the beginning or at a time, where that is only to be told.
    pub fn on_gap(mut self, on_gap: OnGap) -> FeedBuilder {
        self.on_gap = Some(on_gap);
        self
    }

    /// Bytes of events that one owner sends at once; a feed holds some pages of that size. Default:
    /// 256 KiB.
    pub fn page_bytes(mut self, bytes: u32) -> FeedBuilder {
        self.credit = bytes.max(1);
        self
    }

    /// How often it is told how far the feed is, at most. Default: every second.
    pub fn checkpoint_every(mut self, pause: Duration) -> FeedBuilder {
        self.checkpoint_every = pause;
        self
    }

    /// Opens it. What is written after this has returned is shown. Fails if a bucket does not exist, a
    /// position is of another cluster or question, or where it is to begin now and not every shard has
    /// an owner that answers; else that is seen by [`Checkpoint::unserved`].
    pub async fn subscribe(self) -> Result<Feed> {
        let deadline = self.client.shared.deadline("feed", self.client.timeout)?;
        let (filter, begin, token) = self.prepared().await?;
        let shards = if self.start == Start::Now { begin.len() } else { 0 };
        let on_gap = self.on_gap.unwrap_or(match self.start {
            Start::Beginning | Start::At(_) => OnGap::Tell,
            Start::Now | Start::Token(_) => OnGap::Fail,
        });
        let (shows, followed) = (filter.shows.clone(), begin.len());
        let follower = Follower::start(&self.client.shared, filter, begin, self.credit, true);
        let mut feed = Feed {
            follower,
            client: self.client,
            shows,
            token,
            on_gap,
            queue: VecDeque::new(),
            states: BTreeMap::new(),
            followed,
            anew: BTreeMap::new(),
            unserved: Vec::new(),
            checkpoint_every: self.checkpoint_every,
            checkpoint_at: Instant::now() + self.checkpoint_every,
            over: false,
        };
        while feed.token.cursors.len() < shards {
            let word = tokio::time::timeout_at(deadline.at(), feed.follower.next()).await;
            let fail = |kind| Err(Error::new("feed", "", kind));
            match word {
                Ok(Some(word)) => {
                    if let Some(Err(error)) = feed.take(word) {
                        return Err(error);
                    }
                }
                Ok(None) => return fail(ErrorKind::Closed),
                Err(_) => return fail(ErrorKind::NoOwnerReachable),
            }
        }
        Ok(feed)
    }

    /// Asks exactly what `filter` asks.
    pub(crate) fn filtered(mut self, filter: Filter) -> FeedBuilder {
        self.visibility = Some(filter.visibility);
        self.filter = filter;
        self
    }

    /// The filter, from where each shard is followed, and the position that this is.
    pub(crate) async fn prepared(&self) -> Result<(Filter, BTreeMap<Shard, Begin>, FeedToken)> {
        const OP: &str = "feed";
        let fail = |kind| Error::new(OP, "", kind);
        if let Some(kind) = &self.bad {
            return Err(fail(kind.clone()));
        }
        let mut filter = self.filter.clone();
        filter.visibility = self.visibility.unwrap_or(match filter.shows {
            Shows::Topics(_) => Visibility::Quorum,
            Shows::Changes | Shows::Records => Visibility::Any,
        });
        if let Start::At(moment) = self.start {
            let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
            filter.since = Some(Hlc::from_unix_ms(since.as_millis() as u64));
        }
        let shared = &self.client.shared;
        let deadline = shared.deadline(OP, self.client.timeout)?;
        let route = shared.directory().any(shared.zone());
        let view = shared.refresh(OP, route, deadline).await?;
        for author in &self.authors {
            let mut members = view.layout.members().iter();
            match members.find(|member| member.name() == author) {
                Some(member) => filter.authors.push(member.id()),
                None => {
                    let members = view.layout.members().iter();
                    let mut known: Vec<&str> = members.map(|member| member.name()).collect();
                    // Members come in the order of their ids, which are drawn.
                    known.sort_unstable();
                    let shown: String = author.chars().take(80).collect();
                    let known = known.join(", ");
                    let what = format!("the cluster has no node {shown:?}: there are {known}");
                    return Err(fail(ErrorKind::Setting { what }));
                }
            }
        }
        if !filter.is_bounded() {
            let what = "a filter names too many buckets, topics or nodes".to_owned();
            return Err(fail(ErrorKind::Setting { what }));
        }
        if let Some(unknown) = filter.buckets.iter().find(|it| !view.buckets.contains_key(it)) {
            let bucket = unknown.to_string();
            return Err(fail(ErrorKind::UnknownBucket { bucket }));
        }
        let asked = |name: &BucketName| filter.buckets.is_empty() || filter.buckets.contains(name);
        let named = view.buckets.iter().filter(|(name, _)| asked(name));
        let copies: BTreeSet<u8> = named.map(|(_, props)| props.n).collect();
        let shards = copies.iter().flat_map(|&n| {
            (0..view.layout.partitions()).map(move |at| Shard { partition: Partition(at), n })
        });
        let (cluster, fingerprint) = (view.cluster, filter.fingerprint());
        let mut token = FeedToken { cluster, filter: fingerprint, cursors: BTreeMap::new() };
        if let Start::Token(kept) = &self.start {
            if (kept.cluster, kept.filter) != (cluster, fingerprint) {
                let cluster = kept.cluster != cluster;
                return Err(fail(ErrorKind::FeedTokenOfAnother { cluster }));
            }
            token.cursors.clone_from(&kept.cursors);
        }
        let begin = |shard: Shard| match &self.start {
            Start::Now => Begin::Now,
            Start::Beginning | Start::At(_) => Begin::At(Cursor::default()),
            Start::Token(kept) => Begin::At(kept.cursors.get(&shard).cloned().unwrap_or_default()),
        };
        let begin = shards.map(|shard| (shard, begin(shard))).collect();
        Ok((filter, begin, token))
    }
}

/// An open feed. Dropped, it ends.
///
/// ```no_run
/// # async fn f(db: galvani_client::Client) -> galvani_client::Result<()> {
/// use galvani_client::{Event, Start};
/// let mut feed = db.feed().prefix("cart/").from(Start::Now).subscribe().await?;
/// while let Some(event) = feed.next().await {
///     match event? {
///         Event::Changed(change) => println!("{:?} {}", change.source.key, change.op),
///         Event::Checkpoint(_) => { let _keep = feed.token().to_bytes(); }
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
pub struct Feed {
    follower: Follower,
    client: Client,
    shows: Shows,
    /// After the last event that was given out.
    token: FeedToken,
    on_gap: OnGap,
    queue: VecDeque<Queued>,
    /// How the sessions stand, and how many shards each is of.
    states: BTreeMap<u64, (usize, FeedState)>,
    /// Shards that are followed, in all.
    followed: usize,
    /// Shards that are shown anew, and whether something of that has come.
    anew: BTreeMap<Shard, bool>,
    unserved: Vec<Shard>,
    checkpoint_every: Duration,
    checkpoint_at: Instant,
    over: bool,
}

/// Something that is given out, or done, in its turn.
enum Queued {
    /// An event; with it the consumer is done with this write, if it is the last of it.
    Event(Box<Event>, Option<(Shard, Dot)>),
    /// The consumer is done with these.
    Done { shard: Shard, done: PartitionClock, owed: PartitionClock },
    /// Writes that are gone.
    Gone(Shard, PartitionClock),
}

impl Feed {
    /// The next event; `None` once it has failed, or the client is closed. May be dropped and called
    /// again: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The position after the last event that was given out. What a consumer keeps once it is done with
    /// that event.
    pub fn token(&self) -> &FeedToken {
        &self.token
    }

    fn take(&mut self, word: Word) -> Option<Result<Event>> {
        match word {
            Word::Began(shard, cursor) => {
                self.token.cursors.insert(shard, cursor);
            }
            Word::Following(more) => self.followed += more,
            Word::Page(page) => self.take_page(page),
            Word::Ended(session) => {
                self.states.remove(&session);
            }
            Word::Unserved(shards) => self.unserved = shards,
            Word::Failed(error) => {
                self.over = true;
                return Some(Err(*error));
            }
        }
        None
    }

    fn take_page(&mut self, page: Page) {
        self.states.insert(page.session, (page.shards, page.state));
        let directory = self.client.shared.directory();
        for part in page.parts {
            let Part { shard, resets, epoch: _, events, done, owed, gone } = part;
            if self.resets_of(shard) != resets {
                // On its way while the shard was put somewhere else.
                continue;
            }
            if let Some(came) = self.anew.get_mut(&shard) {
                *came = true;
            }
            // First: a consumer that does not bear it must not be shown what came after.
            if !gone.is_empty() {
                self.queue.push_back(Queued::Gone(shard, gone));
            }
            for event in events {
                let dot = event.head.dot;
                let mut shown = Vec::new();
                events_of(shard, event, &self.shows, &directory, &mut shown);
                let last = shown.len().saturating_sub(1);
                let shown = shown.into_iter().enumerate();
                self.queue.extend(shown.map(|(at, event)| {
                    Queued::Event(Box::new(event), (at == last).then_some((shard, dot)))
                }));
            }
            self.queue.push_back(Queued::Done { shard, done, owed });
        }
    }

    fn resets_of(&self, shard: Shard) -> u32 {
        self.token.cursors.get(&shard).map_or(0, |cursor| cursor.resets)
    }

    /// Gives out what is queued, until there is an event.
    fn pop(&mut self) -> Option<Result<Event>> {
        while let Some(queued) = self.queue.pop_front() {
            match queued {
                Queued::Event(event, done) => {
                    if let Some((shard, dot)) = done {
                        self.token.cursors.entry(shard).or_default().deliver(dot);
                    }
                    return Some(Ok(*event));
                }
                Queued::Done { shard, done, owed } => {
                    let cursor = self.token.cursors.entry(shard).or_default();
                    cursor.pass(&done);
                    cursor.owe_all(&owed);
                    cursor.settle();
                }
                Queued::Gone(shard, gone) => return Some(self.on_gone(shard, gone)),
            }
        }
        None
    }

    fn on_gone(&mut self, shard: Shard, gone: PartitionClock) -> Result<Event> {
        match self.on_gap {
            OnGap::Tell => {}
            // From there the gap is only what is not kept.
            OnGap::Restart if self.anew.contains_key(&shard) => {}
            OnGap::Fail => {
                self.over = true;
                let kind = ErrorKind::FeedGap { shard, writes: gone.len() };
                return Err(Error::new("feed", "", kind));
            }
            OnGap::Restart => {
                let resets = self.resets_of(shard) + 1;
                let cursor = Cursor::anew(resets);
                self.token.cursors.insert(shard, cursor.clone());
                let of = |queued: &Queued| match queued {
                    Queued::Event(_, done) => done.map(|(shard, _)| shard),
                    Queued::Done { shard, .. } | Queued::Gone(shard, _) => Some(*shard),
                };
                self.queue.retain(|queued| of(queued) != Some(shard));
                self.anew.insert(shard, false);
                let put = BTreeMap::from([(shard, Begin::At(cursor))]);
                // Its pages are told apart by how often it was put somewhere.
                self.follower.control(Control::Put(put, 0));
            }
        }
        Ok(Event::Gap(Gap { shard, gone }))
    }

    /// Whether every shard is of a session that has said how it stands.
    fn all_stand(&self) -> bool {
        let served: usize = self.states.values().map(|(shards, _)| shards).sum();
        served >= self.followed && self.anew.values().all(|came| *came)
    }

    fn checkpoint(&mut self) -> Checkpoint {
        let all_stand = self.all_stand() && self.unserved.is_empty();
        let states = || self.states.values().map(|(_, state)| state);
        let sum = |of: fn(&FeedState) -> u64| states().map(of).sum::<u64>();
        let oldest = |state: &FeedState| Some(state.now_ms.saturating_sub(state.oldest_ms?));
        let complete = states().map(|state| state.complete_through_ms).min();
        let complete = complete.filter(|&ms| ms > 0 && all_stand);
        let directory = self.client.shared.directory();
        let unheard: BTreeSet<_> = states().flat_map(|state| state.unheard.iter()).collect();
        let checkpoint = Checkpoint {
            behind: sum(|state| state.behind) + self.queued(),
            lag: Duration::from_millis(states().filter_map(oldest).max().unwrap_or(0)),
            held: sum(|state| state.held),
            unreadable: sum(|state| state.unreadable),
            complete_through: complete.map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
            unheard: unheard.into_iter().map(|node| directory.name_of(*node)).collect(),
            unserved: self.unserved.clone(),
        };
        if checkpoint.complete_through.is_some() {
            // A gap that is met from now on is another one.
            self.anew.clear();
        }
        checkpoint
    }

    fn queued(&self) -> u64 {
        self.queue.iter().filter(|queued| matches!(queued, Queued::Event(..))).count() as u64
    }
}

impl Stream for Feed {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            if let Some(event) = self.pop() {
                return Poll::Ready(Some(event));
            }
            // All that was queued is given out: the token is where the states say.
            let known = !self.states.is_empty() || !self.unserved.is_empty();
            if Instant::now() >= self.checkpoint_at && known {
                self.checkpoint_at = Instant::now() + self.checkpoint_every;
                return Poll::Ready(Some(Ok(Event::Checkpoint(self.checkpoint()))));
            }
            match ready!(self.follower.poll_next(cx)) {
                Some(word) => {
                    if let Some(end) = self.take(word) {
                        return Poll::Ready(Some(end));
                    }
                }
                None => {
                    self.over = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// Bytes of events that one owner sends at once, unless said otherwise.
const CREDIT: u32 = 256 << 10;
/// How often it is told how far a feed is, unless said otherwise.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
