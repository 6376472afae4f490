//! How a group is, where it is put, and its end: what an operator asks of groups.
//!
//! All of it is read from what members keep in the store; members are not asked. Next to read:
//! `letters.rs`, for its dead letters.

use super::builder::{begin, now_of};
use super::letters::{store_of, unknown};
use super::names::{Class, GROUPS, GroupName, LetterName, Pile};
use super::record::{Beat, Spec, filter_words};
use super::store::{GroupStore, all, unknown_bucket};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Start;
use galvani_model::ids::{RequestId, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a group is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// What it follows, in words.
    pub follows: String,
    /// Where it began, or was put last, in words.
    pub start: String,
    /// When that was.
    pub started_at: SystemTime,
    /// How often it was put somewhere else.
    pub resets: u32,
    /// Its live members, by id.
    pub members: Vec<GroupMember>,
    /// All its shards.
    pub shards: Vec<GroupShard>,
    /// Events and writes that it is not done with, in all shards: what members have and are not done
    /// with, what they have not been sent, and what is in shards that nobody works on. `None`: owners of
    /// some of the latter did not say.
    pub behind: Option<u64>,
    /// When the position was kept that is the oldest of those that members kept.
    pub oldest_kept_at: Option<SystemTime>,
    /// How many dead letters it has.
    pub dead_letters: u64,
    /// How many keys are parked.
    pub parked_keys: u64,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its name.
    pub id: RequestId,
    /// When it joined.
    pub joined_at: SystemTime,
    /// When it wrote its heartbeat.
    pub beat_at: SystemTime,
    /// What it works on.
    pub shards: Vec<Shard>,
    /// Events that it has and that are not done with.
    pub waiting: u64,
    /// Of those, events that consumers hold.
    pub in_flight: u64,
    /// Writes in its shards that it has not been sent.
    pub unread: u64,
    /// How old the oldest of these is.
    pub lag: Duration,
    /// When the oldest write was of which it has an event that is not done with: another member would have to
    /// read it again. `None`: it has none, or does not say.
    pub oldest_at: Option<SystemTime>,
}

/// A shard of a group.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupShard {
    /// Which.
    pub shard: Shard,
    /// Who works on it: nobody, one, or for a moment two.
    pub members: Vec<RequestId>,
    /// Events that it is not done with: those that members have; where nobody works on it, writes since
    /// the position that was kept, among them such as the group does not ask for. `None`: no owner said.
    pub behind: Option<u64>,
    /// Events that consumers hold.
    pub in_flight: u64,
    /// Whether it stands still because of a dead letter.
    pub halted: bool,
    /// When a member kept its position last.
    pub kept_at: Option<SystemTime>,
}

impl Client {
    /// The names of all groups.
    pub async fn groups(&self) -> Result<Vec<String>> {
        const OP: &str = "groups";
        let mut pages = self.bucket(GROUPS).list("");
        let mut names = BTreeSet::new();
        loop {
            let page = match pages.next_page().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                // No group was ever made.
                Err(error) if unknown_bucket(&error) => break,
                Err(error) => return Err(error.within(OP, "")),
            };
            names.extend(
                page.keys.iter().filter_map(|it| GroupName::of_spec(&it.key)).map(str::to_owned),
            );
        }
        let there = |name: String| {
            let client = self.clone();
            async move {
                let spec = store_of(&client, OP, &name)?.spec().await?;
                Ok(spec.map(|_| name))
            }
        };
        let there = all(names.into_iter().collect(), there)
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let mut there: Vec<String> = there.into_iter().flatten().collect();
        there.sort();
        Ok(there)
    }

    /// How a group is.
    pub async fn group_status(&self, group: &str) -> Result<GroupStatus> {
        const OP: &str = "group status";
        let store = store_of(self, OP, group)?;
        status(&store)
            .await
            .map_err(|error| error.within(OP, group))?
            .ok_or_else(|| unknown(OP, group))
    }

    /// Puts a group somewhere else: everything from there on is delivered, also what was before. Members
    /// go on there at once; what they hold now is no matter any more. Its dead letters stay.
    pub async fn reset_group(&self, group: &str, start: Start) -> Result<()> {
        const OP: &str = "reset group";
        let store = store_of(self, OP, group)?;
        let within = |error: Error| error.within(OP, group);
        let spec = store.spec().await.map_err(within)?.ok_or_else(|| unknown(OP, group))?;
        let put = begin(&store, &spec.filter, &start, spec.generation + 1, spec.options);
        let put = put.await.map_err(within)?;
        store.write_spec(|_| put.clone()).await.map_err(within)?;
        store.ring().await.map_err(within)
    }

    /// Takes a group away, with its positions and its dead letters. Refused while it has members, which
    /// would only make it again.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        const OP: &str = "delete group";
        let store = store_of(self, OP, group)?;
        let within = |error: Error| error.within(OP, group);
        let spec = store.spec().await.map_err(within)?.ok_or_else(|| unknown(OP, group))?;
        let members = beats(&store).await.map_err(within)?.len();
        if members > 0 {
            let what = format!("the group has {members} live members: stop them first");
            return Err(Error::new(OP, group, ErrorKind::Setting { what }));
        }
        let gone = |there: Option<Spec>| {
            let there = there.unwrap_or_else(|| spec.clone());
            Spec { deleted: true, start: Vec::new(), ..there }
        };
        store.write_spec(gone).await.map_err(within)?;
        erase(&store).await.map_err(within)
    }
}

/// Takes away all that a group keeps but that it is gone.
async fn erase(store: &GroupStore) -> Result<()> {
    let mut keys = Vec::new();
    let mut pages = store.groups().list(format!("{}/", store.name));
    while let Some(page) = pages.next_page().await? {
        let strings = page.keys.iter().map(|it| String::from_utf8_lossy(&it.key).into_owned());
        keys.extend(strings.filter(|key| *key != store.name.spec()));
    }
    let forget = |key| {
        let store = store.clone();
        async move { store.forget(key).await }
    };
    let forgotten = all(keys, forget).await;
    forgotten.into_iter().collect::<Result<()>>()?;
    let listed = store.letters().await?;
    let letters = listed.letters.iter().map(LetterName::key);
    let keys: Vec<String> = letters.chain(listed.marks.iter().map(Pile::mark)).collect();
    let erase = |key: String| {
        let store = store.clone();
        async move { store.erase(&key).await }
    };
    let erased = all(keys, erase).await;
    erased.into_iter().collect()
}

async fn beats(store: &GroupStore) -> Result<Vec<Beat>> {
    let roster = store.roster().await?;
    Ok(store.beats(roster.members.into_iter().collect()).await?.into_values().flatten().collect())
}

async fn status(store: &GroupStore) -> Result<Option<GroupStatus>> {
    let Some(spec) = store.spec().await? else { return Ok(None) };
    let beats = beats(store).await?;
    let letters = store.letters().await?.letters;
    let start = spec.start().map_err(|why| store.damaged(&store.name.spec(), why))?;
    let mut shards: BTreeMap<Shard, GroupShard> =
        start.cursors.keys().map(|shard| (*shard, idle(*shard))).collect();
    for beat in &beats {
        for one in &beat.shards {
            let entry = shards.entry(one.shard).or_insert_with(|| idle(one.shard));
            entry.members.push(beat.id);
            entry.behind = Some(entry.behind.unwrap_or(0) + one.waiting);
            entry.in_flight += one.in_flight;
            entry.kept_at = entry.kept_at.max(time(one.kept_ms));
        }
    }
    for letter in letters.iter().filter(|letter| letter.pile.class == Class::Halts) {
        shards.entry(letter.pile.shard).or_insert_with(|| idle(letter.pile.shard)).halted = true;
    }
    for (shard, behind) in behind_of_idle(store, &spec, &shards).await? {
        if let Some(entry) = shards.get_mut(&shard) {
            entry.behind = Some(behind);
        }
    }
    let unread: u64 = beats.iter().map(|beat| beat.unread).sum();
    let behind: Option<u64> = shards.values().map(|it| it.behind).sum();
    let parks = letters.iter().filter(|letter| letter.pile.class == Class::Parks);
    Ok(Some(GroupStatus {
        name: store.name.to_string(),
        follows: filter_words(&spec.filter),
        start: spec.start_words,
        started_at: UNIX_EPOCH + Duration::from_millis(spec.made_ms),
        resets: spec.generation,
        members: beats.iter().map(member).collect(),
        behind: behind.map(|behind| behind + unread),
        oldest_kept_at: shards.values().filter_map(|it| it.kept_at).min(),
        shards: shards.into_values().collect(),
        dead_letters: letters.len() as u64,
        parked_keys: parks.map(|letter| letter.pile).collect::<BTreeSet<_>>().len() as u64,
    }))
}

fn member(beat: &Beat) -> GroupMember {
    let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
    GroupMember {
        id: beat.id,
        joined_at: at(beat.joined_ms),
        beat_at: at(beat.at_ms),
        shards: beat.shards.iter().map(|it| it.shard).collect(),
        waiting: beat.shards.iter().map(|it| it.waiting).sum(),
        in_flight: beat.shards.iter().map(|it| it.in_flight).sum(),
        unread: beat.unread,
        lag: Duration::from_millis(beat.lag_ms),
        oldest_at: time(beat.oldest_ms),
    }
}

fn idle(shard: Shard) -> GroupShard {
    let (members, behind, in_flight, halted, kept_at) = (Vec::new(), None, 0, false, None);
    GroupShard { shard, members, behind, in_flight, halted, kept_at }
}

fn time(ms: u64) -> Option<SystemTime> {
    (ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(ms))
}

/// Writes since the positions that are kept of shards that nobody works on, where owners say.
async fn behind_of_idle(
    store: &GroupStore,
    spec: &Spec,
    shards: &BTreeMap<Shard, GroupShard>,
) -> Result<Vec<(Shard, u64)>> {
    let nobody = |it: &&GroupShard| it.members.is_empty();
    let idle: Vec<Shard> = shards.values().filter(nobody).map(|it| it.shard).collect();
    if idle.is_empty() {
        return Ok(Vec::new());
    }
    let start = spec.start().map_err(|why| store.damaged(&store.name.spec(), why))?;
    let kept = |shard: Shard| {
        let store = store.clone();
        async move { Ok((shard, store.position(shard).await?.0)) }
    };
    let kept = all(idle.clone(), kept).await.into_iter().collect::<Result<Vec<_>>>()?;
    // Not to be told of is no failure: the rest is still worth knowing.
    let Ok(now) = now_of(store, &spec.filter, idle).await else { return Ok(Vec::new()) };
    let behind = kept.into_iter().filter_map(|(shard, kept)| {
        let mut cursor = start.cursors.get(&shard).cloned().unwrap_or_default();
        cursor.resets = spec.generation;
        if let Some(kept) = kept {
            cursor.join(&kept);
        }
        let pending = cursor.pending(now.get(&shard)?.delivered());
        Some((shard, pending.iter().map(|range| range.last - range.first + 1).sum()))
    });
    Ok(behind.collect())
}
