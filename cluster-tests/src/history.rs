//! What was written and what became of it, and whether what is read fits.
//!
//! Each value is a function of seed, key and number, so any value read can be traced to its write;
//! one that cannot was never written. Each write says which earlier write of its key it replaces.
//! A key has one writer, which waits for each answer; keys are many.
//!
//! What is checked of a read that must see every acked write: every acked write is there or was
//! replaced by one that is; nothing is there that was refused, was never written, or was replaced
//! by an acked write.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not known: not answered, or answered that it may be stored.
    Open,
    /// Acked.
    Acked,
    /// Answered that it was not and never will be stored.
    Never,
}

#[derive(Clone, Debug)]
struct Write {
    /// Numbers of all writes of the key that it replaces.
    replaces: BTreeSet<u64>,
    fate: Fate,
}

/// All writes of a test.
#[derive(Debug)]
pub struct History {
    seed: u64,
    writes: Mutex<BTreeMap<String, Vec<Write>>>,
}

impl History {
    /// An empty one; prints its seed.
    pub fn new(seed: u64) -> History {
        println!("seed {seed:#x}");
        History { seed, writes: Mutex::default() }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Notes a write that is about to be sent, which replaces `after` and all that one replaced:
    /// its number and its value.
    pub fn issue(&self, key: &str, after: Option<u64>) -> (u64, Bytes) {
        let mut writes = self.lock();
        let of_key = writes.entry(key.to_owned()).or_default();
        let mut replaces = BTreeSet::new();
        if let Some(after) = after {
            replaces.clone_from(&of_key[after as usize].replaces);
            replaces.insert(after);
        }
        let number = of_key.len() as u64;
        of_key.push(Write { replaces, fate: Fate::Open });
        (number, value_of(self.seed, key, number))
    }

    /// Notes what became of it.
    pub fn settle(&self, key: &str, number: u64, fate: Fate) {
        let mut writes = self.lock();
        let of_key = writes.get_mut(key).expect("it was issued");
        of_key[number as usize].fate = fate;
    }

    /// Every key written.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// How many writes were acked.
    pub fn acked(&self) -> usize {
        let writes = self.lock();
        writes.values().flatten().filter(|write| write.fate == Fate::Acked).count()
    }

    /// Whether `visible` is what a read of `key` may return that must see every acked write.
    pub fn check<'a>(
        &self,
        key: &str,
        visible: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<(), Violation> {
        let writes = self.lock();
        let of_key = writes.get(key).map_or(&[][..], Vec::as_slice);
        let violation = |number, what| Violation { key: key.to_owned(), number, what };
        let mut numbers = BTreeSet::new();
        for value in visible {
            let number = number_of(value).filter(|number| {
                (*number as usize) < of_key.len() && value_of(self.seed, key, *number) == *value
            });
            let number = number.ok_or_else(|| violation(None, What::NeverWritten))?;
            if of_key[number as usize].fate == Fate::Never {
                return Err(violation(Some(number), What::WasRefused));
            }
            numbers.insert(number);
        }
        for (number, write) in of_key.iter().enumerate() {
            let number = number as u64;
            if write.fate != Fate::Acked {
                continue;
            }
            let stands = numbers
                .iter()
                .any(|seen| *seen == number || of_key[*seen as usize].replaces.contains(&number));
            if !stands {
                return Err(violation(Some(number), What::Lost));
            }
            if let Some(back) = numbers.intersection(&write.replaces).next() {
                return Err(violation(Some(*back), What::CameBack));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Write>>> {
        self.writes.lock().expect("no holder of the history panics")
    }
}

/// What is wrong with a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of which key.
    pub key: String,
    /// Which write of it, if that is known.
    pub number: Option<u64>,
    /// What is wrong.
    pub what: What,
}

/// Ways a read can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An acked write is neither there nor replaced by what is.
    Lost,
    /// A write that an acked one replaced is there.
    CameBack,
    /// A write that was refused is there.
    WasRefused,
    /// A value is there that nobody wrote.
    NeverWritten,
}

/// A seed nobody chose; the tests print it.
pub fn any_seed() -> u64 {
    rand::random()
}

/// The value of a write: says which one it is, then bytes that follow from it, up to 600.
fn value_of(seed: u64, key: &str, number: u64) -> Bytes {
    let mut value = format!("{number} {key} ").into_bytes();
    let hash = key
        .bytes()
        .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut rng = StdRng::seed_from_u64(hash ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let length = rng.random_range(0..600);
    value.extend((0..length).map(|_| rng.random::<u8>()));
    value.into()
}

fn number_of(value: &[u8]) -> Option<u64> {
    let digits = value.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Fate, History, What};
    use bytes::Bytes;

    fn wrong(history: &History, visible: &[Bytes]) -> Option<What> {
        history.check("k", visible).err().map(|violation| violation.what)
    }

    #[test]
    fn a_chain_of_acked_writes_leaves_its_last() {
        let history = History::new(1);
        let (zero, first) = history.issue("k", None);
        history.settle("k", zero, Fate::Acked);
        let (one, second) = history.issue("k", Some(zero));
        assert_eq!(wrong(&history, std::slice::from_ref(&first)), None);
        assert_eq!(wrong(&history, std::slice::from_ref(&second)), None, "it may be stored");
        assert_eq!(wrong(&history, &[]), Some(What::Lost));
        history.settle("k", one, Fate::Acked);
        assert_eq!(wrong(&history, std::slice::from_ref(&first)), Some(What::Lost));
        assert_eq!(wrong(&history, &[second.clone(), first]), Some(What::CameBack));
        assert_eq!(wrong(&history, &[second]), None);
    }

    #[test]
    fn a_doubtful_write_may_stand_beside_what_it_did_not_replace() {
        let history = History::new(2);
        let (zero, _) = history.issue("k", None);
        history.settle("k", zero, Fate::Acked);
        let (_, doubtful) = history.issue("k", Some(zero));
        let (two, last) = history.issue("k", Some(zero));
        history.settle("k", two, Fate::Acked);
        assert_eq!(wrong(&history, &[doubtful.clone(), last.clone()]), None);
        assert_eq!(wrong(&history, &[last]), None);
        assert_eq!(wrong(&history, &[doubtful]), Some(What::Lost));
    }

    #[test]
    fn inventions_and_refused_writes_are_found() {
        let history = History::new(3);
        let (zero, value) = history.issue("k", None);
        assert_eq!(wrong(&history, &[Bytes::from_static(b"0 k x")]), Some(What::NeverWritten));
        assert_eq!(wrong(&history, &[Bytes::from_static(b"7 k x")]), Some(What::NeverWritten));
        history.settle("k", zero, Fate::Never);
        assert_eq!(wrong(&history, &[value]), Some(What::WasRefused));
        assert_eq!(wrong(&history, &[]), None);
    }
}
