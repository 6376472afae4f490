//! How long something took, in words for people.
//!
//! Errors of the client and what the command line prints say it in the same way. It reads no clock: it is
//! told how long.

use std::fmt;
use std::time::Duration;

/// A duration as people read it: `0.6 ms`, `40 ms`, `2.0 s`. What is not whole is rounded; from 950
/// milliseconds on it is in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1e3;
        match ms {
            ms if ms >= 950.0 => write!(f, "{:.1} s", ms / 1e3),
            ms if ms >= 10.0 => write!(f, "{ms:.0} ms"),
            ms => write!(f, "{ms:.1} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Span;
    use std::time::Duration;

    #[test]
    fn spans_read_well() {
        for (micros, words) in [
            (0, "0.0 ms"),
            (640, "0.6 ms"),
            (9_999, "10.0 ms"),
            (10_000, "10 ms"),
            (40_000, "40 ms"),
            (949_999, "950 ms"),
            (951_000, "1.0 s"),
            (1_999_000, "2.0 s"),
        ] {
            assert_eq!(Span(Duration::from_micros(micros)).to_string(), words);
        }
    }
}
