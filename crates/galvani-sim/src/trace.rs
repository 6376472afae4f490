//! What happened: a running hash of every event, and on demand the last of them as text.
//!
//! The hash is what "same seed, same trace" compares. Text costs time, so a run keeps it only when
//! asked; a seed that failed is run again with text.

use std::collections::VecDeque;

/// The trace of one run.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    /// How many of the last lines are kept.
    keep: usize,
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(keep: usize) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, keep, lines: VecDeque::new() }
    }

    /// Notes one event: numbers that name it, and its text if lines are kept.
    pub(crate) fn note(&mut self, micros: u64, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.mix(micros);
        for &number in numbers {
            self.mix(number);
        }
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            let line = format!("{:>10}.{:03} ms  {}", micros / 1000, micros % 1000, text());
            self.lines.push_back(line);
        }
    }

    /// Mixes more into the hash.
    pub(crate) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
