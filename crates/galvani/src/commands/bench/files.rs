//! Runs in files: saved, shown again, compared, merged; the interval log, the page with plots, and
//! what YCSB would print.
//!
//! Nothing is computed here: the documents and what is made of several are those of
//! `crates/galvani-load/src/run.rs`, `compare.rs` and `merge.rs`.

use crate::args::bench::{Compare, Files, Merge, Pages, Show};
use crate::commands::Done;
use crate::commands::bench::summary;
use crate::connect::App;
use crate::exit::Exit;
use crate::report::text::grouped;
use crate::report::{Report, json};
use galvani_load::compare::{Row, row, rows};
use galvani_load::run::Run;
use galvani_load::{hdr, html, merge, ycsb};
use serde_json::{Value, json as value};
use std::fs;
use std::path::{Path, PathBuf};

/// Before a long run: whether its files have a place to go.
pub(crate) fn can_be_written(files: &Files) -> Result<(), Report> {
    let Files { save, pages: Pages { hlog, html, ycsb_output } } = files;
    for path in [save, hlog, html, ycsb_output].into_iter().flatten() {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let why = match (path.is_dir(), folder.is_dir()) {
            (true, _) => format!("{} is a directory", path.display()),
            (false, false) => format!("there is no directory {}", folder.display()),
            (false, true) => continue,
        };
        return Err(Report::new(Exit::Usage, format!("{} cannot be written", path.display()))
            .why(why)
            .next("try", "a file name in a directory that is there"));
    }
    Ok(())
}

/// Writes the files that were asked for, and says where they are.
pub(crate) fn write(app: &App, files: &Files, run: &Run) -> Result<(), Report> {
    let Files { save, pages: Pages { hlog, html, ycsb_output } } = files;
    let written = [
        (save, save.as_ref().map(|_| serde_json::to_string(run).unwrap_or_default())),
        (hlog, hlog.as_ref().map(|_| hdr::log(run))),
        (html, html.as_ref().map(|_| html::page(run))),
        (ycsb_output, ycsb_output.as_ref().map(|_| ycsb::text(run))),
    ];
    let written: Vec<(&PathBuf, String)> =
        written.into_iter().filter_map(|(path, text)| Some((path.as_ref()?, text?))).collect();
    for (path, text) in &written {
        fs::write(path, text).map_err(|error| {
            Report::new(Exit::Unexpected, format!("{}: {error}", path.display()))
                .why("the figures stand on stdout; the file was not written, or only in part")
                .next("see", "galvani help bench")
        })?;
        app.out.say(&format!("saved    {}", path.display()));
    }
    Ok(())
}

/// Prints a saved run again.
pub(crate) fn show(app: &App, args: &Show) -> Done {
    let run = load(&args.file)?;
    tell(app, &Files { save: None, pages: args.pages.clone() }, &run)
}

/// Several runs as one.
pub(crate) fn merge(app: &App, args: &Merge) -> Done {
    let runs: Vec<Run> = args.runs.iter().map(|path| load(path)).collect::<Result<_, _>>()?;
    let merged = merge::merge(&runs).map_err(|error| {
        Report::new(Exit::Usage, format!("bench merge: {error}"))
            .why("only runs of the same load at the same time are one run")
            .next("see", "galvani help bench merge")
    })?;
    tell(app, &args.files, &merged)
}

fn tell(app: &App, files: &Files, run: &Run) -> Done {
    can_be_written(files)?;
    write(app, files, run)?;
    match app.out.is_json() {
        true => app.out.json(summary::document(run, Vec::new()))?,
        false => app.out.line(&summary::page(run))?,
    }
    Ok(Exit::Done)
}

/// Two runs beside each other.
pub(crate) fn compare(app: &App, args: &Compare) -> Done {
    let (before, after) = (load(&args.before)?, load(&args.after)?);
    let rows = rows(&before, &after);
    let mut broken = Vec::new();
    for limit in &args.fail_if {
        let Some(row) = row(limit.metric.clone(), &before, &after) else {
            let what = format!("--fail-if '{limit}': a run has no {}", limit.metric);
            return Err(Report::new(Exit::Usage, what).next("see", "galvani help bench compare"));
        };
        if limit.is_broken(&row) {
            broken.push((limit, row));
        }
    }
    let differ = differences(&before, &after);
    match app.out.is_json() {
        true => app.out.json(document(&rows, &differ, &broken))?,
        false => app.out.line(&page(args, &rows, &differ))?,
    }
    for (path, run) in [(&args.before, &before), (&args.after, &after)] {
        if run.generator_bound {
            let what = format!("{}: the run is GENERATOR-BOUND", path.display());
            let report = Report::new(Exit::Unexpected, what)
                .why("its figures say more of the bench and its machine than of the cluster")
                .next("again", "with a core for the bench alone, or a lower --rate, and --save");
            app.out.block(&report);
            return Ok(Exit::Unexpected);
        }
    }
    if broken.is_empty() {
        return Ok(Exit::Done);
    }
    let what = format!("bench compare: {} of {} limits broken", broken.len(), args.fail_if.len());
    let report = broken.iter().fold(Report::new(Exit::Unexpected, what), |report, (limit, row)| {
        report.why(format!("{limit}: it is {:+.1} %, {}", row.change(), chance(row)))
    });
    let show = format!("galvani bench show {}", args.after.display());
    app.out.block(&report.next("see", show));
    Ok(Exit::Unexpected)
}

fn load(path: &Path) -> Result<Run, Report> {
    let wrong = |why: String| {
        Report::new(Exit::Usage, format!("{} is no saved run", path.display()))
            .why(why)
            .next("make one", "galvani bench --save FILE.json")
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Run::parse(&text).map_err(|error| wrong(error.to_string()))
}

/// What was asked for differently: then the change may come from that.
fn differences(before: &Run, after: &Run) -> Vec<String> {
    let words = |run: &Run| {
        let more = [
            ("rate", format!("{:?}", run.rate)),
            ("workers", format!("{:?}", run.concurrency)),
            ("keys", run.keys.to_string()),
            ("host", run.host.clone()),
        ];
        run.asked().into_iter().chain(more)
    };
    let pairs = words(before).zip(words(after));
    let differ = pairs.filter(|((_, one), (_, other))| one != other);
    differ.map(|((name, one), (_, other))| format!("{name}: {one} and {other}")).collect()
}

fn page(args: &Compare, rows: &[Row], differ: &[String]) -> String {
    let names = [&args.before, &args.after].map(|path| path.display().to_string());
    let mut table = crate::output::table(&["", &names[0], &names[1], "change", ""]);
    for row in rows {
        let figure = |figure: f64| match row.metric.what {
            Some(_) => format!("{:.2} ms", figure / 1e3),
            None => format!("{}/s", grouped(figure.round() as u64)),
        };
        table.add_row([
            row.metric.to_string(),
            figure(row.before),
            figure(row.after),
            format!("{:+.1} %", row.change()),
            chance(row),
        ]);
    }
    let mut lines = vec![crate::output::trimmed(&table)];
    lines.extend(differ.iter().map(|what| format!("note   not alike in {what}")));
    lines.join("\n")
}

/// What chance has to do with a change.
fn chance(row: &Row) -> String {
    match row.p {
        None => "too few seconds to tell".to_owned(),
        Some(p) if p < 0.001 => "significant (p < 0.001)".to_owned(),
        Some(p) if row.is_significant() => format!("significant (p {p:.3})"),
        Some(p) => format!("= (p {p:.2})"),
    }
}

fn document(
    rows: &[Row],
    differ: &[String],
    broken: &[(&galvani_load::compare::Limit, Row)],
) -> serde_json::Map<String, Value> {
    let mut map = json::object("galvani.bench-compare/1");
    let row = |row: &Row| {
        value!({
            "metric": row.metric.to_string(),
            "before": row.before,
            "after": row.after,
            "change_percent": row.change(),
            "p": row.p,
            "significant": row.is_significant(),
        })
    };
    map.insert("rows".to_owned(), rows.iter().map(row).collect::<Vec<_>>().into());
    map.insert("not_alike".to_owned(), differ.into());
    let broken: Vec<String> = broken.iter().map(|(limit, _)| limit.to_string()).collect();
    map.insert("broken".to_owned(), broken.into());
    map
}
