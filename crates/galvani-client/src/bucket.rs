//! A bucket's handle: makes every request on keys.
//!
//! A name that cannot be one is only told of when a request is awaited, so that handles chain.
//! Next to read: `get.rs` and `put.rs`.

use crate::Sibling;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::get::Get;
use crate::list::List;
use crate::put::{ContextNotChosen, Put, Ready};
use crate::update::{Merge, Update};
use crate::view::{Value, View};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketNameError};
use galvani_model::key::Key;
use galvani_model::version::Kind;

/// A named group of keys that share n, default quorums and a conflict policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: Result<BucketName, BucketNameError>,
}

impl Bucket {
    pub(crate) fn new(client: Client, name: Result<BucketName, BucketNameError>) -> Bucket {
        Bucket { client, name }
    }

    /// Reads `key`.
    pub fn get(&self, key: impl Into<Bytes>) -> Get {
        Get::new(self.client.clone(), self.key("get", key.into()))
    }

    /// Writes `key`, once it is said what it replaces: see [`Put`].
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put<ContextNotChosen> {
        let key = self.key("put", key.into());
        Put::new(self.client.clone(), key, Kind::Put, value.into())
    }

    /// Deletes `key`, once it is said what it replaces: see [`Put`].
    pub fn delete(&self, key: impl Into<Bytes>) -> Put<ContextNotChosen> {
        let key = self.key("delete", key.into());
        Put::new(self.client.clone(), key, Kind::Delete, Bytes::new())
    }

    /// Writes events of the application and no value: they go with `key`, which places them, and
    /// change nothing of it. Say which with [`Put::emit`].
    pub fn emit(&self, key: impl Into<Bytes>) -> Put<Ready> {
        let key = self.key("emit", key.into());
        Put::new(self.client.clone(), key, Kind::Emit, Bytes::new()).ready(None)
    }

    /// Reads `key`, merges, and writes under the context read; see [`Update`].
    pub fn update<'a, F>(&self, key: impl Into<Bytes>, merge: F) -> Update<'a, F>
    where
        F: Fn(Vec<Sibling>) -> Merge + Send + Sync + 'a,
    {
        Update::new(self.client.clone(), self.key("update", key.into()), merge)
    }

    /// A typed window on the keys that start with `prefix`: codec and resolver set once.
    pub fn view<T: Value>(&self, prefix: impl Into<Bytes>) -> View<T> {
        View::new(self.clone(), prefix.into())
    }

    /// The keys that start with `prefix` (empty: all), page by page; see [`List`].
    pub fn list(&self, prefix: impl Into<Bytes>) -> List {
        List::new(self.client.clone(), self.checked_name("list"), prefix.into())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn key(&self, op: &'static str, bytes: Bytes) -> Result<Key> {
        let bucket = self.checked_name(op)?;
        let shown = shown(&bytes);
        Key::new(bucket, bytes).map_err(|error| Error::new(op, shown, ErrorKind::Key(error)))
    }

    fn checked_name(&self, op: &'static str) -> Result<BucketName> {
        self.name.clone().map_err(|error| Error::new(op, "", ErrorKind::BucketName(error)))
    }
}

/// A key as errors name it: `cart/42`, or `bucket:key` outside bucket `default`.
pub(crate) fn subject(key: &Key) -> String {
    let shown = shown(key.bytes());
    match key.bucket().as_str() {
        "default" => shown,
        bucket => format!("{bucket}:{shown}"),
    }
}

/// Key bytes on one line: no control characters, cut after [`SHOWN_MAX`] characters.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_MAX * 4)]);
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(printable).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// Characters of a key that an error shows.
const SHOWN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::{SHOWN_MAX, subject};
    use galvani_model::bucket::BucketName;
    use galvani_model::key::Key;

    #[test]
    fn keys_are_shown_on_one_line() {
        let key = |bucket: &str, bytes: &[u8]| {
            let bucket: BucketName = bucket.parse().expect("a name");
            subject(&Key::new(bucket, bytes.to_vec()).expect("a key"))
        };
        assert_eq!(key("default", b"cart/42"), "cart/42");
        assert_eq!(key("shop", b"cart/42"), "shop:cart/42");
        assert_eq!(key("default", b"a\nb\x00"), "a\\nb\\u{0}");
        let long = key("default", &[b'x'; 1024]);
        assert_eq!(long.chars().count(), SHOWN_MAX + 1);
    }
}
