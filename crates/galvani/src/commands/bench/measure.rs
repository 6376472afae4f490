//! One load being measured: from keys and a rate to a document.
//!
//! Whatever runs beside the load (the terminal's line, the watch of the nodes, faults on purpose)
//! runs here, on the same thread. Who decides what is measured is `bench.rs`, `curve.rs` and
//! `sweep.rs`.

use crate::args::bench::{Run, WORKERS};
use crate::commands::bench::chaos::Faults;
use crate::commands::bench::closed::{self, Until};
use crate::commands::bench::driver::Driver;
use crate::commands::bench::open::{self, Schedule};
use crate::commands::bench::outcome::Outcome;
use crate::commands::bench::summary::Around;
use crate::commands::bench::usage::{Cpu, Own, Watch};
use crate::commands::bench::{check_failed, files, live, prepare, some_failed, summary, verify};
use crate::commands::{Done, options};
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::{count, grouped};
use bytes::Bytes;
use galvani_load::ledger::Ledger;
use galvani_load::run::{self as saved, Quorum};
use galvani_load::workload::Mix;
use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// What one load needs.
#[derive(Debug)]
pub(crate) struct Measure<'a> {
    pub(crate) app: &'a App,
    pub(crate) args: &'a Run,
    mix: Mix,
    session: Session,
    /// What is broken on purpose while it is measured.
    pub(crate) faults: Option<Faults>,
}

impl<'a> Measure<'a> {
    /// Connects and makes the keys.
    pub(crate) async fn prepare(
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
        Ok((Measure { app, args, mix, session, faults: None }, driver))
    }

    /// The same with other arguments.
    pub(crate) fn asking<'b>(&'b self, args: &'b Run) -> Measure<'b> {
        let session = self.session.clone();
        Measure { app: self.app, args, mix: self.mix, session, faults: None }
    }

    /// Copies of each key: as asked, or the bucket's.
    pub(crate) fn copies(&self) -> u8 {
        let numbers = self.session.numbers(&self.args.bucket, self.args.copies.n, None, None);
        numbers.map_or(N_USUAL, |(n, _, _)| n)
    }

    /// What is asked for, in copies: as said, or the bucket's.
    fn quorum(&self) -> Option<Quorum> {
        let Run { bucket, copies, read, write, .. } = self.args;
        let (n, r, w) = self.session.numbers(bucket, copies.n, read.r, write.w)?;
        Some(Quorum { n, r, w })
    }

    /// The rate of an open loop: as asked, or half of what a closed loop gets done before.
    pub(crate) async fn rate(&self, driver: &Driver<'_>) -> (f64, Option<f64>) {
        if let Some(rate) = self.args.rate {
            return (rate.get() as f64, None);
        }
        let found = self.find(driver, WORKERS.min(self.args.workers()), PROBE).await;
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
        let places = places(self.args.concurrency, self.args.keys.get());
        Schedule { rate, duration, places, timeout: self.app.timeout(), seed }
    }

    /// Measures a closed loop.
    pub(crate) async fn closed(&self, driver: &Driver<'_>) -> saved::Run {
        let workers = self.args.workers();
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
        let hints = watch.hints();
        let (started, own) = (SystemTime::now(), Own::now());
        let out = RefCell::new(Outcome::new(Instant::now()));
        let over = Notify::new();
        let measuring = async {
            tokio::select! {
                () = load(&out) => {}
                () = live::show(&self.app.out, &out, whole) => {}
                () = watch.watch(&self.session) => {}
            }
            over.notify_one();
            own.share()
        };
        // A fault that is under way when the load ends is waited for.
        let (own, ()) = tokio::join!(measuring, self.break_things(&over));
        let cpu = Cpu::between(&before, &watch.ask(&self.session).await);
        let chaos = match &self.faults {
            Some(faults) => {
                faults.mend(self.app).await;
                watch.ask(&self.session).await;
                let (made, drained) = watch.hints();
                Some(saved::Chaos {
                    hints_made: made.saturating_sub(hints.0),
                    hints_drained: drained.saturating_sub(hints.1),
                    hints_left: watch.hints_left.get(),
                    ..faults.found(&out.borrow())
                })
            }
            None => None,
        };
        let around = Around {
            chaos,
            mix: self.mix,
            quorum: self.quorum(),
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

    /// Does the faults of this run at their times, until `over` is told.
    async fn break_things(&self, over: &Notify) {
        if let Some(faults) = &self.faults {
            faults.play(Instant::now(), over).await;
        }
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
        let check = verify::run(self.app, &self.session, self.args, &ledger).await;
        if check.unjudged > 0 {
            let what = "somebody else wrote keys of this bench meanwhile";
            self.app.out.note(&format!("{what}: run it again while nothing else writes bench/.."));
        }
        Some(check)
    }

    /// Prints a run and writes its files; how to end.
    pub(crate) fn tell(&self, run: &saved::Run) -> Done {
        // First: a reader of the page that goes away (`| head`) ends the process.
        let written = files::write(self.app, &self.args.files, run);
        let out = &self.app.out;
        let rows = run.rate.map(|_| summary::row(1.0, run));
        match out.is_json() {
            true => out.json(summary::document(run, rows.into_iter().collect()))?,
            false => out.line(&summary::page(run))?,
        }
        written?;
        self.judge(run)
    }

    /// How to end: 1 if requests or the check failed.
    fn judge(&self, run: &saved::Run) -> Done {
        if let Some(check) = run.check.filter(|check| !check.passed()) {
            return Ok(check_failed(self.app, &check));
        }
        // What was refused, late or not sent is what an open loop is there to find.
        let (failed, all) = match run.rate {
            Some(_) if run.chaos.is_some() => (0, 0),
            Some(_) => (summary::other(run), run.offered - run.shed),
            None if run.chaos.is_some() => (0, 0),
            None => (run.failed, run.failed + run.ops),
        };
        match failed {
            0 => Ok(Exit::Done),
            failed => Ok(some_failed(self.app, failed, all)),
        }
    }
}

/// A number that no other run has: its values carry it.
fn run_number() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = since.as_nanos() as u64;
    galvani_load::random::Random::of(nanos ^ (u64::from(std::process::id()) << 48)).bits()
}

/// Requests that an open loop has under way at most: as asked, or as many as there are keys, up to
/// what this process can hold.
fn places(asked: Option<u32>, keys: u64) -> usize {
    let most = asked.map_or(keys.min(PLACES_MOST), u64::from);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Requests under way at most unless `-c` says otherwise: each holds a value, a future and a stream.
const PLACES_MOST: u64 = 65_536;
/// How long the rate of an open loop is looked for.
const PROBE: Duration = Duration::from_secs(2);
/// Copies in a bucket that is not known; the first request says what is wrong.
const N_USUAL: u8 = 3;

#[cfg(test)]
mod tests {
    use super::{PLACES_MOST, places};

    #[test]
    fn many_keys_are_not_as_many_requests_at_once() {
        assert_eq!((places(None, 50), places(None, 10_000_000)), (50, PLACES_MOST as usize));
        assert_eq!((places(Some(7), 50), places(Some(100_000), 50)), (7, 100_000));
    }
}
