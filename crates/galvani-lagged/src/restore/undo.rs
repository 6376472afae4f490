//! Taking a restore back, key by key, from its report.
//!
//! Only a key that still shows exactly what the job wrote is changed: to the values it had before, or
//! to none. One that has those already, because it was taken back before, is left as it is.
//! Next to read: `report.rs`.

use super::plan::{Job, Reason, Skipped, Step, WriteBack, request_id};
use super::report::{Before, Outcome};
use crate::compare::LiveVersion;
use galvani_model::hlc::Hlc;
use galvani_model::key::Key;
use galvani_model::version::Dot;

/// What to do with a key to take back what the job did to it. `before`: what the job found; `outcome`:
/// what came of it; `live`: what a read has just shown. `now_ms` in milliseconds since 1970.
pub fn undo(
    job: &Job,
    key: &Key,
    before: &[Before],
    outcome: &Outcome,
    live: &[LiveVersion],
    now_ms: u64,
) -> Step {
    let is_value =
        |it: &&Before| it.value.is_some() && (it.expires_ms == 0 || it.expires_ms > now_ms);
    let values = before.iter().filter(is_value);
    let mut had: Vec<_> = values.clone().map(|it| (&it.value, it.expires_ms)).collect();
    let mut has: Vec<_> =
        live.iter().filter(is_value).map(|it| (&it.value, it.expires_ms)).collect();
    had.sort_unstable();
    has.sort_unstable();
    let wrote: &[Dot] = match outcome {
        Outcome::Left => return Step::Skip(Skipped::Same),
        _ if had == has => return Step::Skip(Skipped::Back),
        Outcome::Written { dots } => dots,
        // What became of it is not known, so nothing that is new there is known to be the job's.
        Outcome::Failed { .. } => return untouched(before, live),
    };
    let others: Vec<Dot> =
        live.iter().map(|version| version.dot).filter(|dot| !wrote.contains(dot)).collect();
    if !others.is_empty() {
        return Step::Conflict(Reason::Newer(others));
    }
    if live.len() < wrote.len() {
        return Step::Conflict(Reason::Unexplained);
    }
    let writes: Vec<WriteBack> = values
        .enumerate()
        .filter_map(|(index, it)| {
            Some(WriteBack {
                value: it.value.clone()?,
                expires_ms: it.expires_ms,
                from: Some(it.dot),
                hlc: Hlc::from_unix_ms(it.written_ms),
                request: request_id(job.id, key, UNDO_INDEX + index as u32),
            })
        })
        .collect();
    match writes.is_empty() {
        true => Step::Delete { request: request_id(job.id, key, UNDO_INDEX) },
        false => Step::Write(writes),
    }
}

/// What is left of a key if nothing was done to it, or something that is not known.
fn untouched(before: &[Before], live: &[LiveVersion]) -> Step {
    let was = |version: &LiveVersion| before.iter().any(|it| it.dot == version.dot);
    match before.len() == live.len() && live.iter().all(was) {
        true => Step::Skip(Skipped::Same),
        false => Step::Conflict(Reason::Unexplained),
    }
}

/// Above any index of the job's own writes.
const UNDO_INDEX: u32 = 1 << 16;
