//! The JSON lines format of import and export: one record a line, any bytes.
//!
//! `{"key":.., "value":..}`; bytes that are not UTF-8 stand under `key_b64` and `value_b64`; a key
//! with several values has `"siblings":[{"value":..},..]`. Fields that are not known are ignored,
//! so that records may carry more. Contexts do not travel: they belong to one cluster.

use crate::report::json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use galvani_model::limits::{KEY_BYTES_MAX, SIBLINGS_MAX};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A key and its values; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) values: Vec<Bytes>,
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
    siblings: Option<Vec<Sibling>>,
}

#[derive(Deserialize)]
struct Sibling {
    value: Option<String>,
    value_b64: Option<String>,
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
            None => vec![bytes("value", line.value, line.value_b64)?],
            Some(siblings) => {
                let none = line.value.is_none() && line.value_b64.is_none();
                if !none || !(1..=SIBLINGS_MAX).contains(&siblings.len()) {
                    return Err(RecordError::Values);
                }
                let value = |one: Sibling| bytes("value", one.value, one.value_b64);
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
            [value] => json::put_bytes(&mut map, "value", value),
            several => {
                let sibling = |value: &Bytes| {
                    let mut map = Map::new();
                    json::put_bytes(&mut map, "value", value);
                    Value::Object(map)
                };
                map.insert("siblings".to_owned(), several.iter().map(sibling).collect());
            }
        }
        Value::Object(map).to_string()
    }

    /// Whether `others` are the same values, in any order.
    pub(crate) fn has_exactly<'a>(&self, others: impl Iterator<Item = &'a Bytes>) -> bool {
        let mut mine: Vec<&Bytes> = self.values.iter().collect();
        let mut others: Vec<&Bytes> = others.collect();
        mine.sort_unstable();
        others.sort_unstable();
        mine == others
    }
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
    use super::{Record, RecordError};
    use bytes::Bytes;

    fn record(key: &[u8], values: &[&[u8]]) -> Record {
        let values = values.iter().map(|value| Bytes::copy_from_slice(value)).collect();
        Record { key: Bytes::copy_from_slice(key), values }
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
        let values = |all: &[&'static str]| -> Vec<Bytes> {
            all.iter().map(|one| Bytes::from(*one)).collect()
        };
        assert!(two.has_exactly(values(&["b", "a"]).iter()));
        assert!(!two.has_exactly(values(&["a"]).iter()));
        assert!(!two.has_exactly(values(&["a", "a"]).iter()));
    }
}
