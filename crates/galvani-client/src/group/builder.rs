//! A group that is not joined yet: what it follows, from where, and by what rules.
//!
//! The first member makes the group: it writes down the filter, the rules, and where the group begins in
//! every shard. Whoever joins later must ask for the same; where it begins and by what rules is known
//! then. Next to read: `member.rs`.

use super::driver::Driver;
use super::ledger::OnPoison;
use super::member::Member;
use super::names::GroupName;
use super::record::{Beat, Options, Spec, filter_words};
use super::store::GroupStore;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{FeedBuilder, Follower, Start, Word};
use bytes::Bytes;
use galvani_model::feed::{Cursor, FeedToken, Filter, Visibility};
use galvani_model::ids::Shard;
use galvani_model::topic::Topic;
use galvani_wire::feed::Begin;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// A group that is not joined yet; see [`Member`].
#[derive(Clone, Debug)]
#[must_use = "a group is joined by `join`"]
pub struct GroupBuilder {
    client: Client,
    name: String,
    feed: FeedBuilder,
    start: Start,
    lease: Option<Duration>,
    ack_wait: Option<Duration>,
    max_deliver: Option<u32>,
    on_poison: Option<OnPoison>,
    max_in_flight: Option<u32>,
    ordered: Option<bool>,
}

impl GroupBuilder {
    /// Follows what this feed asks for, in place of what was said so far. Where that begins is not
    /// taken over: see [`GroupBuilder::from`].
    pub fn following(mut self, feed: FeedBuilder) -> GroupBuilder {
        self.feed = feed;
        self
    }

    pub(crate) fn new(client: Client, name: String) -> GroupBuilder {
        GroupBuilder {
            feed: client.feed(),
            client,
            name,
            start: Start::Now,
            lease: None,
            ack_wait: None,
            max_deliver: None,
            on_poison: None,
            max_in_flight: None,
            ordered: None,
        }
    }

    /// Only keys of this bucket; said more than once: of these. Default: of any.
    pub fn bucket(mut self, name: impl AsRef<str>) -> GroupBuilder {
        self.feed = self.feed.bucket(name);
        self
    }

    /// Only keys that start with this.
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> GroupBuilder {
        self.feed = self.feed.prefix(prefix);
        self
    }

    /// Events of applications with this topic, and no writes of keys; said more than once: with these.
    pub fn topic(mut self, topic: Topic) -> GroupBuilder {
        self.feed = self.feed.topic(topic);
        self
    }

    /// Events of applications with any topic, and no writes of keys.
    pub fn any_topic(mut self) -> GroupBuilder {
        self.feed = self.feed.any_topic();
        self
    }

    /// No values, where buckets would show them.
    pub fn keys_only(mut self) -> GroupBuilder {
        self.feed = self.feed.keys_only();
        self
    }

    /// From when on an event is shown: see [`FeedBuilder::visibility`].
    pub fn visibility(mut self, visibility: Visibility) -> GroupBuilder {
        self.feed = self.feed.visibility(visibility);
        self
    }

    /// Where a new group begins. Default: now. A group that is there already goes on where it is.
    pub fn from(mut self, start: Start) -> GroupBuilder {
        self.start = start;
        self
    }

    /// How long after this member's last heartbeat others take its shards, 2 s to 10 min. Default: 10 s.
    pub fn lease(mut self, lease: Duration) -> GroupBuilder {
        self.lease = Some(lease);
        self
    }

    /// How long an event may be held without a word, 100 ms to an hour. Default: 30 s.
    pub fn ack_wait(mut self, wait: Duration) -> GroupBuilder {
        self.ack_wait = Some(wait);
        self
    }

    /// How often an event is delivered before the group gives it up, 1 at least. Default: 5.
    pub fn max_deliver(mut self, times: u32) -> GroupBuilder {
        self.max_deliver = Some(times);
        self
    }

    /// What becomes of an event that was given up, and of its key. Default: [`OnPoison::ParkKey`].
    pub fn on_poison(mut self, on_poison: OnPoison) -> GroupBuilder {
        self.on_poison = Some(on_poison);
        self
    }

    /// Most events that consumers of this member hold at once, 1 to 10,000. Default: 100.
    pub fn max_in_flight(mut self, events: u32) -> GroupBuilder {
        self.max_in_flight = Some(events);
        self
    }

    /// Whether one event of a key is held at a time, the oldest first. Default: yes.
    pub fn ordered(mut self, ordered: bool) -> GroupBuilder {
        self.ordered = Some(ordered);
        self
    }

    /// Joins the group, and makes it if it is not there: then everything is delivered that is written
    /// after this has returned, or that [`GroupBuilder::from`] says. Rules that are said here hold for
    /// this member; the others are those that the group was made with. Fails if the group follows
    /// something else. Making the first group, or a new one, makes buckets and needs the role `admin`.
    pub async fn join(self) -> Result<Member> {
        const OP: &str = "join group";
        let name = GroupName::new(OP, &self.name)?;
        let options = self.options()?;
        let within = |error: Error| error.within(OP, name.as_str());
        let store = GroupStore { client: self.client.clone(), name: name.clone() };
        let (filter, ..) = self.feed.prepared().await.map_err(within)?;
        store.ensure().await.map_err(within)?;
        let spec = match store.spec_or_former().await.map_err(within)? {
            Some(spec) if !spec.deleted => spec,
            former => {
                let generation = former.map_or(0, |spec| spec.generation + 1);
                let spec = begin(&store, &filter, &self.start, generation, options);
                let spec = spec.await.map_err(within)?;
                let make = |there: Option<Spec>| match there {
                    Some(there) if !there.deleted => there,
                    Some(_) | None => spec.clone(),
                };
                store.write_spec(make).await.map_err(within)?
            }
        };
        let same = spec.filter.fingerprint() == filter.fingerprint()
            && spec.filter.visibility == filter.visibility;
        if !same {
            let (follows, asked) = (filter_words(&spec.filter), filter_words(&filter));
            let group = name.to_string();
            let kind = ErrorKind::GroupFollows { group, follows, asked };
            return Err(Error::new(OP, name.as_str(), kind));
        }
        let me = self.client.shared.stamper.stamp().rid;
        let options = self.said(spec.options);
        // Before its name is there: a name without a heartbeat is that of a member that is gone.
        let first =
            Beat::first(me, self.client.shared.net.links.network.unix_ms(), options.lease_ms);
        let beat_after = store.beat(&first, &Context::default()).await.map_err(within)?;
        let enrolled = store.change_roster(|roster| roster.members.extend([me]));
        enrolled.await.map_err(within)?;
        let (out, deliveries) = mpsc::channel(1);
        let (teller, told) = mpsc::unbounded_channel();
        let mut driver = Driver::new(store, spec, options, me, out, (teller.clone(), told));
        driver.beat_after = beat_after;
        Ok(Member::new(me, deliveries, teller, tokio::spawn(driver.run())))
    }

    /// The rules, where they are said here, else those of `group`.
    fn said(&self, group: Options) -> Options {
        let ms = |time: Option<Duration>, or: u64| time.map_or(or, |time| time.as_millis() as u64);
        Options {
            lease_ms: ms(self.lease, group.lease_ms),
            ack_wait_ms: ms(self.ack_wait, group.ack_wait_ms),
            max_deliver: self.max_deliver.unwrap_or(group.max_deliver),
            on_poison: self.on_poison.unwrap_or(group.on_poison),
            max_in_flight: self.max_in_flight.unwrap_or(group.max_in_flight),
            ordered: self.ordered.unwrap_or(group.ordered),
        }
    }

    /// The rules of a group that is made now, or why these cannot be any.
    fn options(&self) -> Result<Options> {
        let options = self.said(DEFAULTS);
        let bad = match options {
            Options { lease_ms, .. } if !(2_000..=600_000).contains(&lease_ms) => {
                "the lease of a group is 2 s to 10 min"
            }
            Options { ack_wait_ms, .. } if !(100..=3_600_000).contains(&ack_wait_ms) => {
                "an event of a group may be held for 100 ms to an hour"
            }
            Options { max_deliver: 0, .. } => "an event of a group is delivered once at least",
            Options { max_in_flight, .. } if !(1..=10_000).contains(&max_in_flight) => {
                "a member of a group may hold 1 to 10,000 events"
            }
            _ => return Ok(options),
        };
        let kind = ErrorKind::Setting { what: bad.to_owned() };
        Err(Error::new("join group", self.name.chars().take(80).collect::<String>(), kind))
    }
}

/// The specification of a group that begins, or is put, where `start` says.
pub(crate) async fn begin(
    store: &GroupStore,
    filter: &Filter,
    start: &Start,
    generation: u32,
    options: Options,
) -> Result<Spec> {
    let client = &store.client;
    let feed = client.feed().filtered(Filter { since: None, ..filter.clone() });
    let (filter, begin, mut token) = feed.from(start.clone()).prepared().await?;
    if *start == Start::Now {
        token.cursors = now_of(store, &filter, begin.keys().copied()).await?;
    } else {
        // Named although they are empty: whoever merges two of these knows what both say.
        for (shard, begin) in begin {
            if let Begin::At(cursor) = begin {
                token.cursors.insert(shard, cursor);
            }
        }
    }
    for cursor in token.cursors.values_mut() {
        cursor.resets = generation;
    }
    let made_ms = client.shared.net.links.network.unix_ms();
    let start_words = match start {
        Start::Now => "now".to_owned(),
        Start::Beginning => "the beginning".to_owned(),
        Start::At(_) => "a time".to_owned(),
        Start::Token(_) => "a position".to_owned(),
    };
    let start = FeedToken::to_bytes(&token);
    Ok(Spec { generation, filter, start, start_words, made_ms, options, deleted: false })
}

/// What owners of these shards have taken in now.
pub(crate) async fn now_of(
    store: &GroupStore,
    filter: &Filter,
    shards: impl IntoIterator<Item = Shard>,
) -> Result<BTreeMap<Shard, Cursor>> {
    let client = &store.client;
    let deadline = client.shared.deadline("group", client.timeout)?;
    let begin: BTreeMap<Shard, Begin> =
        shards.into_iter().map(|shard| (shard, Begin::Now)).collect();
    let (all, mut now) = (begin.len(), BTreeMap::new());
    let mut follower = Follower::start(&client.shared, filter.clone(), begin, 1, false);
    while now.len() < all {
        let word = tokio::time::timeout_at(deadline.at(), follower.next()).await;
        let fail = |kind| Err(Error::new("group", store.name.as_str(), kind));
        match word {
            Ok(Some(Word::Began(shard, cursor))) => drop(now.insert(shard, cursor)),
            Ok(Some(Word::Failed(error))) => return Err(*error),
            Ok(Some(_)) => {}
            Ok(None) => return fail(ErrorKind::Closed),
            Err(_) => return fail(ErrorKind::NoOwnerReachable),
        }
    }
    Ok(now)
}

/// The rules of a group that is made without a word.
const DEFAULTS: Options = Options {
    lease_ms: 10_000,
    ack_wait_ms: 30_000,
    max_deliver: 5,
    on_poison: OnPoison::ParkKey,
    max_in_flight: 100,
    ordered: true,
};
