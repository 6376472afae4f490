//! `export`: every record of a bucket as JSON lines, read with the quorum that was asked for.
//!
//! A file appears under its name only when it is whole. Records have the form that `import` reads,
//! in no order; a key that cannot be read is told of and left out, and then the export has failed.

use crate::args::data::Export;
use crate::commands::del::worse;
use crate::commands::patience::{next_page, patient};
use crate::commands::progress::bar;
use crate::commands::{Done, options};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::record::Record;
use crate::report::client::Retype;
use crate::report::text::{Span, count, grouped};
use crate::report::{Report, client, json, mistakes};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Writes all records.
pub(crate) async fn run(app: &App, args: Export) -> Done {
    let timeout = app.global.timeout.unwrap_or(TIMEOUT);
    let session = app.connect_with(timeout, RETRIES).await?;
    let mut target = Target::create(&args.file)?;
    let began = Instant::now();
    let bar = bar(&app.out, None, "export");
    let retype = Retype {
        command: "export",
        subject: args.file.display().to_string(),
        typed: format!("galvani export {}", args.file.display()),
    };
    let mut list = session.bucket(&args.bucket).list(args.prefix.clone());
    if let Some(r) = args.read.r {
        list = list.r(r);
    }
    if args.copies.strict {
        list = list.strict();
    }
    let (mut records, mut failed, mut worst) = (0u64, 0u64, Exit::Done);
    while let Some(page) =
        next_page(&mut list).await.map_err(|error| client::report(&error, &retype))?
    {
        let keys = page.keys.into_iter().map(|listed| listed.key);
        let (session, args) = (&session, &args);
        let mut read = stream::iter(keys)
            .map(|key| async move { one(session, args, key).await })
            .buffer_unordered(usize::from(args.concurrency));
        while let Some(outcome) = read.next().await {
            match outcome {
                Ok(Some(record)) => {
                    target.line(&record.to_line())?;
                    records += 1;
                    bar.inc(1);
                }
                // Deleted since it was listed.
                Ok(None) => {}
                Err(report) => {
                    failed += 1;
                    worst = worse(worst, report.exit);
                    bar.suspend(|| app.out.error("export", &report));
                }
            }
        }
    }
    bar.finish_and_clear();
    let at = target.finish(failed == 0)?;
    tell(app, &at, records, failed, began.elapsed())?;
    Ok(worst)
}

async fn one(session: &Session, args: &Export, key: Bytes) -> Result<Option<Record>, Report> {
    let read = patient(|_| async {
        let get = session.bucket(&args.bucket).get(key.clone());
        let mut get = options::read(get, args.copies, args.read);
        if args.copies.strict {
            get = get.strict();
        }
        get.await
    })
    .await
    .map_err(|error| {
        let retype = options::retype("export", &args.bucket.bucket, &key, "");
        client::report(&error, &retype)
    })?;
    let values: Vec<Bytes> = read.values().cloned().collect();
    Ok((!values.is_empty()).then_some(Record { key, values }))
}

fn tell(
    app: &App,
    at: &Option<PathBuf>,
    records: u64,
    failed: u64,
    took: Duration,
) -> Result<(), Report> {
    let Some(at) = at else {
        // The records themselves are on stdout.
        let tail = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        app.out.say(&format!("{}{tail}  in {}", count(records, "record"), Span(took)));
        return Ok(());
    };
    if app.out.is_json() {
        let mut map = json::object("galvani.export/1");
        map.insert("file".to_owned(), at.display().to_string().into());
        map.insert("records".to_owned(), records.into());
        map.insert("failed".to_owned(), failed.into());
        map.insert("ms".to_owned(), json::millis(took));
        return app.out.json(map);
    }
    if !app.out.quiet {
        let rate = records as f64 / took.as_secs_f64().max(1e-9);
        app.out.line(&format!(
            "{}  {} in {}, {} failed  in {}, {}/s",
            if failed == 0 { "ok" } else { "partly" },
            count(records, "record"),
            at.display(),
            grouped(failed),
            Span(took),
            grouped(rate as u64)
        ))?;
    }
    Ok(())
}

/// Where records go: stdout, or a file that gets its name when it is whole.
enum Target {
    Stdout(BufWriter<io::Stdout>),
    File { part: PathBuf, path: PathBuf, file: BufWriter<File> },
}

impl Target {
    fn create(path: &Path) -> Result<Target, Report> {
        if path.as_os_str() == "-" {
            return Ok(Target::Stdout(BufWriter::new(io::stdout())));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let file = File::create(&part).map_err(|error| mistakes::file(&part, &error))?;
        Ok(Target::File { part, path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn line(&mut self, text: &str) -> Result<(), Report> {
        match self {
            Target::Stdout(out) => crate::output::written(writeln!(out, "{text}")),
            Target::File { part, file, .. } => {
                writeln!(file, "{text}").map_err(|error| mistakes::file(part, &error))
            }
        }
    }

    /// The file's name: its own if it is whole, else that of the part. `None`: stdout.
    fn finish(self, whole: bool) -> Result<Option<PathBuf>, Report> {
        match self {
            Target::Stdout(mut out) => crate::output::written(out.flush()).map(|()| None),
            Target::File { part, path, mut file } => {
                let error = |error| mistakes::file(&part, &error);
                file.flush().map_err(error)?;
                file.get_ref().sync_all().map_err(error)?;
                if !whole {
                    return Ok(Some(part));
                }
                fs::rename(&part, &path).map_err(error)?;
                Ok(Some(path))
            }
        }
    }
}

/// Time of one request of an export: long enough for the client to turn to another node.
const TIMEOUT: Duration = Duration::from_secs(4);
const RETRIES: u8 = 4;
