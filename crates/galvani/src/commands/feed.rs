//! `feed`: every write as it happens, or events of applications, until it is stopped.
//!
//! Events go to the screen, or through a relay to a target. The position is kept in a file if one is
//! named, once what was shown is written out or taken: so nothing is left out by the next run, and at
//! most what came since the last second goes out again, by the same ids.
//! Next to read: `feed/outlet.rs`, `feed/shown.rs`.

mod group;
mod outlet;
mod patience;
pub(crate) mod position;
pub(crate) mod shown;

use crate::args::Format;
use crate::args::feed::{self, Gaps, Seen, Since, Until};
use crate::commands::{Done, consumers};
use crate::connect::{App, RETRIES};
use crate::exit::Exit;
use crate::report::Report;
use crate::report::client::{self, About, Retype};
use crate::report::text::count;
use futures_util::FutureExt;
use galvani_client::{Checkpoint, Event, Feed, FeedBuilder, OnGap, Start, Visibility};
use outlet::Outlet;
use patience::{Hindrance, SILENCE, patiently};
use position::Position;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{SignalKind, signal};

/// What a run has shown.
#[derive(Default)]
struct Tally {
    events: u64,
    late: u64,
    gone: u64,
    hindrance: Hindrance,
}

/// Shows the feed.
pub(crate) async fn run(app: &App, args: feed::Feed) -> Done {
    let began = SystemTime::now();
    check_format(app, &args)?;
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let about = About { bucket: args.bucket.first().cloned(), ..app.about() };
    let retype =
        Retype { command: "feed", subject: String::new(), line: app.again(args.line()), about };
    let mut outlet = Outlet::open(&args).await?;
    let stop = stopped()?;
    tokio::pin!(stop);
    if let Some(name) = &args.group {
        return group::run(app, &session, &args, name, outlet, stop, &retype).await;
    }
    let to = outlet.to();
    let position = args.token.as_deref().map(|path| Position::open(path, to.as_deref()));
    let mut position = position.transpose()?;
    let kept = position.as_mut().and_then(Position::take);
    let (start, since) = match kept {
        Some((token, since)) => {
            if let (Some(_), Some(path)) = (args.from, &args.token) {
                let path = path.display();
                app.out.note(&format!("it goes on from {path}; --from is for a new position"));
            }
            (Start::Token(token), since)
        }
        None => start(args.from.unwrap_or_default()),
    };
    let mut builder = asked(session.client.feed(), &args).from(start);
    if let Some(since) = since {
        builder = builder.since(since);
    }
    let failed = |error| client::report(&error, &retype);
    let why = || Some("no owner answers yet of some shards".to_owned());
    let mut feed = patiently(app, why, builder.subscribe()).await.map_err(failed)?;
    if let Some(position) = &mut position {
        // Whatever happens to the first event, the next run begins no later than this one.
        position.begin(since);
        position.keep(feed.token())?;
    }
    let keep = match args.checkpoints {
        true => consumers::keep(&session.client.status().await),
        false => None,
    };
    let (mut tally, mut kept_at) = (Tally::default(), Instant::now());
    let ended = loop {
        let first = tokio::select! {
            event = feed.next() => event,
            () = &mut stop => break Ok(true),
            // Asked again it says how far it is, also when no owner says anything.
            () = tokio::time::sleep(SILENCE) => continue,
        };
        let batch = batch(&mut feed, first, args.limit.map(|limit| limit - tally.events));
        if !batch.events.is_empty() {
            let delivered = tokio::select! {
                delivered = outlet.take(app, &batch.events) => delivered,
                // The position stays at what was delivered before.
                () = &mut stop => break Ok(false),
            };
            // What came before in the batch is known to the target, or comes again by its id.
            delivered?;
            batch.events.iter().for_each(|event| tally.note(event));
            if let Some(position) = &mut position
                && kept_at.elapsed() >= KEEP_EVERY
            {
                position.keep(feed.token())?;
                kept_at = Instant::now();
            }
        }
        match batch.end {
            None => {}
            Some(Ok(checkpoint)) => {
                if let Some(position) = &mut position {
                    position.keep(feed.token())?;
                }
                if let Some(words) = tally.hindrance.of(&checkpoint, Instant::now()) {
                    app.out.note(&words);
                }
                if args.checkpoints {
                    shown::checkpoint(app, &checkpoint, keep)?;
                }
                if args.until == Some(Until::Now) && is_caught_up(&checkpoint, began) {
                    break Ok(true);
                }
            }
            Some(Err(Some(error))) => break Err(failed(error)),
            Some(Err(None)) => break Err(Report::unexpected("the client was closed".to_owned())),
        }
        if args.limit.is_some_and(|limit| tally.events >= limit) {
            break Ok(true);
        }
    };
    if let (Some(position), Err(_) | Ok(true)) = (&mut position, &ended) {
        position.keep(feed.token())?;
    }
    ended?;
    tally.tell(app);
    Ok(Exit::Done)
}

/// Events that are there at once, and what came after them.
struct Batch {
    events: Vec<Event>,
    /// A checkpoint, or the end of the feed, and why.
    end: Option<Result<Checkpoint, Option<galvani_client::Error>>>,
}

/// Takes what there is, at most so many events. The feed's position is then behind the last of them.
fn batch(feed: &mut Feed, first: Next, most: Option<u64>) -> Batch {
    let most = most.unwrap_or(BATCH_MAX).min(BATCH_MAX) as usize;
    let mut batch = Batch { events: Vec::new(), end: None };
    let mut next = first;
    loop {
        match next {
            Some(Ok(Event::Checkpoint(checkpoint))) => batch.end = Some(Ok(checkpoint)),
            Some(Ok(event)) => batch.events.push(event),
            Some(Err(error)) => batch.end = Some(Err(Some(error))),
            None => batch.end = Some(Err(None)),
        }
        if batch.end.is_some() || batch.events.len() >= most {
            return batch;
        }
        match feed.next().now_or_never() {
            Some(more) => next = more,
            None => return batch,
        }
    }
}

/// What a feed gives out.
type Next = Option<Result<Event, galvani_client::Error>>;

/// How often the position is kept while events go out.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Events of one batch: what a target takes at once.
const BATCH_MAX: u64 = 256;

/// What is asked for.
fn asked(mut builder: FeedBuilder, args: &feed::Feed) -> FeedBuilder {
    for bucket in &args.bucket {
        builder = builder.bucket(bucket.as_str());
    }
    for topic in &args.topic {
        builder = builder.topic(topic.clone());
    }
    if let Some(prefix) = &args.prefix {
        builder = builder.prefix(prefix.clone());
    }
    for node in &args.author {
        builder = builder.author(node.clone());
    }
    if args.keys_only {
        builder = builder.keys_only();
    }
    if let Some(seen) = args.visibility {
        builder = builder.visibility(match seen {
            Seen::Any => Visibility::Any,
            Seen::Quorum => Visibility::Quorum,
        });
    }
    if let Some(gaps) = args.on_gap {
        builder = builder.on_gap(match gaps {
            Gaps::Fail => OnGap::Fail,
            Gaps::Tell => OnGap::Tell,
            Gaps::Restart => OnGap::Restart,
        });
    }
    builder
}

/// One document is what `-o json` gives, and a feed has no end.
fn check_format(app: &App, args: &feed::Feed) -> Result<(), Report> {
    let to_screen = args.to.is_none() && args.command.is_empty();
    if app.out.format != Format::Json || !to_screen {
        return Ok(());
    }
    let report = Report::new(Exit::Usage, "feed: -o json is one document, and a feed is many");
    let line = app.again(args.line()).with("-o", "jsonl");
    Err(report.why("-o jsonl is one for each event, each on a line").next("try", line.to_string()))
}

/// Where it begins, and of which moment writes are shown.
fn start(from: Since) -> (Start, Option<SystemTime>) {
    match from {
        Since::Now => (Start::Now, None),
        Since::Start => (Start::Beginning, None),
        Since::From(when) => {
            let moment = when.moment(SystemTime::now());
            (Start::At(moment), Some(moment))
        }
    }
}

/// Whether all that was written before `began` is shown. The nodes' clocks may differ from this one.
fn is_caught_up(checkpoint: &Checkpoint, began: SystemTime) -> bool {
    checkpoint.behind == 0 && checkpoint.complete_through.is_some_and(|through| through >= began)
}

/// Resolves when the process is told to end.
fn stopped() -> Result<impl Future<Output = ()>, Report> {
    let failed = |error| Report::unexpected(format!("signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

impl Tally {
    fn note(&mut self, event: &Event) {
        let source = match event {
            Event::Changed(change) => &change.source,
            Event::Emitted(emitted) => &emitted.source,
            Event::Gap(gap) => {
                self.gone += gap.gone.len();
                return;
            }
            _ => return,
        };
        self.events += 1;
        self.late += u64::from(source.late);
    }

    fn tell(&self, app: &App) {
        if app.out.format != Format::Table {
            return;
        }
        let mut words = vec![count(self.events, "event")];
        if self.late > 0 {
            words.push(format!("{} late", self.late));
        }
        if self.gone > 0 {
            words.push(format!("{} not kept any more", count(self.gone, "write")));
        }
        app.out.say(&words.join(", "));
    }
}
