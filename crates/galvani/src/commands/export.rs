//! `export`: every record of a bucket as JSON lines, read with the quorum that was asked for.
//!
//! A file appears under its name only when it is whole: an export that fails or is interrupted
//! leaves nothing behind. Records have the form that `import` reads, in no order. A key that can
//! never be read is told of and left out, and then the export has failed.

mod target;

use crate::args::data::Export;
use crate::commands::del::worse;
use crate::commands::patience::{self, Interrupted, Patience, Signals, Stop};
use crate::commands::progress::bar;
use crate::commands::{Done, options};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::record::{End, Record, Value};
use crate::report::client::Retype;
use crate::report::text::{Span, count, grouped};
use crate::report::{Report, client, json};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use galvani_client::Sibling;
use indicatif::ProgressBar;
use std::path::Path;
use std::time::{Duration, Instant};
use target::Target;

/// Writes all records.
pub(crate) async fn run(app: &App, args: Export) -> Done {
    let mut target = Target::create(&args.file)?;
    // A writer to a pipe may be held up by its reader: the system's way must end it.
    let signals = match target.path() {
        Some(_) => Signals::taken()?,
        None => Signals::left(),
    };
    let (session, about) = patience::connect(app, &args.bucket).await?;
    let began = Instant::now();
    let subject = args.file.display().to_string();
    let retype = Retype { command: "export", subject, line: app.again(args.line()), about };
    let mut run = Run {
        app,
        session: &session,
        args: &args,
        retype: &retype,
        patience: Patience::of(args.patience),
        signals,
        bar: bar(&app.out, None, "export"),
        tally: Tally::default(),
    };
    let outcome = run.all(&mut target).await;
    run.bar.finish_and_clear();
    let tally = run.tally;
    outcome.map_err(|report| not_whole(report, &target, &tally))?;
    if tally.failed > 0 && target.path().is_some() {
        let what = format!(
            "export: {} of {} could not be read",
            grouped(tally.failed),
            count(tally.records + tally.failed, "record")
        );
        let report = not_whole(Report::new(tally.worst, what), &target, &tally);
        let rest = retype.line.clone().replace_place(0, "-");
        return Err(report.next("what can be read", rest.to_string()));
    }
    target.finish()?;
    tell(app, &target, &tally, began.elapsed())?;
    Ok(tally.worst)
}

/// How far it came.
#[derive(Clone, Copy, Debug)]
struct Tally {
    records: u64,
    failed: u64,
    worst: Exit,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { records: 0, failed: 0, worst: Exit::Done }
    }
}

/// An export under way.
struct Run<'a> {
    app: &'a App,
    session: &'a Session,
    args: &'a Export,
    retype: &'a Retype,
    patience: Patience,
    signals: Signals,
    bar: ProgressBar,
    tally: Tally,
}

impl Run<'_> {
    async fn all(&mut self, target: &mut Target) -> Result<(), Report> {
        let mut list = self.session.bucket(&self.args.bucket).list(self.args.prefix.clone());
        if let Some(r) = self.args.read.r {
            list = list.r(r);
        }
        if self.args.copies.strict {
            list = list.strict();
        }
        let (out, retype) = (&self.app.out, self.retype);
        loop {
            let page = self.patience.page(&mut list);
            let page = self.patience.watch(out, &self.bar, &mut self.signals, page).await;
            let page = match page {
                Ok(page) => page.map_err(|stop| stopped(&stop, retype, self.args.patience))?,
                Err(Interrupted) => return Err(interrupted(retype)),
            };
            let Some(page) = page else { return Ok(()) };
            let keys = page.keys.into_iter().map(|listed| listed.key);
            let (session, args, patience) = (self.session, self.args, &self.patience);
            let mut read = stream::iter(keys)
                .map(|key| async move { one(session, args, patience, key).await })
                .buffer_unordered(usize::from(args.concurrency));
            loop {
                let next = patience.watch(out, &self.bar, &mut self.signals, read.next()).await;
                match next {
                    Ok(Some((_, Ok(Some(record))))) => {
                        target.line(&record.to_line())?;
                        self.tally.records += 1;
                        self.bar.inc(1);
                    }
                    // Deleted since it was listed.
                    Ok(Some((_, Ok(None)))) => {}
                    Ok(Some((key, Err(Stop::Final(error))))) => {
                        let subject = options::subject(&args.bucket.bucket, &key);
                        let report = client::report(&error, &Retype { subject, ..retype.clone() });
                        self.tally.failed += 1;
                        self.tally.worst = worse(self.tally.worst, report.exit);
                        if self.tally.failed <= FAILURES_TOLD {
                            self.bar.suspend(|| out.say(&format!("failed  {}", report.what())));
                        }
                    }
                    Ok(Some((_, Err(stop)))) => {
                        return Err(stopped(&stop, retype, args.patience));
                    }
                    Ok(None) => break,
                    Err(Interrupted) => return Err(interrupted(retype)),
                }
            }
        }
    }
}

async fn one(
    session: &Session,
    args: &Export,
    patience: &Patience,
    key: Bytes,
) -> (Bytes, Result<Option<Record>, Stop>) {
    let read = patience.record(|_| async {
        let get = session.bucket(&args.bucket).get(key.clone());
        let mut get = options::read(get, args.copies, args.read);
        if args.copies.strict {
            get = get.strict();
        }
        get.await
    });
    // Elsewhere a value without an end needs no word: the bucket would not give it one.
    let view = session.client.cluster();
    let props = view.buckets.get(&args.bucket.bucket);
    let speaks = props.is_some_and(|props| props.ttl_ms > 0);
    let record = read.await.map(|read| {
        let value = |one: Sibling| {
            let end = End::of(one.expires_at, speaks);
            one.value.map(|bytes| Value { bytes, end })
        };
        let values: Vec<Value> = read.siblings.into_iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Record { key: key.clone(), values })
    });
    (key, record)
}

/// The cluster did not answer for too long, or said something that ends the run.
fn stopped(stop: &Stop, retype: &Retype, patience: Duration) -> Report {
    match stop {
        Stop::Final(error) => client::report(error, retype),
        Stop::GaveUp(error) => client::gave_up(error, retype, patience)
            .next("start again", retype.line.to_string())
            .next("see", retype.about.command("status").to_string()),
    }
}

fn interrupted(retype: &Retype) -> Report {
    Report::new(Exit::Interrupted, "export: interrupted")
        .next("start again", retype.line.to_string())
}

/// What became of the file when not all could be read.
fn not_whole(report: Report, target: &Target, tally: &Tally) -> Report {
    let records = count(tally.records, "record");
    let report = match target.path() {
        Some(path) => report.why(format!(
            "{records} read; an export is whole or not there: {} was not written",
            shown(path)
        )),
        None => report.why(format!("{records} written before that")),
    };
    report.field("records", tally.records).field("failed", tally.failed)
}

fn tell(app: &App, target: &Target, tally: &Tally, took: Duration) -> Result<(), Report> {
    let Tally { records, failed, .. } = *tally;
    let Some(path) = target.path() else {
        // The records themselves are on stdout.
        let tail = if failed > 0 { format!(", {} failed", grouped(failed)) } else { String::new() };
        app.out.say(&format!("{}{tail}  in {}", count(records, "record"), Span(took)));
        return Ok(());
    };
    if app.out.is_json() {
        let mut map = json::object("galvani.export/1");
        map.insert("file".to_owned(), path.display().to_string().into());
        map.insert("records".to_owned(), records.into());
        map.insert("failed".to_owned(), failed.into());
        map.insert("ms".to_owned(), json::millis(took));
        return app.out.json(map);
    }
    if !app.out.quiet {
        let rate = records as f64 / took.as_secs_f64().max(1e-9);
        app.out.line(&format!(
            "ok  {} in {}  in {}, {}/s",
            count(records, "record"),
            shown(path),
            Span(took),
            grouped(rate as u64)
        ))?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    crate::report::text::key(path.as_os_str().as_encoded_bytes())
}

/// Failures told one by one.
const FAILURES_TOLD: u64 = 20;
