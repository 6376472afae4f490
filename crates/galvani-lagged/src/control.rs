//! What is said over the control socket of a running lagged replica: a line of JSON each way.
//!
//! The process that runs the replica answers; the command line asks. Only the account that runs the
//! replica may connect, which is the socket's mode, 0600. [`answer`] is the whole of the server's side
//! but for the socket. Next to read: `steer.rs`, `status.rs`, `as_of.rs`, `compare.rs`.

use crate::as_of::{AsOf, Moment, Place};
use crate::compare::{LiveVersion, View};
use crate::error::LaggedError;
use crate::replica::Lagged;
use crate::select::Selector;
use crate::status::Status;
use crate::steer::{Change, Foreseen, Until};
use crate::text::Blob;
use crate::verify::Verified;
use galvani_model::bucket::BucketName;
use galvani_model::ids::NodeId;
use galvani_model::key::{Key, KeyError};
use galvani_model::version::{Dot, Version};
use galvani_protocol::Now;
use galvani_storage::engine::Engine;
use serde::{Deserialize, Serialize};

/// The socket's name in the replica's directory.
pub const SOCKET: &str = "control.sock";

/// Longest line either way, in bytes: the largest value of a key with many siblings, as base64.
pub const LINE_BYTES_MAX: usize = 256 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// How it stands.
    Status,
    /// Apply nothing any more.
    Pause,
    /// Apply again.
    Resume,
    /// Wait so long from now on.
    SetLag {
        /// In milliseconds.
        lag_ms: u64,
    },
    /// Apply up to a point.
    Advance {
        /// The point.
        until: Until,
    },
    /// Compare all that came with the cluster, and read all files.
    Verify,
    /// Which of these keys have no value by all that came; of none, whether there is such a bucket.
    Lacking {
        /// Their bucket.
        bucket: BucketName,
        /// Their bytes.
        keys: Vec<Blob>,
    },
    /// What a change would do, without making it.
    Foresee {
        /// The change.
        change: Change,
    },
    /// Find writes by the beginning of their origin.
    Find {
        /// The first digits.
        origin: String,
        /// The counter.
        counter: u64,
    },
    /// Find out a moment, for the questions below.
    Moment {
        /// Which.
        as_of: AsOf,
    },
    /// A key at a moment.
    Get {
        /// Its bucket.
        bucket: BucketName,
        /// Its bytes.
        key: Blob,
        /// The moment.
        moment: Moment,
        /// Writes to leave out.
        without: Option<Selector>,
    },
    /// Keys at a moment.
    Scan {
        /// Their bucket.
        bucket: BucketName,
        /// What they start with.
        prefix: Blob,
        /// Where to go on.
        from: Option<Place>,
        /// How many at most.
        limit: usize,
        /// The moment.
        moment: Moment,
        /// Writes to leave out.
        without: Option<Selector>,
    },
    /// All that is known of a key that was just read in the cluster.
    View {
        /// Its bucket.
        bucket: BucketName,
        /// Its bytes.
        key: Blob,
        /// What the read showed.
        live: Vec<LiveVersion>,
        /// The moment.
        moment: Moment,
        /// Writes to leave out.
        without: Option<Selector>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How it stands; the answer to whatever steers, too.
    Status(Status),
    /// So many writes are due now, whatever the lag says.
    Advancing {
        /// How many.
        records: u64,
    },
    /// What a comparison found.
    Verified(Verified),
    /// What a change would do.
    Foreseen(Foreseen),
    /// Writes.
    Dots {
        /// All that came here and are called so.
        dots: Vec<Dot>,
    },
    /// A moment.
    Moment {
        /// The moment.
        moment: Moment,
    },
    /// A key; no version: nothing was known of it.
    Key {
        /// Its values.
        values: Vec<Value>,
    },
    /// Keys.
    Keys {
        /// Those that had a value.
        keys: Vec<Blob>,
        /// Those of which that is not known: they were written after the moment, and that is applied.
        blurred: Vec<Blob>,
        /// Where to go on.
        next: Option<Place>,
    },
    /// All that is known of a key.
    View(Box<View>),
    /// It was not done.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// A value at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The value.
    pub value: Blob,
    /// Its names.
    pub dots: Vec<Dot>,
    /// The node that took the write in first.
    pub author: NodeId,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// When it expires, in milliseconds since 1970; 0: never.
    pub expires_ms: u64,
}

/// Answers one question. A question that fails changes nothing but what the error says.
pub fn answer<E: Engine>(replica: &mut Lagged<E>, ask: Ask, now: Now) -> Answer {
    match try_answer(replica, ask, now) {
        Ok(answer) => answer,
        Err(error) => Answer::Refused { why: error.to_string() },
    }
}

#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error(transparent)]
    Replica(#[from] LaggedError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("whoever runs the replica compares it with the cluster: this is the replica alone")]
    NotHere,
}

fn try_answer<E: Engine>(
    replica: &mut Lagged<E>,
    ask: Ask,
    now: Now,
) -> Result<Answer, AnswerError> {
    match ask {
        Ask::Status => {}
        Ask::Pause => drop(replica.pause(now)?),
        Ask::Resume => replica.resume(now)?,
        Ask::SetLag { lag_ms } => replica.set_lag(lag_ms, now)?,
        Ask::Advance { until } => {
            return Ok(Answer::Advancing { records: replica.advance(until, now)? });
        }
        Ask::Verify => return Err(AnswerError::NotHere),
        Ask::Lacking { bucket, keys } => {
            replica.check_bucket(&bucket)?;
            let moment = Moment { below: None, at_ms: now.unix_ms };
            let mut lacking = Vec::new();
            for bytes in keys {
                let key = Key::new(bucket.clone(), bytes.0.clone())?;
                let found = replica.read_at(&key, &moment, None)?;
                if found.is_none_or(|found| found.values(moment.at_ms).next().is_none()) {
                    lacking.push(bytes);
                }
            }
            return Ok(Answer::Keys { keys: lacking, blurred: Vec::new(), next: None });
        }
        Ask::Foresee { change } => return Ok(Answer::Foreseen(replica.foresee(change, now)?)),
        Ask::Find { origin, counter } => {
            return Ok(Answer::Dots { dots: replica.named_like(&origin, counter) });
        }
        Ask::Moment { as_of } => {
            return Ok(Answer::Moment { moment: replica.moment(as_of, now.unix_ms)? });
        }
        Ask::Get { bucket, key, moment, without } => {
            replica.check_bucket(&bucket)?;
            let key = Key::new(bucket, key.0)?;
            let Some(found) = replica.read_at(&key, &moment, without.as_ref())? else {
                return Ok(Answer::Key { values: Vec::new() });
            };
            let versions: Vec<Version> = found.values(moment.at_ms).cloned().collect();
            let mut values = Vec::new();
            for version in versions {
                values.push(Value {
                    value: Blob(replica.value(found.shard, &version)?),
                    dots: version.dots.to_vec(),
                    author: version.author,
                    written_ms: version.hlc.unix_ms(),
                    expires_ms: version.expires_ms,
                });
            }
            return Ok(Answer::Key { values });
        }
        Ask::Scan { bucket, prefix, from, limit, moment, without } => {
            replica.check_bucket(&bucket)?;
            let (from, without) = (from.as_ref(), without.as_ref());
            let page = replica.scan_at(&bucket, &prefix.0, from, limit, &moment, without)?;
            let has_value =
                |found: &&crate::as_of::Found| found.values(moment.at_ms).next().is_some();
            let keys = page.found.iter().filter(has_value);
            let keys = keys.map(|found| Blob(found.key.bytes().clone())).collect();
            let blurred = page.blurred.iter().map(|key| Blob(key.bytes().clone())).collect();
            return Ok(Answer::Keys { keys, blurred, next: page.next });
        }
        Ask::View { bucket, key, live, moment, without } => {
            replica.check_bucket(&bucket)?;
            let key = Key::new(bucket, key.0)?;
            let view = replica.view(&key, live, &moment, without.as_ref(), now.unix_ms)?;
            return Ok(Answer::View(Box::new(view)));
        }
    }
    Ok(Answer::Status(replica.status(now)?))
}
