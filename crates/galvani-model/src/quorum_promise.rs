//! What a choice of n, r and w promises, survives and may miss: `galvani quorum explain`.
//!
//! Plain arithmetic on three numbers, exact and without probabilities of failure: who overlaps
//! with whom, how many nodes may be away, what a read may miss at the worst moment. Nothing here
//! decides an operation; that is `quorum.rs`. Source: Gifford 1979 (overlap); Bailis et al. 2012
//! (the share of read sets that miss a write).

use crate::limits::N_MAX;
use core::fmt;

/// What n copies, reads of r and writes of w amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Copies, 1..=[`N_MAX`].
    pub n: u8,
    /// Answers a read needs, 1..=n.
    pub r: u8,
    /// Acks a write needs, 1..=n.
    pub w: u8,
    /// Of those acks, how many must come from owners, 0..=n.
    pub pw: u8,
    /// Whether r + w > n, counted on the same owners: every read of r owners then asks at least
    /// one owner of every w that acked.
    pub overlap: bool,
    /// Owners that may be away while reads by owners still succeed: n - r.
    pub reads_survive: u8,
    /// Owners that may be away while writes by owners still succeed: n - w.
    pub writes_survive: u8,
    /// Disks that may be lost for ever without losing an acked write: w - 1. The loss of w disks
    /// may lose one.
    pub disks_survive: u8,
    /// The share of all sets of r owners that hold nothing of a write exactly w owners acked.
    pub miss: Fraction,
    /// Whether a read after an acked write finds it although stand-ins' acks may count for w:
    /// pw + r > n. (With strict quorums, `overlap` alone says so.)
    pub read_your_writes: bool,
    /// The least pw for which `read_your_writes` holds with this r: n - r + 1.
    pub pw_for_read_your_writes: u8,
}

/// A number between 0 and 1, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// The part.
    pub num: u32,
    /// The whole, at least 1.
    pub den: u32,
}

/// Why there is no such choice; such requests are refused before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromiseError {
    /// n is not 1..=[`N_MAX`].
    #[error("n={n} is not between 1 and {N_MAX}")]
    Copies {
        /// What was asked.
        n: u8,
    },
    /// Zero, or more than there are copies: can never be met.
    #[error("{what}={asked} can never be met with n={n}")]
    Impossible {
        /// `r`, `w` or `pw`.
        what: &'static str,
        /// What was asked.
        asked: u8,
        /// Copies.
        n: u8,
    },
}

impl Promise {
    /// What these numbers promise, with no say in how many acks come from owners (pw 0).
    pub fn of(n: u8, r: u8, w: u8) -> Result<Promise, PromiseError> {
        if !(1..=N_MAX).contains(&n) {
            return Err(PromiseError::Copies { n });
        }
        for (what, asked) in [("r", r), ("w", w)] {
            if !(1..=n).contains(&asked) {
                return Err(PromiseError::Impossible { what, asked, n });
            }
        }
        Ok(Promise {
            n,
            r,
            w,
            pw: 0,
            overlap: r + w > n,
            reads_survive: n - r,
            writes_survive: n - w,
            disks_survive: w - 1,
            miss: Fraction::of(choose(n - w, r), choose(n, r)),
            read_your_writes: false,
            pw_for_read_your_writes: n - r + 1,
        })
    }

    /// The same, when at least `pw` acks must come from owners (0..=n). Owners that must ack for
    /// pw count for w too, so a pw above w needs more owners than w.
    pub fn with_primaries(self, pw: u8) -> Result<Promise, PromiseError> {
        if pw > self.n {
            return Err(PromiseError::Impossible { what: "pw", asked: pw, n: self.n });
        }
        let writes_survive = self.n - self.w.max(pw);
        let read_your_writes = pw + self.r > self.n;
        Ok(Promise { pw, writes_survive, read_your_writes, ..self })
    }

    /// All of it in plain sentences, one a line.
    pub fn lines(&self) -> Vec<String> {
        vec![
            self.overlap_line(),
            self.miss_line(),
            survive_line("reads", self.reads_survive, self.n),
            survive_line("writes", self.writes_survive, self.n),
            self.disk_line(),
            self.stand_in_line(),
        ]
    }

    fn overlap_line(&self) -> String {
        let Promise { n, r, w, .. } = *self;
        let sum = r + w;
        if self.overlap {
            format!(
                "reads and writes overlap: r + w = {sum} is more than n = {n}, so every read of \
                 {r} asks at least {} that acked",
                count(sum - n, "owner")
            )
        } else {
            format!(
                "reads and writes do NOT overlap: r + w = {sum} is not more than n = {n}, so a \
                 read of {r} may ask only owners that never saw the write"
            )
        }
    }

    fn miss_line(&self) -> String {
        let Promise { r, w, miss, .. } = *self;
        if miss.num == 0 {
            return format!("no read of {r} misses a write that {} hold", count(w, "owner"));
        }
        format!(
            "a read of {r} owners picked at random misses a write that exactly {w} hold {miss} of \
             the time ({}); repair makes it rarer as the other owners catch up",
            miss.percent()
        )
    }

    fn disk_line(&self) -> String {
        match self.disks_survive {
            0 => "the loss of one disk for ever may lose an acked write".into(),
            disks => format!(
                "an acked write survives the loss of {} for ever; the loss of {} may lose it",
                count(disks, "disk"),
                self.w
            ),
        }
    }

    fn stand_in_line(&self) -> String {
        let Promise { n, r, pw, pw_for_read_your_writes: least, .. } = *self;
        if self.read_your_writes {
            format!(
                "reads find your own writes even with stand-ins: pw + r = {} is more than n = {n}",
                pw + r
            )
        } else {
            let with = if self.overlap { "use strict or " } else { "" };
            format!(
                "a stand-in's ack is outside the read set: to be sure to read your own writes, \
                 {with}ask for pw = {least} (pw + r > n)"
            )
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl Fraction {
    /// `num / den` in lowest terms.
    fn of(num: u32, den: u32) -> Fraction {
        let (mut a, mut b) = (den, num);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Fraction { num: num / a, den: den / a }
    }

    /// As a percentage with at most one digit behind the point, rounded half up: `10 %`.
    pub fn percent(self) -> String {
        let tenths = (u64::from(self.num) * 2000 + u64::from(self.den)) / (2 * u64::from(self.den));
        match tenths % 10 {
            0 => format!("{} %", tenths / 10),
            tenth => format!("{}.{tenth} %", tenths / 10),
        }
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

fn survive_line(what: &str, away: u8, n: u8) -> String {
    let owners = count(n, "owner");
    match away {
        0 => format!("owners' {what} need all {owners}"),
        away => format!("owners' {what} go on with {away} of {owners} away"),
    }
}

fn count(number: u8, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The number of ways to pick `k` of `n`; 0 when there are fewer than k.
fn choose(n: u8, k: u8) -> u32 {
    if k > n {
        return 0;
    }
    (0..u32::from(k)).fold(1, |ways, i| ways * (u32::from(n) - i) / (i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts over all pairs of a write set of w and a read set of r, as bit masks.
    fn misses(n: u8, r: u8, w: u8) -> (u32, u32) {
        let sets = |size: u8| (0u32..1 << n).filter(move |s| s.count_ones() == u32::from(size));
        let wrote = sets(w).next().expect("w is at most n");
        (sets(r).filter(|read| read & wrote == 0).count() as u32, sets(r).count() as u32)
    }

    #[test]
    fn overlap_table_is_what_counting_all_sets_says() {
        for n in 1..=7u8 {
            for (r, w) in (1..=n).flat_map(|r| (1..=n).map(move |w| (r, w))) {
                let promise = Promise::of(n, r, w).expect("within bounds");
                let (missed, all) = misses(n, r, w);
                let Fraction { num, den } = promise.miss;
                assert_eq!(num * all, missed * den, "n={n} r={r} w={w}");
                assert_eq!(promise.overlap, missed == 0, "n={n} r={r} w={w}");
                assert_eq!(promise.reads_survive, n - r);
                assert_eq!(promise.writes_survive, n - w);
                assert_eq!(promise.disks_survive + 1, w);
                for pw in 0..=n {
                    // Owners that acked are pw at the worst; the other acks are stand-ins'.
                    let with = promise.with_primaries(pw).expect("within bounds");
                    let sure = pw > 0 && misses(n, r, pw).0 == 0;
                    assert_eq!(with.read_your_writes, sure, "n={n} r={r} pw={pw}");
                    assert_eq!(sure, pw >= promise.pw_for_read_your_writes);
                    assert_eq!(with.writes_survive, n - w.max(pw));
                }
                assert_eq!(promise.lines().len(), 6);
                assert_eq!(promise.to_string().contains("NOT overlap"), !promise.overlap);
            }
        }
    }

    #[test]
    fn five_three_two_does_not_overlap() {
        let promise = Promise::of(5, 2, 3).expect("within bounds");
        assert!(!promise.overlap);
        assert_eq!(promise.miss, Fraction { num: 1, den: 10 });
        let lines = promise.lines();
        assert_eq!(
            lines[0],
            "reads and writes do NOT overlap: r + w = 5 is not more than n = 5, so a read of 2 \
             may ask only owners that never saw the write"
        );
        assert!(lines[1].contains("1/10 of the time (10 %)"), "{}", lines[1]);
        assert!(lines[5].ends_with("ask for pw = 4 (pw + r > n)"), "{}", lines[5]);
    }

    #[test]
    fn what_can_never_be_met_is_refused() {
        assert_eq!(Promise::of(0, 1, 1), Err(PromiseError::Copies { n: 0 }));
        assert_eq!(Promise::of(8, 1, 1), Err(PromiseError::Copies { n: 8 }));
        let impossible = |what, asked, n| Err(PromiseError::Impossible { what, asked, n });
        assert_eq!(Promise::of(3, 0, 1), impossible("r", 0, 3));
        assert_eq!(Promise::of(3, 1, 4), impossible("w", 4, 3));
        let three = Promise::of(3, 2, 2).expect("within bounds");
        assert_eq!(three.with_primaries(4), impossible("pw", 4, 3));
    }

    #[test]
    fn percentages_are_rounded_to_a_tenth() {
        for (num, den, text) in [(0, 1, "0 %"), (1, 3, "33.3 %"), (2, 3, "66.7 %"), (1, 1, "100 %")]
        {
            assert_eq!(Fraction { num, den }.percent(), text);
        }
    }
}
