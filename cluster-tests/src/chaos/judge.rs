//! The rules: what may be read while things break, and what must be there when all agree.
//!
//! At any time: whatever is shown was written, was not refused, is shown once, and not beside what
//! replaced it (but see [`View::check`]). A read whose owners cannot miss a write shows it or what
//! replaced it. Once all owners agree and no write is under way, every acked write is live or in
//! the past of what is, or deleted; and nothing is live that an acked write replaced. Excused is
//! only a write whose every acker lost its data before the others had it.
//!
//! A tombstone need not be shown: it may have been collected. What it deleted must stay away.

use crate::chaos::ledger::{Kind, Seen, Set, Shown, Write, delete_of, number_of, numbers};
use crate::history::Fate;
use std::fmt;

/// Ways it can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// An acked write is neither there nor replaced by what is.
    Lost,
    /// What an acked write replaced is there.
    CameBack,
    /// A write that was refused for good was seen.
    WasRefused,
    /// One write is there twice.
    Twice,
    /// A write is shown beside one that replaced it.
    BesideItsReplacer,
    /// A value that nobody wrote.
    NeverWritten,
    /// A read whose owners cannot have missed an acked write did not show it.
    Missed,
    /// Owners did not come to agree.
    NotEqual,
    /// A node ended by itself, or noticed damage.
    NodeFailed,
    /// A good request was refused for good.
    RefusedForGood,
    /// A call took longer than it may.
    Late,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In which way.
    pub what: What,
    /// Of which key; empty when it is of none.
    pub key: String,
    /// Of which write.
    pub number: Option<usize>,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// One without detail.
    pub fn new(what: What, key: &str, number: Option<usize>) -> Violation {
        Violation { what, key: key.to_owned(), number, detail: String::new() }
    }

    /// With what was seen.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Violation {
        self.detail = detail.into();
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { what, key, number, detail } = self;
        write!(f, "{what:?}  {key}")?;
        if let Some(number) = number {
            write!(f, "  write {number}")?;
        }
        match detail.is_empty() {
            true => Ok(()),
            false => write!(f, "  {detail}"),
        }
    }
}

/// What a read showed, traced to its writes.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Writes it showed, as far as they can be told.
    pub visible: Set,
    /// What its reader has seen.
    pub seen: Seen,
}

/// What a read may show and hardly ever does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odd {
    /// A write of several dots beside what replaced one of them: a replica that has only the other one
    /// cannot know better yet.
    pub half_replaced: bool,
    /// A tombstone that another one replaced which is collected: an owner that is filled again takes every
    /// tombstone in as one, and drops it when it has its own proof. It shows no value.
    pub late_tombstone: bool,
}

/// Traces every value to its write.
pub fn view(seed: u64, key: &str, writes: &[Write], shown: &[Shown]) -> Result<View, Violation> {
    let (mut visible, mut maybe) = (0, 0);
    for one in shown {
        let number = match &one.value {
            Some(value) => {
                let number = number_of(seed, key, value).filter(|number| {
                    writes.get(*number).is_some_and(|write| write.kind == Kind::Put)
                });
                let why = || {
                    let head = String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
                    Violation::new(What::NeverWritten, key, None).detail(format!("{head:?}"))
                };
                number.ok_or_else(why)?
            }
            None => match delete_of(writes, one.dot) {
                Some(number) => number,
                None => {
                    // One of those that were not answered: nobody told its name.
                    maybe |= of_deletes(writes);
                    continue;
                }
            },
        };
        if writes[number].fate == Fate::Never {
            return Err(Violation::new(What::WasRefused, key, Some(number)));
        }
        if visible & 1 << number != 0 && one.value.is_some() {
            return Err(Violation::new(What::Twice, key, Some(number)));
        }
        visible |= 1 << number;
    }
    let mut seen = Seen { surely: visible, maybe: maybe | visible };
    for number in numbers(visible) {
        seen.surely |= writes[number].replaces.surely;
        seen.maybe |= writes[number].replaces.maybe;
    }
    Ok(View { visible, seen })
}

impl View {
    /// The rules for every read; it must show `must`, or what replaced that. Returns what is odd about it
    /// and not wrong.
    pub fn check(&self, key: &str, writes: &[Write], must: Set) -> Result<Odd, Violation> {
        let mut odd = Odd::default();
        for (replaced, by) in self.both_shown(writes) {
            match writes[replaced].aliased {
                true => odd.half_replaced = true,
                false => return Err(self.beside(key, replaced, by)),
            }
        }
        // Who must have met a write has met all that it replaced as replaced.
        for by in numbers(must) {
            for back in numbers(writes[by].replaces.surely & self.visible) {
                match &writes[back] {
                    Write { aliased: true, .. } => odd.half_replaced = true,
                    Write { kind: Kind::Delete, .. } => odd.late_tombstone = true,
                    Write { .. } => return Err(self.is_back(key, back, by)),
                }
            }
        }
        self.misses(key, writes, must, What::Missed)?;
        Ok(odd)
    }

    /// Writes that are shown beside one that replaced them, and that one.
    fn both_shown(&self, writes: &[Write]) -> Vec<(usize, usize)> {
        let pairs = |by: usize| {
            let both = writes[by].replaces.surely & self.visible;
            numbers(both).into_iter().map(move |replaced| (replaced, by))
        };
        numbers(self.visible).into_iter().flat_map(pairs).collect()
    }

    fn beside(&self, key: &str, replaced: usize, by: usize) -> Violation {
        let detail = format!("beside {by}, shown: {:?}", numbers(self.visible));
        Violation::new(What::BesideItsReplacer, key, Some(replaced)).detail(detail)
    }

    /// The rules for what all owners agree on, with no write under way.
    pub fn check_settled(
        &self,
        key: &str,
        writes: &[Write],
        excused: &dyn Fn(&Write) -> bool,
    ) -> Result<(), Violation> {
        let mut acked = 0;
        for (number, write) in writes.iter().enumerate() {
            if write.fate == Fate::Never && write.shown {
                return Err(Violation::new(What::WasRefused, key, Some(number)));
            }
            if write.fate != Fate::Acked || excused(write) {
                continue;
            }
            acked |= 1 << number;
            if let Some(back) = numbers(write.replaces.surely & self.visible).first() {
                return Err(self.is_back(key, *back, number));
            }
        }
        if let Some((replaced, by)) = self.both_shown(writes).first() {
            return Err(self.beside(key, *replaced, *by));
        }
        self.misses(key, writes, acked, What::Lost)
    }

    fn is_back(&self, key: &str, back: usize, by: usize) -> Violation {
        let detail = format!("{by} replaced it, live: {:?}", numbers(self.visible));
        Violation::new(What::CameBack, key, Some(back)).detail(detail)
    }

    fn misses(&self, key: &str, writes: &[Write], must: Set, what: What) -> Result<(), Violation> {
        let missing = must & !(self.seen.maybe | of_deletes(writes));
        match numbers(missing).first() {
            None => Ok(()),
            Some(number) => {
                let detail = format!("shown: {:?}", numbers(self.visible));
                Err(Violation::new(what, key, Some(*number)).detail(detail))
            }
        }
    }
}

/// Deletes that may have been stored, and all they may replace.
fn of_deletes(writes: &[Write]) -> Set {
    let deletes = writes.iter().enumerate();
    deletes
        .filter(|(_, write)| write.kind == Kind::Delete && write.fate != Fate::Never)
        .fold(0, |set, (number, write)| set | 1 << number | write.replaces.maybe)
}

#[cfg(test)]
mod tests;
