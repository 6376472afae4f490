//! The dead letters of a group, as an operator deals with them: list, deliver again, drop.
//!
//! They are values of bucket `dlq.GROUP`. Delivering them again is done by the members: here they are only
//! marked, and the bell is rung. Next to read: `ledger.rs`, which says when an event becomes one.

use super::ledger::OnPoison;
use super::names::{Class, GroupName, LetterName, Pile, line_of};
use super::record::Letter;
use super::store::{GroupStore, all};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Event, events_of};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An event that a group gave up.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event's name: what [`LetterChoice::Event`] takes.
    pub id: String,
    /// Its shard.
    pub shard: Shard,
    /// The key that was written.
    pub key: Key,
    /// The event as it was delivered. Its values are kept here, however long the log keeps the write.
    pub event: Event,
    /// Whether values were left out, because together they were larger than a value may be.
    pub cut: bool,
    /// How often it was delivered; 0: never, it came after one of its key that was given up.
    pub attempts: u32,
    /// What the consumer said, or why it came here.
    pub error: String,
    /// When it came here.
    pub buried_at: SystemTime,
    /// What the group did then.
    pub on_poison: OnPoison,
    /// Whether it is to be delivered again, and has not been dealt with yet.
    pub retried: bool,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterChoice {
    /// All of the group.
    All,
    /// All of a key.
    Key(BucketName, Bytes),
    /// The event of this name.
    Event(String),
}

impl Client {
    /// The dead letters of a group: by shard, key and time of writing.
    pub async fn dead_letters(&self, group: &str) -> Result<Vec<DeadLetter>> {
        const OP: &str = "dead letters";
        let store = store_of(self, OP, group)?;
        let within = |error: Error| error.within(OP, group);
        let spec = store.spec().await.map_err(within)?.ok_or_else(|| unknown(OP, group))?;
        let listed = store.letters().await.map_err(within)?;
        let read = |name: LetterName| {
            let store = store.clone();
            async move { Ok(store.letter(&name).await?.map(|letter| (name, letter))) }
        };
        let read = all(listed.letters, read).await.into_iter().collect::<Result<Vec<_>>>();
        let mut letters: Vec<(LetterName, Letter)> =
            read.map_err(within)?.into_iter().flatten().collect();
        letters.sort_by(|(a, _), (b, _)| a.cmp(b));
        let directory = self.shared.directory();
        let shown = letters.into_iter().filter_map(|(name, letter)| {
            let mut event = letter.event;
            let key = event.head.key.clone();
            event.values = letter.values;
            let mut shown = Vec::new();
            events_of(letter.shard, event, &spec.filter.shows, &directory, &mut shown);
            let event = shown.into_iter().nth(usize::from(letter.index))?;
            Some(DeadLetter {
                shard: letter.shard,
                key,
                event,
                cut: letter.cut,
                attempts: letter.attempts,
                error: letter.error,
                buried_at: UNIX_EPOCH + Duration::from_millis(letter.buried_ms),
                on_poison: match name.pile.class {
                    Class::Parks => OnPoison::ParkKey,
                    Class::Skips => OnPoison::Skip,
                    Class::Halts => OnPoison::Halt,
                },
                retried: listed.marks.contains(&name.pile),
                id: name.event,
            })
        });
        Ok(shown.collect())
    }

    /// Has dead letters delivered again, in the order of their writes and before anything newer of their
    /// keys; with an event go all others of its key. Returns how many. What is acknowledged then is a
    /// dead letter no more; what fails again stays one.
    pub async fn retry_dead_letters(&self, group: &str, choice: &LetterChoice) -> Result<u64> {
        const OP: &str = "retry dead letters";
        let (store, chosen) = chosen(self, OP, group, choice).await?;
        let within = |error: Error| error.within(OP, group);
        let piles: BTreeSet<Pile> = chosen.chosen.iter().map(|letter| letter.pile).collect();
        let mark = |pile: Pile| {
            let store = store.clone();
            async move { store.mark(&pile).await }
        };
        let marked =
            all(piles.iter().copied().collect(), mark).await.into_iter().collect::<Result<()>>();
        marked.map_err(within)?;
        store.ring().await.map_err(within)?;
        Ok(chosen.all.iter().filter(|letter| piles.contains(&letter.pile)).count() as u64)
    }

    /// Takes dead letters away for good: a key that has none any more is delivered again as before.
    /// Returns how many.
    pub async fn drop_dead_letters(&self, group: &str, choice: &LetterChoice) -> Result<u64> {
        const OP: &str = "drop dead letters";
        let (store, chosen) = chosen(self, OP, group, choice).await?;
        let within = |error: Error| error.within(OP, group);
        let dropped = chosen.chosen.len() as u64;
        let left: BTreeSet<Pile> = chosen
            .all
            .iter()
            .filter(|letter| !chosen.chosen.contains(letter))
            .map(|letter| letter.pile)
            .collect();
        let marks = chosen.chosen.iter().map(|letter| letter.pile);
        let marks: BTreeSet<Pile> = marks.filter(|pile| !left.contains(pile)).collect();
        let keys = chosen.chosen.iter().map(LetterName::key);
        let keys: Vec<String> = keys.chain(marks.iter().map(Pile::mark)).collect();
        let erase = |key: String| {
            let store = store.clone();
            async move { store.erase(&key).await }
        };
        let erased = all(keys, erase).await.into_iter().collect::<Result<()>>();
        erased.map_err(within)?;
        store.ring().await.map_err(within)?;
        Ok(dropped)
    }
}

struct Chosen {
    all: Vec<LetterName>,
    chosen: BTreeSet<LetterName>,
}

async fn chosen(
    client: &Client,
    op: &'static str,
    group: &str,
    choice: &LetterChoice,
) -> Result<(GroupStore, Chosen)> {
    let store = store_of(client, op, group)?;
    let within = |error: Error| error.within(op, group);
    store.spec().await.map_err(within)?.ok_or_else(|| unknown(op, group))?;
    let all = store.letters().await.map_err(within)?.letters;
    let line = match choice {
        LetterChoice::Key(bucket, key) => {
            let key = Key::new(bucket.clone(), key.clone());
            Some(line_of(&key.map_err(|error| Error::new(op, group, ErrorKind::Key(error)))?))
        }
        LetterChoice::All | LetterChoice::Event(_) => None,
    };
    let fits = |letter: &&LetterName| match choice {
        LetterChoice::All => true,
        LetterChoice::Key(..) => Some(letter.pile.line) == line,
        LetterChoice::Event(id) => letter.event == *id,
    };
    let chosen = all.iter().filter(fits).cloned().collect();
    Ok((store, Chosen { all, chosen }))
}

pub(crate) fn store_of(client: &Client, op: &'static str, group: &str) -> Result<GroupStore> {
    Ok(GroupStore { client: client.clone(), name: GroupName::new(op, group)? })
}

pub(crate) fn unknown(op: &'static str, group: &str) -> Error {
    Error::new(op, group, ErrorKind::UnknownGroup { group: group.to_owned() })
}
