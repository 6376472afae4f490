//! What was delivered, held against what was acked: what is missing, what came twice and why, and whether
//! the writes of a key came in their order.
//!
//! A write that was not acked may be delivered (F5) and has no place in the order: nothing that was
//! acked replaces it for certain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// A key, and a version of it. Not its dot: a write that was sent again may have two.
pub type Write = (String, u64);

/// What writers were told.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Writes that were acked.
    pub acked: BTreeSet<Write>,
    /// How many were refused, and are not stored.
    pub refused: u64,
    /// How many may be stored.
    pub doubtful: u64,
}

impl Written {
    pub(super) fn add(&mut self, other: Written) {
        self.acked.extend(other.acked);
        self.refused += other.refused;
        self.doubtful += other.doubtful;
    }
}

/// One delivery.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who printed it.
    pub member: usize,
    /// What.
    pub write: Write,
    /// Whether it said that it came after what replaces it.
    pub late: bool,
    /// Whether it said that the same write has another name, which was shown before.
    pub again: bool,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Acked, refused, in doubt.
    pub written: (usize, u64, u64),
    /// Lines that were printed.
    pub deliveries: usize,
    /// Acked writes that nobody printed.
    pub missing: Vec<Write>,
    /// Writes that were printed although they were not acked.
    pub unacked: usize,
    /// Repeated: printed first by the member that was killed.
    pub after_the_kill: usize,
    /// Repeated: a retry, which says so.
    pub retries: usize,
    /// Repeated for another reason.
    pub other_repeats: usize,
    /// Came after what replaces them, and say so.
    pub late: usize,
    /// Came after what replaces them, and do not say so.
    pub out_of_order: Vec<Write>,
    /// What each member printed.
    pub by_member: BTreeMap<usize, usize>,
    /// How long was written.
    pub writing: Duration,
    /// How long after the last ack everything was printed.
    pub behind: Duration,
}

impl Verdict {
    /// Judges what was printed.
    pub fn of(
        written: &Written,
        log: &[Seen],
        killed: usize,
        writing: Duration,
        behind: Duration,
    ) -> Verdict {
        let mut first: BTreeMap<&Write, usize> = BTreeMap::new();
        let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut verdict = Verdict {
            written: (written.acked.len(), written.refused, written.doubtful),
            deliveries: log.len(),
            missing: Vec::new(),
            unacked: 0,
            after_the_kill: 0,
            retries: 0,
            other_repeats: 0,
            late: 0,
            out_of_order: Vec::new(),
            by_member: BTreeMap::new(),
            writing,
            behind,
        };
        for seen in log {
            *verdict.by_member.entry(seen.member).or_default() += 1;
            if let Some(before) = first.get(&seen.write) {
                match (seen.again, *before == killed) {
                    (true, _) => verdict.retries += 1,
                    (false, true) => verdict.after_the_kill += 1,
                    (false, false) => verdict.other_repeats += 1,
                }
                continue;
            }
            first.insert(&seen.write, seen.member);
            if !written.acked.contains(&seen.write) {
                verdict.unacked += 1;
                continue;
            }
            let (key, version) = &seen.write;
            let latest = latest.entry(key).or_default();
            match (*version < *latest, seen.late) {
                (true, true) => verdict.late += 1,
                (true, false) => verdict.out_of_order.push(seen.write.clone()),
                (false, _) => *latest = *version,
            }
        }
        let missing = written.acked.iter().filter(|write| !first.contains_key(write));
        verdict.missing = missing.cloned().collect();
        verdict
    }

    /// Whether every acked write was delivered, and in order.
    pub fn passed(&self) -> bool {
        self.missing.is_empty() && self.out_of_order.is_empty()
    }

    /// Deliveries of what had been delivered before.
    pub fn duplicates(&self) -> usize {
        self.after_the_kill + self.retries + self.other_repeats
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acked, refused, doubtful) = self.written;
        let rate = acked as f64 / self.writing.as_secs_f64().max(0.001);
        let some = |writes: &[Write]| format!("{:?}", &writes[..writes.len().min(5)]);
        writeln!(
            f,
            "written       {acked} acked in {:.1} s, {rate:.0} a second; {refused} refused, \
            {doubtful} in doubt",
            self.writing.as_secs_f64()
        )?;
        writeln!(
            f,
            "delivered     {} times, by member {:?}; all of it {:.1} s after the last ack",
            self.deliveries,
            self.by_member,
            self.behind.as_secs_f64()
        )?;
        writeln!(f, "missing       {} {}", self.missing.len(), some(&self.missing))?;
        writeln!(
            f,
            "twice         {}: {} after the kill of their member, {} retries, {} others",
            self.duplicates(),
            self.after_the_kill,
            self.retries,
            self.other_repeats
        )?;
        writeln!(f, "not acked     {} delivered all the same", self.unacked)?;
        writeln!(
            f,
            "out of order  {} {}; {} late, and marked so",
            self.out_of_order.len(),
            some(&self.out_of_order),
            self.late
        )?;
        write!(f, "{}", if self.passed() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, Verdict, Written};
    use std::time::Duration;

    fn seen(member: usize, key: &str, version: u64) -> Seen {
        Seen { member, write: (key.to_owned(), version), late: false, again: false }
    }

    fn judged(acked: &[(&str, u64)], log: &[Seen]) -> Verdict {
        let acked = acked.iter().map(|&(key, version)| (key.to_owned(), version)).collect();
        let written = Written { acked, refused: 0, doubtful: 0 };
        Verdict::of(&written, log, 2, Duration::ZERO, Duration::ZERO)
    }

    #[test]
    fn what_is_missing_and_what_is_out_of_order_fails() {
        let acked = [("a", 0), ("a", 1), ("b", 0)];
        let log = [seen(0, "a", 0), seen(0, "a", 1), seen(1, "b", 0)];
        assert!(judged(&acked, &log).passed());
        let lost = judged(&acked, &log[..2]);
        assert_eq!(lost.missing, [("b".to_owned(), 0)]);
        let turned = judged(&acked, &[log[1].clone(), log[0].clone(), log[2].clone()]);
        assert_eq!(turned.out_of_order, [("a".to_owned(), 0)]);
        assert!(!lost.passed() && !turned.passed());
        let told = Seen { late: true, ..log[0].clone() };
        assert!(judged(&acked, &[log[1].clone(), told, log[2].clone()]).passed());
    }

    #[test]
    fn repeats_are_counted_by_their_reason_and_are_out_of_no_order() {
        let acked = [("a", 0), ("a", 1)];
        let retry = Seen { again: true, ..seen(0, "a", 1) };
        let log = [
            seen(2, "a", 0),
            seen(2, "a", 1),
            seen(0, "a", 0),
            seen(0, "a", 1),
            retry,
            seen(0, "c", 9),
        ];
        let verdict = judged(&acked, &log);
        assert!(verdict.passed());
        assert_eq!((verdict.after_the_kill, verdict.retries, verdict.other_repeats), (2, 1, 0));
        assert_eq!((verdict.unacked, verdict.duplicates()), (1, 3));
        let again = judged(&acked, &[seen(0, "a", 0), seen(0, "a", 1), seen(1, "a", 1)]);
        assert_eq!(again.other_repeats, 1);
    }
}
