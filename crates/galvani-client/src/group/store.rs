//! What a group keeps, read from the store and written to it.
//!
//! One function for each thing; none decides anything. Reads and writes take the quorums of the bucket,
//! and whatever was written concurrently merges. Next to read: `round.rs`, which does all of it in its
//! order.

use super::names::{GROUPS, GroupName, LetterKey, LetterName, Pile};
use super::record::{Beat, Letter, Record, RecordError, Roster, Spec, Tries};
use crate::answer::Sibling;
use crate::bucket::Bucket;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::race::first;
use crate::update::Merge;
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps, FeedMode};
use galvani_model::feed::{Cursor, FeedToken};
use galvani_model::ids::{RequestId, Shard};
use galvani_model::limits::VALUE_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

/// A group in the store.
#[derive(Clone, Debug)]
pub(crate) struct GroupStore {
    pub(crate) client: Client,
    pub(crate) name: GroupName,
}

/// What the bucket of dead letters has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// In the order in which each key's are to be delivered.
    pub(crate) letters: Vec<LetterName>,
    /// What is to be delivered again.
    pub(crate) marks: Vec<Pile>,
}

impl GroupStore {
    /// Makes the buckets that are not there. Needs the role `admin` if one is not.
    pub(crate) async fn ensure(&self) -> Result<()> {
        let buckets = self.client.buckets().await?;
        let n = buckets.get(&BucketName::default_bucket()).map(|props| props.n);
        let n = n.unwrap_or_else(|| self.client.cluster().layout.n());
        for name in [GROUPS.to_owned(), self.name.letters()] {
            if !buckets.keys().any(|it| it.as_str() == name) {
                // Not shown by the feed: a group that follows all buckets would follow itself.
                let value_bytes_max = VALUE_BYTES_MAX as u32;
                let props = BucketProps {
                    feed: FeedMode::Off,
                    value_bytes_max,
                    ..BucketProps::with_copies(n)
                };
                self.client.create_bucket(&name, props).await?;
            }
        }
        Ok(())
    }

    /// The group's specification; `None`: there is no such group.
    pub(crate) async fn spec(&self) -> Result<Option<Spec>> {
        Ok(self.spec_or_former().await?.filter(|spec| !spec.deleted))
    }

    /// The specification of the group, or of one that had its name.
    pub(crate) async fn spec_or_former(&self) -> Result<Option<Spec>> {
        match self.groups().get(self.name.spec()).await {
            Ok(read) => self.merged(&self.name.spec(), &read.siblings, Spec::merge),
            Err(error) if unknown_bucket(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the specification that `change` makes of the one there is.
    pub(crate) async fn write_spec(
        &self,
        change: impl Fn(Option<Spec>) -> Spec + Send + Sync,
    ) -> Result<Spec> {
        let key = self.name.spec();
        let read = self.groups().get(key.clone()).await?;
        let spec = change(self.merged(&key, &read.siblings, Spec::merge)?);
        let written = self.groups().put(key, spec.to_bytes()).after(&read).send().await?;
        match written.siblings_now {
            0 | 1 => Ok(spec),
            // Another did the same at once: what both made of it holds.
            _ => Ok(self.spec_or_former().await?.unwrap_or(spec)),
        }
    }

    pub(crate) async fn roster(&self) -> Result<Roster> {
        let key = self.name.roster();
        let read = self.groups().get(key.clone()).await?;
        let merge = |one: Roster, other| Ok(one.merge(other));
        Ok(self.merged(&key, &read.siblings, merge)?.unwrap_or_default())
    }

    /// Changes who belongs to the group.
    pub(crate) async fn change_roster(
        &self,
        change: impl Fn(&mut Roster) + Send + Sync,
    ) -> Result<()> {
        let rewrite = |siblings: Vec<Sibling>| {
            let values = siblings.iter().filter_map(|it| it.value.as_ref());
            // One that cannot be read is no more than a list of names: members enter theirs again.
            let known = values.filter_map(|bytes| Roster::from_bytes(bytes).ok());
            let before = known.reduce(Roster::merge);
            let mut roster = before.clone().unwrap_or_default();
            change(&mut roster);
            match before {
                Some(before) if before == roster && siblings.len() == 1 => Merge::Keep,
                Some(_) | None => Merge::Put(roster.to_bytes().into()),
            }
        };
        self.groups().update(self.name.roster(), rewrite).await.map(drop)
    }

    /// Tells all members to look at the specification and the dead letters again.
    pub(crate) async fn ring(&self) -> Result<()> {
        let bell = self.client.shared.net.links.network.random_u128() as u64;
        self.change_roster(|roster| roster.bell = bell).await
    }

    /// Writes a member's heartbeat after the last one.
    pub(crate) async fn beat(&self, beat: &Beat, after: &Context) -> Result<Context> {
        let put = self.groups().put(self.name.member(beat.id), beat.to_bytes());
        let lease = Duration::from_millis(beat.lease_ms);
        Ok(put.after(after).ttl(lease).timeout(lease / 2).send().await?.context)
    }

    /// Takes a heartbeat back: the member is gone.
    pub(crate) async fn unbeat(&self, id: RequestId) -> Result<()> {
        let key = self.name.member(id);
        let read = self.groups().get(key.clone()).await?;
        self.groups().delete(key).after(&read).send().await.map(drop)
    }

    async fn one_beat(&self, id: RequestId) -> Result<Option<Beat>> {
        let key = self.name.member(id);
        let read = self.groups().get(key.clone()).await?;
        let later = |one: Beat, other: Beat| Ok(if one.at_ms >= other.at_ms { one } else { other });
        self.merged(&key, &read.siblings, later)
    }

    /// How each of these members is; `None`: it has no heartbeat.
    pub(crate) async fn beats(
        &self,
        ids: Vec<RequestId>,
    ) -> Result<BTreeMap<RequestId, Option<Beat>>> {
        let one = |id| {
            let store = self.clone();
            async move { Ok((id, store.one_beat(id).await?)) }
        };
        all(ids, one).await.into_iter().collect()
    }

    /// The position of a shard that is kept, if one is, and what was read.
    pub(crate) async fn position(&self, shard: Shard) -> Result<(Option<Cursor>, Context)> {
        let key = self.name.at(shard);
        let read = self.groups().get(key.clone()).await?;
        let mut joined: Option<Cursor> = None;
        for bytes in read.values() {
            let token = FeedToken::from_bytes(bytes)
                .map_err(|error| self.damaged(&key, RecordError::Token(error)))?;
            if let Some(cursor) = token.cursors.get(&shard) {
                joined.get_or_insert_default().join(cursor);
            }
        }
        Ok((joined, read.context))
    }

    /// Keeps a position, written after what was read or written last. If another member wrote one too:
    /// both, merged.
    pub(crate) async fn keep(
        &self,
        fingerprint: u64,
        shard: Shard,
        cursor: &Cursor,
        after: &Context,
    ) -> Result<(Option<Cursor>, Context)> {
        let cluster = self.client.cluster().cluster;
        let bytes = |cursor: &Cursor| {
            let cursors = BTreeMap::from([(shard, cursor.clone())]);
            FeedToken { cluster, filter: fingerprint, cursors }.to_bytes()
        };
        let key = self.name.at(shard);
        let written = self.groups().put(key.clone(), bytes(cursor)).after(after).send().await?;
        if written.siblings_now <= 1 {
            return Ok((None, written.context));
        }
        let (others, context) = self.position(shard).await?;
        let mut joined = others.unwrap_or_default();
        joined.join(cursor);
        let written = self.groups().put(key, bytes(&joined)).after(&context).send().await?;
        Ok((Some(joined), written.context))
    }

    /// The attempts that are kept of these shards, where there are some. What cannot be read counts for none:
    /// it is no more than a count.
    pub(crate) async fn tries(&self, shards: &BTreeSet<Shard>) -> Result<BTreeMap<Shard, Tries>> {
        let mut kept = BTreeSet::new();
        let mut pages = self.groups().list(self.name.tries());
        while let Some(page) = pages.next_page().await? {
            kept.extend(page.keys.into_iter().map(|it| it.key));
        }
        let is_kept = |shard: &Shard| kept.contains(self.name.tries_of(*shard).as_bytes());
        let there = shards.iter().copied().filter(is_kept).collect();
        let read = |shard| {
            let store = self.clone();
            async move {
                let read = store.groups().get(store.name.tries_of(shard)).await?;
                let known = read.values().filter_map(|bytes| Tries::from_bytes(bytes).ok());
                Ok(known.reduce(Tries::merge).map(|tries| (shard, tries)))
            }
        };
        let read = all(there, read).await.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(read.into_iter().flatten().collect())
    }

    /// Keeps attempts, in place of those that are kept.
    pub(crate) async fn keep_tries(&self, shard: Shard, tries: &Tries) -> Result<()> {
        let bytes: Bytes = tries.to_bytes().into();
        let write = |siblings: Vec<Sibling>| match tries.writes.is_empty() {
            true => gone(siblings),
            false => Merge::Put(bytes.clone()),
        };
        self.groups().update(self.name.tries_of(shard), write).await.map(drop)
    }

    /// All dead letters, and what is to be delivered again.
    pub(crate) async fn letters(&self) -> Result<Listed> {
        let mut listed = Listed::default();
        let mut pages = self.bucket_of_letters().list("");
        loop {
            let page = match pages.next_page().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) if unknown_bucket(&error) => break,
                Err(error) => return Err(error),
            };
            for key in page.keys {
                match LetterKey::parse(&key.key) {
                    Some(LetterKey::Letter(letter)) => listed.letters.push(letter),
                    Some(LetterKey::Mark(pile)) => listed.marks.push(pile),
                    None => {}
                }
            }
        }
        listed.letters.sort();
        Ok(listed)
    }

    /// A dead letter; `None`: it is gone.
    pub(crate) async fn letter(&self, name: &LetterName) -> Result<Option<Letter>> {
        let key = name.key();
        let read = self.bucket_of_letters().get(key.clone()).await?;
        let later = |one: Letter, other: Letter| {
            Ok(if one.buried_ms >= other.buried_ms { one } else { other })
        };
        self.merged(&key, &read.siblings, later)
    }

    /// Puts an event among the dead letters.
    pub(crate) async fn bury(&self, name: &LetterName, letter: &Letter) -> Result<()> {
        let bytes: Bytes = letter.to_bytes().into();
        let write = |_| Merge::Put(bytes.clone());
        self.bucket_of_letters().update(name.key(), write).await.map(drop)
    }

    /// Says that these letters are to be delivered again.
    pub(crate) async fn mark(&self, pile: &Pile) -> Result<()> {
        let write = |_| Merge::Put(Bytes::from_static(b"1"));
        self.bucket_of_letters().update(pile.mark(), write).await.map(drop)
    }

    /// Takes a letter or a mark out of the bucket of dead letters.
    pub(crate) async fn erase(&self, key: &str) -> Result<()> {
        self.bucket_of_letters().update(key.to_owned(), gone).await.map(drop)
    }

    /// Takes a key of bucket `feed.groups` away.
    pub(crate) async fn forget(&self, key: String) -> Result<()> {
        self.groups().update(key, gone).await.map(drop)
    }

    pub(crate) fn groups(&self) -> Bucket {
        self.client.bucket(GROUPS)
    }

    fn bucket_of_letters(&self) -> Bucket {
        self.client.bucket(self.name.letters())
    }

    pub(crate) fn damaged(&self, key: &str, why: RecordError) -> Error {
        let kind = ErrorKind::GroupDamaged { key: key.to_owned(), why: why.to_string() };
        Error::new("group", self.name.as_str(), kind)
    }

    /// The values of a key as one.
    fn merged<T: Record>(
        &self,
        key: &str,
        siblings: &[Sibling],
        merge: impl Fn(T, T) -> Result<T, RecordError>,
    ) -> Result<Option<T>> {
        let mut merged = None;
        for bytes in siblings.iter().filter_map(|sibling| sibling.value.as_ref()) {
            let one = T::from_bytes(bytes);
            let both = match (one, merged.take()) {
                (Ok(one), None) => Ok(one),
                (Ok(one), Some(others)) => merge(others, one),
                (Err(why), _) => Err(why),
            };
            merged = Some(both.map_err(|why| self.damaged(key, why))?);
        }
        Ok(merged)
    }
}

fn gone(siblings: Vec<Sibling>) -> Merge {
    match siblings.iter().any(|sibling| sibling.value.is_some()) {
        true => Merge::Delete,
        false => Merge::Keep,
    }
}

pub(crate) fn unknown_bucket(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnknownBucket { .. })
}

/// What `make` gives for each of these, some at a time, in no order.
pub(crate) async fn all<T, F: Future>(items: Vec<T>, make: impl Fn(T) -> F) -> Vec<F::Output> {
    let mut waiting = items.into_iter();
    let (mut flights, mut out) = (Vec::new(), Vec::new());
    loop {
        while flights.len() < AT_ONCE {
            let Some(next) = waiting.next() else { break };
            flights.push(Box::pin(make(next)));
        }
        if flights.is_empty() {
            return out;
        }
        out.push(first(&mut flights).await.1);
    }
}

/// Requests under way at once: enough to hide round trips.
const AT_ONCE: usize = 16;
