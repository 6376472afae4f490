//! A typed window on a key prefix: values of one type, and one way to merge them.
//!
//! The codec is the type's own ([`Value`]); the resolver is set once and used whenever there are
//! siblings. Next to read: `update.rs`, which does the rounds.

use crate::answer::{Sibling, Written};
use crate::bucket::{Bucket, subject};
use crate::error::{Error, ErrorKind, Result};
use crate::get::read;
use crate::update::{Choices, Merge, update};
use bytes::{Bytes, BytesMut};
use galvani_model::key::Key;
use galvani_model::request::Quorum;
use parking_lot::Mutex;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A type that is stored as a value. [`Error::value`] makes the errors.
pub trait Value: Sized + Send + Sync + 'static {
    /// Reads stored bytes.
    fn decode(bytes: Bytes) -> Result<Self>;

    /// Makes the bytes to store. Equal values should make equal bytes.
    fn encode(&self) -> Result<Bytes>;
}

impl Value for Bytes {
    fn decode(bytes: Bytes) -> Result<Bytes> {
        Ok(bytes)
    }

    fn encode(&self) -> Result<Bytes> {
        Ok(self.clone())
    }
}

impl Value for String {
    fn decode(bytes: Bytes) -> Result<String> {
        String::from_utf8(bytes.into()).map_err(Error::value)
    }

    fn encode(&self) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(self.as_bytes()))
    }
}

/// Merges concurrent values. Must give the same answer whatever their order, and
/// `resolve([x, x])` must be `x`: else replicas of the application disagree.
pub trait Resolver<T>: Send + Sync + 'static {
    /// The value that stands for all of `siblings`, which are two or more.
    fn resolve(&self, siblings: Vec<T>) -> T;
}

impl<T, F: Fn(Vec<T>) -> T + Send + Sync + 'static> Resolver<T> for F {
    fn resolve(&self, siblings: Vec<T>) -> T {
        self(siblings)
    }
}

/// The keys that start with a prefix, as values of one type. Cheap to clone.
pub struct View<T> {
    bucket: Bucket,
    prefix: Bytes,
    resolver: Option<Arc<dyn Resolver<T>>>,
    choices: Choices,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> View<T> {
        View {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            resolver: self.resolver.clone(),
            choices: self.choices,
            of: PhantomData,
        }
    }
}

impl<T> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = String::from_utf8_lossy(&self.prefix);
        write!(f, "View({:?} {prefix:?})", self.bucket)
    }
}

impl<T: Value> View<T> {
    pub(crate) fn new(bucket: Bucket, prefix: Bytes) -> View<T> {
        let choices = Choices::of(bucket.client());
        View { bucket, prefix, resolver: None, choices, of: PhantomData }
    }

    /// How to merge siblings. Without one, siblings are an error of kind
    /// [`ErrorKind::Conflict`].
    pub fn resolver(mut self, resolver: impl Resolver<T>) -> View<T> {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Answers reads need. Default: the client's, else the bucket's.
    pub fn r(mut self, r: impl Into<Quorum>) -> View<T> {
        self.choices.read.r = Some(r.into());
        self
    }

    /// Acks writes need. Default: the client's, else the bucket's.
    pub fn w(mut self, w: impl Into<Quorum>) -> View<T> {
        self.choices.write.w = Some(w.into());
        self
    }

    /// The time each call has, 1 ms to 60 s. Default: the client's.
    pub fn timeout(mut self, whole_call: Duration) -> View<T> {
        self.choices.timeout = Some(whole_call);
        self
    }

    /// The value of `key` (behind the prefix), siblings merged; `None` if there is none. Writes
    /// nothing.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = self.key("get", key.as_ref())?;
        let shared = &self.bucket.client().shared;
        let within = |error: Error| error.within("get", subject(&key));
        let deadline = shared.deadline("get", self.choices.timeout).map_err(within)?;
        let read = read(shared, "get", &key, self.choices.read, deadline).await?;
        self.resolve(read.siblings).map_err(within)
    }

    /// Changes the value of `key` (behind the prefix) and returns what it is then. `change` gets
    /// the value, siblings merged, and is applied once: if others write at the same time, what is
    /// there afterwards is only merged.
    pub async fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl Fn(Option<T>) -> T + Send + Sync,
    ) -> Result<T> {
        let key = self.key("update", key.as_ref())?;
        let latest = Mutex::new(None);
        let merge = |siblings: Vec<Sibling>, round: u32| {
            let value = match (round, self.resolve(siblings)?) {
                (0, value) => change(value),
                (_, Some(merged)) => merged,
                // Deleted since: the change was seen and replaced.
                (_, None) => return Ok(Merge::Keep),
            };
            let bytes = value.encode()?;
            *latest.lock() = Some(value);
            Ok(Merge::Put(bytes))
        };
        let Written { .. } = update(self.bucket.client(), &key, self.choices, merge).await?;
        latest.into_inner().ok_or_else(|| {
            Error::new(
                "update",
                subject(&key),
                ErrorKind::Protocol { what: "no round was run".to_owned() },
            )
        })
    }

    fn key(&self, op: &'static str, key: &[u8]) -> Result<Key> {
        let mut bytes = BytesMut::with_capacity(self.prefix.len() + key.len());
        bytes.extend_from_slice(&self.prefix);
        bytes.extend_from_slice(key);
        self.bucket.key(op, bytes.freeze())
    }

    fn resolve(&self, siblings: Vec<Sibling>) -> Result<Option<T>> {
        let values = siblings.into_iter().filter_map(|sibling| sibling.value);
        let mut values = values.map(T::decode).collect::<Result<Vec<T>>>()?;
        match (values.len(), &self.resolver) {
            (0 | 1, _) => Ok(values.pop()),
            (_, Some(resolver)) => Ok(Some(resolver.resolve(values))),
            (count, None) => {
                let siblings = u32::try_from(count).unwrap_or(u32::MAX);
                Err(Error::new("resolve", "", ErrorKind::Conflict { siblings }))
            }
        }
    }
}
