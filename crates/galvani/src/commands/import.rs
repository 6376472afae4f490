//! `import`: load records of a JSON lines file, many at once, and tell of each that failed.
//!
//! A record is read first and written only if it differs: an import that was cut short is simply
//! started again, and nothing becomes a sibling. Memory is bounded by the records under way, not by
//! the file. Next to read: `record.rs`, the format.

use crate::args::data::Import;
use crate::commands::del::worse;
use crate::commands::patience::patient;
use crate::commands::progress::bar;
use crate::commands::{Done, options};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::record::{Record, RecordError};
use crate::report::text::{Span, count, grouped};
use crate::report::{Report, client, json, mistakes};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use galvani_client::Error;
use galvani_model::limits::{KEY_BYTES_MAX, SIBLINGS_MAX, VALUE_BYTES_MAX};
use indicatif::ProgressBar;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// A line of the file.
struct Line {
    number: u64,
    bytes: Vec<u8>,
}

/// What became of a record.
enum Outcome {
    Written,
    Same,
    Failed(Report),
}

/// How many came to what.
#[derive(Default)]
struct Tally {
    written: u64,
    same: u64,
    failed: u64,
    last_line: u64,
}

/// Loads the file.
pub(crate) async fn run(app: &App, args: Import) -> Done {
    let stdin = args.file.as_os_str() == "-";
    let (source, total): (Box<dyn BufRead>, Option<u64>) = match stdin {
        true => (Box::new(BufReader::new(io::stdin())), None),
        false => open(&args.file)?,
    };
    let mut failures = match &args.failed {
        Some(path) => Some(create(path)?),
        None => None,
    };
    let timeout = app.global.timeout.unwrap_or(TIMEOUT);
    let session = app.connect_with(timeout, RETRIES).await?;
    let began = Instant::now();
    let bar = bar(&app.out, total, "import");
    let (mut tally, mut worst, mut broken) = (Tally::default(), Exit::Done, None);
    {
        let (session, args) = (&session, &args);
        let lines = stream::iter(Lines { source, number: 0, skip: args.skip, done: false });
        let mut outcomes = lines
            .map(|line| async move {
                match line {
                    Ok(line) => {
                        let outcome = one(session, args, &line).await;
                        (Some(line), outcome)
                    }
                    Err(report) => (None, Outcome::Failed(report)),
                }
            })
            .buffer_unordered(usize::from(args.concurrency));
        while let Some((line, outcome)) = outcomes.next().await {
            let Some(line) = line else {
                if let Outcome::Failed(report) = outcome {
                    broken = Some(report);
                }
                break;
            };
            bar.inc(1);
            tally.last_line = tally.last_line.max(line.number);
            match outcome {
                Outcome::Written => tally.written += 1,
                Outcome::Same => tally.same += 1,
                Outcome::Failed(report) => {
                    tally.failed += 1;
                    worst = worse(worst, report.exit);
                    keep(&line, failures.as_mut(), args)?;
                    tell_failure(app, &bar, &line, &report, tally.failed);
                    if tally.failed >= u64::from(args.max_failures) {
                        break;
                    }
                }
            }
        }
    }
    bar.finish_and_clear();
    if let (Some(file), Some(path)) = (&mut failures, &args.failed) {
        file.flush().map_err(|error| mistakes::file(path, &error))?;
    }
    tell(app, &args, &tally, began.elapsed())?;
    match broken {
        Some(report) => Err(report),
        None => Ok(worst),
    }
}

/// Writes one record, unless it is there already.
async fn one(session: &Session, args: &Import, line: &Line) -> Outcome {
    let record = match Record::parse(&line.bytes) {
        Ok(record) => record,
        Err(error) => return Outcome::Failed(malformed(line, &error)),
    };
    let stored = patient(|tries| store(session, args, &record, tries > 0)).await;
    stored.unwrap_or_else(|error| {
        let retype = options::retype("import", &args.bucket.bucket, &record.key, "");
        Outcome::Failed(client::report(&error, &retype))
    })
}

/// One try. Another one reads first in any case: the one before may have left something.
async fn store(
    session: &Session,
    args: &Import,
    record: &Record,
    again: bool,
) -> Result<Outcome, Error> {
    let bucket = session.bucket(&args.bucket);
    let mut context = None;
    if again || !args.blind {
        let get = options::read(bucket.get(record.key.clone()), args.copies, args.read);
        let read = get.await?;
        if record.has_exactly(read.values()) {
            return Ok(if again { Outcome::Written } else { Outcome::Same });
        }
        context = Some(read.context);
    }
    for value in &record.values {
        let put = bucket.put(record.key.clone(), Bytes::clone(value));
        // The first value replaces what was read; the others are to stand beside it.
        let put = match context.take() {
            Some(seen) => put.after(&seen),
            None => put.blind(),
        };
        options::write(put, args.copies, args.write).send().await?;
    }
    Ok(Outcome::Written)
}

fn malformed(line: &Line, error: &RecordError) -> Report {
    Report::new(Exit::Refused, format!("import: line {}: {error}", line.number))
}

fn tell_failure(app: &App, bar: &ProgressBar, line: &Line, report: &Report, failed: u64) {
    let text = format!("failed line {}: {}", line.number, report.what());
    match failed {
        1..=FAILURES_TOLD => bar.suspend(|| app.out.say(&text)),
        _ if failed == FAILURES_TOLD + 1 => {
            bar.suspend(|| app.out.say("more failures are not shown; see --failed FILE"));
        }
        _ => {}
    }
}

fn keep(line: &Line, failures: Option<&mut BufWriter<File>>, args: &Import) -> Result<(), Report> {
    let (Some(file), Some(path)) = (failures, &args.failed) else { return Ok(()) };
    let wrote = file.write_all(&line.bytes).and_then(|()| file.write_all(b"\n"));
    wrote.map_err(|error| mistakes::file(path, &error))
}

fn tell(app: &App, args: &Import, tally: &Tally, took: Duration) -> Result<(), Report> {
    let Tally { written, same, failed, last_line } = *tally;
    if app.out.is_json() {
        let mut map = json::object("galvani.import/1");
        map.insert("written".to_owned(), written.into());
        map.insert("unchanged".to_owned(), same.into());
        map.insert("failed".to_owned(), failed.into());
        map.insert("last_line".to_owned(), last_line.into());
        map.insert("ms".to_owned(), json::millis(took));
        app.out.json(map)?;
    } else if !app.out.quiet {
        let rate = (written + same) as f64 / took.as_secs_f64().max(1e-9);
        app.out.line(&format!(
            "{}  {} written, {} there already, {} failed  in {}, {}/s",
            if failed == 0 { "ok" } else { "partly" },
            count(written, "record"),
            grouped(same),
            grouped(failed),
            Span(took),
            grouped(rate as u64)
        ))?;
    }
    if failed >= u64::from(args.max_failures) {
        app.out.note(&format!(
            "gave up after {failed} failures, near line {last_line}; start it again to go on"
        ));
    }
    Ok(())
}

/// The lines of the file, empty ones left out; an unreadable one ends it.
struct Lines {
    source: Box<dyn BufRead>,
    number: u64,
    skip: u64,
    done: bool,
}

impl Iterator for Lines {
    type Item = Result<Line, Report>;

    fn next(&mut self) -> Option<Result<Line, Report>> {
        while !self.done {
            let mut bytes = Vec::new();
            let mut bounded = io::Read::take(&mut self.source, LINE_BYTES_MAX + 1);
            self.number += 1;
            let failed = match bounded.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.len() as u64 > LINE_BYTES_MAX => "the line is too long".to_owned(),
                Ok(_) => {
                    let text = bytes.trim_ascii();
                    if self.number <= self.skip || text.is_empty() {
                        continue;
                    }
                    return Some(Ok(Line { number: self.number, bytes: text.to_vec() }));
                }
                Err(error) => error.to_string(),
            };
            self.done = true;
            let what = format!("import: line {}: {failed}", self.number);
            return Some(Err(Report::unexpected(what)));
        }
        None
    }
}

/// The file and how many lines it has.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, Option<u64>), Report> {
    let file = |error| mistakes::file(path, &error);
    let opened = File::open(path).map_err(file)?;
    let regular = opened.metadata().map_err(file)?.is_file();
    let total = match regular {
        true => Some(count_lines(File::open(path).map_err(file)?).map_err(file)?),
        false => None,
    };
    Ok((Box::new(BufReader::new(opened)), total))
}

fn count_lines(file: File) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut lines = 0;
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Ok(lines);
        }
        lines += block.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let length = block.len();
        reader.consume(length);
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, Report> {
    File::create(path).map(BufWriter::new).map_err(|error| mistakes::file(path, &error))
}

/// Time of one request of an import: long enough for the client to turn to another node.
const TIMEOUT: Duration = Duration::from_secs(4);
const RETRIES: u8 = 4;
/// Failures told one by one; all go to `--failed`.
const FAILURES_TOLD: u64 = 20;
/// Longest line: every byte of a key with the most and largest values, escaped as `\u0000`.
const LINE_BYTES_MAX: u64 = 6 * (KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX + 64 * SIBLINGS_MAX) as u64;

#[cfg(test)]
mod tests {
    use super::Lines;

    fn lines(text: &'static str, skip: u64) -> Vec<(u64, String)> {
        let lines = Lines { source: Box::new(text.as_bytes()), number: 0, skip, done: false };
        lines
            .map(|line| line.map_err(|report| report.to_string()).expect("readable"))
            .map(|line| (line.number, String::from_utf8_lossy(&line.bytes).into_owned()))
            .collect()
    }

    #[test]
    fn lines_are_numbered_and_empty_ones_left_out() {
        let text = "a\n\n b \r\nlast";
        let all = [(1, "a"), (3, "b"), (4, "last")].map(|(n, text)| (n, text.to_owned()));
        assert_eq!(lines(text, 0), all);
        assert_eq!(lines(text, 1), all[1..]);
        assert_eq!(lines("", 0), []);
    }
}
