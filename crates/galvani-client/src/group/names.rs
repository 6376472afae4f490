//! Names of what a group keeps: its buckets, its keys, and its dead letters.
//!
//! All of it is ordinary data in the store. Names of dead letters say what must be known of all of
//! them, so that a list is enough: which shard, which key, in which order. Next to read: `record.rs`.

use super::ledger::OnPoison;
use crate::error::{Error, ErrorKind, Result};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{Partition, RequestId, Shard};
use galvani_model::key::Key;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The bucket of what all groups keep.
pub(crate) const GROUPS: &str = "feed.groups";

/// A group's name: 1 to 60 of `a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupName(String);

impl GroupName {
    pub(crate) fn new(op: &'static str, name: &str) -> Result<GroupName> {
        let bucket = format!("{LETTERS}{name}");
        let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        match bucket.parse::<galvani_model::bucket::BucketName>() {
            Ok(_) if starts => Ok(GroupName(name.to_owned())),
            Ok(_) | Err(_) => {
                let shown: String = name.chars().take(80).collect();
                Err(Error::new(op, "", ErrorKind::GroupName { name: shown }))
            }
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The bucket of its dead letters.
    pub(crate) fn letters(&self) -> String {
        format!("{LETTERS}{}", self.0)
    }

    pub(crate) fn spec(&self) -> String {
        format!("{}{SPEC}", self.0)
    }

    pub(crate) fn roster(&self) -> String {
        format!("{}/roster", self.0)
    }

    pub(crate) fn member(&self, id: RequestId) -> String {
        format!("{}/member/{id}", self.0)
    }

    pub(crate) fn at(&self, shard: Shard) -> String {
        format!("{}/at/{}/{}", self.0, shard.partition.0, shard.n)
    }

    /// What the keys of its attempts start with.
    pub(crate) fn tries(&self) -> String {
        format!("{}/tries/", self.0)
    }

    pub(crate) fn tries_of(&self, shard: Shard) -> String {
        format!("{}{}/{}", self.tries(), shard.partition.0, shard.n)
    }

    /// The group whose specification this key holds.
    pub(crate) fn of_spec(key: &[u8]) -> Option<&str> {
        std::str::from_utf8(key).ok()?.strip_suffix(SPEC).filter(|name| !name.contains('/'))
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of an event, hashed: what keeps its events in order, and is parked.
pub(crate) fn line_of(key: &Key) -> u64 {
    let mut bytes = key.bucket().as_str().as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(key.bytes());
    xxh3_64_with_seed(&bytes, LINE_SEED)
}

/// All dead letters of one key in one shard: what is retried together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pile {
    pub(crate) shard: Shard,
    /// What the group did when it put them there.
    pub(crate) class: Class,
    pub(crate) line: u64,
}

/// What dead letters do to the group while they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Parks,
    Skips,
    Halts,
}

impl From<OnPoison> for Class {
    fn from(on_poison: OnPoison) -> Class {
        match on_poison {
            OnPoison::ParkKey => Class::Parks,
            OnPoison::Skip => Class::Skips,
            OnPoison::Halt => Class::Halts,
        }
    }
}

impl Pile {
    fn path(&self) -> String {
        let class = match self.class {
            Class::Parks => 'k',
            Class::Skips => 's',
            Class::Halts => 'h',
        };
        let Shard { partition, n } = self.shard;
        format!("{}/{n}/{class}{:016x}", partition.0, self.line)
    }

    /// The key that says that these letters are to be delivered again.
    pub(crate) fn mark(&self) -> String {
        format!("{MARK}{}", self.path())
    }

    /// What the keys of its letters start with.
    pub(crate) fn prefix(&self) -> String {
        format!("{LETTER}{}/", self.path())
    }

    fn parse(path: &str) -> Option<(Pile, Option<&str>)> {
        let mut parts = path.splitn(4, '/');
        let partition = Partition(parts.next()?.parse().ok()?);
        let n = parts.next()?.parse().ok()?;
        let (class, line) = parts.next()?.split_at_checked(1)?;
        let class = match class {
            "k" => Class::Parks,
            "s" => Class::Skips,
            "h" => Class::Halts,
            _ => return None,
        };
        let line = u64::from_str_radix(line, 16).ok()?;
        Some((Pile { shard: Shard { partition, n }, class, line }, parts.next()))
    }
}

/// The name of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LetterName {
    pub(crate) pile: Pile,
    /// When the write was, by hybrid time: later than all that it replaces.
    pub(crate) hlc: Hlc,
    /// The event's name.
    pub(crate) event: String,
}

impl LetterName {
    pub(crate) fn key(&self) -> String {
        format!("{}{:016x}/{}", self.pile.prefix(), self.hlc.0, self.event)
    }
}

/// What a key of the bucket of dead letters is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LetterKey {
    Letter(LetterName),
    Mark(Pile),
}

impl LetterKey {
    /// `None`: the key was not made by this program.
    pub(crate) fn parse(key: &[u8]) -> Option<LetterKey> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(path) = key.strip_prefix(MARK) {
            return match Pile::parse(path)? {
                (pile, None) => Some(LetterKey::Mark(pile)),
                (_, Some(_)) => None,
            };
        }
        let (pile, rest) = Pile::parse(key.strip_prefix(LETTER)?)?;
        let (hlc, event) = rest?.split_once('/')?;
        let hlc = Hlc(u64::from_str_radix(hlc, 16).ok()?);
        Some(LetterKey::Letter(LetterName { pile, hlc, event: event.to_owned() }))
    }
}

const LETTERS: &str = "dlq.";
const SPEC: &str = "/spec";
const LETTER: &str = "l/";
const MARK: &str = "r/";
/// Separates hashes of keys from every other use of the hash.
const LINE_SEED: u64 = 0x6761_6c76_6c69_6e31; // "galvlin1"

#[cfg(test)]
mod tests {
    use super::{Class, GroupName, LetterKey, LetterName, Pile};
    use galvani_model::hlc::Hlc;
    use galvani_model::ids::{Partition, Shard};

    #[test]
    fn only_what_can_name_a_bucket_of_letters_names_a_group() {
        for name in ["billing", "a", &"x".repeat(60)] {
            let group = GroupName::new("group", name).expect("a name");
            assert_eq!(GroupName::of_spec(group.spec().as_bytes()), Some(name));
        }
        for name in ["", "a/b", "Billing", ".a", &"x".repeat(61)] {
            assert!(GroupName::new("group", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_of_letters_print_and_parse_to_themselves() {
        let shard = Shard { partition: Partition(255), n: 3 };
        for class in [Class::Parks, Class::Skips, Class::Halts] {
            let pile = Pile { shard, class, line: 0xab };
            let event = "0123#4".to_owned();
            let letter = LetterName { pile, hlc: Hlc(77), event };
            assert_eq!(
                LetterKey::parse(letter.key().as_bytes()),
                Some(LetterKey::Letter(letter.clone()))
            );
            assert!(letter.key().starts_with(&pile.prefix()));
            assert_eq!(LetterKey::parse(pile.mark().as_bytes()), Some(LetterKey::Mark(pile)));
        }
        for key in ["", "l/", "l/1/3/x00/0/e", "l/1/3/k00", "r/1/3/k00/1", "l/1/3/k00/zz/e"] {
            assert_eq!(LetterKey::parse(key.as_bytes()), None, "{key:?}");
        }
        assert_eq!(LetterKey::parse(b"\xff"), None);
    }

    #[test]
    fn letters_of_a_key_are_listed_in_the_order_of_its_writes() {
        let pile =
            Pile { shard: Shard { partition: Partition(1), n: 3 }, class: Class::Parks, line: 5 };
        let key = |hlc| LetterName { pile, hlc: Hlc(hlc), event: "e".to_owned() }.key();
        assert!(key(9) < key(10) && key(255) < key(4096));
    }
}
