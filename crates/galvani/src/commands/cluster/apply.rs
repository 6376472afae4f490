//! `cluster apply`: carries out a plan that was kept; `cluster abort`: gives up what is under way.
//!
//! The cluster decides whether the plan's layout comes next. Asking again is no error and tells how
//! far it is. Nothing here moves data. Next to read: `change.rs`.

use super::change::{self, Begun, PATIENCE, REQUEST, Watch};
use super::pace;
use super::plan::kept::{KeptPlan, Plans};
use crate::args::cluster::{Abort, Apply};
use crate::args::line::Line;
use crate::commands::Done;
use crate::commands::patience::Signals;
use crate::connect::{App, RETRIES};
use crate::exit::Exit;
use crate::report::text::{Span, count};
use crate::report::{Report, client, json};
use galvani_client::{ErrorKind, Pace, Phase};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Begins it, and waits for its end if that is asked.
pub(crate) async fn run(app: &App, args: &Apply) -> Done {
    let plan = Plans::of(&app.state).find(&args.id)?;
    let session = app.connect_with(app.global.timeout.unwrap_or(REQUEST), RETRIES).await?;
    let mut signals = Signals::taken()?;
    let began = Instant::now();
    let pace =
        Pace { bytes_per_second: args.max_rate.map_or(0, NonZeroU64::get), ..Pace::default() };
    let (mut epoch, begun) = change::begin(app, &session, &plan, &args.line(), pace).await?;
    if let (Begun::Already, Some(_)) = (begun, args.max_rate) {
        let view = change::look(app, &session, &args.line()).await?;
        if let Some(under_way) = view.change.as_ref().filter(|it| it.phase == Phase::Copying) {
            let pace = Pace { paused: under_way.pace.paused, ..pace };
            epoch = pace::set(app, &session, under_way, pace, &args.line()).await?;
        }
    }
    if !args.wait {
        tell(app, &plan, begun, None)?;
        return Ok(Exit::Done);
    }
    let patience = args.wait_timeout.unwrap_or(PATIENCE);
    let (session, plan_of) = (&session, &plan);
    let watch = Watch { app, session, plan: plan_of, epoch, strict: false, patience };
    let left = tokio::select! {
        done = watch.until_done() => done?,
        () = signals.any() => {
            app.out.say(
                "the change goes on by itself  see: galvani status  give it up: galvani cluster abort",
            );
            return Ok(Exit::Interrupted);
        }
    };
    change::note_left(app, left);
    tell(app, &plan, begun, Some(began.elapsed()))?;
    Ok(Exit::Done)
}

fn tell(app: &App, plan: &KeptPlan, begun: Begun, took: Option<Duration>) -> Result<(), Report> {
    let moved = plan.from.moves(&plan.layout).moved as u64;
    let (from, to) = (plan.from.version(), plan.layout.version());
    if app.out.is_json() {
        let mut map = json::object("galvani.apply/1");
        map.insert("id".to_owned(), plan.id().into());
        map.insert("layout".to_owned(), plan.layout.id().to_string().into());
        map.insert("from_version".to_owned(), from.into());
        map.insert("to_version".to_owned(), to.into());
        map.insert("replicas_moved".to_owned(), moved.into());
        map.insert("begun".to_owned(), begun.word().into());
        map.insert("done".to_owned(), (took.is_some() || begun == Begun::There).into());
        if let Some(took) = took {
            map.insert("ms".to_owned(), json::millis(took));
        }
        return app.out.json(map);
    }
    if app.out.quiet {
        return Ok(());
    }
    let replicas = count(moved, "replica");
    let verb = if moved == 1 { "moves" } else { "move" };
    let what = match (begun, took) {
        (Begun::There, _) => format!("is there already, {replicas} moved"),
        (_, Some(took)) => format!("{replicas} moved in {}", Span(took)),
        (Begun::Now, None) => format!("{replicas} {verb}, see: galvani status"),
        (Begun::Already, None) => {
            format!("is under way already, {replicas} {verb}, see: galvani status")
        }
    };
    app.out.line(&format!("ok  v{from} -> v{to}  plan {}  {what}", plan.id()))
}

/// Gives up what is under way now, or the change of one plan.
pub(crate) async fn abort(app: &App, args: &Abort) -> Done {
    let line = args.line();
    let meant = args.id.as_ref().map(|id| Plans::of(&app.state).find(id)).transpose()?;
    let session = app.connect_with(app.global.timeout.unwrap_or(REQUEST), RETRIES).await?;
    let view = change::look(app, &session, &line).await?;
    let Some(was) = view.change.as_ref() else { return aborted(app, view.layout.version(), None) };
    let version = was.new.version();
    if let Some(plan) = meant.filter(|plan| plan.layout.id() != was.new.id()) {
        let what = format!("plan {} is not what is under way", plan.id());
        return Err(Report::new(Exit::OutOfDate, what)
            .field("kind", "layout_changing")
            .why(format!("v{} -> v{version} is; nothing was given up", was.old.version()))
            .next("see", app.again(Line::new("status")).to_string())
            .next("give that up", app.again(Line::new("cluster abort")).to_string()));
    }
    let state = session.client.abort_layout(was.begun).await.map_err(|error| {
        let report = client::report(&error, &change::retype(app, &line, String::new()));
        match error.kind() {
            ErrorKind::LayoutRefused { .. } => Report::new(Exit::Refused, report.what())
                .why("the old owners have not all that was written since: it ends by itself")
                .next("see", app.again(Line::new("status")).to_string()),
            _ => report
                .why("asking again is safe")
                .next("again", app.again(line.clone()).to_string()),
        }
    })?;
    if state.current().version() >= version {
        return Err(Report::new(
            Exit::Refused,
            format!("the change to v{version} is over already"),
        )
        .field("kind", "layout_refused")
        .why("nothing was given up")
        .next("see", app.again(Line::new("status")).to_string()));
    }
    aborted(app, state.current().version(), Some(version))
}

fn aborted(app: &App, version: u64, was: Option<u64>) -> Done {
    if app.out.is_json() {
        let mut map = json::object("galvani.abort/1");
        map.insert("version".to_owned(), version.into());
        map.insert("given_up".to_owned(), was.into());
        app.out.json(map)?;
    } else if !app.out.quiet {
        app.out.line(&match was {
            Some(was) => format!("ok  v{version} stays, the change to v{was} was given up"),
            None => format!("ok  v{version} stays, nothing was changing"),
        })?;
    }
    Ok(Exit::Done)
}
