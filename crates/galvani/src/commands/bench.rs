//! `bench`: an open loop, or a closed loop of workers, against a cluster.
//!
//! Phases: prepare (every key has a value and its context is known), find a rate if none was given,
//! warm up, measure, check (what was written is read again). The CPU the node processes spent comes
//! from their own status before and after. What is computed is in `crates/galvani-load`. Next to
//! read: `bench/driver.rs`, `bench/open.rs`, `bench/summary.rs`; for overload `bench/curve.rs`.

mod alarm;
mod closed;
mod curve;
mod driver;
mod files;
mod live;
mod open;
mod outcome;
mod prepare;
mod summary;
mod sweep;
mod usage;
mod verify;

use crate::args::bench::{Bench, BenchCommand, Run, Sweep, Workload};
use crate::args::line::Line;
use crate::commands::patience::Signals;
use crate::commands::place::{Place, typed};
use crate::commands::{Done, options};
use crate::connect::{App, RETRIES, Session};
use crate::context::State;
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::{count, grouped};
use bytes::Bytes;
use closed::Until;
use driver::Driver;
use galvani_load::ledger::Ledger;
use galvani_load::run as saved;
use galvani_load::workload::Mix;
use galvani_model::limits::VALUE_BYTES_MAX;
use open::Schedule;
use outcome::Outcome;
use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};
use summary::Around;
use usage::{Cpu, Own, Watch};

/// Does what is asked; Ctrl-C ends a run without figures.
pub(crate) async fn run(app: &App, bench: Bench) -> Done {
    let (args, how) = match bench.command {
        None => (bench.run, How::Once),
        Some(BenchCommand::Run(args)) => (*args, How::Once),
        Some(BenchCommand::Show(args)) => return files::show(app, &args),
        Some(BenchCommand::Compare(args)) => return files::compare(app, &args),
        Some(BenchCommand::Sweep(args)) => {
            sweep::check(&args)?;
            (args.run.clone(), How::Sweep(args))
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
    let (bench, driver) = Measure::prepare(app, args, mix).await?;
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

/// What one load needs.
#[derive(Debug)]
pub(crate) struct Measure<'a> {
    pub(crate) app: &'a App,
    pub(crate) args: &'a Run,
    mix: Mix,
    session: Session,
}

impl<'a> Measure<'a> {
    /// Connects and makes the keys.
    async fn prepare(
        app: &'a App,
        args: &'a Run,
        mix: Mix,
    ) -> Result<(Measure<'a>, Driver<'a>), Report> {
        let session = app.connect_with(app.timeout(), RETRIES).await?;
        app.out.say(&format!("prepare  {}", count(args.keys.get(), "key")));
        let bucket = &args.bucket.bucket;
        let retype = options::retype(app, "bench", bucket, &Bytes::new(), args.line("bench"));
        let mut ledger = Ledger::of(run_number());
        prepare::run(app, &session, args, &mut ledger, &retype).await?;
        let driver = Driver::new(&session, args, mix, ledger);
        // Of an open loop nothing is tried again: what is offered is what is said.
        let driver = match args.is_closed() {
            true => driver,
            false => driver.through(&app.connect_with(app.timeout(), 0).await?),
        };
        Ok((Measure { app, args, mix, session }, driver))
    }

    /// The same with other arguments.
    pub(crate) fn asking<'b>(&'b self, args: &'b Run) -> Measure<'b> {
        Measure { app: self.app, args, mix: self.mix, session: self.session.clone() }
    }

    /// Copies of each key: as asked, or the bucket's.
    pub(crate) fn copies(&self) -> u8 {
        let numbers = self.session.numbers(&self.args.bucket, self.args.copies.n, None, None);
        numbers.map_or(N_USUAL, |(n, _, _)| n)
    }

    /// The rate of an open loop: as asked, or half of what a closed loop gets done before.
    pub(crate) async fn rate(&self, driver: &Driver<'_>) -> (f64, Option<f64>) {
        if let Some(rate) = self.args.rate {
            return (rate.get() as f64, None);
        }
        let found = self.find(driver, WORKERS, PROBE).await;
        let half = (found / 2.0).max(1.0).round();
        self.app.out.say(&format!(
            "found    {}/s; half of it is offered: --rate {half} does the same again",
            grouped(found.round() as u64),
        ));
        (half, Some(found))
    }

    /// What the cluster does for a closed loop of so many workers, per second.
    pub(crate) async fn find(&self, driver: &Driver<'_>, workers: u32, time: Duration) -> f64 {
        self.app.out.say(&format!("find     what {workers} workers in a closed loop get done"));
        let workers = workers.min(u32::try_from(driver.keys()).unwrap_or(workers));
        self.closed_loop(driver, workers, Until::Time(Instant::now() + self.args.warmup)).await;
        let out = self.closed_loop(driver, workers, Until::Time(Instant::now() + time)).await;
        out.goodput().max(1.0)
    }

    async fn closed_loop(&self, driver: &Driver<'_>, workers: u32, until: Until) -> Outcome {
        let out = RefCell::new(Outcome::new(Instant::now()));
        closed::run(driver, workers, until, self.app.timeout(), &out).await;
        out.into_inner()
    }

    pub(crate) async fn warm_up_open(&self, driver: &Driver<'_>, rate: f64) {
        if self.args.warmup.is_zero() {
            return;
        }
        self.say_warm_up();
        let out = RefCell::new(Outcome::new(Instant::now()));
        open::run(driver, self.schedule(rate, self.args.warmup, !self.args.seed), &out).await;
    }

    fn say_warm_up(&self) {
        self.app.out.say(&format!("warm up  {}", humantime::format_duration(self.args.warmup)));
    }

    fn schedule(&self, rate: f64, duration: Duration, seed: u64) -> Schedule {
        let places = self.args.concurrency.map_or(self.args.keys.get() as usize, |c| c as usize);
        Schedule { rate, duration, places, timeout: self.app.timeout(), seed }
    }

    /// Measures a closed loop.
    pub(crate) async fn closed(&self, driver: &Driver<'_>) -> saved::Run {
        let workers = self.args.concurrency.unwrap_or(WORKERS);
        if !self.args.warmup.is_zero() {
            self.say_warm_up();
            self.closed_loop(driver, workers, Until::Time(Instant::now() + self.args.warmup)).await;
        }
        self.app.out.say("measure");
        let whole = self.args.count.is_none().then(|| self.args.duration());
        let load = async |out: &RefCell<Outcome>| {
            let until = match self.args.count {
                Some(count) => Until::Count(count.get()),
                None => Until::Time(Instant::now() + self.args.duration()),
            };
            closed::run(driver, workers, until, self.app.timeout(), out).await;
        };
        let (outcome, around) = self.around(driver, whole, load).await;
        summary::run(self.args, outcome, &Around { workers: Some(workers), ..around })
    }

    /// Measures an open loop.
    pub(crate) async fn open(
        &self,
        driver: &Driver<'_>,
        rate: f64,
        sustainable: Option<f64>,
        duration: Duration,
    ) -> saved::Run {
        let said = grouped(rate.round() as u64);
        self.app.out.say(&format!("measure  {said} requests a second"));
        let load = async |out: &RefCell<Outcome>| {
            open::run(driver, self.schedule(rate, duration, self.args.seed), out).await;
        };
        let (outcome, around) = self.around(driver, Some(duration), load).await;
        summary::run(self.args, outcome, &Around { rate: Some(rate), sustainable, ..around })
    }

    /// Runs a load, and watches the nodes, the bench itself and the terminal meanwhile.
    async fn around(
        &self,
        driver: &Driver<'_>,
        whole: Option<Duration>,
        load: impl AsyncFnOnce(&RefCell<Outcome>),
    ) -> (Outcome, Around) {
        let watch = Watch::default();
        let before = watch.ask(&self.session).await;
        let races = driver.ledger.borrow().races;
        driver.rewind();
        let (started, own) = (SystemTime::now(), Own::now());
        let out = RefCell::new(Outcome::new(Instant::now()));
        tokio::select! {
            () = load(&out) => {}
            () = live::show(&self.app.out, &out, whole) => {}
            () = watch.watch(&self.session) => {}
        }
        let own = own.share();
        let cpu = Cpu::between(&before, &watch.ask(&self.session).await);
        let around = Around {
            mix: self.mix,
            rate: None,
            sustainable: None,
            workers: None,
            timeout: self.app.timeout(),
            started,
            cpu,
            memory: watch.memory.get(),
            own,
            races: driver.ledger.borrow().races - races,
        };
        (out.into_inner(), around)
    }

    /// Reads again what was written, if it can be judged; the load is over then.
    pub(crate) async fn check(&self, driver: &Driver<'_>) -> Option<saved::Check> {
        if driver.ledger.borrow().acked == 0 {
            return None;
        }
        if let Some(why) = verify::cannot(&self.session, self.args) {
            self.app.out.say(&format!("no check: {why}"));
            return None;
        }
        // What is judged does not change any more.
        let ledger = driver.ledger.replace(Ledger::of(0));
        self.app.out.say("check    every key written, at r=all");
        Some(verify::run(self.app, &self.session, self.args, &ledger).await)
    }

    /// Prints a run and writes its files; how to end.
    fn tell(&self, run: &saved::Run) -> Done {
        let out = &self.app.out;
        let rows = run.rate.map(|_| summary::row(1.0, run));
        match out.is_json() {
            true => out.json(summary::document(run, rows.into_iter().collect()))?,
            false => out.line(&summary::page(run))?,
        }
        files::write(self.app, &self.args.files, run)?;
        self.judge(run)
    }

    /// How to end: 1 if requests or the check failed.
    fn judge(&self, run: &saved::Run) -> Done {
        if let Some(check) = run.check.filter(|check| !check.passed()) {
            return Ok(check_failed(self.app, &check));
        }
        // What was refused, late or not sent is what an open loop is there to find.
        let (failed, all) = match run.rate {
            Some(_) => (summary::other(run), run.offered - run.shed),
            None => (run.failed, run.failed + run.ops),
        };
        match failed {
            0 => Ok(Exit::Done),
            failed => Ok(some_failed(self.app, failed, all)),
        }
    }
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
        true => args.concurrency.unwrap_or(WORKERS),
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

/// A number that no other run has: its values carry it.
fn run_number() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = since.as_nanos() as u64;
    galvani_load::random::Random::of(nanos ^ (u64::from(std::process::id()) << 48)).bits()
}

/// Workers of a closed loop unless `-c` says otherwise, and at most.
const WORKERS: u32 = 16;
const WORKERS_MAX: u32 = 4_096;
/// How long the rate of an open loop is looked for.
const PROBE: Duration = Duration::from_secs(2);
/// Copies in a bucket that is not known; the first request says what is wrong.
const N_USUAL: u8 = 3;
/// The default of `--reads`.
const READS: u8 = 50;
/// Each key costs a context and what is live of it, about 200 bytes.
const KEYS_MAX: u64 = 10_000_000;
