//! `lagged restore` and `lagged undo`: keys are read, judged and written back, some side by side.
//!
//! What is to be done with a key stands in the report, durably, before it is done. Every write is under
//! the context of the read that was judged, so a write that comes in between becomes a sibling.
//! Next to read: `keys.rs`, `galvani-lagged/src/restore/plan.rs`.

use super::Asker;
use super::keys::{Keys, live, read_all, unix_ms, view};
use super::tally::Tally;
use crate::args::lagged::{Restore, Undo};
use crate::commands::Done;
use crate::connect::{RETRIES, Session};
use crate::exit::Exit;
use crate::report::Report;
use bytes::Bytes;
use futures_util::future::join_all;
use galvani_client::{Bucket, Read, RequestId};
use galvani_lagged::restore::{
    Job, Outcome, Report as Kept, ReportError, ReportWriter, Step, plan, undo as take_back,
};
use galvani_lagged::{AsOf, Blob, Selection};
use galvani_model::key::Key;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A value is not written back for less than this: servers refuse a life of under a second.
const LIFE_MIN_MS: u64 = 5_000;

/// Brings keys back, or shows what it would do.
pub(super) async fn restore(asker: &mut Asker<'_>, args: Restore) -> Done {
    let app = asker.app;
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let yes = args.manner.yes;
    let (job, path) = job_of(asker, &session, &args)?;
    let (kept, mut writer) = match (&args.resume, yes) {
        (Some(path), false) => (Some(Kept::read(path).map_err(report_failed)?), None),
        (Some(path), true) => {
            let (kept, writer) = ReportWriter::resume(path, &job).map_err(report_failed)?;
            (Some(kept), Some(writer))
        }
        (None, false) => (None, None),
        (None, true) => (None, Some(ReportWriter::create(&path, &job).map_err(report_failed)?)),
    };
    let name = match &job.selection {
        Selection::Key { bucket, .. } | Selection::Prefix { bucket, .. } => bucket.clone(),
    };
    let bucket = session.client.bucket(name.as_str());
    let mut keys = Keys::of(&job.selection, job.moment, job.bad.clone(), job.delete_newer);
    let (mut tally, mut pace) = (Tally::default(), Pace::of(args.manner.rate.get()));
    loop {
        let mut chunk = keys.chunk(asker)?;
        if chunk.is_empty() {
            break;
        }
        if let Some(kept) = &kept {
            let all = chunk.len();
            chunk.retain(|bytes| !is_done(kept, &name, bytes));
            (chunk.len()..all).for_each(|_| tally.done_before());
        }
        let mut due = Vec::new();
        for (key, read) in chunk.iter().zip(read_all(&bucket, &chunk).await) {
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    tally.unread(key, &error.to_string());
                    continue;
                }
            };
            let view = view(asker, &name, key, &read, job.moment, job.bad.clone())?;
            let step = plan(&job, &view, unix_ms(SystemTime::now()) + LIFE_MIN_MS);
            match (&mut writer, &step) {
                (Some(writer), Step::Write(_) | Step::Delete { .. } | Step::Conflict(_)) => {
                    let named = named(&name, key)?;
                    writer.step(&named, &step, &live(&read)).map_err(report_failed)?;
                    due.push((named, step, read));
                }
                (Some(_) | None, step) => tally.step(key, step),
            }
        }
        if let Some(writer) = &mut writer {
            carry_out(&bucket, writer, due, &mut tally).await?;
            pace.after(chunk.len()).await;
        }
    }
    tally.tell(&app.out, yes.then_some(path.as_path()))
}

/// Writes what is due, after the report has it.
async fn carry_out(
    bucket: &Bucket,
    writer: &mut ReportWriter,
    due: Vec<(Key, Step, Read)>,
    tally: &mut Tally,
) -> Result<(), Report> {
    writer.sync().map_err(report_failed)?;
    let writes = due.iter().map(|(key, step, read)| write(bucket, key.bytes(), step, read));
    let outcomes = join_all(writes).await;
    for ((key, step, _), outcome) in due.iter().zip(&outcomes) {
        // A conflict is judged anew by the next try.
        if !matches!(step, Step::Conflict(_)) {
            writer.done(key, outcome).map_err(report_failed)?;
        }
        tally.done(key.bytes(), step, outcome);
    }
    writer.sync().map_err(report_failed)
}

/// Carries a step out, under the context of the read.
async fn write(bucket: &Bucket, key: &Bytes, step: &Step, read: &Read) -> Outcome {
    let mut dots = Vec::new();
    match step {
        Step::Skip(_) | Step::Conflict(_) => return Outcome::Left,
        Step::Write(values) => {
            for value in values {
                let put = bucket.put(key.clone(), value.value.0.clone()).after(read);
                let put = match value.expires_ms {
                    0 => put.ttl(Duration::ZERO),
                    ms => put.expires_at(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
                };
                match put.request_id(value.request).send().await {
                    Ok(written) => dots.extend(written.dot),
                    Err(error) => return Outcome::Failed { why: error.to_string() },
                }
            }
        }
        Step::Delete { request } => {
            match bucket.delete(key.clone()).after(read).request_id(*request).send().await {
                Ok(written) => dots.extend(written.dot),
                Err(error) => return Outcome::Failed { why: error.to_string() },
            }
        }
    }
    Outcome::Written { dots }
}

/// Takes a restore back, or shows what it would do.
pub(super) async fn undo(asker: &mut Asker<'_>, args: Undo) -> Done {
    let app = asker.app;
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let kept = Kept::read(&args.report).map_err(report_failed)?;
    same_cluster(&kept.job, &session)?;
    let (mut tally, mut pace) = (Tally::default(), Pace::of(args.manner.rate.get()));
    // What was cut short may be stored, as what failed may.
    let cut = Outcome::Failed { why: "it was cut short".to_owned() };
    for (key, entry) in kept.entries.iter().rev() {
        if !matches!(entry.step, Step::Write(_) | Step::Delete { .. }) {
            continue;
        }
        let bucket = session.client.bucket(key.bucket().as_str());
        let read = match bucket.get(key.bytes().clone()).await {
            Ok(read) => read,
            Err(error) => {
                tally.unread(key.bytes(), &error.to_string());
                continue;
            }
        };
        let now_ms = unix_ms(SystemTime::now()) + LIFE_MIN_MS;
        let outcome = entry.outcome.as_ref().unwrap_or(&cut);
        let step = take_back(&kept.job, key, &entry.before, outcome, &live(&read), now_ms);
        match args.manner.yes {
            false => tally.step(key.bytes(), &step),
            true => {
                let outcome = write(&bucket, key.bytes(), &step, &read).await;
                tally.done(key.bytes(), &step, &outcome);
                pace.after(1).await;
            }
        }
    }
    tally.tell(&app.out, args.manner.yes.then_some(args.report.as_path()))
}

/// The job, and where its report is or goes.
fn job_of(
    asker: &mut Asker<'_>,
    session: &Session,
    args: &Restore,
) -> Result<(Job, PathBuf), Report> {
    if let Some(path) = &args.resume {
        let job = Kept::read(path).map_err(report_failed)?.job;
        same_cluster(&job, session)?;
        return Ok((job, path.clone()));
    }
    let bucket = args.bucket.bucket.clone();
    asker.check_bucket(&bucket)?;
    let selection = match (&args.key, &args.prefix) {
        (Some(key), _) => Selection::Key { bucket, key: Blob(key.clone()) },
        (None, prefix) => {
            let prefix = Blob(prefix.clone().unwrap_or_default());
            Selection::Prefix { bucket, prefix }
        }
    };
    let (as_of, moment, bad) = asker.moment(&args.moment)?;
    if as_of == AsOf::Latest && bad.is_none() {
        return Err(Report::new(Exit::Usage, "lagged: restore to when?")
            .why("all that came is what the cluster has")
            .next("say", "--at WHEN, --before DOT or --before-request ID; or which writes are bad, with --without-.."));
    }
    let id = random_id()?;
    let path = args.report.clone();
    let path = path.unwrap_or_else(|| Path::new(&format!("restore-{}.jsonl", id.short())).into());
    let cluster = session.client.cluster().cluster;
    let delete_newer = args.delete_newer;
    Ok((Job { id, cluster, selection, as_of, moment, bad, delete_newer }, path))
}

fn same_cluster(job: &Job, session: &Session) -> Result<(), Report> {
    match job.cluster == session.client.cluster().cluster {
        true => Ok(()),
        false => Err(Report::new(Exit::Refused, "lagged: the report is of another cluster")
            .next("say", "--context NAME    the cluster it was made on")),
    }
}

fn is_done(kept: &Kept, bucket: &galvani_client::BucketName, bytes: &Bytes) -> bool {
    Key::new(bucket.clone(), bytes.clone()).is_ok_and(|key| kept.is_done(&key))
}

fn named(bucket: &galvani_client::BucketName, bytes: &Bytes) -> Result<Key, Report> {
    Key::new(bucket.clone(), bytes.clone())
        .map_err(|error| Report::unexpected(format!("lagged: {error}")))
}

fn report_failed(error: ReportError) -> Report {
    Report::new(Exit::Unexpected, format!("lagged: {error}"))
}

/// From the operating system's generator.
fn random_id() -> Result<RequestId, Report> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Report::unexpected(format!("no randomness: {error}")))?;
    Ok(RequestId::from_bytes(bytes))
}

/// So many keys a second at most.
pub(super) struct Pace {
    began: Instant,
    per_second: f64,
    done: usize,
}

impl Pace {
    pub(super) fn of(per_second: u64) -> Pace {
        Pace { began: Instant::now(), per_second: per_second as f64, done: 0 }
    }

    pub(super) async fn after(&mut self, keys: usize) {
        self.done += keys;
        let due = self.began + Duration::from_secs_f64(self.done as f64 / self.per_second);
        tokio::time::sleep_until(due).await;
    }
}
