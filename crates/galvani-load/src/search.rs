//! Looking for the highest rate that holds an objective: doubling, then halving what is left.
//!
//! It decides which rate to try next and is told what came of it; who runs them is
//! `crates/galvani/src/commands/bench/sweep.rs`.

/// A search that goes on.
#[derive(Clone, Debug)]
pub struct Search {
    /// The highest rate that held.
    held: Option<f64>,
    /// The lowest that did not.
    broke: Option<f64>,
    next: f64,
    left: u32,
}

impl Search {
    /// From this rate on, with so many tries at most.
    pub fn from(rate: f64, tries: u32) -> Search {
        Search { held: None, broke: None, next: rate.max(1.0), left: tries }
    }

    /// The rate to try next; `None`: it is found, as well as it can be.
    pub fn next(&self) -> Option<f64> {
        let close = match (self.held, self.broke) {
            (Some(held), Some(broke)) => broke - held < CLOSE * broke || broke - held < 1.0,
            (None, Some(broke)) => broke <= 1.0,
            (_, None) => false,
        };
        (self.left > 0 && !close).then_some(self.next)
    }

    /// Whether the rate that was tried held.
    pub fn tell(&mut self, holds: bool) {
        self.left = self.left.saturating_sub(1);
        match holds {
            true => self.held = Some(self.next),
            false => self.broke = Some(self.next),
        }
        self.next = match (self.held, self.broke) {
            (Some(held), Some(broke)) => (held + broke) / 2.0,
            (Some(held), None) => held * 2.0,
            (None, Some(broke)) => (broke / 2.0).max(1.0),
            (None, None) => self.next,
        }
        .round();
    }

    /// The highest rate that held; `None`: none did.
    pub fn found(&self) -> Option<f64> {
        self.held
    }
}

/// A share of the rate that is close enough.
const CLOSE: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::Search;

    /// Searches a cluster that holds up to this rate; what was found and how many tries it took.
    fn search(limit: f64, from: f64) -> (Option<f64>, u32) {
        let (mut search, mut tries) = (Search::from(from, 16), 0);
        while let Some(rate) = search.next() {
            search.tell(rate <= limit);
            tries += 1;
        }
        (search.found(), tries)
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for from in [200.0, 1_000.0, 40_000.0] {
            let (found, tries) = search(9_000.0, from);
            let found = found.expect("it holds at low rates");
            assert!((8_500.0..=9_000.0).contains(&found), "from {from}: {found}");
            assert!(tries < 16, "from {from}: {tries}");
        }
    }

    #[test]
    fn it_ends_where_nothing_holds_or_everything_does() {
        assert_eq!(search(0.0, 64.0), (None, 7));
        let (found, tries) = search(f64::INFINITY, 100.0);
        assert!(found.is_some_and(|found| found > 1e6) && tries == 16);
    }
}
