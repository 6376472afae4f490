//! Where events go: the screen, or a target through the relay.
//!
//! A target gets one JSON document for each event, as `-o jsonl` prints it, under the event's own id:
//! by that it knows one that is delivered again. Next to read: `galvani-relay`, `shown.rs`.

use super::patience::patiently;
use super::shown;
use crate::args::feed::Feed;
use crate::connect::App;
use crate::exit::Exit;
use crate::report::text::count;
use crate::report::{Report, mistakes};
use galvani_client::Event;
use galvani_relay::{Outgoing, Reason, Relay, RelayError, Retry, Secret, Settings, Target};
use std::fs;

/// Where events go.
pub(crate) enum Outlet {
    /// Written to stdout.
    Screen,
    /// Delivered to a target.
    Relay(Box<Relay>, String),
}

impl Outlet {
    /// As the options say. A broker need not be there yet.
    pub(crate) async fn open(args: &Feed) -> Result<Outlet, Report> {
        let target = match (&args.to, args.command.is_empty()) {
            (Some(target), _) => target.clone(),
            (None, true) => return Ok(Outlet::Screen),
            (None, false) => Target::command(args.command.clone())
                .map_err(|error| Report::new(Exit::Usage, format!("feed: {error}")))?,
        };
        let secret = match &args.secret_file {
            None => None,
            Some(path) => {
                let text = fs::read(path).map_err(|error| mistakes::file(path, &error))?;
                let secret = Secret::new(&text);
                let empty = || format!("feed: {} holds no secret", path.display());
                Some(secret.ok_or_else(|| Report::new(Exit::Usage, empty()))?)
            }
        };
        let retry = Retry { tries_max: args.tries.or(tries(args)), ..Retry::default() };
        let named = target.to_string();
        let adopt = args.force;
        let settings = Settings { secret, retry, adopt, ..Settings::default() };
        let relay = Relay::open(target, settings)
            .await
            .map_err(|error| Report::new(Exit::Refused, format!("feed: {error}")).never_sent())?;
        Ok(Outlet::Relay(Box::new(relay), named))
    }

    /// The target's name, without its secrets: positions belong to one.
    pub(crate) fn to(&self) -> Option<String> {
        match self {
            Outlet::Screen => None,
            Outlet::Relay(_, named) => Some(named.clone()),
        }
    }

    /// Writes events out, or has them taken by the target.
    pub(crate) async fn take(&mut self, app: &App, events: &[Event]) -> Result<(), Report> {
        match self {
            Outlet::Screen => events.iter().try_for_each(|event| shown::write(app, event)),
            Outlet::Relay(relay, named) => {
                for event in events {
                    if let Event::Gap(gap) = event {
                        let gone = count(gap.gone.len(), "write");
                        app.out.note(&format!("{gone} of {} are not kept any more", gap.shard));
                    }
                }
                let outgoing = events.iter().filter_map(outgoing).collect();
                let figures = relay.figures();
                let why = || {
                    let figures = figures.read();
                    let why = figures.failing_since.and(figures.last_failure)?;
                    Some(format!("{named} does not take events ({why}): it is tried again"))
                };
                let delivered = patiently(app, why, relay.deliver(outgoing)).await;
                delivered.map(drop).map_err(|error| undelivered(&error))
            }
        }
    }
}

/// A command that fails stops the feed, unless it is told to try again; all else is tried for ever.
fn tries(args: &Feed) -> Option<u32> {
    (!args.command.is_empty()).then_some(1)
}

/// An event on its way out; `None` for what is no event: gaps are told on stderr.
fn outgoing(event: &Event) -> Option<Outgoing> {
    let map = shown::document(event)?;
    let body = serde_json::Value::Object(map).to_string();
    let (id, subject, key, source) = match event {
        Event::Changed(it) => (it.id(), it.source.bucket.to_string(), &it.source.key, &it.source),
        Event::Emitted(it) => {
            // Events without a key of their own are ordered as their writes are.
            let key = if it.key.is_empty() { &it.source.key } else { &it.key };
            (it.id(), it.topic.to_string(), key, &it.source)
        }
        _ => return None,
    };
    let mut outgoing = Outgoing::new(id.to_string(), subject, key.clone(), body.into());
    if source.late {
        outgoing.attributes.push(("late".to_owned(), "true".to_owned()));
    }
    Some(outgoing)
}

fn undelivered(error: &RelayError) -> Report {
    let report = Report::new(Exit::Unexpected, format!("feed: {error}"))
        .why("the position stays before it: the next run delivers it again under the same id");
    match &error.reason {
        Reason::Refused { .. } => report.field("kind", "event_refused"),
        Reason::Unusable { .. } => report.field("kind", "target_unusable"),
        Reason::GaveUp { .. } => report.field("kind", "target_gave_up"),
    }
}
