//! Bytes in JSON, as text where they are text, else as base64 behind a mark; moments in messages.
//!
//! Bytes are so in the control socket and in reports; moments, where a refusal names one. Next to
//! read: `select.rs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Bytes that stand in JSON as a string: themselves where they are UTF-8 and do not start with
/// `base64:`, else `base64:` and their base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Bytes);

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        Blob(bytes)
    }
}

const MARK: &str = "base64:";

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with(MARK) => serializer.serialize_str(text),
            Ok(_) | Err(_) => {
                serializer.serialize_str(&format!("{MARK}{}", STANDARD.encode(&self.0)))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix(MARK) {
            None => Ok(Blob(text.into())),
            Some(coded) => match STANDARD.decode(coded) {
                Ok(bytes) => Ok(Blob(bytes.into())),
                Err(_) => Err(de::Error::custom("not base64 behind `base64:`")),
            },
        }
    }
}

/// A moment in milliseconds since 1970, as it is shown and typed everywhere: in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
            Some(at) => write!(f, "{at:.3}"),
            None => f.write_str("a time out of range"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Blob, Utc};
    use bytes::Bytes;

    #[test]
    fn any_bytes_come_back_from_json() {
        for bytes in [&b""[..], b"plain", b"base64:", b"\xff\0", "caf\u{e9}\n\"".as_bytes()] {
            let blob = Blob(Bytes::copy_from_slice(bytes));
            let json = serde_json::to_string(&blob).expect("a string");
            assert_eq!(serde_json::from_str::<Blob>(&json).expect("ours"), blob, "{json}");
        }
        assert_eq!(serde_json::to_string(&Blob(Bytes::from("a"))).expect("a string"), "\"a\"");
        assert!(serde_json::from_str::<Blob>("\"base64:*\"").is_err());
    }

    #[test]
    fn a_moment_is_shown_as_it_can_be_typed() {
        assert_eq!(Utc(1_795_239_067_120).to_string(), "2026-11-21T05:31:07.120Z");
        assert_eq!(Utc(u64::MAX).to_string(), "a time out of range");
    }
}
