//! `bench`: an open loop, or a closed loop of workers, against a cluster.
//!
//! Phases: prepare (every key has a value and its context is known), find a rate if none was given,
//! warm up, measure, check (what was written is read again). The CPU the node processes spent comes
//! from their own status before and after. What is computed is in `crates/galvani-load`. Next to
//! read: `bench/measure.rs`, `bench/driver.rs`, `bench/open.rs`, `bench/summary.rs`.

mod alarm;
mod chaos;
mod closed;
mod curve;
mod driver;
mod files;
mod live;
mod measure;
mod open;
mod outcome;
mod prepare;
mod summary;
mod sweep;
mod usage;
mod verify;

use crate::args::bench::{Bench, BenchCommand, Chaos, Run, Sweep, Workload};
use crate::args::line::Line;
use crate::commands::Done;
use crate::commands::patience::Signals;
use crate::commands::place::{Place, typed};
use crate::connect::App;
use crate::context::State;
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::{count, grouped};
use chaos::Faults;
use galvani_load::run as saved;
use galvani_load::workload::Mix;
use galvani_model::limits::VALUE_BYTES_MAX;
use measure::Measure;

/// Does what is asked; Ctrl-C ends a run without figures.
pub(crate) async fn run(app: &App, bench: Bench) -> Done {
    let (args, how) = match bench.command {
        None => (bench.run, How::Once),
        Some(BenchCommand::Run(args)) => (*args, How::Once),
        Some(BenchCommand::Show(args)) => return files::show(app, &args),
        Some(BenchCommand::Compare(args)) => return files::compare(app, &args),
        Some(BenchCommand::Merge(args)) => return files::merge(app, &args),
        Some(BenchCommand::Sweep(args)) => {
            sweep::check(&args)?;
            (args.run.clone(), How::Sweep(args))
        }
        Some(BenchCommand::Chaos(args)) => {
            chaos::check(&args)?;
            (args.run.clone(), How::Chaos(args))
        }
    };
    let mix = check(&args)?;
    files::can_be_written(&args.files)?;
    let mut signals = Signals::taken()?;
    let Some((app, place)) = somewhere(app, &mut signals).await? else {
        return Ok(Exit::Interrupted);
    };
    let done = tokio::select! {
        done = measured(&app, &args, mix, &how) => done,
        () = signals.any() => {
            let stay = if place.is_none() { "; the keys bench/.. stay" } else { "" };
            app.out.say(&format!("interrupted: no figures{stay}"));
            if let (How::Chaos(args), None) = (&how, &place) {
                // What was broken for the figures is not left to whoever comes next.
                Faults::of(&app, args)?.mend(&app).await;
            }
            Ok(Exit::Interrupted)
        }
    };
    if let Some(place) = place {
        drop(place);
        app.out.say("the cluster of this bench is gone; one that stays: galvani dev -d");
    }
    done
}

/// What is done with a load.
#[derive(Debug)]
enum How {
    /// One run, or the overload curve.
    Once,
    /// Many.
    Sweep(Box<Sweep>),
    /// One run with faults.
    Chaos(Box<Chaos>),
}

/// The cluster that is meant, or one for this bench only if none is; `None`: a signal came first.
async fn somewhere(
    app: &App,
    signals: &mut Signals,
) -> Result<Option<(App, Option<Place>)>, Report> {
    if !app.global.server.is_empty() || app.context_name()?.is_some() {
        return Ok(Some((app.clone(), None)));
    }
    app.out.say("no cluster is selected: three nodes on this machine are started for this bench");
    let place = Place::make("bench")?;
    let words = ["dev", "-d", "--ports", "auto"];
    let Some(ran) = place.ran(&words, signals).await? else { return Ok(None) };
    if ran.code != Some(0) {
        let report = Report::unexpected(format!("bench: {} failed", typed(&words)));
        let report = ran.output.lines().fold(report, |report, line| report.why(line.trim()));
        return Err(report.next("try", "galvani dev -d"));
    }
    let state = State::at(place.dir());
    Ok(Some((App { state, ..app.clone() }, Some(place))))
}

async fn measured(app: &App, args: &Run, mix: Mix, how: &How) -> Done {
    let faults = match how {
        How::Chaos(args) => Some(Faults::of(app, args)?),
        How::Once | How::Sweep(_) => None,
    };
    let (mut bench, driver) = Measure::prepare(app, args, mix).await?;
    bench.faults = faults;
    if let How::Sweep(swept) = how {
        return sweep::run(&bench, driver, swept).await;
    }
    if args.overload {
        return curve::run(&bench, driver).await;
    }
    let mut run = match args.is_closed() {
        true => bench.closed(&driver).await,
        false => {
            let (rate, sustainable) = bench.rate(&driver).await;
            let driver = &driver;
            bench.warm_up_open(driver, rate).await;
            bench.open(driver, rate, sustainable, args.duration()).await
        }
    };
    run.check = bench.check(&driver).await;
    bench.tell(&run)
}

/// Says that requests failed, beside the figures; how to end then.
fn some_failed(app: &App, failed: u64, all: u64) -> Exit {
    let what = format!("bench: {} of {} failed", grouped(failed), count(all, "request"));
    let report = Report::new(Exit::Unexpected, what).why("how each failed stands in the figures");
    app.out.block(&report.next("see", app.again(Line::new("status")).to_string()));
    Exit::Unexpected
}

/// The same of the check.
fn check_failed(app: &App, check: &saved::Check) -> Exit {
    let what = format!("bench: {}", summary::check_line(check));
    let why = match (check.lost + check.resurrected, check.unread) {
        (0, _) => "some keys could not be read at r=all, so nobody knows",
        (1.., _) => "an acked write is gone, or a replaced or refused one is there",
    };
    let report = Report::new(Exit::Unexpected, what).why(why);
    app.out.block(&report.next("see", app.again(Line::new("status")).to_string()));
    Exit::Unexpected
}

fn check(args: &Run) -> Result<Mix, Report> {
    let wrong =
        |what: String| Err(Report::new(Exit::Usage, what).next("see", "galvani help bench"));
    let Some(mix) = args.mix() else {
        let what = "bench e: YCSB E cannot be done".to_owned();
        return Err(Report::new(Exit::Usage, what)
            .why("it scans keys in their order, and keys spread by hash have none")
            .next("try", "galvani bench b"));
    };
    let (value, keys) = (args.value_bytes(), args.keys);
    if value > VALUE_BYTES_MAX as u64 {
        return wrong(format!("--value {value} is over the largest value, {VALUE_BYTES_MAX}"));
    }
    if args.workload() != Workload::Mix && args.reads != READS {
        return wrong(format!("--reads is of workload mix, not of {}", args.workload().name()));
    }
    let workers = match args.is_closed() {
        true => args.workers(),
        false => args.concurrency.unwrap_or(1),
    };
    if args.is_closed() && workers > WORKERS_MAX {
        return wrong(format!("-c {workers} is over {WORKERS_MAX}"));
    }
    if keys.get() < u64::from(workers) {
        return wrong(format!(
            "--keys {keys} is less than the {workers} workers: each needs one to write"
        ));
    }
    if keys.get() > KEYS_MAX {
        return wrong(format!("--keys {keys} is over {KEYS_MAX}"));
    }
    Ok(mix)
}

/// Workers of a closed loop at most.
const WORKERS_MAX: u32 = 4_096;
/// The default of `--reads`.
const READS: u8 = 50;
/// Each key costs a context and what is live of it, about 200 bytes.
const KEYS_MAX: u64 = 10_000_000;
