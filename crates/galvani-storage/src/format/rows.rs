//! Row values: a format version, a body, and a CRC-32C over key and both.
//!
//! The checksum covers the key, so a valid row in the wrong place is found too. Bodies are
//! MessagePack with fields in order, except that a log row carries its value raw behind its head.

use bytes::Bytes;
use galvani_model::version::{Record, RecordHead};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of every row this build writes.
pub const ROW_VERSION: u8 = 1;
const CRC_BYTES: usize = 4;
const HEAD_LEN_BYTES: usize = 4;

/// Why a row was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Shorter than a version and a checksum.
    #[error("the row is cut short")]
    Short,
    /// Bytes are not what was written there.
    #[error("the checksum does not match")]
    Checksum,
    /// The row is gone although other rows prove that there was one.
    #[error("the row is gone")]
    Gone,
    /// The engine cannot read it.
    #[error("the engine cannot read it: {why}")]
    Unreadable {
        /// What the engine said.
        why: String,
    },
    /// Written by a newer build.
    #[error("row version {found} is newer than {ROW_VERSION}")]
    NewerVersion {
        /// What the row says.
        found: u8,
    },
    /// The checksum holds but the body does not decode: a bug, or a hand that wrote it.
    #[error("the row does not decode: {why}")]
    Body {
        /// What the codec said.
        why: String,
    },
}

/// Appends a row that holds `value`, to be stored under `key`.
pub fn put<T: Serialize>(key: &[u8], value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(ROW_VERSION);
    rmp_serde::encode::write(out, value).expect("our own types encode, and a Vec grows");
    seal(key, start, out);
}

/// Reads a row that [`put`] wrote.
pub fn get<T: DeserializeOwned>(key: &[u8], row: &[u8]) -> Result<T, RowError> {
    decode(open(key, row)?)
}

/// Appends a log row: the record's head, then its value as it is.
pub fn put_record(key: &[u8], record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.push(ROW_VERSION);
    out.extend_from_slice(&[0; HEAD_LEN_BYTES]);
    let head_at = out.len();
    rmp_serde::encode::write(out, &record.head).expect("our own types encode, and a Vec grows");
    let head_len = (out.len() - head_at) as u32;
    out[head_at - HEAD_LEN_BYTES..head_at].copy_from_slice(&head_len.to_le_bytes());
    out.extend_from_slice(&record.value);
    seal(key, start, out);
}

/// Reads a log row. The value is a slice of `row`.
pub fn get_record(key: &[u8], row: &Bytes) -> Result<Record, RowError> {
    let body = open(key, row)?;
    let head_len = *body.first_chunk::<HEAD_LEN_BYTES>().ok_or(RowError::Short)?;
    let head_end = HEAD_LEN_BYTES + u32::from_le_bytes(head_len) as usize;
    let head: RecordHead = decode(body.get(HEAD_LEN_BYTES..head_end).ok_or(RowError::Short)?)?;
    // The body starts one byte into the row, after the version.
    let record = Record { head, value: row.slice(1 + head_end..row.len() - CRC_BYTES) };
    if record.is_intact() { Ok(record) } else { Err(RowError::Checksum) }
}

/// Reads the head of a log row. Its checksum is over the whole row, its value is not looked at.
pub fn get_head(key: &[u8], row: &[u8]) -> Result<RecordHead, RowError> {
    let body = open(key, row)?;
    let head_len = *body.first_chunk::<HEAD_LEN_BYTES>().ok_or(RowError::Short)?;
    let head_end = HEAD_LEN_BYTES + u32::from_le_bytes(head_len) as usize;
    decode(body.get(HEAD_LEN_BYTES..head_end).ok_or(RowError::Short)?)
}

fn seal(key: &[u8], start: usize, out: &mut Vec<u8>) {
    let crc = checksum(key, &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn open<'a>(key: &[u8], row: &'a [u8]) -> Result<&'a [u8], RowError> {
    let (sealed, crc) = row.split_last_chunk::<CRC_BYTES>().ok_or(RowError::Short)?;
    let (&version, body) = sealed.split_first().ok_or(RowError::Short)?;
    if checksum(key, sealed) != u32::from_le_bytes(*crc) {
        return Err(RowError::Checksum);
    }
    if version > ROW_VERSION {
        return Err(RowError::NewerVersion { found: version });
    }
    Ok(body)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, RowError> {
    rmp_serde::from_slice(body).map_err(|error| RowError::Body { why: error.to_string() })
}

fn checksum(key: &[u8], sealed: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use galvani_model::hlc::Hlc;
    use galvani_model::ids::{NodeId, Origin, RequestId};
    use galvani_model::key::Key;
    use galvani_model::version::{Dot, DotSet, Kind, value_hash};

    fn record() -> Record {
        let value = Bytes::from_static(b"hello");
        let head = RecordHead {
            dot: Dot::new(Origin(9), 2),
            key: Key::new("default".parse().expect("a name"), &b"k"[..]).expect("a key"),
            past: DotSet::from_iter([Dot::new(Origin(9), 1)]),
            hlc: Hlc(5),
            rid: RequestId(6),
            author: NodeId(7),
            kind: Kind::Put,
            value_len: 5,
            value_hash: value_hash(Kind::Put, &value),
            expires_ms: 0,
            supersedes: Default::default(),
            concurrent: Default::default(),
            emits: Vec::new(),
        };
        Record { head, value }
    }

    #[test]
    fn a_record_comes_back_whole() {
        let mut row = Vec::new();
        put_record(b"key", &record(), &mut row);
        assert_eq!(get_record(b"key", &Bytes::from(row)), Ok(record()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut row = Vec::new();
        put_record(b"key", &record(), &mut row);
        for at in 0..row.len() {
            for bit in 0..8 {
                let mut bad = row.clone();
                bad[at] ^= 1 << bit;
                assert!(get_record(b"key", &Bytes::from(bad)).is_err(), "byte {at} bit {bit}");
            }
            let cut = Bytes::copy_from_slice(&row[..at]);
            assert!(get_record(b"key", &cut).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_row_in_the_wrong_place_is_found() {
        let mut row = Vec::new();
        put(b"here", &7u64, &mut row);
        assert_eq!(get::<u64>(b"here", &row), Ok(7));
        assert_eq!(get::<u64>(b"there", &row), Err(RowError::Checksum));
    }
}
