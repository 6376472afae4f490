//! The report of a restore: JSON lines, written as the job goes, from which it can be resumed and undone.
//!
//! The first line is the job. Each key that is to be changed has a line with its step and with what was
//! there, synced before anything is written, and one with what came of it. A last line that was cut
//! short counts for nothing. Drawn in `docs/formats.md`. Next to read: `undo.rs`.

use super::plan::{Job, Step};
use crate::compare::LiveVersion;
use crate::text::Blob;
use galvani_model::bucket::BucketName;
use galvani_model::key::Key;
use galvani_model::version::Dot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// What the report is called in its first line.
pub const SCHEMA: &str = "galvani.restore/1";

/// A version that the job found.
pub type Before = LiveVersion;

/// One line.
#[expect(
    clippy::large_enum_variant,
    reason = "one is made for each line, and written or read at once"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first: what is to be done.
    Job {
        /// [`SCHEMA`].
        schema: String,
        /// The job.
        job: Job,
    },
    /// What is to be done with a key, and what was there.
    Key {
        /// Its bucket.
        bucket: BucketName,
        /// Its bytes.
        key: Blob,
        /// What is to be done.
        step: Step,
        /// What was there.
        before: Vec<Before>,
    },
    /// What came of it.
    Done {
        /// Its bucket.
        bucket: BucketName,
        /// Its bytes.
        key: Blob,
        /// What came of it.
        outcome: Outcome,
    },
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was written, or deleted, under these names.
    Written {
        /// The names of the writes.
        dots: Vec<Dot>,
    },
    /// There was nothing to do.
    Left,
    /// It failed, and may be stored all the same.
    Failed {
        /// What was said.
        why: String,
    },
}

/// Why a report cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It could not be read or written.
    #[error("the report: {0}")]
    Io(#[from] io::Error),
    /// A line that is not the last does not parse.
    #[error("line {number} of the report is damaged: {why}")]
    Damaged {
        /// Counted from 1.
        number: usize,
        /// What is wrong, for people.
        why: String,
    },
    /// The first line is not that of a report, or of one of another release.
    #[error("this is no report of a restore ({SCHEMA}): its first line is not the job")]
    NoJob,
    /// It is of another job: give another file, or go on with that job.
    #[error("this is the report of another job")]
    OtherJob,
}

/// What a report says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was to be done.
    pub step: Step,
    /// What was there before the job's first try.
    pub before: Vec<Before>,
    /// What came of it; `None`: it was cut short.
    pub outcome: Option<Outcome>,
}

/// A report that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The job.
    pub job: Job,
    /// What it says of each key.
    pub entries: BTreeMap<Key, Entry>,
    /// Bytes of its whole lines.
    whole_bytes: u64,
}

impl Report {
    /// Reads a report.
    pub fn read(path: &Path) -> Result<Report, ReportError> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut report: Option<Report> = None;
        let (mut number, mut line) = (0, Vec::new());
        loop {
            line.clear();
            number += 1;
            let bytes = reader.read_until(b'\n', &mut line)?;
            // Nothing, or the end of a try that was cut short.
            if bytes == 0 || line.last() != Some(&b'\n') {
                return report.ok_or(ReportError::NoJob);
            }
            let damaged = |why: String| ReportError::Damaged { number, why };
            let parsed = serde_json::from_slice::<Line>(&line);
            match (&mut report, parsed) {
                (None, Ok(Line::Job { schema, job })) if schema == SCHEMA => {
                    report = Some(Report { job, entries: BTreeMap::new(), whole_bytes: 0 });
                }
                (None, _) => return Err(ReportError::NoJob),
                (Some(_), Err(error)) => return Err(damaged(error.to_string())),
                (Some(report), Ok(line)) => report.take(line).map_err(damaged)?,
            }
            if let Some(report) = &mut report {
                report.whole_bytes += bytes as u64;
            }
        }
    }

    /// Whether a key needs nothing any more.
    pub fn is_done(&self, key: &Key) -> bool {
        let outcome = self.entries.get(key).and_then(|entry| entry.outcome.as_ref());
        matches!(outcome, Some(Outcome::Written { .. } | Outcome::Left))
    }

    fn take(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Job { .. } => Err("a second job".to_owned()),
            Line::Key { bucket, key, step, before } => {
                let key = key_of(bucket, key)?;
                match self.entries.get_mut(&key) {
                    None => {
                        self.entries.insert(key, Entry { step, before, outcome: None });
                    }
                    // A later try: what was there before the first one counts for undoing it.
                    Some(entry) => (entry.step, entry.outcome) = (step, None),
                }
                Ok(())
            }
            Line::Done { bucket, key, outcome } => {
                let key = key_of(bucket, key)?;
                let entry = self.entries.get_mut(&key).ok_or("an outcome without a step")?;
                entry.outcome = Some(outcome);
                Ok(())
            }
        }
    }
}

fn key_of(bucket: BucketName, key: Blob) -> Result<Key, String> {
    Key::new(bucket, key.0).map_err(|error| error.to_string())
}

/// A report that is being written.
#[derive(Debug)]
pub struct ReportWriter {
    file: File,
}

impl ReportWriter {
    /// Begins a report in a new file.
    pub fn create(path: &Path, job: &Job) -> Result<ReportWriter, ReportError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut writer = ReportWriter { file };
        writer.put(&Line::Job { schema: SCHEMA.to_owned(), job: job.clone() })?;
        writer.sync()?;
        Ok(writer)
    }

    /// Goes on with the report of a job; what was cut short at its end is cut off.
    pub fn resume(path: &Path, job: &Job) -> Result<(Report, ReportWriter), ReportError> {
        let report = Report::read(path)?;
        if report.job != *job {
            return Err(ReportError::OtherJob);
        }
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(report.whole_bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok((report, ReportWriter { file }))
    }

    /// Says what is to be done with a key. [`ReportWriter::sync`] it before doing it.
    pub fn step(&mut self, key: &Key, step: &Step, before: &[Before]) -> Result<(), ReportError> {
        let (bucket, bytes) = (key.bucket().clone(), Blob(key.bytes().clone()));
        self.put(&Line::Key { bucket, key: bytes, step: step.clone(), before: before.to_vec() })
    }

    /// Says what came of it.
    pub fn done(&mut self, key: &Key, outcome: &Outcome) -> Result<(), ReportError> {
        let (bucket, bytes) = (key.bucket().clone(), Blob(key.bytes().clone()));
        self.put(&Line::Done { bucket, key: bytes, outcome: outcome.clone() })
    }

    /// Makes all lines so far durable.
    pub fn sync(&mut self) -> Result<(), ReportError> {
        Ok(self.file.sync_data()?)
    }

    fn put(&mut self, line: &Line) -> Result<(), ReportError> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
        text.push(b'\n');
        Ok(self.file.write_all(&text)?)
    }
}
