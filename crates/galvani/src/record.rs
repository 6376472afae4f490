//! The JSON lines format of import and export: one record a line, any bytes.
//!
//! `{"key":.., "value":..}`; bytes that are not UTF-8 stand under `key_b64` and `value_b64`; a key
//! with several values has `"siblings":[{"value":..},..]`. A value that expires says `"expires_at"`,
//! a time as in RFC 3339; `null` is never, and without the field the bucket decides. Fields that are
//! not known are ignored, so that records may carry more. Contexts do not travel: they belong to
//! one cluster.

use crate::report::json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use galvani_model::limits::{KEY_BYTES_MAX, SIBLINGS_MAX, TTL_MS_MIN};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A key and its values; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) values: Vec<Value>,
}

/// One value, and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) bytes: Bytes,
    pub(crate) end: End,
}

/// When a value ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not said: what the bucket gives a new value.
    OfBucket,
    /// It does not.
    Never,
    /// In milliseconds since 1970.
    At(u64),
}

/// Why a line is not a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Not JSON, or not of this shape.
    #[error("not a record: {why}")]
    Malformed { why: String },
    /// Neither or both of the two names of a field.
    #[error("needs exactly one of \"{name}\" and \"{name}_b64\"")]
    OneOf { name: &'static str },
    /// Base64 that is not.
    #[error("\"{name}_b64\" is not base64")]
    Base64 { name: &'static str },
    /// Empty or too long.
    #[error("the key has {bytes} bytes: 1 to {KEY_BYTES_MAX} are allowed")]
    Key { bytes: usize },
    /// Not a time, or one before 1970.
    #[error("\"expires_at\" is not a time such as 2026-11-21T05:31:07.120Z")]
    Time,
    /// No value, or both a value and siblings, or too many.
    #[error("needs a value or 1 to {SIBLINGS_MAX} siblings")]
    Values,
}

#[derive(Deserialize)]
struct Line {
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    #[serde(default, deserialize_with = "said")]
    expires_at: Option<Option<String>>,
    siblings: Option<Vec<Sibling>>,
}

#[derive(Deserialize)]
struct Sibling {
    value: Option<String>,
    value_b64: Option<String>,
    #[serde(default, deserialize_with = "said")]
    expires_at: Option<Option<String>>,
}

impl Record {
    /// Reads one line.
    pub(crate) fn parse(line: &[u8]) -> Result<Record, RecordError> {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| RecordError::Malformed { why: error.to_string() })?;
        let key = bytes("key", line.key, line.key_b64)?;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(RecordError::Key { bytes: key.len() });
        }
        let values = match line.siblings {
            None => vec![Value::parse(line.value, line.value_b64, line.expires_at)?],
            Some(siblings) => {
                let one = line.value.is_some() || line.value_b64.is_some();
                if one || line.expires_at.is_some() || !(1..=SIBLINGS_MAX).contains(&siblings.len())
                {
                    return Err(RecordError::Values);
                }
                let value = |one: Sibling| Value::parse(one.value, one.value_b64, one.expires_at);
                siblings.into_iter().map(value).collect::<Result<_, _>>()?
            }
        };
        Ok(Record { key, values })
    }

    /// Writes one line, without the newline.
    pub(crate) fn to_line(&self) -> String {
        let mut map = Map::new();
        json::put_bytes(&mut map, "key", &self.key);
        match self.values.as_slice() {
            [value] => value.put_into(&mut map),
            several => {
                let sibling = |value: &Value| {
                    let mut map = Map::new();
                    value.put_into(&mut map);
                    Json::Object(map)
                };
                map.insert("siblings".to_owned(), several.iter().map(sibling).collect());
            }
        }
        Json::Object(map).to_string()
    }

    /// Takes out the values that a write at `now` could not bring back: they have ended, or end
    /// sooner than any write may. How many they were; the record may have no values then.
    pub(crate) fn drop_ended(&mut self, now: SystemTime) -> u64 {
        let before = self.values.len();
        self.values.retain(|value| !value.end.is_over(now));
        (before - self.values.len()) as u64
    }

    /// Whether `others` are the same values with the same ends, in any order. What says nothing of
    /// its end is the same with any.
    pub(crate) fn has_exactly(&self, mut others: Vec<(&Bytes, Option<SystemTime>)>) -> bool {
        let mut mine: Vec<&Value> = self.values.iter().collect();
        // Those that would take any end choose last.
        mine.sort_by_key(|value| value.end == End::OfBucket);
        let all_there = mine.iter().all(|value| {
            let same = |(bytes, end): &(&Bytes, _)| **bytes == value.bytes && value.end.is(*end);
            let found = others.iter().position(same);
            found.map(|at| others.swap_remove(at)).is_some()
        });
        all_there && others.is_empty()
    }
}

impl Value {
    fn parse(
        text: Option<String>,
        b64: Option<String>,
        end: Option<Option<String>>,
    ) -> Result<Value, RecordError> {
        let end = match end {
            None => End::OfBucket,
            Some(None) => End::Never,
            Some(Some(text)) => {
                let at: Timestamp = text.parse().map_err(|_| RecordError::Time)?;
                End::At(at.as_millisecond().try_into().map_err(|_| RecordError::Time)?)
            }
        };
        Ok(Value { bytes: bytes("value", text, b64)?, end })
    }

    fn put_into(&self, map: &mut Map<String, Json>) {
        json::put_bytes(map, "value", &self.bytes);
        match self.end {
            End::OfBucket => None,
            End::Never => map.insert("expires_at".to_owned(), Json::Null),
            End::At(ms) => map.insert("expires_at".to_owned(), json::time(time(ms)).into()),
        };
    }
}

impl End {
    /// The end of a value that a read found. One that does not end says so only if `speaks`: in a
    /// bucket that would give it an end.
    pub(crate) fn of(expires_at: Option<SystemTime>, speaks: bool) -> End {
        match expires_at {
            Some(at) => End::At(millis(at)),
            None if speaks => End::Never,
            None => End::OfBucket,
        }
    }

    fn is(self, expires_at: Option<SystemTime>) -> bool {
        match self {
            End::OfBucket => true,
            End::Never => expires_at.is_none(),
            End::At(ms) => expires_at.map(millis) == Some(ms),
        }
    }

    /// Whether a write at `now` could not have that end: it has come, or comes sooner than any may.
    pub(crate) fn is_over(self, now: SystemTime) -> bool {
        match self {
            End::OfBucket | End::Never => false,
            End::At(ms) => ms < millis(now).saturating_add(TTL_MS_MIN),
        }
    }
}

/// Milliseconds since 1970; nothing here is earlier.
fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// A field that is there, be it `null`: that is not the same as one that is not there.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

fn bytes(
    name: &'static str,
    text: Option<String>,
    b64: Option<String>,
) -> Result<Bytes, RecordError> {
    match (text, b64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(b64)) => {
            let bytes = STANDARD.decode(b64).map_err(|_| RecordError::Base64 { name })?;
            Ok(bytes.into())
        }
        (Some(_), Some(_)) | (None, None) => Err(RecordError::OneOf { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Record, RecordError, Value, time};
    use bytes::Bytes;

    fn record(key: &[u8], values: &[&[u8]]) -> Record {
        let value =
            |value: &&[u8]| Value { bytes: Bytes::copy_from_slice(value), end: End::OfBucket };
        Record { key: Bytes::copy_from_slice(key), values: values.iter().map(value).collect() }
    }

    /// One value for each end: "a", "b", ..
    fn ending(ends: &[End]) -> Record {
        let value = |(byte, end): (u8, &End)| Value { bytes: Bytes::from(vec![byte]), end: *end };
        let values = (b'a'..).zip(ends).map(value).collect();
        Record { key: Bytes::from_static(b"k"), values }
    }

    #[test]
    fn records_of_any_bytes_survive_a_round_trip() {
        let every: Vec<u8> = (0..=255).collect();
        for original in [
            record(b"k", &[b"v"]),
            record(b"k", &[b""]),
            record("schl\u{fc}ssel \u{1f511}".as_bytes(), &["\u{0}\n\"\\".as_bytes()]),
            record(&every, &[&every]),
            record(b"k", &[b"a", &[0xff], b"c"]),
            ending(&[End::At(1_795_239_067_120)]),
            ending(&[End::Never, End::OfBucket, End::At(1)]),
        ] {
            let line = original.to_line();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(Record::parse(line.as_bytes()), Ok(original), "{line}");
        }
    }

    #[test]
    fn the_format_is_what_the_help_says() {
        assert_eq!(record(b"k", &[b"v"]).to_line(), r#"{"key":"k","value":"v"}"#);
        assert_eq!(
            record(&[0xff], &[b"a", &[0xfe]]).to_line(),
            r#"{"key_b64":"/w==","siblings":[{"value":"a"},{"value_b64":"/g=="}]}"#
        );
        let ends = ending(&[End::At(1_795_239_067_120), End::Never, End::OfBucket]);
        let line = r#"{"key":"k","siblings":[{"expires_at":"2026-11-21T05:31:07.120Z","value":"a"},{"expires_at":null,"value":"b"},{"value":"c"}]}"#;
        assert_eq!(ends.to_line(), line);
        let elsewhere = br#"{"key":"k","value":"a","expires_at":"2026-11-21T07:31:07.120+02:00"}"#;
        assert_eq!(Record::parse(elsewhere), Ok(ending(&[End::At(1_795_239_067_120)])));
        let extra = br#"{"key":"k","value":"v","note":[1,2]}"#;
        assert_eq!(Record::parse(extra), Ok(record(b"k", &[b"v"])));
    }

    #[test]
    fn lines_that_are_no_records_are_refused() {
        let one_of = |name| RecordError::OneOf { name };
        for (line, error) in [
            (r#"{"value":"v"}"#, one_of("key")),
            (r#"{"key":"k"}"#, one_of("value")),
            (r#"{"key":"k","key_b64":"aw==","value":"v"}"#, one_of("key")),
            (r#"{"key":"k","value_b64":"?"}"#, RecordError::Base64 { name: "value" }),
            (r#"{"key":"","value":"v"}"#, RecordError::Key { bytes: 0 }),
            (r#"{"key":"k","siblings":[]}"#, RecordError::Values),
            (r#"{"key":"k","value":"v","siblings":[{"value":"w"}]}"#, RecordError::Values),
            (r#"{"key":"k","expires_at":null,"siblings":[{"value":"w"}]}"#, RecordError::Values),
            (r#"{"key":"k","value":"v","expires_at":"soon"}"#, RecordError::Time),
            (r#"{"key":"k","value":"v","expires_at":"1969-12-31T23:59:59Z"}"#, RecordError::Time),
        ] {
            assert_eq!(Record::parse(line.as_bytes()), Err(error), "{line}");
        }
        for line in ["", "[]", "{", r#"{"key":1,"value":"v"}"#, "\u{0}"] {
            let error = Record::parse(line.as_bytes()).expect_err(line);
            assert!(matches!(error, RecordError::Malformed { .. }), "{line}");
        }
    }

    #[test]
    fn values_are_compared_as_sets_with_repetition() {
        let two = record(b"k", &[b"a", b"b"]);
        let (a, b) = (Bytes::from("a"), Bytes::from("b"));
        assert!(two.has_exactly(vec![(&b, None), (&a, None)]));
        assert!(!two.has_exactly(vec![(&a, None)]));
        assert!(!two.has_exactly(vec![(&a, None), (&a, None)]));
        assert!(!two.has_exactly(vec![(&a, None), (&b, None), (&b, None)]));
    }

    #[test]
    fn an_end_that_is_said_must_be_the_same() {
        let (a, at) = (Bytes::from("a"), |ms| Some(time(ms)));
        for (end, other, same) in [
            (End::At(5), at(5), true),
            (End::At(5), at(6), false),
            (End::At(5), None, false),
            (End::Never, None, true),
            (End::Never, at(5), false),
            (End::OfBucket, at(5), true),
            (End::OfBucket, None, true),
        ] {
            assert_eq!(ending(&[end]).has_exactly(vec![(&a, other)]), same, "{end:?} {other:?}");
        }
        let value = |end| Value { bytes: a.clone(), end };
        let values = vec![value(End::OfBucket), value(End::At(5))];
        let both = Record { key: Bytes::from_static(b"k"), values };
        assert!(both.has_exactly(vec![(&a, at(5)), (&a, None)]));
        assert!(both.has_exactly(vec![(&a, None), (&a, at(5))]));
    }

    #[test]
    fn what_has_ended_or_is_about_to_is_taken_out() {
        let mut record = ending(&[
            End::At(9_000),
            End::At(10_000),
            End::At(10_999),
            End::At(11_000),
            End::Never,
            End::OfBucket,
        ]);
        assert_eq!(record.drop_ended(time(10_000)), 3);
        let left: Vec<End> = record.values.iter().map(|value| value.end).collect();
        assert_eq!(left, [End::At(11_000), End::Never, End::OfBucket]);
    }
}
