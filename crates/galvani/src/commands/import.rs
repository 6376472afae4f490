//! `import`: load records of a JSON lines file, many at once, and tell of each that failed.
//!
//! A record is read first and written only if it differs: an import that was cut short is simply
//! started again, and nothing becomes a sibling. A value keeps the end it had; one that has ended
//! meanwhile is left out. Memory is bounded by the records under way, not by
//! the file. Next to read: `record.rs`, the format; `import/lines.rs`, the file.

mod lines;

use crate::args::data::Import;
use crate::commands::del::worse;
use crate::commands::patience::{self, Interrupted, Patience, Signals, Stop};
use crate::commands::progress::bar;
use crate::commands::{Done, options};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::record::{End, Record};
use crate::report::client::Retype;
use crate::report::text::{Span, count, grouped};
use crate::report::{Report, client, json, mistakes};
use bytes::Bytes;
use futures_util::stream::StreamExt;
use galvani_client::{Error, ErrorKind, Put};
use indicatif::ProgressBar;
use lines::Line;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What became of a record.
enum Outcome {
    /// Written; but for so many values that have ended.
    Written(u64),
    /// Was there; but for so many values that have ended.
    Same(u64),
    /// All of its values, so many, have ended.
    Ended(u64),
    Failed(Report),
    /// The run ends: the cluster did not answer for too long.
    GaveUp(Error),
}

/// How many came to what.
#[derive(Clone, Copy, Default)]
struct Tally {
    written: u64,
    same: u64,
    failed: u64,
    /// Values, not records.
    expired: u64,
    last_line: u64,
}

/// Why a run ends before the file does.
enum Early {
    Interrupted,
    GaveUp(Error),
    Failures,
    /// The file cannot be read any further.
    Broken(Report),
}

/// Loads the file.
pub(crate) async fn run(app: &App, args: Import) -> Done {
    let (lines, total) = lines::open(&args.file, args.skip)?;
    let mut failures = args.failed.as_deref().map(create).transpose()?;
    let signals = Signals::taken()?;
    let (session, about) = patience::connect(app, &args.bucket).await?;
    let began = Instant::now();
    let subject = args.file.display().to_string();
    let retype = Retype { command: "import", subject, line: app.again(args.line()), about };
    let mut run = Run {
        app,
        session: &session,
        args: &args,
        retype: &retype,
        patience: Patience::of(args.patience),
        bar: bar(&app.out, total, "import"),
        under_way: RefCell::default(),
        stopping: Cell::new(false),
    };
    let mut tally = Tally::default();
    let mut worst = Exit::Done;
    let ended = run.all(lines, signals, &mut tally, &mut worst, failures.as_mut()).await;
    run.bar.finish_and_clear();
    if let (Some(file), Some(path)) = (&mut failures, &args.failed) {
        file.flush().map_err(|error| crate::context::io_report(path, &error))?;
    }
    match ended? {
        None => {
            tell(app, &tally, began.elapsed())?;
            Ok(worst)
        }
        Some(early) => Err(run.cut_short(early, &tally, worst)),
    }
}

/// An import under way.
struct Run<'a> {
    app: &'a App,
    session: &'a Session,
    args: &'a Import,
    retype: &'a Retype,
    patience: Patience,
    bar: ProgressBar,
    /// Numbers of the lines that are begun and not done.
    under_way: RefCell<BTreeSet<u64>>,
    /// No further line is begun.
    stopping: Cell<bool>,
}

impl Run<'_> {
    /// Until the file ends, or the run does before it. Records under way are waited for unless it
    /// is interrupted.
    async fn all(
        &mut self,
        lines: lines::Source,
        mut signals: Signals,
        tally: &mut Tally,
        worst: &mut Exit,
        mut failures: Option<&mut BufWriter<File>>,
    ) -> Result<Option<Early>, Report> {
        let this = &*self;
        let lines = lines.take_while(|_| std::future::ready(!this.stopping.get()));
        let outcomes = lines
            .map(|line| async move {
                let line = line?;
                this.under_way.borrow_mut().insert(line.number);
                let outcome = this.one(&line).await;
                if !matches!(outcome, Outcome::GaveUp(_)) {
                    this.under_way.borrow_mut().remove(&line.number);
                }
                Ok::<_, Report>((line, outcome))
            })
            .buffer_unordered(usize::from(this.args.concurrency));
        let mut outcomes = std::pin::pin!(outcomes);
        let mut early = None;
        loop {
            let next = outcomes.next();
            let next = this.patience.watch(&this.app.out, &this.bar, &mut signals, next).await;
            let (line, outcome) = match next {
                Ok(Some(Ok(done))) => done,
                Ok(Some(Err(broken))) => {
                    this.stopping.set(true);
                    early.get_or_insert(Early::Broken(broken));
                    continue;
                }
                Ok(None) => return Ok(early),
                Err(Interrupted) => return Ok(Some(Early::Interrupted)),
            };
            match outcome {
                Outcome::Written(ended) => {
                    tally.written += 1;
                    tally.expired += ended;
                }
                Outcome::Same(ended) => {
                    tally.same += 1;
                    tally.expired += ended;
                }
                Outcome::Ended(ended) => tally.expired += ended,
                Outcome::GaveUp(error) => {
                    this.stopping.set(true);
                    early.get_or_insert(Early::GaveUp(error));
                    continue;
                }
                Outcome::Failed(report) => {
                    tally.failed += 1;
                    *worst = worse(*worst, report.exit);
                    keep(&line, failures.as_deref_mut(), this.args)?;
                    this.tell_failure(&line, &report, tally.failed);
                    if tally.failed >= u64::from(this.args.max_failures) {
                        this.stopping.set(true);
                        early.get_or_insert(Early::Failures);
                    }
                }
            }
            this.bar.inc(1);
            tally.last_line = tally.last_line.max(line.number);
        }
    }

    /// Writes one record, unless it is there already.
    async fn one(&self, line: &Line) -> Outcome {
        let record = match Record::parse(&line.bytes) {
            Ok(record) => record,
            Err(error) => {
                return Outcome::Failed(Report::new(Exit::Refused, error.to_string()));
            }
        };
        let store = |tries| store(self.session, self.args, &record, tries > 0);
        match self.patience.record(store).await {
            Ok(outcome) => outcome,
            Err(Stop::GaveUp(error)) => Outcome::GaveUp(error),
            Err(Stop::Final(error)) => {
                let subject = options::subject(&self.args.bucket.bucket, &record.key);
                let retype = Retype { subject, ..self.retype.clone() };
                Outcome::Failed(client::report(&error, &retype))
            }
        }
    }

    fn tell_failure(&self, line: &Line, report: &Report, failed: u64) {
        let text = format!("failed line {}: {}", line.number, report.what());
        let out = &self.app.out;
        match failed {
            1..=FAILURES_TOLD => self.bar.suspend(|| out.say(&text)),
            _ if failed == FAILURES_TOLD + 1 => {
                let text = "more failures are not shown; --failed FILE keeps them";
                self.bar.suspend(|| out.say(text));
            }
            _ => {}
        }
    }

    /// How far it came, and how to go on from there.
    fn cut_short(&self, early: Early, tally: &Tally, worst: Exit) -> Report {
        let report = match early {
            Early::Interrupted => Report::new(Exit::Interrupted, "import: interrupted"),
            Early::GaveUp(error) => client::gave_up(&error, self.retype, self.args.patience),
            Early::Failures => {
                let failed = count(tally.failed, "failure");
                Report::new(worst, format!("import: gave up after {failed} (--max-failures)"))
            }
            Early::Broken(report) => report,
        };
        let Tally { written, same, failed, expired, last_line } = *tally;
        let report = report
            .why(counts(tally))
            .why("what is there already is not written again when it goes on")
            .field("written", written)
            .field("unchanged", same)
            .field("failed", failed)
            .field("expired", expired)
            .field("last_line", last_line);
        let skip = self.under_way.borrow().first().map_or(last_line, |line| line - 1);
        let skip = skip.max(self.args.skip);
        // Without reading first, what is there already would be written beside itself.
        let mut line = self.retype.line.clone().without("--blind");
        if skip > 0 {
            line = line.with("--skip", skip);
        }
        report
            .next("go on", line.to_string())
            .next("see", self.retype.about.command("status").to_string())
    }
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
    // A try of its own may find that more has ended than the one before it.
    let mut record = record.clone();
    let mut ended = record.drop_ended(SystemTime::now());
    if record.values.is_empty() {
        return Ok(Outcome::Ended(ended));
    }
    if again || !args.blind {
        let get = options::read(bucket.get(record.key.clone()), args.copies, args.read);
        let read = get.await?;
        let found = read.siblings.iter();
        let found = found.filter_map(|one| Some((one.value.as_ref()?, one.expires_at))).collect();
        if record.has_exactly(found) {
            return Ok(if again { Outcome::Written(ended) } else { Outcome::Same(ended) });
        }
        context = Some(read.context);
    }
    let mut wrote = false;
    for value in &record.values {
        let put = bucket.put(record.key.clone(), Bytes::clone(&value.bytes));
        // The first value replaces what was read; the others are to stand beside it.
        let put = match &context {
            Some(seen) => put.after(seen),
            None => put.blind(),
        };
        let put = until(options::write(put, args.copies, args.write), value.end);
        match put.send().await {
            // It was there a moment ago; what it was to replace is left to the next one.
            Err(error) if has_ended(value.end, &error) => ended += 1,
            sent => {
                sent?;
                (context, wrote) = (None, true);
            }
        }
    }
    Ok(if wrote { Outcome::Written(ended) } else { Outcome::Ended(ended) })
}

fn until<State>(put: Put<State>, end: End) -> Put<State> {
    match end {
        End::OfBucket => put,
        End::Never => put.ttl(Duration::ZERO),
        End::At(ms) => put.expires_at(UNIX_EPOCH + Duration::from_millis(ms)),
    }
}

/// Whether a write was refused because there was no time left for its value.
fn has_ended(end: End, error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TtlImpossible { .. }) && end.is_over(SystemTime::now())
}

fn keep(line: &Line, failures: Option<&mut BufWriter<File>>, args: &Import) -> Result<(), Report> {
    let (Some(file), Some(path)) = (failures, &args.failed) else { return Ok(()) };
    let wrote = file.write_all(&line.bytes).and_then(|()| file.write_all(b"\n"));
    wrote.map_err(|error| crate::context::io_report(path, &error))
}

fn tell(app: &App, tally: &Tally, took: Duration) -> Result<(), Report> {
    let Tally { written, same, failed, expired, last_line } = *tally;
    if app.out.is_json() {
        let mut map = json::object("galvani.import/1");
        map.insert("written".to_owned(), written.into());
        map.insert("unchanged".to_owned(), same.into());
        map.insert("failed".to_owned(), failed.into());
        map.insert("expired".to_owned(), expired.into());
        map.insert("last_line".to_owned(), last_line.into());
        map.insert("ms".to_owned(), json::millis(took));
        app.out.json(map)
    } else if !app.out.quiet {
        let rate = (written + same) as f64 / took.as_secs_f64().max(1e-9);
        app.out.line(&format!(
            "{}  {}  in {}, {}/s",
            if failed == 0 { "ok" } else { "partly" },
            counts(tally),
            Span(took),
            grouped(rate as u64)
        ))
    } else {
        Ok(())
    }
}

fn counts(tally: &Tally) -> String {
    let expired = match tally.expired {
        0 => String::new(),
        expired => format!(", {} expired meanwhile", count(expired, "value")),
    };
    format!(
        "{} written, {} there already, {} failed{expired}",
        count(tally.written, "record"),
        grouped(tally.same),
        grouped(tally.failed)
    )
}

fn create(path: &Path) -> Result<BufWriter<File>, Report> {
    File::create(path).map(BufWriter::new).map_err(|error| mistakes::file(path, &error))
}

/// Failures told one by one; all go to `--failed`.
const FAILURES_TOLD: u64 = 20;
