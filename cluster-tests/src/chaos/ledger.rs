//! What many clients did to shared keys, and what each had seen when it wrote.
//!
//! A key takes at most [`WRITES_MAX`] writes, so a set of them is one number and a run of millions
//! of writes stays small. A value follows from seed, key and number: whatever is read can be traced
//! to its write. For each write two sets are kept: what it certainly replaces, and what it may
//! replace; they differ only where a reader met a tombstone whose write was never answered.
//! Rules are in `judge.rs`.

use crate::chaos::judge::{self, Violation};
use crate::history::Fate;
use bytes::Bytes;
use galvani_client::{Dot, ReplicaAnswer};
use galvani_client::{Outcome, Sibling};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Numbers of writes of one key, a bit each.
pub type Set = u128;

/// Most writes of one key.
pub const WRITES_MAX: usize = Set::BITS as usize;

/// Value or tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Put,
    /// A tombstone.
    Delete,
}

/// What a client had seen of a key when it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Seen for certain.
    pub surely: Set,
    /// Seen, or perhaps seen.
    pub maybe: Set,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Value or tombstone.
    pub kind: Kind,
    /// What its writer was told.
    pub fate: Fate,
    /// What it replaces.
    pub replaces: Seen,
    /// Nodes that acked it, owners or stand-ins, a bit each.
    pub ackers: u32,
    /// Of those, owners of the key.
    pub owners: u32,
    /// Between which two moments of full agreement it was made.
    pub epoch: u16,
    /// Owners that a read which repairs first had hold it, or what replaced it, and when that was.
    confirmed: (u8, u16),
    /// Whether a read ever showed it.
    pub shown: bool,
    /// Whether it is known under several dots: it was tried through several coordinators.
    pub aliased: bool,
    /// The first dot it was known by.
    dot: Option<Dot>,
    issued_ms: u32,
    settled_ms: u32,
    writer: u16,
}

/// All writes of all keys.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    copies: u8,
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<String, Vec<Write>>,
    /// For each epoch what may be lost in it.
    losses: Vec<Option<Loss>>,
    /// Keys written since the last epoch began.
    touched: BTreeSet<String>,
    half_replaced: u64,
    late_tombstones: u64,
    /// Reads that had to show something.
    judged: u64,
}

/// A node that may lose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// By its place.
    pub node: u8,
    /// Whether it knows: then it answers no read before it has caught up with the others.
    pub noticed: bool,
}

impl Loss {
    fn bit(self) -> u32 {
        1 << self.node
    }
}

/// What a read that has begun must show.
#[derive(Clone, Copy, Debug)]
pub struct Must {
    /// These writes, or what replaced them.
    pub writes: Set,
}

/// One value or tombstone of a read.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The name of its write in the cluster.
    pub dot: Option<Dot>,
}

impl From<&Sibling> for Shown {
    fn from(sibling: &Sibling) -> Shown {
        Shown { value: sibling.value.clone(), dot: Some(sibling.dot) }
    }
}

impl Ledger {
    /// An empty one for keys of `copies` copies.
    pub fn new(seed: u64, copies: u8) -> Ledger {
        let inner = Inner { losses: vec![None], ..Inner::default() };
        Ledger { seed, copies, began: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Notes a write that is about to be sent: its number and value; `None` when the key is full.
    pub fn issue(
        &self,
        key: &str,
        kind: Kind,
        seen: Seen,
        writer: usize,
    ) -> Option<(usize, Bytes)> {
        let issued_ms = self.now_ms();
        let mut inner = self.lock();
        let epoch = u16::try_from(inner.losses.len() - 1).unwrap_or(u16::MAX);
        let writes = inner.keys.entry(key.to_owned()).or_default();
        let number = writes.len();
        if number >= WRITES_MAX {
            return None;
        }
        writes.push(Write {
            kind,
            fate: Fate::Open,
            replaces: seen,
            ackers: 0,
            owners: 0,
            epoch,
            confirmed: (0, 0),
            shown: false,
            aliased: false,
            dot: None,
            issued_ms,
            settled_ms: 0,
            writer: u16::try_from(writer).unwrap_or(u16::MAX),
        });
        inner.touched.insert(key.to_owned());
        Some((number, value_of(self.seed, key, number)))
    }

    /// Notes an ack and who gave it.
    pub fn acked(&self, key: &str, number: usize, dot: Option<Dot>, answers: &[ReplicaAnswer]) {
        let (mut ackers, mut owners) = (0, 0);
        for answer in answers {
            if matches!(answer.outcome, Outcome::Stored | Outcome::StoredDurably) {
                let bit = node_bit(&answer.node);
                ackers |= bit;
                owners |= if answer.stands_in_for.is_none() { bit } else { 0 };
            }
        }
        self.settle(key, number, Fate::Acked, |write| {
            (write.ackers, write.owners) = (ackers, owners);
            write.is_known_by(dot);
        });
    }

    /// Notes that a write was and will never be stored. One that was shown before is a violation.
    pub fn never(&self, key: &str, number: usize) -> Result<(), Violation> {
        self.settle(key, number, Fate::Never, |_| ());
        let inner = self.lock();
        match inner.keys[key][number].shown {
            false => Ok(()),
            true => Err(Violation::new(judge::What::WasRefused, key, Some(number))),
        }
    }

    fn settle(&self, key: &str, number: usize, fate: Fate, note: impl FnOnce(&mut Write)) {
        let settled_ms = self.now_ms();
        let mut inner = self.lock();
        let write = inner.keys.get_mut(key).and_then(|writes| writes.get_mut(number));
        let write = write.expect("it was issued");
        (write.fate, write.settled_ms) = (fate, settled_ms);
        note(write);
    }

    /// What a read of `r` owners that begins now must show: acked writes whose copies and r
    /// owners cannot miss each other.
    pub fn begin_read(&self, key: &str, r: u8) -> Must {
        let inner = self.lock();
        let writes = inner.keys.get(key).map_or(&[][..], Vec::as_slice);
        let needed = u32::from(self.copies.saturating_sub(r)) + 1;
        let must = |write: &Write| {
            let acked =
                write.fate == Fate::Acked && inner.copies_left(write, self.copies) >= needed;
            acked || inner.is_confirmed(write, needed)
        };
        let writes = writes.iter().enumerate().filter(|(_, write)| must(write));
        Must { writes: writes.fold(0, |set, (number, _)| set | 1 << number) }
    }

    /// Checks what a read showed; what its reader has seen. `held_by` owners hold that now: 0 unless the
    /// read repaired them first.
    pub fn end_read(
        &self,
        key: &str,
        must: Must,
        shown: &[Shown],
        held_by: u8,
    ) -> Result<Seen, Violation> {
        let mut inner = self.lock();
        let Inner { keys, half_replaced, late_tombstones, judged, losses, .. } = &mut *inner;
        *judged += u64::from(must.writes != 0);
        let epoch = u16::try_from(losses.len() - 1).unwrap_or(u16::MAX);
        let mut none = Vec::new();
        let writes = keys.get_mut(key).unwrap_or(&mut none);
        let view = judge::view(self.seed, key, writes, shown)?;
        for one in shown {
            let number = one.value.as_ref().and_then(|value| number_of(self.seed, key, value));
            if let Some(write) = number.and_then(|number| writes.get_mut(number)) {
                write.is_known_by(one.dot);
            }
        }
        for number in numbers(view.visible) {
            writes[number].shown = true;
            let (held, since) = writes[number].confirmed;
            let held = if since == epoch { held.max(held_by) } else { held_by };
            writes[number].confirmed = (held, epoch);
        }
        let odd = view.check(key, writes, must.writes)?;
        *half_replaced += u64::from(odd.half_replaced);
        *late_tombstones += u64::from(odd.late_tombstone);
        Ok(view.seen)
    }

    /// How many reads had to show something: the others could have shown nothing at all.
    pub fn judged(&self) -> u64 {
        self.lock().judged
    }

    /// How many reads showed a write of several dots beside what replaced only one of them.
    pub fn half_replaced(&self) -> u64 {
        self.lock().half_replaced
    }

    /// How many reads showed a tombstone again that had been replaced.
    pub fn late_tombstones(&self) -> u64 {
        self.lock().late_tombstones
    }

    /// Checks what all owners of `key` hold once they agree and every write is over.
    pub fn check_settled(&self, key: &str, shown: &[Shown]) -> Result<(), Violation> {
        let inner = self.lock();
        let none = Vec::new();
        let writes = inner.keys.get(key).unwrap_or(&none);
        let view = judge::view(self.seed, key, writes, shown)?;
        view.check_settled(key, writes, &|write| inner.is_excused(write))
    }

    /// Keys written since this was last asked.
    pub fn take_touched(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().touched).into_iter().collect()
    }

    /// From now on, until the next epoch, only this may be lost. All owners agree, and no write is under
    /// way.
    pub fn begin_epoch(&self, loses: Option<Loss>) {
        self.lock().losses.push(loses);
    }

    /// Every key.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys.keys().cloned().collect()
    }

    /// How many writes have this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.lock().keys.values().flatten().filter(|write| write.fate == fate).count()
    }

    /// How many writes go by several names, since they were tried several times.
    pub fn aliased(&self) -> usize {
        self.lock().keys.values().flatten().filter(|write| write.aliased).count()
    }

    /// How many acked writes were held only by a node that lost its data right after.
    pub fn excused(&self) -> usize {
        let inner = self.lock();
        inner.keys.values().flatten().filter(|write| inner.is_excused(write)).count()
    }

    /// The writes of a key for people, one a line.
    pub fn story(&self, key: &str) -> String {
        let inner = self.lock();
        let mut text = String::new();
        for (number, write) in inner.keys.get(key).into_iter().flatten().enumerate() {
            let Write { kind, fate, replaces, ackers, owners, epoch, shown, .. } = write;
            let _ = writeln!(
                text,
                "  {number:3} {kind:?} {fate:?} by client {} at {}..{} ms, acked by {} (owners {}), \
                 epoch {epoch} loses {}{}, replaces {}{}",
                write.writer,
                write.issued_ms,
                write.settled_ms,
                ranges(Set::from(*ackers) << 1),
                ranges(Set::from(*owners) << 1),
                match inner.losses.get(usize::from(*epoch)).copied().flatten() {
                    Some(loss) => format!("n{}", loss.node + 1),
                    None => "nothing".to_owned(),
                },
                if *shown { ", shown" } else { "" },
                ranges(replaces.surely),
                match replaces.maybe & !replaces.surely {
                    0 => String::new(),
                    more => format!(" and perhaps {}", ranges(more)),
                },
            );
        }
        text
    }

    fn now_ms(&self) -> u32 {
        u32::try_from(self.began.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the ledger panics")
    }
}

impl Write {
    fn is_known_by(&mut self, dot: Option<Dot>) {
        let known = *self.dot.get_or_insert(match dot {
            Some(dot) => dot,
            None => return,
        });
        self.aliased |= dot != Some(known);
    }
}

impl Inner {
    /// Whether a read that repairs first has made sure that so many owners hold it, and no disk has been
    /// lost since.
    fn is_confirmed(&self, write: &Write, needed: u32) -> bool {
        let now = self.losses.len() - 1;
        let (held, since) = write.confirmed;
        let safe = self.losses[now].is_none() && usize::from(since) == now;
        safe && u32::from(held) >= needed
    }

    /// Owners that are certain to hold an acked write now, or to answer no read before they do.
    fn copies_left(&self, write: &Write, copies: u8) -> u32 {
        let now = self.losses.len() - 1;
        let (copies, loss) = (u32::from(copies), self.losses[now]);
        let had = match usize::from(write.epoch) == now {
            true => write.owners,
            // All owners agreed on it since; which they are is not known here.
            false => match loss {
                Some(Loss { noticed: false, .. }) => return copies - 1,
                Some(_) | None => return copies,
            },
        };
        let kept = had & !loss.map_or(0, Loss::bit);
        let gets_it_back = 2 * had.count_ones() > copies && kept != 0;
        match loss {
            Some(Loss { noticed: true, .. }) if gets_it_back => had.count_ones(),
            Some(_) | None => kept.count_ones(),
        }
    }

    /// Whether all that acked it is one node that lost its data before the others had it.
    fn is_excused(&self, write: &Write) -> bool {
        let lost = self.losses.get(usize::from(write.epoch)).copied().flatten();
        let lost = lost.map_or(0, Loss::bit);
        write.fate == Fate::Acked && write.ackers & !lost == 0
    }
}

/// The numbers in a set.
pub fn numbers(set: Set) -> Vec<usize> {
    (0..WRITES_MAX).filter(|number| set & 1 << number != 0).collect()
}

/// The numbers in a set for people: `0-3 7`.
fn ranges(set: Set) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for number in numbers(set) {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            Some(_) | None => parts.push((number, number)),
        }
    }
    let part = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    match parts.is_empty() {
        true => "none".to_owned(),
        false => parts.into_iter().map(part).collect::<Vec<_>>().join(" "),
    }
}

/// The value of a write: says which one it is, then bytes that follow from it.
pub fn value_of(seed: u64, key: &str, number: usize) -> Bytes {
    let mut hash = key
        .bytes()
        .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut value = format!("{number} {key} {hash:016x} ").into_bytes();
    let length = hash % LENGTH_MAX;
    value.extend((0..length).map(|at| (hash.rotate_left(at as u32) ^ at) as u8));
    value.into()
}

/// The write that a value names, if it is the value of that write.
pub fn number_of(seed: u64, key: &str, value: &[u8]) -> Option<usize> {
    let digits = value.split(|byte| *byte == b' ').next()?;
    let number: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number < WRITES_MAX && value_of(seed, key, number) == value).then_some(number)
}

/// The number of the delete whose dot this is.
pub fn delete_of(writes: &[Write], dot: Option<Dot>) -> Option<usize> {
    let dot = dot?;
    let is_it = |write: &Write| write.kind == Kind::Delete && write.dot == Some(dot);
    writes.iter().position(is_it)
}

/// A node's bit, from its name: n1 is the first.
fn node_bit(name: &str) -> u32 {
    let place = name.strip_prefix('n').and_then(|digits| digits.parse::<u32>().ok());
    let place = place.filter(|place| (1..=32).contains(place));
    1 << (place.expect("a local cluster's nodes are n1, n2, ..") - 1)
}

/// Values are this long at most, beside their name.
const LENGTH_MAX: u64 = 160;
