//! `cluster pause` and `resume`, and the rate of `cluster apply --max-rate`: how fast a change copies.
//!
//! The members decide on it as they do on the change, so it outlives restarts, and whoever asks second
//! sees what is decided. Only the copying rests; requests go on as before. Next to read: `change.rs`.

use super::change::{self, REQUEST};
use super::plan::kept::Plans;
use crate::args::cluster::Paced;
use crate::args::line::Line;
use crate::commands::Done;
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::report::text::Size;
use crate::report::{Report, client, json};
use galvani_client::{ErrorKind, LayoutChange, Pace, Phase};

/// Lets the copying rest, or go on.
pub(crate) async fn run(app: &App, args: &Paced, paused: bool) -> Done {
    let command = if paused { "cluster pause" } else { "cluster resume" };
    let line = args.line(command);
    let meant = args.id.as_ref().map(|id| Plans::of(&app.state).find(id)).transpose()?;
    let session = app.connect_with(app.global.timeout.unwrap_or(REQUEST), RETRIES).await?;
    let view = change::look(app, &session, &line).await?;
    let Some(change) = view.change.as_ref().filter(|it| it.phase == Phase::Copying) else {
        return Err(idle(app, command, view.change.is_some()));
    };
    if let Some(plan) = meant.filter(|plan| plan.layout.id() != change.new.id()) {
        let (old, new) = (change.old.version(), change.new.version());
        let what = format!("plan {} is not what is under way", plan.id());
        return Err(Report::new(Exit::OutOfDate, what)
            .field("kind", "layout_changing")
            .why(format!("v{old} -> v{new} is; nothing was changed"))
            .next("see", app.again(Line::new("status")).to_string())
            .next("say so", app.again(Line::new(command)).to_string()));
    }
    let pace = Pace { paused, ..change.pace };
    set(app, &session, change, pace, &line).await?;
    tell(app, change, pace)?;
    Ok(Exit::Done)
}

/// Lets a change copy at a pace from now on. The epoch in which it does.
pub(super) async fn set(
    app: &App,
    session: &Session,
    change: &LayoutChange,
    pace: Pace,
    line: &Line,
) -> Result<u64, Report> {
    let paced = session.client.pace_layout(change.begun, pace).await;
    let state = paced.map_err(|error| match error.kind() {
        ErrorKind::LayoutRefused { .. } => idle(app, "cluster apply", true),
        _ => client::report(&error, &change::retype(app, line, String::new()))
            .why("asking again is safe")
            .next("again", app.again(line.clone()).to_string()),
    })?;
    Ok(state.epoch())
}

fn idle(app: &App, command: &str, changing: bool) -> Report {
    let why = match changing {
        true => "the change that is under way has copied everything: it ends by itself",
        false => "no change of the layout is under way",
    };
    Report::new(Exit::Refused, format!("{command}: nothing is copying"))
        .field("kind", "not_copying")
        .why(why)
        .why("nothing was changed")
        .next("see", app.again(Line::new("status")).to_string())
}

fn tell(app: &App, change: &LayoutChange, pace: Pace) -> Result<(), Report> {
    let (old, new) = (change.old.version(), change.new.version());
    if app.out.is_json() {
        let mut map = json::object("galvani.pace/1");
        map.insert("from_version".to_owned(), old.into());
        map.insert("to_version".to_owned(), new.into());
        map.insert("paused".to_owned(), pace.paused.into());
        map.insert("bytes_per_second".to_owned(), pace.bytes_per_second.into());
        return app.out.json(map);
    }
    if app.out.quiet {
        return Ok(());
    }
    let rate = match pace.bytes_per_second {
        0 => "as fast as it can".to_owned(),
        rate => format!("at most {}/s on each node", Size(rate)),
    };
    app.out.line(&match pace.paused {
        true => format!("ok  v{old} -> v{new}  copying rests  go on: galvani cluster resume"),
        false => format!("ok  v{old} -> v{new}  copying goes on, {rate}"),
    })
}
