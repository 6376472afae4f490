//! A write: a put or a delete, and what it replaces.
//!
//! The compiler does not let a write go that has not said what it replaces. One write gets one
//! request id and one time when it is awaited; all its attempts carry them, so that a retry is the
//! same write to the servers and never a second sibling.

use crate::BoxFuture;
use crate::answer::Written;
use crate::bucket::subject;
use crate::call::{Plan, run};
use crate::client::{Client, Shared};
use crate::context::Context;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Try;
use bytes::Bytes;
use galvani_model::ids::RequestId;
use galvani_model::key::Key;
use galvani_model::limits::VALUE_BYTES_MAX;
use galvani_model::request::{Quorum, WriteOptions, check_ttl};
use galvani_model::topic::Topic;
use galvani_model::version::{Emit, Kind, emits_fit};
use galvani_wire::{Message, message};
use std::future::IntoFuture;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A write that has not been sent: a put or a delete. Say what it replaces with [`Put::after`] or
/// [`Put::blind`], then await it, best by [`Put::send`]:
///
/// ```no_run
/// # async fn f(db: galvani_client::Client) -> galvani_client::Result<()> {
/// let read = db.get("cart/42").await?;
/// db.put("cart/42", "milk").after(&read).w(2).send().await?;
/// # Ok(()) }
/// ```
///
/// A write that has not chosen does not compile:
///
/// ```compile_fail,E0277
/// # async fn f(db: galvani_client::Client) -> galvani_client::Result<()> {
/// db.put("cart/42", "milk").w(2).send().await?;
/// # Ok(()) }
/// ```
///
/// nor does it by a bare await:
///
/// ```compile_fail,E0277
/// # async fn f(db: galvani_client::Client) -> galvani_client::Result<()> {
/// db.delete("cart/42").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "requests do nothing until awaited"]
pub struct Put<State> {
    client: Client,
    key: Result<Key>,
    kind: Kind,
    value: Bytes,
    options: WriteOptions,
    expires_ms: Option<u64>,
    emits: Vec<Emit>,
    timeout: Option<Duration>,
    request_id: Option<RequestId>,
    state: State,
}

/// The state of a write that has not said what it replaces. It cannot be sent.
#[derive(Clone, Copy, Debug)]
pub struct ContextNotChosen;

/// The state of a write that may be sent.
#[derive(Clone, Debug)]
pub struct Ready {
    context: Option<Bytes>,
}

/// The states in which a write may be sent. Sealed: [`Ready`] is the only one.
#[diagnostic::on_unimplemented(
    message = "this write has not said what it replaces",
    label = "needs `.after(&read)` or `.blind()` before it is sent",
    note = "`.after(&read)` replaces exactly what that read saw; \
            `.blind()` adds a sibling beside whatever is there"
)]
pub trait MaySend: sealed::Sealed {}

impl MaySend for Ready {}

mod sealed {
    /// What a state that may be sent knows.
    pub trait Sealed: Send + 'static {
        /// The token of what it replaces.
        fn into_token(self) -> Option<bytes::Bytes>;
    }

    impl Sealed for super::Ready {
        fn into_token(self) -> Option<bytes::Bytes> {
            self.context
        }
    }
}

impl Put<ContextNotChosen> {
    pub(crate) fn new(
        client: Client,
        key: Result<Key>,
        kind: Kind,
        value: Bytes,
    ) -> Put<ContextNotChosen> {
        let options = WriteOptions { w: client.shared.settings.w, ..WriteOptions::default() };
        let timeout = client.timeout;
        let (expires_ms, emits, state) = (None, Vec::new(), ContextNotChosen);
        let request_id = None;
        Put { client, key, kind, value, options, expires_ms, emits, timeout, request_id, state }
    }

    /// Replaces exactly what that read or write saw; anything newer stays as a sibling.
    pub fn after(self, seen: impl AsRef<Context>) -> Put<Ready> {
        self.ready(seen.as_ref().token())
    }

    /// Replaces nothing: becomes a sibling of whatever is there. For first writes and keys that
    /// never change.
    pub fn blind(self) -> Put<Ready> {
        self.ready(None)
    }

    pub(crate) fn ready(self, context: Option<Bytes>) -> Put<Ready> {
        let Put { client, key, kind, value, options, expires_ms, emits, timeout, .. } = self;
        let (request_id, state) = (self.request_id, Ready { context });
        Put { client, key, kind, value, options, expires_ms, emits, timeout, request_id, state }
    }
}

impl<State> Put<State> {
    /// Counts only the first `n` replicas of the preference list, 1 to the bucket's n. The data
    /// still ends on all of the bucket's owners.
    pub fn n(mut self, n: u8) -> Put<State> {
        self.options.n = Some(n);
        self
    }

    /// Acks needed. Default: the client's, else the bucket's.
    pub fn w(mut self, w: impl Into<Quorum>) -> Put<State> {
        self.options.w = Some(w.into());
        self
    }

    /// Of those, how many must come from owners of the key: a stand-in's hint does not count.
    pub fn pw(mut self, pw: impl Into<Quorum>) -> Put<State> {
        self.options.pw = Some(pw.into());
        self
    }

    /// Of those, how many replicas must have fsynced first.
    pub fn dw(mut self, dw: impl Into<Quorum>) -> Put<State> {
        self.options.dw = Some(dw.into());
        self
    }

    /// Owners only: a hint on a stand-in does not count towards `w`.
    pub fn strict(mut self) -> Put<State> {
        self.options.strict = true;
        self
    }

    /// How long the value lives, 1 s to ten years from now by this machine's clock. From then on it
    /// reads as deleted, on every replica. [`Duration::ZERO`]: for ever. Default: the bucket's.
    pub fn ttl(mut self, ttl: Duration) -> Put<State> {
        (self.options.ttl_ms, self.expires_ms) = (Some(ttl_ms(ttl)), None);
        self
    }

    /// When the value expires, to the millisecond: 1 s to ten years from the time of the write, else
    /// [`ErrorKind::TtlImpossible`] and nothing is sent. In place of [`Put::ttl`].
    pub fn expires_at(mut self, end: SystemTime) -> Put<State> {
        // What ended before 1970 has no time left, as what ended then.
        let since_1970 = end.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.expires_ms = Some(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Stores an event of the application with the write, as atomic and as safe as the write itself: a
    /// transactional outbox. Consumers of its topic are shown it. `key` is the application's, for
    /// whoever groups events by it; it may be empty. May be said up to 16 times, 256 KiB in all.
    pub fn emit(
        mut self,
        topic: Topic,
        key: impl Into<Bytes>,
        payload: impl Into<Bytes>,
    ) -> Put<State> {
        self.emits.push(Emit { topic, key: key.into(), payload: payload.into() });
        self
    }

    /// Which logical write this is, in place of a new id: for jobs that name their writes themselves.
    /// Two calls are one write only if all else is the same, context and time included; an id alone
    /// hides nothing.
    pub fn request_id(mut self, id: RequestId) -> Put<State> {
        self.request_id = Some(id);
        self
    }

    /// The time the whole call has, 1 ms to 60 s. Default: the client's.
    pub fn timeout(mut self, whole_call: Duration) -> Put<State> {
        self.timeout = Some(whole_call);
        self
    }

    /// Sends it; the same as `.await`. Without a choice of what it replaces, its compile error is
    /// the friendlier one.
    pub async fn send(self) -> Result<Written>
    where
        State: MaySend,
    {
        let op = match self.kind {
            Kind::Put => "put",
            Kind::Delete => "delete",
            Kind::Emit => "emit",
        };
        let key = self.key?;
        let shared = &self.client.shared;
        let deadline =
            shared.deadline(op, self.timeout).map_err(|error| error.within(op, subject(&key)))?;
        let content = Content {
            kind: self.kind,
            value: self.value,
            context: self.state.into_token(),
            options: self.options,
            expires_ms: self.expires_ms,
            emits: self.emits,
            request_id: self.request_id,
        };
        write(shared, op, &key, content, deadline).await
    }
}

impl<State: MaySend> IntoFuture for Put<State> {
    type Output = Result<Written>;
    type IntoFuture = BoxFuture<'static, Result<Written>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A time to live in milliseconds. Anything but zero stays something else: zero is for ever.
pub(crate) fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// What is written: the same in every attempt.
pub(crate) struct Content {
    pub(crate) kind: Kind,
    pub(crate) value: Bytes,
    pub(crate) context: Option<Bytes>,
    pub(crate) options: WriteOptions,
    /// When the value expires, in milliseconds since 1970, in place of a time to live.
    pub(crate) expires_ms: Option<u64>,
    /// Events of the application.
    pub(crate) emits: Vec<Emit>,
    /// In place of a new one.
    pub(crate) request_id: Option<RequestId>,
}

/// Writes `key` until `deadline`; errors name the operation `op`.
pub(crate) async fn write(
    shared: &Shared,
    op: &'static str,
    key: &Key,
    content: Content,
    deadline: Deadline,
) -> Result<Written> {
    if content.value.len() > VALUE_BYTES_MAX {
        let (size, limit) = (content.value.len() as u64, VALUE_BYTES_MAX as u64);
        return Err(Error::new(op, subject(key), ErrorKind::TooLarge { size, limit }));
    }
    if !emits_fit(&content.emits) {
        let bytes = content.emits.iter().map(|emit| emit.bytes() as u64).sum();
        let count = content.emits.len() as u32;
        return Err(Error::new(op, subject(key), ErrorKind::EmitsTooLarge { bytes, count }));
    }
    let directory = shared.directory_with(key.bucket(), deadline).await;
    let mut stamp = shared.stamper.stamp();
    stamp.rid = content.request_id.unwrap_or(stamp.rid);
    let mut options = content.options;
    if let Some(end) = content.expires_ms {
        // Servers add it to the time of the stamp again: the end is exact, in every attempt.
        let left_ms = time_left(end, stamp.issued.unix_ms());
        options.ttl_ms = Some(left_ms.map_err(|kind| Error::new(op, subject(key), kind))?);
    }
    let plan = Plan {
        op,
        subject: &|| subject(key),
        bucket: Some(key.bucket()),
        route: directory.route(key, shared.place()),
        deadline,
        write: Some(stamp.rid),
        changes: true,
        hedge: content.value.len() <= HEDGED_VALUE_MAX,
        make: &|attempt| {
            Message::Put(message::Put {
                key: key.clone(),
                kind: content.kind,
                rid: stamp.rid,
                issued: stamp.issued,
                retry: attempt == Try::Again,
                context: content.context.clone(),
                options,
                timeout_ms: deadline.server_ms(),
                value: content.value.clone(),
                emits: content.emits.clone(),
            })
        },
        accept: |message| match message {
            Message::PutDone(done) => Ok(done),
            other => Err(Box::new(other)),
        },
    };
    let done = run(shared, plan).await?;
    if directory.is_contradicted(key, &done.answers) {
        shared.stale.notify_one();
    }
    Ok(Written::of(done, stamp.rid, &directory))
}

/// What a value that expires at `end_ms` lives when it is written at `now_ms`, in milliseconds.
fn time_left(end_ms: u64, now_ms: u64) -> Result<u64, ErrorKind> {
    let left_ms = end_ms.saturating_sub(now_ms);
    match check_ttl(left_ms) {
        // Nothing left is not the zero that stands for ever.
        Ok(()) if left_ms > 0 => Ok(left_ms),
        Ok(()) | Err(_) => Err(ErrorKind::TtlImpossible { ttl: Duration::from_millis(left_ms) }),
    }
}

/// Larger values are not sent to another node before the first counts as silent.
const HEDGED_VALUE_MAX: usize = 64 << 10;
