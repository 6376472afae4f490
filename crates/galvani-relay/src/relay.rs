//! A relay: one target, opened, with the courier that serves it.
//!
//! It opens the right sink and hands batches on; it decides nothing. Next to read: `courier.rs`.

use crate::courier::{Courier, Delivered, Rules};
use crate::error::{OpenError, RelayError};
use crate::figures::FiguresHandle;
use crate::outgoing::Outgoing;
use crate::settings::Settings;
use crate::sink::command::CommandSink;
use crate::sink::lines::{FileJournal, Lines, StdoutJournal};
use crate::sink::nats::NatsSink;
use crate::sink::redis::RedisSink;
use crate::sink::webhook::WebhookSink;
use crate::sink::{Sent, Sink};
use crate::target::{Kind, Target};

/// Delivers events to one target. Runs on a tokio runtime with time and I/O.
pub struct Relay {
    courier: Courier<AnySink>,
    figures: FiguresHandle,
}

impl Relay {
    /// Opens `target`. A broker or a web server need not be there yet: it is waited for by the first
    /// delivery, as it is later on. What can be seen to be wrong without it is an error here.
    pub async fn open(target: Target, settings: Settings) -> Result<Relay, OpenError> {
        let name = target.to_string();
        let fail = |why: String| OpenError { target: name.clone(), why };
        let max_in_flight = settings.max_in_flight.unwrap_or(match target.kind {
            Kind::Stdout | Kind::File(_) => 1,
            Kind::Command(_) => COMMANDS_AT_ONCE,
            Kind::Webhook(_) => REQUESTS_AT_ONCE,
            Kind::Redis(_) | Kind::Nats(_) => PUBLISHES_AT_ONCE,
        });
        if max_in_flight == 0 {
            return Err(fail("max_in_flight is 0: allow at least one delivery at a time".into()));
        }
        let sink = match target.kind {
            Kind::Stdout => AnySink::Stdout(Lines::new(StdoutJournal::default())),
            Kind::File(path) => {
                let adopt = settings.adopt;
                let opened = move || FileJournal::open(&path, adopt);
                let opened = tokio::task::spawn_blocking(opened).await;
                let journal = opened.map_err(|e| fail(e.to_string()))?;
                AnySink::File(Lines::new(journal.map_err(&fail)?))
            }
            Kind::Command(argv) => AnySink::Command(CommandSink::new(argv)),
            Kind::Webhook(url) => {
                AnySink::Webhook(Box::new(WebhookSink::new(&url, &settings).map_err(&fail)?))
            }
            Kind::Redis(redis) => {
                AnySink::Redis(Box::new(RedisSink::new(redis, &settings).map_err(&fail)?))
            }
            Kind::Nats(nats) => {
                AnySink::Nats(Box::new(NatsSink::new(nats, &settings).await.map_err(&fail)?))
            }
        };
        let figures = FiguresHandle::default();
        let rules = Rules {
            target: name,
            max_in_flight,
            attempt_timeout: settings.attempt_timeout,
            retry: settings.retry,
            figures: figures.clone(),
        };
        Ok(Relay { courier: Courier::new(sink, rules), figures })
    }

    /// Delivers a batch. Returns when the target has acknowledged all of it; events of one order key are
    /// delivered in their order, those of different keys side by side. Failures that pass are tried
    /// again, for as long as [`Settings::retry`] allows. An error names the event it is about and gives
    /// back all that the target is not known to have.
    ///
    /// Dropping the future is safe: deliver the same batch again. What the target had acknowledged until
    /// then is not sent twice; what was under way is, under the same id. Keep one order key in one call
    /// at a time: the order holds within a batch, and from one batch to the next that is given after it.
    pub async fn deliver(&mut self, batch: Vec<Outgoing>) -> Result<Delivered, Box<RelayError>> {
        self.courier.deliver(batch).await
    }

    /// A handle on the figures, which can be read while a delivery is under way.
    pub fn figures(&self) -> FiguresHandle {
        self.figures.clone()
    }
}

/// Processes at once: each costs a fork and whatever it does.
const COMMANDS_AT_ONCE: usize = 4;
/// Requests at once, each on a connection of its own.
const REQUESTS_AT_ONCE: usize = 16;
/// Events at once on the one connection to a broker.
const PUBLISHES_AT_ONCE: usize = 64;

enum AnySink {
    Stdout(Lines<StdoutJournal>),
    File(Lines<FileJournal>),
    Command(CommandSink),
    Webhook(Box<WebhookSink>),
    Redis(Box<RedisSink>),
    Nats(Box<NatsSink>),
}

impl Sink for AnySink {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        match self {
            AnySink::Stdout(sink) => sink.send(events).await,
            AnySink::File(sink) => sink.send(events).await,
            AnySink::Command(sink) => sink.send(events).await,
            AnySink::Webhook(sink) => sink.send(events).await,
            AnySink::Redis(sink) => sink.send(events).await,
            AnySink::Nats(sink) => sink.send(events).await,
        }
    }

    fn run_max(&self) -> usize {
        match self {
            AnySink::Stdout(sink) => sink.run_max(),
            AnySink::File(sink) => sink.run_max(),
            AnySink::Command(sink) => sink.run_max(),
            AnySink::Webhook(sink) => sink.run_max(),
            AnySink::Redis(sink) => sink.run_max(),
            AnySink::Nats(sink) => sink.run_max(),
        }
    }

    fn by_key(&self) -> bool {
        !matches!(self, AnySink::Stdout(_) | AnySink::File(_))
    }

    fn timed(&self) -> bool {
        !matches!(self, AnySink::Stdout(_) | AnySink::File(_) | AnySink::Redis(_))
    }
}
