//! The partition clock S: the exact set of writes one replica of one shard has taken in.
//!
//! Intervals per origin. It only grows (a damaged record is un-seen by taking a new incarnation
//! and asking peers, not by editing history behind their backs). All else is a question asked of
//! it: what is missing, what may be claimed, what may be collected. Next to read: `record.rs`.

use super::dot::Dot;
use super::dotset::DotSet;
use crate::ids::Origin;
use core::fmt;
use serde::{Deserialize, Serialize, Serializer};

/// Counters `first..=last` of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Who minted them.
    pub origin: Origin,
    /// The lowest, at least 1.
    pub first: u64,
    /// The highest, at least `first`.
    pub last: u64,
}

/// The exact set of dots a replica has taken in.
///
/// Laws: [`PartitionClock::union`] is commutative, associative and idempotent; the empty clock is
/// neutral; `insert` and `union` never remove a dot (monotone).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Entry>")]
pub struct PartitionClock {
    /// Sorted by origin; no entry is empty.
    entries: Vec<Entry>,
}

/// One origin's intervals `(first, last)`: ascending, disjoint, not touching.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    origin: Origin,
    spans: Vec<(u64, u64)>,
}

impl PartitionClock {
    /// The empty clock.
    pub fn new() -> PartitionClock {
        PartitionClock::default()
    }

    /// Adds one dot. Returns true if it was new.
    pub fn insert(&mut self, dot: Dot) -> bool {
        assert!(dot.counter > 0, "counters start at 1");
        if self.contains(dot) {
            return false;
        }
        self.insert_range(Range { origin: dot.origin, first: dot.counter, last: dot.counter });
        true
    }

    /// Adds every dot of `range`.
    pub fn insert_range(&mut self, range: Range) {
        assert!(range.first > 0 && range.first <= range.last, "ranges start at 1 and go up");
        let entry = self.entry(range.origin);
        // The common case: the next dot of an origin extends its last span.
        if let Some(tail) = entry.spans.last_mut()
            && range.first > tail.0
            && range.first <= tail.1.saturating_add(1)
        {
            tail.1 = tail.1.max(range.last);
            return;
        }
        let spans = &mut entry.spans;
        let from = spans.partition_point(|span| span.1.saturating_add(1) < range.first);
        let to = spans.partition_point(|span| span.0 <= range.last.saturating_add(1));
        let mut merged = (range.first, range.last);
        if from < to {
            merged.0 = merged.0.min(spans[from].0);
            merged.1 = merged.1.max(spans[to - 1].1);
        }
        spans.splice(from..to, [merged]);
    }

    /// Adds every dot of `other`.
    pub fn union(&mut self, other: &PartitionClock) {
        for range in other.ranges() {
            self.insert_range(range);
        }
    }

    /// Whether the replica has taken in `dot`.
    pub fn contains(&self, dot: Dot) -> bool {
        self.spans(dot.origin).is_some_and(|spans| {
            let at = spans.partition_point(|span| span.1 < dot.counter);
            spans.get(at).is_some_and(|span| span.0 <= dot.counter)
        })
    }

    /// Whether the replica has taken in every dot of `set`.
    pub fn covers(&self, set: &DotSet) -> bool {
        set.iter().all(|(origin, base, cloud)| {
            self.contiguous_after(origin, 0) >= base
                && cloud.iter().all(|&counter| self.contains(Dot::new(origin, counter)))
        })
    }

    /// What of `set` the replica has not taken in: ascending per origin.
    pub fn lacks(&self, set: &DotSet) -> Vec<Range> {
        let mut missing = Vec::new();
        for (origin, base, cloud) in set.iter() {
            let spans = self.spans(origin).unwrap_or(&[]);
            // The common case: all up to the base is one span.
            if base > 0 && !spans.first().is_some_and(|span| span.0 == 1 && span.1 >= base) {
                push_gaps(&mut missing, spans, Range { origin, first: 1, last: base });
            }
            let absent = cloud.iter().filter(|&&counter| !self.contains(Dot::new(origin, counter)));
            missing.extend(absent.map(|&it| Range { origin, first: it, last: it }));
        }
        missing
    }

    /// The highest counter c such that all of `after + 1 ..= c` are taken in (`after` if none is).
    pub fn contiguous_after(&self, origin: Origin, after: u64) -> u64 {
        let Some(spans) = self.spans(origin) else {
            return after;
        };
        let next = after.saturating_add(1);
        let at = spans.partition_point(|span| span.1 < next);
        match spans.get(at) {
            Some(span) if span.0 <= next => span.1,
            Some(_) | None => after,
        }
    }

    /// The highest counter taken in from `origin`, 0 for none.
    pub fn max_counter(&self, origin: Origin) -> u64 {
        self.spans(origin).and_then(|spans| spans.last()).map_or(0, |span| span.1)
    }

    /// What `other` has taken in and this replica has not: ascending per origin.
    pub fn missing_from(&self, other: &PartitionClock) -> Vec<Range> {
        let mut missing = Vec::new();
        for theirs in other.ranges() {
            push_gaps(&mut missing, self.spans(theirs.origin).unwrap_or(&[]), theirs);
        }
        missing
    }

    /// What both have taken in: ascending per origin. It costs what the smaller of the two holds
    /// in ranges, whatever numbers the other claims.
    pub fn common_with(&self, other: &PartitionClock) -> Vec<Range> {
        let mut common = Vec::new();
        for theirs in other.ranges() {
            let origin = theirs.origin;
            let spans = self.spans(origin).unwrap_or(&[]);
            let from = spans.partition_point(|span| span.1 < theirs.first);
            for &(start, end) in spans[from..].iter().take_while(|span| span.0 <= theirs.last) {
                let (first, last) = (start.max(theirs.first), end.min(theirs.last));
                common.push(Range { origin, first, last });
            }
        }
        common
    }

    /// All it holds, as ranges: by origin, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        self.entries.iter().flat_map(|entry| {
            let origin = entry.origin;
            entry.spans.iter().map(move |&(first, last)| Range { origin, first, last })
        })
    }

    /// How many ranges it holds: what it costs to send, in units of some 20 bytes.
    pub fn range_count(&self) -> usize {
        self.entries.iter().map(|entry| entry.spans.len()).sum()
    }

    /// How many dots it holds.
    pub fn len(&self) -> u64 {
        self.ranges().map(|range| range.last - range.first + 1).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn spans(&self, origin: Origin) -> Option<&[(u64, u64)]> {
        let at = self.entries.binary_search_by(|entry| entry.origin.cmp(&origin)).ok()?;
        Some(&self.entries[at].spans)
    }

    fn entry(&mut self, origin: Origin) -> &mut Entry {
        let at = match self.entries.binary_search_by(|entry| entry.origin.cmp(&origin)) {
            Ok(at) => at,
            Err(at) => {
                self.entries.insert(at, Entry { origin, spans: Vec::new() });
                at
            }
        };
        &mut self.entries[at]
    }
}

/// Appends the parts of `range` that none of an origin's `spans` holds.
fn push_gaps(missing: &mut Vec<Range>, spans: &[(u64, u64)], range: Range) {
    let Range { origin, mut first, last } = range;
    let from = spans.partition_point(|span| span.1 < first);
    for &(start, end) in &spans[from..] {
        if start > last {
            break;
        }
        if start > first {
            missing.push(Range { origin, first, last: start - 1 });
        }
        match end.checked_add(1) {
            Some(next) => first = next,
            None => return,
        }
    }
    if first <= last {
        missing.push(Range { origin, first, last });
    }
}

impl FromIterator<Range> for PartitionClock {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> PartitionClock {
        let mut clock = PartitionClock::new();
        for range in ranges {
            clock.insert_range(range);
        }
        clock
    }
}

// By hand: the derived way through `Vec<Entry>` would copy the clock each time that it is written.
impl Serialize for PartitionClock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

/// Why bytes do not spell a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical partition clock")]
struct ClockError;

impl TryFrom<Vec<Entry>> for PartitionClock {
    type Error = ClockError;
    fn try_from(entries: Vec<Entry>) -> Result<PartitionClock, ClockError> {
        let ordered = entries.windows(2).all(|pair| pair[0].origin < pair[1].origin);
        let canonical = |entry: &Entry| {
            entry.spans.first().is_some_and(|span| span.0 > 0)
                && entry.spans.iter().all(|span| span.0 <= span.1)
                && entry.spans.windows(2).all(|pair| pair[0].1.saturating_add(1) < pair[1].0)
        };
        if ordered && entries.iter().all(canonical) {
            Ok(PartitionClock { entries })
        } else {
            Err(ClockError)
        }
    }
}

impl fmt::Display for PartitionClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, range) in self.ranges().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}:{}-{}", range.origin.short(), range.first, range.last)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for PartitionClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
