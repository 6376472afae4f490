//! What a group keeps in the store, as bytes: its specification, who belongs to it, how each member
//! is, and its dead letters. Positions are kept as [`galvani_model::feed::FeedToken`]s.
//!
//! Values that were written concurrently merge: nothing here is lost by it, and members that see the
//! same values make the same of them. Every value names its format and carries a checksum. The bytes
//! are drawn in `docs/formats.md`.

use super::ledger::OnPoison;
use galvani_model::feed::{Cursor, FeedToken, Filter, Shows, TokenError, Visibility};
use galvani_model::ids::{RequestId, Shard};
use galvani_model::version::{Dot, PartitionClock};
use galvani_wire::feed::FeedEvent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Why bytes are not what a group keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it was cut short or altered, or is something else")]
    Damaged,
    #[error("it has format {version}, this program knows {VERSION}")]
    Newer { version: u8 },
    #[error("its position: {0}")]
    Token(#[from] TokenError),
}

/// A kind of value.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Its first byte.
    const KIND: u8;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![Self::KIND, VERSION];
        rmp_serde::encode::write_named(&mut out, self).expect("plain values into memory");
        let sum = xxh3_64_with_seed(&out, RECORD_SEED).to_le_bytes();
        out.extend_from_slice(&sum);
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let damaged = RecordError::Damaged;
        match bytes {
            [kind, version, ..] if *kind == Self::KIND && *version > VERSION => {
                return Err(RecordError::Newer { version: *version });
            }
            [kind, VERSION, ..] if *kind == Self::KIND => {}
            _ => return Err(damaged),
        }
        let at = bytes.len().checked_sub(SUM_BYTES).filter(|at| *at >= 2).ok_or(damaged)?;
        let (body, sum) = bytes.split_at(at);
        if xxh3_64_with_seed(body, RECORD_SEED).to_le_bytes() != *sum {
            return Err(damaged);
        }
        rmp_serde::from_slice(&body[2..]).map_err(|_| damaged)
    }
}

/// How a group works. Said when it is made; each member may say otherwise for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) lease_ms: u64,
    pub(crate) ack_wait_ms: u64,
    pub(crate) max_deliver: u32,
    pub(crate) on_poison: OnPoison,
    pub(crate) max_in_flight: u32,
    pub(crate) ordered: bool,
}

/// What a group is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// How often it was put somewhere else: [`Cursor::resets`] of its positions.
    pub(crate) generation: u32,
    pub(crate) filter: Filter,
    /// Where it began, or was put last, as a [`FeedToken`].
    #[serde(with = "bytes_of")]
    pub(crate) start: Vec<u8>,
    /// The same for people: `now`, `the beginning`, ...
    pub(crate) start_words: String,
    pub(crate) made_ms: u64,
    pub(crate) options: Options,
    /// Whether the group is gone. That is remembered, so that positions of it that a member still
    /// keeps are no positions of a later group of the same name.
    pub(crate) deleted: bool,
}

impl Spec {
    /// Where it began in each shard.
    pub(crate) fn start(&self) -> Result<FeedToken, RecordError> {
        Ok(FeedToken::from_bytes(&self.start)?)
    }

    /// Of two that were written concurrently: the later generation; of the same, what either began
    /// with, so that nothing is left out for the sake of the other.
    pub(crate) fn merge(self, other: Spec) -> Result<Spec, RecordError> {
        let rank = |spec: &Spec| {
            (spec.generation, spec.deleted, std::cmp::Reverse(spec.filter.fingerprint()))
        };
        match rank(&self).cmp(&rank(&other)) {
            std::cmp::Ordering::Greater => Ok(self),
            std::cmp::Ordering::Less => Ok(other),
            std::cmp::Ordering::Equal if self.deleted => Ok(self),
            std::cmp::Ordering::Equal => {
                let (mine, theirs) = (self.start()?, other.start()?);
                let mut start = FeedToken { cursors: Default::default(), ..mine.clone() };
                for (shard, cursor) in &mine.cursors {
                    if let Some(their) = theirs.cursors.get(shard) {
                        let both = cursor.delivered().common_with(their.delivered());
                        let mut both = Cursor::at(both.into_iter().collect::<PartitionClock>());
                        both.resets = self.generation;
                        start.cursors.insert(*shard, both);
                    }
                }
                let since = self.filter.since.min(other.filter.since);
                let first = match (self.made_ms, &self.start) <= (other.made_ms, &other.start) {
                    true => self,
                    false => other,
                };
                let filter = Filter { since, ..first.filter };
                Ok(Spec { start: start.to_bytes(), filter, ..first })
            }
        }
    }
}

/// Who belongs to a group, alive or not, and a bell that is rung when members are to look at the
/// specification and the dead letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    pub(crate) members: BTreeSet<RequestId>,
    pub(crate) bell: u64,
}

impl Roster {
    /// Both were written at once: all members, and a bell that differs from either.
    pub(crate) fn merge(mut self, other: Roster) -> Roster {
        self.members.extend(other.members);
        if self.bell != other.bell {
            let (less, more) = (self.bell.min(other.bell), self.bell.max(other.bell));
            let both = [less.to_le_bytes(), more.to_le_bytes()].concat();
            self.bell = xxh3_64_with_seed(&both, RECORD_SEED);
        }
        self
    }
}

/// A shard in a member's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BeatShard {
    pub(crate) shard: Shard,
    /// Events that the member has and that are not done with.
    pub(crate) waiting: u64,
    /// Of those, events that consumers hold.
    pub(crate) in_flight: u64,
    /// Whether it stands still.
    pub(crate) halted: bool,
    /// When its position was last kept, in milliseconds since 1970; 0: not by this member.
    pub(crate) kept_ms: u64,
}

/// How a member is. It vanishes when the member does, after its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub(crate) id: RequestId,
    pub(crate) joined_ms: u64,
    pub(crate) at_ms: u64,
    pub(crate) lease_ms: u64,
    /// What it works on.
    pub(crate) shards: Vec<BeatShard>,
    /// Writes in its shards that it has not been sent.
    pub(crate) unread: u64,
    /// How old the oldest of them is.
    pub(crate) lag_ms: u64,
    /// When the oldest write was that it has an event of which is not done with, in milliseconds since 1970;
    /// 0: there is none, or the member does not say.
    #[serde(default)]
    pub(crate) oldest_ms: u64,
}

impl Beat {
    /// That of a member that has just joined, and works on nothing.
    pub(crate) fn first(id: RequestId, at_ms: u64, lease_ms: u64) -> Beat {
        let (joined_ms, shards, unread, lag_ms, oldest_ms) = (at_ms, Vec::new(), 0, 0, 0);
        Beat { id, joined_ms, at_ms, lease_ms, shards, unread, lag_ms, oldest_ms }
    }
}

/// How often events of a shard were handed out that the group is not done with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tries {
    /// Which time it is that the group was put somewhere: [`Spec::generation`].
    pub(crate) generation: u32,
    pub(crate) writes: Vec<(Dot, u32)>,
}

impl Tries {
    /// Both were written at once: the more of either.
    pub(crate) fn merge(self, other: Tries) -> Tries {
        match self.generation.cmp(&other.generation) {
            std::cmp::Ordering::Greater => return self,
            std::cmp::Ordering::Less => return other,
            std::cmp::Ordering::Equal => {}
        }
        let mut most: BTreeMap<Dot, u32> = BTreeMap::new();
        for (dot, tries) in self.writes.into_iter().chain(other.writes) {
            let known = most.entry(dot).or_default();
            *known = tries.max(*known);
        }
        Tries { generation: self.generation, writes: most.into_iter().collect() }
    }
}

/// An event that could not be dealt with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) shard: Shard,
    /// The whole write.
    pub(crate) event: FeedEvent,
    pub(crate) values: Vec<bytes::Bytes>,
    /// Whether the values were too large to be kept here.
    pub(crate) cut: bool,
    /// Which of the write's events.
    pub(crate) index: u16,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    pub(crate) buried_ms: u64,
}

impl Record for Spec {
    const KIND: u8 = b'S';
}
impl Record for Roster {
    const KIND: u8 = b'R';
}
impl Record for Beat {
    const KIND: u8 = b'B';
}
impl Record for Tries {
    const KIND: u8 = b'T';
}
impl Record for Letter {
    const KIND: u8 = b'L';
}

/// A filter for people: `changes of buckets orders, keys "cart/.."`.
pub(crate) fn filter_words(filter: &Filter) -> String {
    let mut out = match &filter.shows {
        Shows::Changes => "changes".to_owned(),
        Shows::Records => "records".to_owned(),
        Shows::Topics(topics) if topics.is_empty() => "events of any topic".to_owned(),
        Shows::Topics(topics) => format!("events of topic {}", list(topics)),
    };
    match filter.buckets.as_slice() {
        [] => out.push_str(" of all buckets"),
        some => {
            let _ = write!(out, " of bucket {}", list(some));
        }
    }
    if !filter.prefix.is_empty() {
        let _ = write!(out, ", keys {:?}", String::from_utf8_lossy(&filter.prefix));
        out.push_str("..");
    }
    if !filter.authors.is_empty() {
        let authors: Vec<String> = filter.authors.iter().map(|it| it.short()).collect();
        let _ = write!(out, ", written through {}", list(&authors));
    }
    if filter.visibility == Visibility::Quorum {
        out.push_str(", once most owners have them");
    }
    out
}

fn list<T: ToString>(names: &[T]) -> String {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort();
    names.join(",")
}

/// Bytes as bytes, not as a list of numbers.
mod bytes_of {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(bytes::Bytes::deserialize(from)?.to_vec())
    }
}

const VERSION: u8 = 1;
const SUM_BYTES: usize = 8;
/// Separates checksums of these values from every other use of the hash.
const RECORD_SEED: u64 = 0x6761_6c76_6772_6331; // "galvgrc1"

#[cfg(test)]
mod tests {
    use super::{Options, Record, RecordError, Roster, Spec, Tries, filter_words};
    use crate::group::OnPoison;
    use galvani_model::feed::{Cursor, FeedToken, Filter, Shows};
    use galvani_model::ids::{ClusterId, Origin, Partition, RequestId, Shard};
    use galvani_model::version::{Dot, PartitionClock, Range};
    use std::collections::{BTreeMap, BTreeSet};

    const SHARD: Shard = Shard { partition: Partition(3), n: 3 };

    fn spec(generation: u32, made_ms: u64, seen: u64) -> Spec {
        let mut clock = PartitionClock::new();
        clock.insert_range(Range { origin: Origin(1), first: 1, last: seen });
        let mut cursor = Cursor::at(clock);
        cursor.resets = generation;
        let start = FeedToken {
            cluster: ClusterId(1),
            filter: 2,
            cursors: BTreeMap::from([(SHARD, cursor)]),
        };
        let options = Options {
            lease_ms: 10_000,
            ack_wait_ms: 30_000,
            max_deliver: 5,
            on_poison: OnPoison::ParkKey,
            max_in_flight: 100,
            ordered: true,
        };
        let (start, start_words) = (start.to_bytes(), "now".to_owned());
        let (filter, deleted) = (Filter::default(), false);
        Spec { generation, filter, start, start_words, made_ms, options, deleted }
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let bytes = spec(1, 2, 3).to_bytes();
        assert_eq!(Spec::from_bytes(&bytes), Ok(spec(1, 2, 3)));
    }

    #[test]
    fn damaged_and_foreign_bytes_are_told_apart_from_newer_ones() {
        let bytes = spec(1, 2, 3).to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x80;
            let expected = match at {
                1 => RecordError::Newer { version: 0x81 },
                _ => RecordError::Damaged,
            };
            assert_eq!(Spec::from_bytes(&damaged), Err(expected), "byte {at}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(Spec::from_bytes(&bytes[..cut]), Err(RecordError::Damaged), "cut {cut}");
        }
        assert_eq!(Roster::from_bytes(&bytes), Err(RecordError::Damaged));
    }

    #[test]
    fn two_that_made_a_group_at_once_leave_out_nothing_of_what_either_asked_for() {
        let merged = spec(0, 5, 10).merge(spec(0, 6, 20)).expect("both are whole");
        assert_eq!(Ok(merged.clone()), spec(0, 6, 20).merge(spec(0, 5, 10)));
        let start = merged.start().expect("whole");
        let after = |counter| start.cursors[&SHARD].delivered().contains(dot(counter));
        assert!(after(10) && !after(11), "11 came after the first of them had begun");
        let later = spec(1, 0, 5).merge(spec(0, 5, 10)).expect("both are whole");
        assert_eq!(later, spec(1, 0, 5));
    }

    fn dot(counter: u64) -> Dot {
        Dot { origin: Origin(1), counter }
    }

    #[test]
    fn attempts_merge_to_the_more_of_either_of_the_same_generation() {
        let of = |generation, writes: &[(u64, u32)]| {
            let writes = writes.iter().map(|&(counter, tries)| (dot(counter), tries)).collect();
            Tries { generation, writes }
        };
        let (mine, theirs) = (of(1, &[(1, 2), (2, 1)]), of(1, &[(1, 1), (3, 4)]));
        let both = of(1, &[(1, 2), (2, 1), (3, 4)]);
        assert_eq!((mine.clone().merge(theirs.clone()), theirs.merge(mine)), (both.clone(), both));
        assert_eq!(of(1, &[(1, 9)]).merge(of(2, &[])), of(2, &[]));
        let bytes = of(1, &[(1, 2)]).to_bytes();
        assert_eq!(Tries::from_bytes(&bytes), Ok(of(1, &[(1, 2)])));
    }

    #[test]
    fn rosters_merge_and_the_bell_rings_for_all() {
        let of = |member: u128, bell| Roster { members: BTreeSet::from([RequestId(member)]), bell };
        let merged = of(1, 10).merge(of(2, 30));
        assert_eq!(merged.members.len(), 2);
        assert!(merged.bell != 10 && merged.bell != 30);
        assert_eq!(of(1, 10).merge(of(1, 10)), of(1, 10));
    }

    #[test]
    fn filters_are_told_in_words() {
        let topics = vec!["orders".parse().expect("a topic")];
        let filter = Filter {
            buckets: vec!["b".parse().expect("a name"), "a".parse().expect("a name")],
            prefix: "cart/".into(),
            shows: Shows::Topics(topics),
            ..Filter::default()
        };
        assert_eq!(filter_words(&filter), "events of topic orders of bucket a,b, keys \"cart/\"..");
    }
}
