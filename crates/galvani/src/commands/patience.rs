//! Patience of commands on many records: what may succeed later is tried again, with pauses, and
//! the one who waits is told what for.
//!
//! The client retries within one call; a restarting node or a full one takes longer than a call.
//! Only errors that say so are tried again. A run gives up when nothing at all was done for as long
//! as `--patience` says, or when one record failed for that long. What is tried again must bear it:
//! a write reads first. [`Watch`] decides and is told the time; the rest waits.

use crate::args::data::InBucket;
use crate::connect::{App, Session};
use crate::output::Output;
use crate::report::Report;
use crate::report::client::About;
use crate::report::text::Span;
use galvani_client::{Error, ErrorKind, List, Page};
use indicatif::ProgressBar;
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The patience of one run, shared by all its records.
#[derive(Debug)]
pub(crate) struct Patience {
    watch: RefCell<Watch>,
}

/// Why a record was not done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Trying again cannot help.
    Final(Error),
    /// It might, but patience is over: the run ends.
    GaveUp(Error),
}

/// The run was interrupted by a signal.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl Patience {
    pub(crate) fn of(limit: Duration) -> Patience {
        Patience { watch: RefCell::new(Watch::of(limit)) }
    }

    /// Does `attempt` until it succeeds, fails for good, or patience is over. It is told how often
    /// it was tried before.
    pub(crate) async fn record<T, F, Attempt>(&self, mut attempt: F) -> Result<T, Stop>
    where
        F: FnMut(u32) -> Attempt,
        Attempt: Future<Output = Result<T, Error>>,
    {
        self.watch.borrow_mut().begin(Instant::now());
        let (mut first, mut tries) = (None, 0);
        loop {
            let error = match attempt(tries).await {
                Ok(done) => {
                    self.watch.borrow_mut().done(Instant::now());
                    return Ok(done);
                }
                Err(error) => error,
            };
            match self.next_try(&mut first, error, tries) {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(stop) => return Err(stop),
            }
            tries += 1;
        }
    }

    /// The next page of a listing; what failed is asked anew and nothing is left out.
    pub(crate) async fn page(&self, list: &mut List) -> Result<Option<Page>, Stop> {
        self.watch.borrow_mut().begin(Instant::now());
        let (mut first, mut tries) = (None, 0);
        loop {
            let error = match list.next_page().await {
                Ok(page) => {
                    self.watch.borrow_mut().done(Instant::now());
                    return Ok(page);
                }
                Err(error) => error,
            };
            match self.next_try(&mut first, error, tries) {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(stop) => return Err(stop),
            }
            tries += 1;
        }
    }

    /// Waits for `future`, and tells once when nothing comes for long, and when it goes on.
    pub(crate) async fn watch<T>(
        &self,
        out: &Output,
        bar: &ProgressBar,
        signals: &mut Signals,
        future: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut future = pin!(future);
        loop {
            let done = tokio::select! {
                done = &mut future => Some(done),
                () = signals.any() => return Err(Interrupted),
                () = tokio::time::sleep(TICK) => None,
            };
            let told = self.watch.borrow_mut().remark(Instant::now());
            if let Some(text) = told {
                bar.suspend(|| out.say(&text));
            }
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    /// The pause before the next try, unless there is none.
    fn next_try(
        &self,
        first: &mut Option<Instant>,
        error: Error,
        tries: u32,
    ) -> Result<Duration, Stop> {
        let mut watch = self.watch.borrow_mut();
        let now = Instant::now();
        if !error.is_retryable() {
            watch.done(now);
            return Err(Stop::Final(error));
        }
        let pause = pause(&error, tries);
        let first = *first.get_or_insert(now);
        watch.trouble(error.kind().to_string());
        if watch.is_over(first, now + pause) {
            watch.end();
            return Err(Stop::GaveUp(error));
        }
        Ok(pause)
    }
}

/// What a run waits for and since when.
#[derive(Debug)]
struct Watch {
    limit: Duration,
    /// Records under way.
    under_way: usize,
    /// The last time that something was done or, after a rest, begun.
    since: Option<Instant>,
    /// The last failure since then.
    why: Option<String>,
    told: Told,
}

/// What was said of the present wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// That there is a wait; its cause was not known yet.
    Wait,
    Cause,
    /// It is over, and that is to be said.
    Over,
}

impl Watch {
    fn of(limit: Duration) -> Watch {
        Watch { limit, under_way: 0, since: None, why: None, told: Told::Nothing }
    }

    /// A record is begun.
    fn begin(&mut self, now: Instant) {
        if self.under_way == 0 {
            self.since = Some(now);
        }
        self.under_way += 1;
    }

    /// A record is done, or failed for good: somebody answers.
    fn done(&mut self, now: Instant) {
        self.end();
        self.since = Some(now);
        self.why = None;
        self.told = match self.told {
            Told::Nothing => Told::Nothing,
            Told::Wait | Told::Cause | Told::Over => Told::Over,
        };
    }

    /// A record is given up.
    fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A try failed and may succeed later.
    fn trouble(&mut self, why: String) {
        self.why = Some(why);
    }

    /// Whether the patience for a record that fails since `first` is over at `now`.
    fn is_over(&self, first: Instant, now: Instant) -> bool {
        let idle = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        idle.max(now.saturating_duration_since(first)) > self.limit
    }

    /// What there is to say now: one line when the wait gets long, one more if its cause was not
    /// known then, and one when it is over.
    fn remark(&mut self, now: Instant) -> Option<String> {
        let limit = Span(self.limit);
        let idle = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let long = self.under_way > 0 && idle >= TELL_AFTER;
        match (self.told, &self.why) {
            (Told::Over, _) => {
                self.told = Told::Nothing;
                Some("goes on".to_owned())
            }
            (Told::Nothing, None) if long => {
                self.told = Told::Wait;
                Some(format!("waiting for an answer; gives up after {limit} (--patience)"))
            }
            (Told::Nothing, Some(why)) if long => {
                self.told = Told::Cause;
                Some(format!("waiting: {why}; gives up after {limit} (--patience)"))
            }
            (Told::Wait, Some(why)) => {
                self.told = Told::Cause;
                Some(format!("waiting: {why}"))
            }
            (Told::Nothing | Told::Wait | Told::Cause, _) => None,
        }
    }
}

/// Connects for many records of a bucket, each of whose requests has [`TIMEOUT`] unless `--timeout` says
/// otherwise. Returns what the command is about as well.
pub(crate) async fn connect(app: &App, bucket: &InBucket) -> Result<(Session, About), Report> {
    let timeout = app.global.timeout.unwrap_or(TIMEOUT);
    let session = app.connect_with(timeout, RETRIES).await?;
    Ok((session, About { bucket: Some(bucket.bucket.clone()), timeout, ..app.about() }))
}

/// Ctrl-C and SIGTERM, where a command has something to say or to clean up before it ends.
#[derive(Debug)]
pub(crate) struct Signals(Option<[Signal; 2]>);

impl Signals {
    /// Takes them over from the system.
    pub(crate) fn taken() -> Result<Signals, Report> {
        let taken = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        match taken {
            [Ok(interrupt), Ok(terminate)] => Ok(Signals(Some([interrupt, terminate]))),
            [Err(error), _] | [_, Err(error)] => {
                Err(Report::unexpected(format!("signals: {error}")))
            }
        }
    }

    /// Leaves them to the system: they end the process at once.
    pub(crate) fn left() -> Signals {
        Signals(None)
    }

    /// Until one of them comes.
    pub(crate) async fn any(&mut self) {
        match &mut self.0 {
            Some([interrupt, terminate]) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// Doubles with each try, and is at least what a full node asks for.
fn pause(error: &Error, tries: u32) -> Duration {
    let pause = PAUSE_FIRST.saturating_mul(1 << tries.min(8)).min(PAUSE_MAX);
    match error.kind() {
        ErrorKind::Overloaded { retry_after } | ErrorKind::RateLimited { retry_after } => {
            pause.max(*retry_after)
        }
        _ => pause,
    }
}

/// Time of one request for one of many records: long enough for the client to turn to another node.
const TIMEOUT: Duration = Duration::from_secs(4);
const RETRIES: u8 = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a wait is looked at.
const TICK: Duration = Duration::from_millis(250);
/// A wait this long is told of, within two seconds with the tick.
const TELL_AFTER: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use super::{TELL_AFTER, Watch};
    use std::time::{Duration, Instant};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_long_wait_is_told_once_with_its_cause_and_its_end() {
        let began = Instant::now();
        let mut watch = Watch::of(30 * SECOND);
        assert_eq!(watch.remark(began + 60 * SECOND), None, "nothing is under way");
        watch.begin(began);
        assert_eq!(watch.remark(began + SECOND), None);
        let told = watch.remark(began + TELL_AFTER).expect("a long wait");
        assert_eq!(told, "waiting for an answer; gives up after 30.0 s (--patience)");
        assert_eq!(watch.remark(began + 3 * SECOND), None);
        watch.trouble("n3 is down".to_owned());
        assert_eq!(watch.remark(began + 4 * SECOND).as_deref(), Some("waiting: n3 is down"));
        watch.trouble("n2 is down".to_owned());
        assert_eq!(watch.remark(began + 20 * SECOND), None, "no spam");
        watch.done(began + 21 * SECOND);
        assert_eq!(watch.remark(began + 21 * SECOND).as_deref(), Some("goes on"));
        assert_eq!(watch.remark(began + 60 * SECOND), None, "nothing is under way");
        watch.begin(began + 60 * SECOND);
        watch.trouble("n1 is down".to_owned());
        let told = watch.remark(began + 62 * SECOND).expect("another long wait");
        assert!(told.starts_with("waiting: n1 is down; gives up"), "{told}");
    }

    #[test]
    fn patience_ends_without_any_progress_or_with_one_record_that_never_succeeds() {
        let began = Instant::now();
        let mut watch = Watch::of(30 * SECOND);
        watch.begin(began);
        assert!(!watch.is_over(began, began + 30 * SECOND));
        assert!(watch.is_over(began, began + 31 * SECOND));
        // A record that has only just begun to fail, while nothing was done for long.
        assert!(watch.is_over(began + 30 * SECOND, began + 31 * SECOND));
        // Others are done all the time, this one is not.
        watch.begin(began);
        watch.done(began + 30 * SECOND);
        assert!(!watch.is_over(began + 29 * SECOND, began + 31 * SECOND));
        assert!(watch.is_over(began, began + 31 * SECOND));
    }
}
