//! Running a lagged replica: the feed in, what is due on to the base, questions answered.
//!
//! One loop owns the replica. A page of the feed is durable before the next event is taken, so the feed
//! is never ahead of what is held; while the disk is full it is simply not read. The position is the
//! replica's own, and a new process goes on from it. Once a day everything is compared with the cluster.
//! Next to read: `galvani-lagged/src/replica.rs`, then `verify.rs`.

use super::restore::Pace;
use super::shown;
use super::socket::{self, Asked};
use super::verify::Verifying;
use crate::args::line::Line;
use crate::commands::Done;
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::client::{self, Retype};
use futures_util::FutureExt;
use galvani_client::{
    Checkpoint, ClusterView, Event, Feed, FeedToken, Filter, OnGap, Shows, Start,
};
use galvani_lagged::control::{Ask, answer};
use galvani_lagged::{Arrivals, Lagged, LaggedConfig, LaggedError, Now, OpenError, Verified};
use galvani_model::limits::FEED_KEEP_MS_DEFAULT;
use galvani_storage::engine::FjallEngine;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The lag of a new directory, where none is named.
const LAG: Duration = Duration::from_secs(3600);

/// Bytes of values of one page; the last record counts whole.
const PAGE_BYTES: usize = 4 << 20;

/// Records of one page: one fsync for all of them.
const PAGE_RECORDS: usize = 1_000;

/// How long to wait before a full disk is tried again, and at most before looking what is due.
const PAUSE: Duration = Duration::from_secs(1);

/// Keys that the daily comparison reads in a second: a small part of what a cluster does.
const VERIFY_KEYS_PER_SECOND: u64 = 1_000;

/// How often to look for new buckets.
const LOOK: Duration = Duration::from_secs(2);

/// What is said when it is started.
pub(super) struct Set {
    /// The lag; `None`: as it was, or the default.
    lag_ms: Option<u64>,
    /// How long nodes keep what nothing needs any more; 0: for ever.
    feed_keep_ms: u64,
}

impl Set {
    /// As it was typed.
    pub(super) fn of(lag: Option<Duration>, feed_keep: Option<Duration>) -> Set {
        let feed_keep_ms = feed_keep.map_or(FEED_KEEP_MS_DEFAULT, |keep| keep.as_millis() as u64);
        Set { lag_ms: lag.map(|lag| lag.as_millis() as u64), feed_keep_ms }
    }
}

/// Runs a replica in `dir` until it is stopped.
pub(super) async fn run(app: &App, dir: PathBuf, set: Set) -> Done {
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let view = session.client.cluster();
    let config = LaggedConfig {
        cluster: view.cluster,
        partitions: view.layout.partitions(),
        lag_ms: set.lag_ms.unwrap_or(LAG.as_millis() as u64),
        feed_keep_ms: set.feed_keep_ms,
    };
    let mut keeper = Keeper {
        replica: Lagged::open(&dir, config).map_err(|error| not_opened(&error))?,
        session,
        began: Instant::now(),
        copies: BTreeSet::new(),
        view: None,
        page: Arrivals::default(),
        bytes: 0,
        checkpoint: None,
    };
    keeper.set_lag(set.lag_ms, &dir, app)?;
    let listening = |error| Report::unexpected(format!("lagged: its control socket: {error}"));
    let (inside, asked) = socket::questions();
    socket::listen(&dir, inside.clone()).map_err(listening)?;
    let feed = keeper.subscribe(app).await?;
    let status = keeper.replica.status(keeper.now()).map_err(failed)?;
    let lag = shown::lag(status.lag_target_ms);
    app.out.say(&format!("follows cluster {}, {lag} behind", view.name));
    app.out.say(&format!("  ask it    {}", shown::again(&dir, "status")));
    let client = keeper.session.client.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            // Nobody tells when a bucket is made. A look that fails is followed by the next one.
            drop(client.buckets().await);
        }
    });
    keeper.follow(feed, (inside, asked), app).await
}

/// The replica, and what came and is not in it yet.
struct Keeper {
    replica: Lagged<FjallEngine>,
    session: Session,
    began: Instant,
    /// The numbers of copies whose shards are followed.
    copies: BTreeSet<u8>,
    /// The view of the cluster whose buckets the replica knows.
    view: Option<Arc<ClusterView>>,
    page: Arrivals,
    bytes: usize,
    /// What the feed said of itself after the page.
    checkpoint: Option<Checkpoint>,
}

impl Keeper {
    /// Opens the feed where the replica is.
    async fn subscribe(&mut self, app: &App) -> Result<Feed, Report> {
        let filter = Filter { shows: Shows::Records, ..Filter::default() };
        let copies = self.copies_now();
        let cluster = self.session.client.cluster().cluster;
        let cursors = self.replica.positions();
        let start = match cursors.is_empty() {
            true => Start::Beginning,
            false => Start::Token(FeedToken { cluster, filter: filter.fingerprint(), cursors }),
        };
        let feed = self.session.client.feed().records().from(start).on_gap(OnGap::Tell);
        let feed = feed.subscribe().await;
        let feed = feed.map_err(|error| client::report(&error, &retype(app)))?;
        self.copies = copies;
        Ok(feed)
    }

    /// Takes a longer lag. A shorter one would throw moments away by a restart, so it is only told of.
    fn set_lag(&mut self, lag_ms: Option<u64>, dir: &Path, app: &App) -> Result<(), Report> {
        let now = self.now();
        let is = self.replica.status(now).map_err(failed)?.lag_target_ms;
        match lag_ms {
            Some(lag_ms) if lag_ms > is => self.replica.set_lag(lag_ms, now).map_err(failed),
            Some(lag_ms) if lag_ms < is => {
                let (is, lag) = (shown::lag(is), shown::lag(lag_ms).replace(' ', ""));
                let change = shown::again(dir, &format!("set-lag {lag}"));
                app.out.note(&format!("it stays {is} behind; a shorter lag: {change}"));
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn follow(
        mut self,
        mut feed: Feed,
        (inside, mut asked): (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
        app: &App,
    ) -> Done {
        let signals = |error| Report::unexpected(format!("signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
        let mut full = false;
        let mut verifying = Verifying::new(self.session.client.clone(), inside);
        loop {
            let was_full = full;
            if verifying.is_due(&self.replica, unix_ms(SystemTime::now())) {
                verifying.start(&self.replica, Pace::of(VERIFY_KEYS_PER_SECOND));
            }
            self.learn()?;
            // A bucket was made whose shards the feed does not have. What is held is the position;
            // where it cannot be opened the old one goes on, and the next round tries again.
            if !full
                && self.copies != self.copies_now()
                && let Ok(anew) = self.subscribe(app).await
            {
                feed = anew;
            }
            let due = self.step()?;
            let pause = due.min(PAUSE);
            tokio::select! {
                _ = interrupt.recv() => return self.stop(),
                _ = terminate.recv() => return self.stop(),
                found = verifying.done() => {
                    self.note_verified(&found, app)?;
                    verifying.tell(&found);
                }
                Some(Asked { ask, to }) = asked.recv() => {
                    // A bucket may have become known while this waited, and be asked about.
                    self.learn()?;
                    match ask {
                        Ask::Verify => verifying.join(to, &self.replica),
                        ask => {
                            let now = self.now();
                            // Whoever asked may have gone.
                            let _ = to.send(answer(&mut self.replica, ask, now));
                        }
                    }
                }
                event = feed.next(), if !full => {
                    self.take(event, app)?;
                    while !self.is_full_page()
                        && let Some(event) = feed.next().now_or_never()
                    {
                        self.take(event, app)?;
                    }
                    full = self.keep(&feed)?;
                }
                () = tokio::time::sleep(pause) => {
                    if full {
                        full = self.keep(&feed)?;
                    }
                }
            }
            if full && !was_full {
                app.out.note("the disk is full: nothing is taken in until there is room");
            }
        }
    }

    fn stop(&mut self) -> Done {
        let now = self.now();
        match self.replica.rest(now) {
            Ok(()) | Err(LaggedError::Full) => Ok(Exit::Done),
            Err(error) => Err(failed(error)),
        }
    }

    /// Keeps what a comparison found, and says what is wrong where this runs.
    fn note_verified(&mut self, found: &Result<Verified, String>, app: &App) -> Result<(), Report> {
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                app.out.note(&format!("the comparison with the cluster came to no end: {why}"));
                return Ok(());
            }
        };
        if !found.is_well() {
            app.out.note("the comparison with the cluster found something wrong: see its status");
        }
        match self.replica.note_verified(found.clone(), self.now()) {
            // The next one tells it again.
            Ok(()) | Err(LaggedError::Full) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The numbers of copies there are: each has shards of its own.
    fn copies_now(&self) -> BTreeSet<u8> {
        self.session.client.cluster().buckets.values().map(|props| props.n).collect()
    }

    /// Adds an event to the page.
    fn take(
        &mut self,
        event: Option<Result<Event, galvani_client::Error>>,
        app: &App,
    ) -> Result<(), Report> {
        let closed = || Report::unexpected("lagged: the client was closed");
        match event.ok_or_else(closed)?.map_err(|error| client::report(&error, &retype(app)))? {
            Event::Record(shown) => {
                self.bytes += shown.record.value.len();
                self.page.records.push((shown.shard, shown.record));
            }
            Event::Gap(gap) => self.page.gone.entry(gap.shard).or_default().union(&gap.gone),
            Event::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
            // Nothing else is shown where records are asked for.
            _ => {}
        }
        Ok(())
    }

    fn is_full_page(&self) -> bool {
        self.bytes >= PAGE_BYTES || self.page.records.len() >= PAGE_RECORDS
    }

    /// Puts the page into the journal. Returns whether the disk is full; then the page stays.
    fn keep(&mut self, feed: &Feed) -> Result<bool, Report> {
        let now = self.now();
        if !self.page.records.is_empty() || !self.page.gone.is_empty() {
            let shards: BTreeSet<_> = self.page.records.iter().map(|(shard, _)| *shard).collect();
            let shards = shards.into_iter().chain(self.page.gone.keys().copied());
            let cursors = &feed.token().cursors;
            let positions = shards.filter_map(|it| Some((it, cursors.get(&it)?.clone())));
            let page = Arrivals { positions: positions.collect(), ..self.page.clone() };
            match self.replica.arrive(page, now) {
                Ok(_) => {}
                Err(LaggedError::Full) => return Ok(true),
                Err(error) => return Err(failed(error)),
            }
            self.page = Arrivals::default();
            self.bytes = 0;
        }
        // It speaks of the feed after these records, so they are held first.
        if let Some(checkpoint) = self.checkpoint.take() {
            let through = checkpoint.complete_through.map_or(0, unix_ms);
            self.replica.heard(through, checkpoint.behind, now).map_err(failed)?;
        }
        Ok(false)
    }

    /// Applies what is due; returns how long until there is more to do.
    fn step(&mut self) -> Result<Duration, Report> {
        let now = self.now();
        match self.replica.step(now) {
            Ok(stepped) => Ok(stepped.due_in_ms.map_or(PAUSE, Duration::from_millis)),
            Err(LaggedError::Full) => Ok(PAUSE),
            Err(error) => Err(failed(error)),
        }
    }

    /// Tells the replica what becomes of concurrent writes, in buckets that are new.
    fn learn(&mut self) -> Result<(), Report> {
        let view = self.session.client.cluster();
        if self.view.as_ref().is_some_and(|known| Arc::ptr_eq(known, &view)) {
            return Ok(());
        }
        for (bucket, props) in &view.buckets {
            match self.replica.learn_bucket(bucket, props.policy) {
                Ok(()) => {}
                // It is tried again: the view is not taken as known.
                Err(LaggedError::Full) => return Ok(()),
                Err(error) => return Err(failed(error)),
            }
        }
        self.view = Some(view);
        Ok(())
    }

    fn now(&self) -> Now {
        let micros = self.began.elapsed().as_micros() as u64;
        Now { micros, unix_ms: unix_ms(SystemTime::now()) }
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn retype(app: &App) -> Retype {
    let line = app.again(Line::new("lagged"));
    Retype { command: "lagged", subject: String::new(), line, about: app.about() }
}

fn failed(error: LaggedError) -> Report {
    Report::new(Exit::Unexpected, format!("lagged: {error}"))
}

fn not_opened(error: &OpenError) -> Report {
    Report::new(Exit::Refused, format!("lagged: {error}"))
}
