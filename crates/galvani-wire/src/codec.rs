//! The bytes of a message: `kind u8, flags u8, id u64, header length u32`, header, body.
//!
//! The header is MessagePack with fields in order; the body is value bytes, raw. Encoding appends
//! to the caller's buffer; decoding slices the frame, so a value is never copied here. Integers
//! are little endian. Hostile bytes give a [`DecodeError`], never a panic or a large allocation.

use crate::failure::{Failure, ReplicaError};
use crate::feed::{FEED_SHARDS_MAX, FeedOpen, FeedPage};
use crate::message::{
    FAULT_LINKS_MAX, Held, HeldPage, HintsFound, HintsPulled, Message, Pulled, SetFaults, SliceIs,
};
use crate::repair::{RepairState, check_named};
use crate::view::{ClusterView, LinkFaults, NodeStatus};
use bytes::{BufMut, Bytes, BytesMut};
use galvani_model::key::KeyError;
use galvani_model::limits::KEY_BYTES_MAX;
use galvani_model::version::RecordHead;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Flag: a node sends on a client's request to an owner; it is not sent on again.
pub const FLAG_FORWARDED: u8 = 1;
/// Largest header in bytes: a page of keys is the largest there is.
pub const HEADER_BYTES_MAX: usize = 8 << 20;
const PREFIX_BYTES: usize = 14;

/// A decoded frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Matches a reply to its request, on one connection.
    pub id: u64,
    /// Whether [`FLAG_FORWARDED`] is set.
    pub forwarded: bool,
    /// The message.
    pub message: Message,
}

/// Why a message cannot be sent: all but its values is more than [`HEADER_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header has {bytes} bytes, the limit is {HEADER_BYTES_MAX}")]
pub struct HeaderTooLong {
    /// What it would have.
    pub bytes: usize,
}

/// Why bytes are not a message. The connection they came on is not worth keeping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than a frame's prefix or its announced header.
    #[error("the frame is cut short")]
    Short,
    /// The header is longer than [`HEADER_BYTES_MAX`].
    #[error("the header has {bytes} bytes, the limit is {HEADER_BYTES_MAX}")]
    HeaderTooLong {
        /// What it announced.
        bytes: usize,
    },
    /// A kind or flag this version does not know.
    #[error("unknown message kind {kind} or flags {flags:#x}")]
    Unknown {
        /// The kind byte.
        kind: u8,
        /// The flags byte.
        flags: u8,
    },
    /// The header does not decode.
    #[error("the header does not decode: {why}")]
    Header {
        /// What the codec said.
        why: String,
    },
    /// Header and body do not agree on the values' lengths.
    #[error("the body has {got} bytes, the header speaks of {expected}")]
    Body {
        /// What the header says.
        expected: u64,
        /// What came.
        got: usize,
    },
    /// A filter or a page of the feed is out of its bounds.
    #[error("what is asked of the feed, or said by it, is out of bounds")]
    Feed,
    /// Faults to be set are out of their bounds.
    #[error("loss, delay, jitter or the number of links to break is out of bounds")]
    Faults,
    /// A key is out of its bounds.
    #[error("a key is out of bounds: {0}")]
    Key(#[from] KeyError),
}

macro_rules! kinds {
    ($($variant:ident = $number:literal,)*) => {
        impl Message {
            /// The number that names this kind of message, for ever.
            pub fn kind(&self) -> u8 {
                match self {
                    $(kinds!(@pattern $variant) => $number,)*
                }
            }

            /// The name of this kind of message, for logs and counters.
            pub fn name(&self) -> &'static str {
                match self {
                    $(kinds!(@pattern $variant) => stringify!($variant),)*
                }
            }
        }
    };
    (@pattern Describe) => { Message::Describe };
    (@pattern BucketCreated) => { Message::BucketCreated };
    (@pattern Status) => { Message::Status };
    (@pattern Noted) => { Message::Noted };
    (@pattern AskLayout) => { Message::AskLayout };
    (@pattern $variant:ident) => { Message::$variant(..) };
}

kinds! {
    Put = 1, PutDone = 2, Get = 3, GetDone = 4, Failed = 5, Describe = 6, Described = 7,
    List = 8, Listed = 9, CreateBucket = 10, BucketCreated = 11, Explain = 12, Explained = 13,
    Status = 14, StatusIs = 15, SetFaults = 16, FaultsSet = 17,
    Repair = 18, RepairState = 19, Greet = 20, Twin = 21,
    FeedOpen = 22, FeedOpened = 23, FeedNext = 24, FeedPage = 25,
    ChangeLayout = 26, LayoutChanged = 27,
    Replicate = 32, Replicated = 33, Fetch = 34, Fetched = 35, FetchPage = 36, FetchedPage = 37,
    DefineBucket = 38, BucketDefined = 39, AskKnown = 40, Known = 41,
    Compare = 42, Compared = 43, Pull = 44, Pulled = 45, Hint = 46, PullHints = 47,
    HintsPulled = 48, HintsWait = 49, Noted = 50, AskSlice = 51, SliceIs = 52,
    AskClocks = 57, Clocks = 58, FindHints = 59, HintsFound = 60, Supply = 61,
    AskLayout = 62, LayoutIs = 63, Prepare = 64, Accept = 65, Voted = 66, AskProgress = 67,
    Progress = 68, Announce = 69, AskJoiner = 70, JoinerIs = 71,
}

/// Appends the bytes of a message to `out`; nothing if no receiver would take them.
pub fn encode(
    id: u64,
    forwarded: bool,
    message: &Message,
    out: &mut BytesMut,
) -> Result<(), HeaderTooLong> {
    let start = out.len();
    out.put_u8(message.kind());
    out.put_u8(if forwarded { FLAG_FORWARDED } else { 0 });
    out.put_u64_le(id);
    let length_at = out.len();
    out.put_u32_le(0);
    let header_at = out.len();
    put_header(message, out);
    let bytes = out.len() - header_at;
    if bytes > HEADER_BYTES_MAX {
        out.truncate(start);
        return Err(HeaderTooLong { bytes });
    }
    out[length_at..header_at].copy_from_slice(&(bytes as u32).to_le_bytes());
    put_body(message, out);
    Ok(())
}

fn put_header(message: &Message, out: &mut BytesMut) {
    match message {
        Message::Put(m) => header(m, out),
        Message::PutDone(m) => header(m, out),
        Message::Get(m) => header(m, out),
        Message::GetDone(m) => header(m, out),
        Message::Failed(m) => header(m, out),
        Message::Described(m) => header(m, out),
        Message::List(m) => header(m, out),
        Message::Listed(m) => header(m, out),
        Message::CreateBucket(m) | Message::DefineBucket(m) => header(m, out),
        Message::Explain(m) => header(m, out),
        Message::Explained(m) => header(m, out),
        Message::StatusIs(m) => header(m, out),
        Message::SetFaults(m) => header(m, out),
        Message::FaultsSet(m) => header(m, out),
        Message::Repair(m) => header(m, out),
        Message::RepairState(m) => header(m, out),
        Message::Replicate(m) => header(m, out),
        Message::Supply(m) => header(m, out),
        Message::Replicated(m) => header(m, out),
        Message::Fetch(m) => header(m, out),
        Message::Fetched(m) => header(m, out),
        Message::FetchPage(m) => header(m, out),
        Message::FetchedPage(m) => header(m, out),
        Message::BucketDefined(m) => header(m, out),
        Message::AskKnown(m) => header(m, out),
        Message::Known(m) => header(m, out),
        Message::Compare(m) => header(m, out),
        Message::Compared(m) => header(m, out),
        Message::Pull(m) => header(m, out),
        Message::Pulled(m) => header(m, out),
        Message::AskSlice(m) => header(m, out),
        Message::SliceIs(m) => header(m, out),
        Message::Hint(m) => header(m, out),
        Message::PullHints(m) => header(m, out),
        Message::HintsPulled(m) => header(m, out),
        Message::HintsWait(m) => header(m, out),
        Message::AskClocks(m) => header(m, out),
        Message::Clocks(m) => header(m, out),
        Message::FindHints(m) => header(m, out),
        Message::ChangeLayout(m) => header(m, out),
        Message::LayoutChanged(m) | Message::LayoutIs(m) => header(m, out),
        Message::Prepare(m) => header(m, out),
        Message::Accept(m) => header(m, out),
        Message::Voted(m) => header(m, out),
        Message::AskProgress(m) => header(m, out),
        Message::Progress(m) => header(m, out),
        Message::Announce(m) => header(m, out),
        Message::AskJoiner(m) => header(m, out),
        Message::JoinerIs(m) => header(m, out),
        Message::HintsFound(m) => header(m, out),
        Message::FeedOpen(m) => header(m, out),
        Message::FeedOpened(m) => header(m, out),
        Message::FeedNext(m) => header(m, out),
        Message::FeedPage(m) => header(m, out),
        Message::Greet(m) => header(m, out),
        Message::Twin(m) => header(m, out),
        Message::Describe | Message::BucketCreated | Message::Status | Message::Noted => {}
        Message::AskLayout => {}
    }
}

fn put_body(message: &Message, out: &mut BytesMut) {
    values(message, |value| out.put_slice(value));
}

/// How many bytes of values a message carries.
pub fn value_bytes(message: &Message) -> usize {
    let mut bytes = 0;
    values(message, |value| bytes += value.len());
    bytes
}

/// The values that a message carries, in the order of its body.
fn values(message: &Message, mut visit: impl FnMut(&[u8])) {
    match message {
        Message::Put(put) => visit(&put.value),
        Message::Replicate(replicate) => visit(&replicate.value),
        Message::Supply(supply) => supply.values.iter().for_each(|value| visit(value)),
        Message::Hint(hint) => visit(&hint.record.value),
        Message::GetDone(done) => {
            done.siblings.iter().for_each(|sibling| visit(&sibling.value));
        }
        Message::Fetched(Ok(held)) => held.values.iter().for_each(|value| visit(value)),
        Message::Pulled(Ok(pulled))
        | Message::HintsPulled(Ok(HintsPulled { records: pulled, .. })) => {
            pulled.values.iter().for_each(|value| visit(value));
        }
        Message::FeedPage(page) => {
            page.events.iter().flat_map(|event| &event.values).for_each(|value| visit(value));
        }
        // What carries no values.
        _ => {}
    }
}

fn header<T: Serialize>(value: &T, out: &mut BytesMut) {
    let mut writer = out.writer();
    rmp_serde::encode::write(&mut writer, value)
        .expect("our own types always encode, and the buffer grows");
}

impl Frame {
    /// Whether the frame says it is a request that clients send. Asked before anything is decoded,
    /// so that nobody can make a node work on a message that is not theirs to send.
    pub fn is_client_request(frame: &[u8]) -> bool {
        matches!(frame.first(), Some(1 | 3 | 6 | 8 | 10 | 12 | 14 | 16 | 18 | 22 | 24 | 26))
    }

    /// Decodes one frame. Values in the result are slices of `frame`.
    pub fn decode(frame: Bytes) -> Result<Frame, DecodeError> {
        if frame.len() < PREFIX_BYTES {
            return Err(DecodeError::Short);
        }
        let (kind, flags) = (frame[0], frame[1]);
        let id = u64::from_le_bytes(frame[2..10].try_into().expect("ten bytes are there"));
        let length: [u8; 4] = frame[10..PREFIX_BYTES].try_into().expect("14 bytes are there");
        let header_len = u32::from_le_bytes(length) as usize;
        if header_len > HEADER_BYTES_MAX {
            return Err(DecodeError::HeaderTooLong { bytes: header_len });
        }
        if flags & !FLAG_FORWARDED != 0 {
            return Err(DecodeError::Unknown { kind, flags });
        }
        let body_at = PREFIX_BYTES + header_len;
        if frame.len() < body_at {
            return Err(DecodeError::Short);
        }
        let header = &frame[PREFIX_BYTES..body_at];
        let mut body = Body { rest: frame.slice(body_at..) };
        let message = read_message(kind, flags, header, &mut body)?;
        body.finish()?;
        Ok(Frame { id, forwarded: flags & FLAG_FORWARDED != 0, message })
    }
}

fn read_message(
    kind: u8,
    flags: u8,
    header: &[u8],
    body: &mut Body,
) -> Result<Message, DecodeError> {
    Ok(match kind {
        1 => {
            let mut put: crate::message::Put = read(header)?;
            put.key.check()?;
            put.value = body.rest();
            Message::Put(put)
        }
        2 => Message::PutDone(read(header)?),
        3 => {
            let get: crate::message::Get = read(header)?;
            get.key.check()?;
            Message::Get(get)
        }
        4 => {
            let mut done: crate::message::GetDone = read(header)?;
            for sibling in &mut done.siblings {
                sibling.value = body.take(sibling.value_len)?;
            }
            Message::GetDone(done)
        }
        5 => Message::Failed(read(header)?),
        6 => Message::Describe,
        7 => Message::Described(Box::new(read::<ClusterView>(header)?)),
        8 => {
            let list: crate::message::List = read(header)?;
            check_range(&list.prefix, list.after.as_ref())?;
            Message::List(list)
        }
        9 => Message::Listed(read(header)?),
        10 => Message::CreateBucket(read(header)?),
        11 => Message::BucketCreated,
        12 => {
            let explain: crate::message::Explain = read(header)?;
            explain.key.check()?;
            Message::Explain(explain)
        }
        13 => Message::Explained(read(header)?),
        14 => Message::Status,
        15 => {
            let status = read::<NodeStatus>(header)?;
            check_named(&status.damaged)?;
            Message::StatusIs(Box::new(status))
        }
        16 => {
            let faults: SetFaults = read(header)?;
            check_faults(&faults)?;
            Message::SetFaults(faults)
        }
        17 => Message::FaultsSet(read(header)?),
        18 => Message::Repair(read(header)?),
        19 => {
            let state = read::<RepairState>(header)?;
            check_named(&state.named)?;
            Message::RepairState(Box::new(state))
        }
        22 => {
            let open: FeedOpen = read(header)?;
            if open.shards.len() > FEED_SHARDS_MAX || !open.filter.is_bounded() {
                return Err(DecodeError::Feed);
            }
            check_range(&open.filter.prefix, None)?;
            Message::FeedOpen(open)
        }
        23 => Message::FeedOpened(read(header)?),
        24 => Message::FeedNext(read(header)?),
        25 => Message::FeedPage(read_feed(header, body)?),
        _ => return read_peer_message(kind, flags, header, body),
    })
}

/// What nodes say to each other.
fn read_peer_message(
    kind: u8,
    flags: u8,
    header: &[u8],
    body: &mut Body,
) -> Result<Message, DecodeError> {
    Ok(match kind {
        20 => Message::Greet(read(header)?),
        21 => Message::Twin(read(header)?),
        32 => {
            let mut replicate: crate::message::Replicate = read(header)?;
            replicate.value = read_value(&replicate.head, body)?;
            Message::Replicate(replicate)
        }
        33 => Message::Replicated(read(header)?),
        34 => {
            let fetch: crate::message::Fetch = read(header)?;
            fetch.key.check()?;
            Message::Fetch(fetch)
        }
        35 => Message::Fetched(read_records::<Held>(header, body, |held| {
            (&held.heads, &mut held.values)
        })?),
        36 => {
            let fetch: crate::message::FetchPage = read(header)?;
            check_range(&fetch.prefix, fetch.after.as_ref())?;
            Message::FetchPage(fetch)
        }
        37 => Message::FetchedPage(read::<Result<HeldPage, ReplicaError>>(header)?),
        38 => Message::DefineBucket(read(header)?),
        39 => Message::BucketDefined(read::<Result<(), Failure>>(header)?),
        40 => Message::AskKnown(read(header)?),
        41 => Message::Known(read(header)?),
        42 => Message::Compare(read(header)?),
        43 => Message::Compared(read(header)?),
        44 => Message::Pull(read(header)?),
        45 => Message::Pulled(read_records::<Pulled>(header, body, |pulled| {
            (&pulled.heads, &mut pulled.values)
        })?),
        46 => {
            let mut hint: crate::message::Hint = read(header)?;
            hint.record.value = read_value(&hint.record.head, body)?;
            Message::Hint(hint)
        }
        47 => Message::PullHints(read(header)?),
        48 => Message::HintsPulled(read_records::<HintsPulled>(header, body, |pulled| {
            (&pulled.records.heads, &mut pulled.records.values)
        })?),
        49 => Message::HintsWait(read(header)?),
        59 => {
            let find: crate::message::FindHints = read(header)?;
            find.key.check()?;
            Message::FindHints(find)
        }
        60 => Message::HintsFound(read::<Result<HintsFound, ReplicaError>>(header)?),
        50 => Message::Noted,
        26 => Message::ChangeLayout(read(header)?),
        27 => Message::LayoutChanged(read(header)?),
        62 => Message::AskLayout,
        63 => Message::LayoutIs(read(header)?),
        64 => Message::Prepare(read(header)?),
        65 => Message::Accept(read(header)?),
        66 => Message::Voted(read(header)?),
        67 => Message::AskProgress(read(header)?),
        68 => Message::Progress(read(header)?),
        69 => Message::Announce(read(header)?),
        70 => Message::AskJoiner(read(header)?),
        71 => Message::JoinerIs(read(header)?),
        51 => {
            let slice: crate::message::AskSlice = read(header)?;
            if let Some(after) = &slice.after {
                after.check()?;
            }
            Message::AskSlice(slice)
        }
        52 => Message::SliceIs(read_slice(header)?),
        57 => Message::AskClocks(read(header)?),
        58 => Message::Clocks(read(header)?),
        61 => {
            let mut supply: crate::message::Supply = read(header)?;
            supply.values = read_values(&supply.heads, body)?;
            Message::Supply(supply)
        }
        _ => return Err(DecodeError::Unknown { kind, flags }),
    })
}

fn read_feed(header: &[u8], body: &mut Body) -> Result<FeedPage, DecodeError> {
    let mut page: FeedPage = read(header)?;
    for event in &mut page.events {
        event.head.key.check()?;
        if usize::from(event.shard) >= page.advances.len() {
            return Err(DecodeError::Feed);
        }
        if event.carries {
            event.values.push(body.take(event.head.value_len)?);
        }
        for old in &event.old {
            event.values.push(body.take(old.len)?);
        }
    }
    Ok(page)
}

/// An answer with records, whose values are in the body. `of` says where in it heads and values are.
fn read_records<T: DeserializeOwned>(
    header: &[u8],
    body: &mut Body,
    of: fn(&mut T) -> (&[RecordHead], &mut Vec<Bytes>),
) -> Result<Result<T, ReplicaError>, DecodeError> {
    let mut answer: Result<T, ReplicaError> = read(header)?;
    if let Ok(held) = &mut answer {
        let (heads, values) = of(held);
        *values = read_values(heads, body)?;
    }
    Ok(answer)
}

fn read_slice(header: &[u8]) -> Result<Result<SliceIs, ReplicaError>, DecodeError> {
    let slice: Result<SliceIs, ReplicaError> = read(header)?;
    if let Ok(slice) = &slice {
        for key in slice.keys.iter().map(|(key, _)| key).chain(&slice.last) {
            key.check()?;
        }
    }
    Ok(slice)
}

/// The values of records whose heads came in the header.
fn read_values(heads: &[RecordHead], body: &mut Body) -> Result<Vec<Bytes>, DecodeError> {
    heads.iter().map(|head| read_value(head, body)).collect()
}

fn read_value(head: &RecordHead, body: &mut Body) -> Result<Bytes, DecodeError> {
    head.key.check()?;
    body.take(head.value_len)
}

/// Numbers that no honest program sends must not reach the sockets.
fn check_faults(faults: &SetFaults) -> Result<(), DecodeError> {
    if faults.links.len() > FAULT_LINKS_MAX || !faults.links.iter().all(LinkFaults::is_bounded) {
        return Err(DecodeError::Faults);
    }
    Ok(())
}

/// A prefix or starting point longer than a key can match none.
fn check_range(prefix: &Bytes, after: Option<&Bytes>) -> Result<(), DecodeError> {
    let longest = prefix.len().max(after.map_or(0, Bytes::len));
    if longest > KEY_BYTES_MAX {
        return Err(DecodeError::Key(KeyError::TooLong { bytes: longest }));
    }
    Ok(())
}

fn read<T: DeserializeOwned>(header: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(header).map_err(|error| DecodeError::Header { why: error.to_string() })
}

/// What is left of a frame's body.
struct Body {
    rest: Bytes,
}

impl Body {
    fn take(&mut self, len: u32) -> Result<Bytes, DecodeError> {
        let len = len as usize;
        if len > self.rest.len() {
            return Err(DecodeError::Body { expected: len as u64, got: self.rest.len() });
        }
        Ok(self.rest.split_to(len))
    }

    fn rest(&mut self) -> Bytes {
        core::mem::take(&mut self.rest)
    }

    fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            got => Err(DecodeError::Body { expected: 0, got }),
        }
    }
}
