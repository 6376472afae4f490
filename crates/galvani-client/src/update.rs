//! Read, merge, write under the context read; again while others write too, until the deadline.
//!
//! One deadline covers all rounds. Once a write of the call was stored, no later failure may call
//! it never applied. Next to read: `view.rs`, which is the typed form.

use crate::BoxFuture;
use crate::answer::{Sibling, Written};
use crate::bucket::subject;
use crate::client::Client;
use crate::error::{Applied, Error, ErrorKind, Result, worse};
use crate::get::read;
use crate::put::{Content, ttl_ms, write};
use crate::retry::pause;
use bytes::Bytes;
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::version::Kind;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

/// What a merge decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Write this value in place of all siblings.
    Put(Bytes),
    /// Delete the key.
    Delete,
    /// Write nothing.
    Keep,
}

/// An update that has not been sent: read, merge, write. Await it.
///
/// If others wrote at the same time, the key has siblings after the write; then it is read and
/// merged again, until one value is left or the deadline passes. So `merge` may meet the outcome of
/// its own earlier call among the siblings and must bear that: a union does, a count does not
/// ([`View::update`](crate::View::update) applies its change once and only resolves after that).
#[derive(Clone, Debug)]
#[must_use = "requests do nothing until awaited"]
pub struct Update<'a, F> {
    client: Client,
    key: Result<Key>,
    merge: F,
    choices: Choices,
    lives: PhantomData<&'a ()>,
}

/// Quorums and time of an update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choices {
    pub(crate) read: ReadOptions,
    pub(crate) write: WriteOptions,
    pub(crate) timeout: Option<Duration>,
}

impl Choices {
    pub(crate) fn of(client: &Client) -> Choices {
        let settings = &client.shared.settings;
        Choices {
            read: ReadOptions { r: settings.r, ..ReadOptions::default() },
            write: WriteOptions { w: settings.w, ..WriteOptions::default() },
            timeout: client.timeout,
        }
    }
}

impl<'a, F> Update<'a, F> {
    pub(crate) fn new(client: Client, key: Result<Key>, merge: F) -> Update<'a, F> {
        let choices = Choices::of(&client);
        Update { client, key, merge, choices, lives: PhantomData }
    }

    /// Counts only the first `n` replicas of the preference list, in reads and writes.
    pub fn n(mut self, n: u8) -> Self {
        self.choices.read.n = Some(n);
        self.choices.write.n = Some(n);
        self
    }

    /// Answers each read needs. Default: the client's, else the bucket's.
    pub fn r(mut self, r: impl Into<Quorum>) -> Self {
        self.choices.read.r = Some(r.into());
        self
    }

    /// Acks each write needs. Default: the client's, else the bucket's.
    pub fn w(mut self, w: impl Into<Quorum>) -> Self {
        self.choices.write.w = Some(w.into());
        self
    }

    /// How long what it writes lives: see [`crate::Put::ttl`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.choices.write.ttl_ms = Some(ttl_ms(ttl));
        self
    }

    /// Of the answers, how many must come from owners.
    pub fn pr(mut self, pr: impl Into<Quorum>) -> Self {
        self.choices.read.pr = Some(pr.into());
        self
    }

    /// Of the acks, how many must come from owners.
    pub fn pw(mut self, pw: impl Into<Quorum>) -> Self {
        self.choices.write.pw = Some(pw.into());
        self
    }

    /// Of the acks, how many replicas must have fsynced first.
    pub fn dw(mut self, dw: impl Into<Quorum>) -> Self {
        self.choices.write.dw = Some(dw.into());
        self
    }

    /// Owners only, no stand-ins.
    pub fn strict(mut self) -> Self {
        self.choices.read.strict = true;
        self.choices.write.strict = true;
        self
    }

    /// The time all rounds have together, 1 ms to 60 s. Default: the client's.
    pub fn timeout(mut self, whole_call: Duration) -> Self {
        self.choices.timeout = Some(whole_call);
        self
    }
}

impl<'a, F> IntoFuture for Update<'a, F>
where
    F: Fn(Vec<Sibling>) -> Merge + Send + Sync + 'a,
{
    type Output = Result<Written>;
    type IntoFuture = BoxFuture<'a, Result<Written>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let key = self.key?;
            let merge = |siblings, _round| Ok((self.merge)(siblings));
            update(&self.client, &key, self.choices, merge).await
        })
    }
}

/// Updates `key`; `merge` gets the siblings and the number of writes of this call so far.
pub(crate) async fn update(
    client: &Client,
    key: &Key,
    choices: Choices,
    merge: impl Fn(Vec<Sibling>, u32) -> Result<Merge>,
) -> Result<Written> {
    const OP: &str = "update";
    let shared = &client.shared;
    let told = |error: Error, stored: Applied| error.within(OP, subject(key)).after_write(stored);
    let deadline =
        shared.deadline(OP, choices.timeout).map_err(|error| told(error, Applied::No))?;
    let mut stored = Applied::No;
    let mut last = None;
    for round in 0..ROUNDS_MAX {
        let seen = read(shared, OP, key, choices.read, deadline).await;
        let mut seen = seen.map_err(|error| told(error, stored))?;
        let siblings = std::mem::take(&mut seen.siblings);
        let values = siblings.iter().filter(|sibling| sibling.value.is_some()).count();
        let (kind, value) = match merge(siblings, round).map_err(|error| told(error, stored))? {
            Merge::Put(value) => (Kind::Put, value),
            Merge::Delete => (Kind::Delete, Bytes::new()),
            // An earlier round may have written: then that is what this call did.
            Merge::Keep => return Ok(last.unwrap_or_else(|| Written::nothing(seen, values))),
        };
        let context = seen.context.token();
        let mut options = choices.write;
        if kind == Kind::Delete {
            // A tombstone does not expire.
            options.ttl_ms = None;
        }
        let emits = Vec::new();
        let (expires_ms, request_id) = (None, None);
        let content = Content { kind, value, context, options, expires_ms, emits, request_id };
        let written = write(shared, OP, key, content, deadline).await;
        let written = written.map_err(|error| told(error, stored))?;
        if written.siblings_now <= 1 {
            return Ok(written);
        }
        stored = worse(stored, Applied::Maybe { acks: written.acks });
        let siblings = written.siblings_now;
        last = Some(written);
        deadline.sleep(pause(&shared.net.links.network, round)).await;
        if deadline.has_passed() || round + 1 == ROUNDS_MAX {
            let error = Error::new(OP, subject(key), ErrorKind::Conflict { siblings });
            return Err(error.after_write(stored));
        }
    }
    unreachable!("the last round returns")
}

/// Rounds of one update. With ten writers at once each is through after a few; more means that the
/// key is written faster than it can be read.
const ROUNDS_MAX: u32 = 32;
