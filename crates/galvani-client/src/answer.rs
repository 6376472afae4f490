//! What reads and writes return: siblings, contexts, acks, and each replica's part by name.
//!
//! These are plain values made from what a server said; nothing here talks to anyone. Small values
//! are copied out of the receive buffer, so that keeping one does not keep the buffer.

use crate::context::Context;
use crate::directory::Directory;
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use galvani_model::ids::RequestId;
use galvani_model::span::Span;
use galvani_model::version::{Dot, Kind};
use galvani_wire::message::{GetDone, PutDone};
use galvani_wire::{Answer, Outcome};
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One of the concurrent values of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The value; `None` is a tombstone, the trace of a delete, or a value that has expired.
    pub value: Option<Bytes>,
    /// When the value expires, if it does.
    pub expires_at: Option<SystemTime>,
    /// When it was written, by the writer's clock. For people: order comes from contexts.
    pub written_at: SystemTime,
    /// The name of the node that took the write in first.
    pub node: String,
    /// The write's name in the cluster.
    pub dot: Dot,
}

/// What a read saw.
#[derive(Clone, Debug)]
pub struct Read {
    /// The values nothing seen replaces, tombstones included. Empty: the key is absent.
    pub siblings: Vec<Sibling>,
    /// What was seen: write `.after(&read)` to replace exactly that.
    pub context: Context,
    /// What each replica answered up to the quorum.
    pub answers: Vec<ReplicaAnswer>,
    pub(crate) subject: String,
}

fn expiry(expires_ms: u64) -> Option<SystemTime> {
    (expires_ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(expires_ms))
}

impl Read {
    /// The value; `None` if there is none or it was deleted; an error of kind
    /// [`ErrorKind::Conflict`] if there are several. A delete that raced with a write does not
    /// hide the written value.
    pub fn one(&self) -> Result<Option<Bytes>> {
        let mut values = self.values();
        match (values.next(), values.count()) {
            (first, 0) => Ok(first.cloned()),
            (_, more) => {
                let siblings = u32::try_from(more + 1).unwrap_or(u32::MAX);
                Err(Error::new("get", self.subject.as_str(), ErrorKind::Conflict { siblings }))
            }
        }
    }

    /// The values, without the tombstones.
    pub fn values(&self) -> impl Iterator<Item = &Bytes> {
        self.siblings.iter().filter_map(|sibling| sibling.value.as_ref())
    }

    pub(crate) fn of(done: GetDone, subject: String, directory: &Directory) -> Read {
        let sibling = |one: galvani_wire::message::Sibling| Sibling {
            value: match one.kind {
                Kind::Put => Some(unpinned(one.value)),
                Kind::Delete | Kind::Emit => None,
            },
            expires_at: expiry(one.expires_ms),
            written_at: UNIX_EPOCH + Duration::from_millis(one.hlc.unix_ms()),
            node: directory.name_of(one.author),
            dot: one.dot,
        };
        Read {
            siblings: done.siblings.into_iter().map(sibling).collect(),
            context: Context::received(&done.context),
            answers: named(&done.answers, directory),
            subject,
        }
    }
}

impl AsRef<Context> for Read {
    fn as_ref(&self) -> &Context {
        &self.context
    }
}

/// A write that was stored as asked.
#[derive(Clone, Debug)]
pub struct Written {
    /// Covers this write and what it replaced: write `.after(&written)` to replace it.
    pub context: Context,
    /// Places of the write, one for each owner, that were covered when the answer was given: by the
    /// owner, or by a node that stands in for it and holds a hint.
    pub acks: u8,
    /// Values the key has now at the coordinator, tombstones not counted. Above one: others wrote
    /// concurrently, and somebody must merge.
    pub siblings_now: u32,
    /// The write's name in the cluster; `None` when an `update` kept what was there.
    pub dot: Option<Dot>,
    /// The id all attempts shared; `None` when nothing was written.
    pub request_id: Option<RequestId>,
    /// What each replica answered so far.
    pub answers: Vec<ReplicaAnswer>,
}

impl Written {
    pub(crate) fn of(done: PutDone, request_id: RequestId, directory: &Directory) -> Written {
        let stored = |answer: &&Answer| match answer.outcome {
            Outcome::Stored | Outcome::StoredDurably => true,
            Outcome::Answered | Outcome::Pending | Outcome::Unreachable | Outcome::Refused(_) => {
                false
            }
        };
        let place = |answer: &Answer| answer.stands_in_for.unwrap_or(answer.node);
        let acks = done.answers.iter().filter(stored).map(place).collect::<BTreeSet<_>>().len();
        Written {
            context: Context::received(&done.context),
            acks: u8::try_from(acks).unwrap_or(u8::MAX),
            siblings_now: done.siblings,
            dot: Some(done.dot),
            request_id: Some(request_id),
            answers: named(&done.answers, directory),
        }
    }

    /// An update that found nothing to change in a key with this many values.
    pub(crate) fn nothing(read: Read, values: usize) -> Written {
        Written {
            siblings_now: u32::try_from(values).unwrap_or(u32::MAX),
            context: read.context,
            acks: 0,
            dot: None,
            request_id: None,
            answers: read.answers,
        }
    }
}

impl AsRef<Context> for Written {
    fn as_ref(&self) -> &Context {
        &self.context
    }
}

/// One node's part in a request. Displays as `n3 unreachable`, or `n4 for n3 stored` for a stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAnswer {
    /// The node's name.
    pub node: String,
    /// The owner in whose place it was asked, if it is none itself: it holds a hint.
    pub stands_in_for: Option<String>,
    /// What it said.
    pub outcome: Outcome,
    /// From the coordinator's asking to the answer; `None` if there is none.
    pub took: Option<Duration>,
}

impl ReplicaAnswer {
    /// Whether the replica did its part.
    pub fn is_ok(&self) -> bool {
        match self.outcome {
            Outcome::Stored | Outcome::StoredDurably | Outcome::Answered => true,
            Outcome::Pending | Outcome::Unreachable | Outcome::Refused(_) => false,
        }
    }

    pub(crate) fn of(answer: &Answer, directory: &Directory) -> ReplicaAnswer {
        let took = Duration::from_micros(u64::from(answer.micros));
        ReplicaAnswer {
            node: directory.name_of(answer.node),
            stands_in_for: answer.stands_in_for.map(|owner| directory.name_of(owner)),
            outcome: answer.outcome.clone(),
            took: (!took.is_zero()).then_some(took),
        }
    }
}

impl fmt::Display for ReplicaAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stands_in_for {
            Some(owner) => write!(f, "{} for {owner} ", self.node)?,
            None => write!(f, "{} ", self.node)?,
        }
        match &self.outcome {
            Outcome::Stored => f.write_str("stored")?,
            Outcome::StoredDurably => f.write_str("stored durably")?,
            Outcome::Answered => f.write_str("ok")?,
            Outcome::Pending => return f.write_str("no answer"),
            Outcome::Unreachable => return f.write_str("unreachable"),
            Outcome::Refused(why) => return write!(f, "refused: {why}"),
        }
        match self.took {
            Some(took) => write!(f, " {}", Span(took)),
            None => Ok(()),
        }
    }
}

pub(crate) fn named(answers: &[Answer], directory: &Directory) -> Vec<ReplicaAnswer> {
    answers.iter().map(|answer| ReplicaAnswer::of(answer, directory)).collect()
}

/// Received bytes share the read buffer. A small value is copied out of it; a large one is most of
/// the buffer anyway.
pub(crate) fn unpinned(value: Bytes) -> Bytes {
    if value.len() < COPY_BELOW { Bytes::copy_from_slice(&value) } else { value }
}

/// A read buffer grows to 64 KiB; a value of a quarter of that may keep it.
const COPY_BELOW: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::{Read, Sibling};
    use crate::context::Context;
    use crate::error::ErrorKind;
    use bytes::Bytes;
    use galvani_model::ids::Origin;
    use galvani_model::version::Dot;
    use std::time::UNIX_EPOCH;

    fn read(values: &[Option<&'static str>]) -> Read {
        let sibling = |value: &Option<&'static str>| Sibling {
            value: value.map(Bytes::from),
            expires_at: None,
            written_at: UNIX_EPOCH,
            node: "n1".to_owned(),
            dot: Dot::new(Origin(1), 1),
        };
        Read {
            siblings: values.iter().map(sibling).collect(),
            context: Context::default(),
            answers: Vec::new(),
            subject: "k".to_owned(),
        }
    }

    #[test]
    fn one_is_the_only_value_or_absence_or_a_conflict() {
        let cases: [(&[Option<&'static str>], Option<&'static str>); 5] = [
            (&[], None),
            (&[None], None),
            (&[None, None], None),
            (&[Some("a")], Some("a")),
            (&[None, Some("a")], Some("a")),
        ];
        for (siblings, expected) in cases {
            let one = read(siblings).one().expect("no conflict");
            assert_eq!(one, expected.map(Bytes::from), "{siblings:?}");
        }
        let error = read(&[Some("a"), None, Some("b")]).one().expect_err("two values");
        assert_eq!(error.kind(), &ErrorKind::Conflict { siblings: 2 });
    }
}
