//! Parsers of single values: what a text on the command line may be.
//!
//! Each returns a valid value or a sentence for clap to show.

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser};
use galvani_model::bucket::BucketName;
use galvani_model::limits::{KEY_BYTES_MAX, TIMEOUT_MS_MAX, TTL_MS_MAX, TTL_MS_MIN};
use galvani_model::request::Quorum;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

/// `one`, `majority`, `all` or 1 to 7.
pub(crate) fn quorum(text: &str) -> Result<Quorum, String> {
    text.parse().map_err(|error: galvani_model::request::ParseQuorumError| error.to_string())
}

/// A bucket's name.
pub(crate) fn bucket(text: &str) -> Result<BucketName, String> {
    text.parse().map_err(|error: galvani_model::bucket::BucketNameError| error.to_string())
}

/// A key: any bytes, at least one.
pub(crate) fn key(text: OsString) -> Result<Bytes, String> {
    match text.as_bytes().len() {
        0 => Err("a key has at least one byte".to_owned()),
        1..=KEY_BYTES_MAX => Ok(text.into_vec().into()),
        bytes => Err(format!("the key has {bytes} bytes, the limit is {KEY_BYTES_MAX}")),
    }
}

/// The beginning of keys: any bytes, none is all keys.
pub(crate) fn prefix(text: OsString) -> Result<Bytes, String> {
    match text.as_bytes().len() {
        0..=KEY_BYTES_MAX => Ok(text.into_vec().into()),
        bytes => Err(format!("the prefix has {bytes} bytes, the limit is {KEY_BYTES_MAX}")),
    }
}

/// [`key`] for clap.
pub(crate) fn key_parser() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().try_map(key)
}

/// [`prefix`] for clap.
pub(crate) fn prefix_parser() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().try_map(prefix)
}

/// A duration such as `500ms`, `2s`, `1m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is not a time such as 500ms, 2s"))
}

/// How long a load runs: 100 ms to a day.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&time) {
        true => Ok(time),
        false => Err(format!("{text} is not between 100ms and 24h")),
    }
}

/// How long a load runs before it counts: an hour at most.
pub(crate) fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time <= Duration::from_secs(3_600) => Ok(time),
        _ => Err(format!("{text} is over 1h")),
    }
}

/// Requests a second: a million at most.
pub(crate) fn rate(text: &str) -> Result<NonZeroU64, String> {
    match count(text)? {
        rate if rate.get() <= 1_000_000 => Ok(rate),
        rate => Err(format!("{rate} is over 1,000,000 a second")),
    }
}

/// A time to live: `none` or `0`, which is for ever, or 1 second to ten years.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    if text == "none" || text == "0" {
        return Ok(Duration::ZERO);
    }
    let ttl = humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a time such as 10s, 1h (0 or none: for ever)"))?;
    let (min, max) = (Duration::from_millis(TTL_MS_MIN), Duration::from_millis(TTL_MS_MAX));
    match (min..=max).contains(&ttl) {
        true => Ok(ttl),
        false => Err(format!("{text} is not between 1s and ten years (0 or none: for ever)")),
    }
}

/// A request's time: 1 ms to 60 s.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let max = Duration::from_millis(u64::from(TIMEOUT_MS_MAX));
    match time >= Duration::from_millis(1) && time <= max {
        true => Ok(time),
        false => {
            Err(format!("{text} is not between 1ms and 60s; what waits for longer has --patience"))
        }
    }
}

/// A number of bytes: `1000`, `4KiB`, `1MiB`, `1MB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("kB", 1000), ("MB", 1_000_000), ("B", 1)])
}

/// Bytes a second: `500kB`, `20MiB`, `20MiB/s`.
pub(crate) fn byte_rate(text: &str) -> Result<NonZeroU64, String> {
    let bytes = size(text.strip_suffix("/s").unwrap_or(text))?;
    NonZeroU64::new(bytes)
        .ok_or_else(|| "must be at least 1 (galvani cluster pause stops it)".into())
}

/// A count: `1000`, `10k`, `1M`.
pub(crate) fn count(text: &str) -> Result<NonZeroU64, String> {
    let number = scaled(text, &[("k", 1000), ("M", 1_000_000)])
        .map_err(|_| format!("{text:?} is not a number from 1 on, such as 500, 10k, 2M"))?;
    NonZeroU64::new(number).ok_or_else(|| "must be at least 1".to_owned())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let wrong = || {
        let units: Vec<_> = units.iter().map(|(unit, _)| *unit).collect();
        format!("{text:?} is not a number with, or without, one of {}", units.join(" "))
    };
    let (digits, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))
        .unwrap_or((text, 1));
    let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
    number.checked_mul(scale).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::{count, key, pause, rate, size, span, timeout, ttl};
    use galvani_model::limits::KEY_BYTES_MAX;
    use std::time::Duration;

    #[test]
    fn sizes_and_counts_have_units() {
        assert_eq!(size("1024"), Ok(1024));
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(count("10k").map(u64::from), Ok(10_000));
        for text in ["", "x", "-1", "1.5MiB", "99999999999999999999", "18446744073709551615k"] {
            assert!(size(text).is_err() && count(text).is_err(), "{text}");
        }
        assert!(count("0").is_err());
    }

    #[test]
    fn what_a_load_may_be_is_bounded() {
        assert_eq!(rate("1M").map(u64::from), Ok(1_000_000));
        assert_eq!(span("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(pause("0s"), Ok(Duration::ZERO));
        assert!(rate("99999999999").is_err() && rate("0").is_err());
        for text in ["0s", "99ms", "25h", "5y"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(pause("61m").is_err());
    }

    #[test]
    fn a_time_to_live_is_bounded_or_none() {
        assert_eq!(ttl("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(ttl("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!((ttl("none"), ttl("0")), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
        assert!(ttl("5").expect_err("no unit").contains("such as 10s"));
        for text in ["999ms", "1us", "11years", "soon", "", "-1s"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_and_keys_are_bounded() {
        assert_eq!(timeout("500ms"), Ok(Duration::from_millis(500)));
        for text in ["0s", "61s", "soon", ""] {
            assert!(timeout(text).is_err(), "{text}");
        }
        assert!(key("".into()).is_err());
        assert!(key("k".repeat(KEY_BYTES_MAX).into()).is_ok());
        assert!(key("k".repeat(KEY_BYTES_MAX + 1).into()).is_err());
    }
}
