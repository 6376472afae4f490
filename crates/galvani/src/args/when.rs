//! A moment as people type it: a time, or how long ago.
//!
//! How long ago is counted from when the command asks, not from when it was parsed.

use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A time, or how long ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// A time.
    At(SystemTime),
    /// So long ago.
    Ago(Duration),
}

impl When {
    /// The moment, asked at `now`.
    pub(crate) fn moment(self, now: SystemTime) -> SystemTime {
        match self {
            When::At(at) => at,
            When::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// In milliseconds since 1970, asked at `now`.
    pub(crate) fn unix_ms(self, now: SystemTime) -> u64 {
        self.moment(now)
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(When::Ago(ago));
        }
        let at: Timestamp = text.parse().map_err(|_| {
            format!(
                "{text:?} is not a time such as 2026-11-21T05:31:07Z, or how long ago, such as 20m"
            )
        })?;
        Ok(When::At(at.into()))
    }
}

impl fmt::Display for When {
    /// As it can be typed again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::At(at) => match Timestamp::try_from(*at) {
                Ok(at) => at.fmt(f),
                Err(_) => f.write_str("out of range"),
            },
            When::Ago(ago) => {
                f.write_str(&humantime::format_duration(*ago).to_string().replace(' ', ""))
            }
        }
    }
}
