//! What to do with one key, from all that is known of it.
//!
//! Rule one: a live version is replaced only if it was there at the moment, or was replaced since in
//! what came here, or is one of the bad writes. Anything else is a user's, and makes a conflict:
//! the key is left alone and reported. Rule two: the same view gives the same step.
//! Next to read: `report.rs`. Source: algorithms 5.2, "restore".

use crate::as_of::{AsOf, Moment};
use crate::compare::{Latest, LiveVersion, Seen, Then, View};
use crate::select::{Selection, Selector};
use crate::text::Blob;
use galvani_model::hash::key_hash_128;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{Dot, Kind, RecordHead};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// What is to be brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name, from the operating system's generator; every try of the job has the same.
    pub id: RequestId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The keys.
    pub selection: Selection,
    /// The moment, as it was asked for.
    pub as_of: AsOf,
    /// The moment, as it was found out when the job was made.
    pub moment: Moment,
    /// The writes that are to be undone: they are replaced, and what was there is shown as if they had
    /// not been. `None`: every deletion since the moment, and nothing else.
    pub bad: Option<Selector>,
    /// Whether keys that had no value then, and have only bad ones now, are deleted.
    pub delete_newer: bool,
}

/// What to do with one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nothing.
    Skip(Skipped),
    /// Write all of these, each under the context of the read: siblings come back as siblings.
    Write(Vec<WriteBack>),
    /// Delete it, under the context of the read.
    Delete {
        /// The request id to delete under.
        request: RequestId,
    },
    /// Nothing: writing would replace what it must not.
    Conflict(Reason),
}

/// Why nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// It is not one of the keys asked for.
    Outside,
    /// It has the values it had then.
    Same,
    /// It had no value then, and the job deletes nothing.
    NothingThen,
    /// Of taking a job back: it has the values it had before the job.
    Back,
}

/// Why a key is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// These were written after the moment, and are none of the bad writes.
    Newer(Vec<Dot>),
    /// These are live, and never came here.
    Unknown(Vec<Dot>),
    /// These came here, and the cluster does not show them: newer writes that it may have lost, or
    /// has not everywhere yet.
    LiveLacks(Vec<Dot>),
    /// The cluster shows nothing, and no bad write that came here explains it.
    Unexplained,
    /// It was written after the moment, and that is in the base already: what was there is not known.
    Blurred,
    /// These bad writes are in the base already, so what they replaced cannot be shown.
    BadApplied(Vec<Dot>),
}

/// One value to be written back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBack {
    /// The value.
    pub value: Blob,
    /// When it expires, in milliseconds since 1970, as it always would have; 0: never.
    pub expires_ms: u64,
    /// The write that stored it; `None` when a job is undone.
    pub from: Option<Dot>,
    /// When that was.
    pub hlc: Hlc,
    /// The request id to write under: the same for every try of the job.
    pub request: RequestId,
}

/// What to do with a key. `now_ms` (milliseconds since 1970): values that have expired since are not
/// written back.
pub fn plan(job: &Job, view: &View, now_ms: u64) -> Step {
    if !job.selection.holds(&view.key) {
        return Step::Skip(Skipped::Outside);
    }
    if view.blurred {
        return Step::Conflict(Reason::Blurred);
    }
    if !view.kept.is_empty() {
        return Step::Conflict(Reason::BadApplied(view.kept.clone()));
    }
    let wanted: Vec<&Then> =
        view.values_then().filter(|then| !then.version.has_ended(now_ms)).collect();
    if is_same(&wanted, &view.live) {
        return Step::Skip(Skipped::Same);
    }
    if let Some(reason) = objection(job, view, &wanted, now_ms) {
        return Step::Conflict(reason);
    }
    if wanted.is_empty() {
        return match job.delete_newer {
            true => Step::Delete { request: request_id(job.id, &view.key, 0) },
            false => Step::Skip(Skipped::NothingThen),
        };
    }
    let write = |(index, then): (usize, &&Then)| WriteBack {
        value: then.value.clone(),
        expires_ms: then.version.expires_ms,
        from: then.version.dots.first().copied(),
        hlc: then.version.hlc,
        request: request_id(job.id, &view.key, index as u32),
    };
    Step::Write(wanted.iter().enumerate().map(write).collect())
}

/// The request id of a job's write: a function of job, key and index alone.
pub fn request_id(job: RequestId, key: &Key, index: u32) -> RequestId {
    let mut bytes = job.to_bytes().to_vec();
    bytes.extend_from_slice(&key_hash_128(key, REQUEST_SEED).to_le_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
    RequestId(xxh3_128_with_seed(&bytes, REQUEST_SEED))
}

/// Separates request ids of restores from every other use of the hash.
const REQUEST_SEED: u64 = 0x6761_6c76_7273_7431; // "galvrst1"

/// Why the key must be left alone.
fn objection(job: &Job, view: &View, wanted: &[&Then], now_ms: u64) -> Option<Reason> {
    let (mut newer, mut unknown) = (Vec::new(), Vec::new());
    for seen in &view.live {
        match standing(job, view, seen, wanted) {
            Standing::Replaceable => {}
            Standing::Newer => newer.push(seen.version.dot),
            Standing::Unknown => unknown.push(seen.version.dot),
        }
    }
    if !newer.is_empty() {
        return Some(Reason::Newer(newer));
    }
    if !unknown.is_empty() {
        return Some(Reason::Unknown(unknown));
    }
    let unseen = || view.latest.iter().filter(|latest| is_unseen(view, latest));
    let lacking: Vec<Dot> = unseen()
        .filter(|it| !is_bad(job, &it.head) && !it.version.has_ended(now_ms))
        .map(|it| it.head.dot)
        .collect();
    if !lacking.is_empty() {
        return Some(Reason::LiveLacks(lacking));
    }
    if view.live.is_empty() && job.bad.is_some() && unseen().next().is_none() {
        return Some(Reason::Unexplained);
    }
    None
}

enum Standing {
    Replaceable,
    Newer,
    Unknown,
}

fn standing(job: &Job, view: &View, seen: &Seen, wanted: &[&Then]) -> Standing {
    let LiveVersion { dot, value, written_ms, expires_ms } = &seen.version;
    let was_there = view.then.iter().any(|then| then.version.dots.contains(dot));
    // A try of this job that was cut short has written some of them already.
    let is_wanted = value.as_ref().is_some_and(|value| {
        wanted.iter().zip(0..).any(|(it, index)| {
            let same = it.value == *value && it.version.expires_ms == *expires_ms;
            // Another's write of the same bytes is a newer one all the same.
            let ours = |head: &RecordHead| head.rid == request_id(job.id, &head.key, index);
            same && seen.head.as_ref().is_none_or(ours)
        })
    });
    if was_there || is_wanted || is_bad_live(job, seen) {
        return Standing::Replaceable;
    }
    match &seen.head {
        Some(head) if view.moment.is_before(head.hlc) => Standing::Newer,
        // Something that came here replaces it.
        Some(_) => Standing::Replaceable,
        None if *written_ms > view.moment.at_ms => Standing::Newer,
        None => Standing::Unknown,
    }
}

/// Whether a version of all that came was not there at the moment, and the cluster neither shows it
/// nor, as far as is known, anything that replaces it.
fn is_unseen(view: &View, latest: &Latest) -> bool {
    let dots = &latest.version.dots;
    !view.is_live(dots)
        && !view.is_replaced_live(dots)
        && !view.then.iter().any(|then| then.version.dots.iter().any(|dot| dots.contains(dot)))
}

fn is_bad_live(job: &Job, seen: &Seen) -> bool {
    match &seen.head {
        Some(head) => is_bad(job, head),
        // Not here yet: a deletion can be told all the same.
        None => job.bad.is_none() && seen.version.value.is_none() && seen.version.expires_ms == 0,
    }
}

fn is_bad(job: &Job, head: &RecordHead) -> bool {
    match &job.bad {
        Some(bad) => bad.names(head),
        None => head.kind == Kind::Delete,
    }
}

/// Whether the values are the same, each as often and with the same expiry.
fn is_same(wanted: &[&Then], live: &[Seen]) -> bool {
    let mut then: Vec<(&Blob, u64)> =
        wanted.iter().map(|it| (&it.value, it.version.expires_ms)).collect();
    let mut now: Vec<(&Blob, u64)> = live
        .iter()
        .filter_map(|seen| Some((seen.version.value.as_ref()?, seen.version.expires_ms)))
        .collect();
    then.sort_unstable();
    now.sort_unstable();
    then == now
}
