//! `ctx ls|use|add|rm`: which clusters this machine knows.
//!
//! Never talks to a cluster. Where contexts are kept is in `context.rs`.

use crate::args::cluster::Ctx;
use crate::commands::Done;
use crate::connect::App;
use crate::context::Context;
use crate::exit::Exit;
use crate::report::{Report, json, mistakes};
use serde_json::{Value, json as value};
use std::path::absolute;

/// Does what is asked with contexts.
pub(crate) fn run(app: &App, args: Ctx) -> Done {
    match args {
        Ctx::Ls => list(app)?,
        Ctx::Use { name } => {
            known(app, &name)?;
            app.state.select(&name)?;
            app.out.say(&format!("context {name} selected"));
        }
        Ctx::Add { name, seeds, identity_dir } => {
            if !identity_dir.join("cert.pem").is_file() {
                return Err(mistakes::no_identity(Some(&identity_dir)));
            }
            let identity =
                absolute(&identity_dir).map_err(|error| mistakes::file(&identity_dir, &error))?;
            app.state.save(&name, &Context::new(seeds, identity, None))?;
            app.state.select(&name)?;
            app.out.say(&format!("context {name} selected"));
        }
        Ctx::Rm { name } => {
            known(app, &name)?;
            let before = app.state.selected()?;
            app.state.remove(&name)?;
            let now = app.state.selected()?.filter(|now| before.as_ref() != Some(now));
            let again = crate::dev::again(now);
            app.out.say(&format!("context {name} forgotten; its cluster is as it was{again}"));
        }
    }
    Ok(Exit::Done)
}

fn known(app: &App, name: &str) -> Result<Context, Report> {
    match app.state.context(name)? {
        Some(context) => Ok(context),
        None => Err(mistakes::no_such_context(name, &app.state.names()?)),
    }
}

fn list(app: &App) -> Result<(), Report> {
    let selected = app.state.selected()?;
    let mut rows: Vec<Value> = Vec::new();
    let mut table = crate::output::table(&["", "context", "servers", "identity"]);
    for name in app.state.names()? {
        let Some(context) = app.state.context(&name)? else { continue };
        let chosen = selected.as_deref() == Some(name.as_str());
        let servers = match context.seeds.as_slice() {
            [first, _, _, _, ..] => format!("{first} and {} more", context.seeds.len() - 1),
            seeds => seeds.join(","),
        };
        let mark = if chosen { "*" } else { "" };
        let identity = context.identity.display().to_string();
        table.add_row([mark, &name, &servers, &identity]);
        rows.push(value!({
            "name": name,
            "selected": chosen,
            "seeds": context.seeds,
            "identity": identity,
        }));
    }
    if app.out.is_json() {
        let mut map = json::object("galvani.contexts/1");
        map.insert("contexts".to_owned(), rows.into());
        return app.out.json(map);
    }
    match rows.is_empty() {
        true => app.out.say("no context; `galvani dev -d` makes one"),
        false => app.out.line(&crate::output::trimmed(&table))?,
    }
    Ok(())
}
