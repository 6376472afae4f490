//! Object rows with their keys, as scans meet them. It reads nothing itself. Next to read: `state.rs`.

use crate::format::{RowError, keys, rows};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::key::Key;
use galvani_model::version::Object;

/// The key of an object row.
pub(super) fn object_key(row_key: &[u8]) -> Result<Key, RowError> {
    let body = |why: &str| RowError::Body { why: why.into() };
    let (bucket, key) = keys::split_object(row_key).ok_or_else(|| body("no bucket in its key"))?;
    let bucket = core::str::from_utf8(bucket).ok().and_then(|name| name.parse().ok());
    let bucket: BucketName = bucket.ok_or_else(|| body("no bucket name in its key"))?;
    Key::new(bucket, Bytes::copy_from_slice(key)).map_err(|error| body(&error.to_string()))
}

/// An object row with its key.
pub(super) fn object(row_key: &[u8], row: &[u8]) -> Result<(Key, Object), RowError> {
    Ok((object_key(row_key)?, rows::get(row_key, row)?))
}
