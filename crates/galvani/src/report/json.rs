//! JSON the way every command writes it: a schema name, bytes that are never guessed, UTC times.
//!
//! Within one schema number fields are only ever added.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};

/// Adds bytes under `name` if they are UTF-8, else as base64 under `name_b64`.
pub(crate) fn put_bytes(map: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => map.insert(name.to_owned(), text.into()),
        Err(_) => map.insert(format!("{name}_b64"), STANDARD.encode(bytes).into()),
    };
}

/// An object with a schema name.
pub(crate) fn object(schema: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("schema".to_owned(), schema.into());
    map
}

/// A time as RFC 3339 in UTC with milliseconds.
pub(crate) fn time(at: SystemTime) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => "out of range".to_owned(),
    }
}

/// Milliseconds with two digits behind the point.
pub(crate) fn millis(took: Duration) -> Value {
    ((took.as_secs_f64() * 1e5).round() / 1e2).into()
}

#[cfg(test)]
mod tests {
    use super::{millis, object, put_bytes, time};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn bytes_are_text_or_base64_and_never_guessed() {
        let mut map = object("galvani.get/1");
        put_bytes(&mut map, "value", "milk ☕".as_bytes());
        put_bytes(&mut map, "other", &[0xff, 0]);
        let text = serde_json::to_string(&map).expect("plain JSON");
        assert_eq!(text, r#"{"other_b64":"/wA=","schema":"galvani.get/1","value":"milk ☕"}"#);
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_239_067_120);
        assert_eq!(time(at), "2026-11-21T05:31:07.120Z");
        assert_eq!(millis(Duration::from_micros(612)).to_string(), "0.61");
    }
}
