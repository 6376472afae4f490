//! `get`: read a value, or all siblings where that is asked for.
//!
//! For people: the value and a newline. `-o raw`: exact bytes. `-o json`: values, context and who
//! answered. Siblings are never picked from: exit 4 names the ways out.

use crate::args::data::{Get, RepairWhen, SiblingsAs};
use crate::commands::put::save_context;
use crate::commands::{Done, options};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::client::{self, Retype};
use crate::report::text::{clock, printable, quoted};
use crate::report::{json, mistakes};
use galvani_client::{Read, Sibling};
use serde_json::{Value, json as value};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Reads the key.
pub(crate) async fn run(app: &App, args: Get) -> Done {
    let session = app.connect().await?;
    let retype = options::retype(app, "get", &args.bucket.bucket, &args.key, args.line());
    let began = Instant::now();
    let get = session.bucket(&args.bucket).get(args.key.clone());
    let mut get = options::read(get, args.copies, args.read).timeout(session.time.left());
    if args.copies.strict {
        get = get.strict();
    }
    if args.repair == RepairWhen::Blocking {
        get = get.blocking_repair();
    }
    let read = get.await.map_err(|error| client::report(&error, &retype))?;
    let took = began.elapsed();
    if let Some(path) = &args.context_out {
        save_context(path, &read.context)?;
    }
    session.note_overlap(app, &args.bucket, args.copies.n, args.read.r, None);
    if app.out.verbose {
        let said: Vec<String> = read.answers.iter().map(ToString::to_string).collect();
        app.out.say(&format!("{}   in {}", said.join("   "), crate::report::text::Span(took)));
    }
    show(app, &session, &args, &read, &retype, took)
}

fn show(
    app: &App,
    session: &Session,
    args: &Get,
    read: &Read,
    retype: &Retype,
    took: Duration,
) -> Done {
    let values: Vec<&Sibling> = read.siblings.iter().filter(|one| one.value.is_some()).collect();
    let exit = match (values.len(), args.siblings) {
        (0, _) => Exit::NotFound,
        (1, _) | (_, Some(_)) => Exit::Done,
        (_, None) => Exit::Siblings,
    };
    if app.out.is_json() || args.siblings == Some(SiblingsAs::Json) {
        app.out.json(document(session, args, read, &values, took))?;
        return Ok(exit);
    }
    match (values.as_slice(), args.siblings) {
        ([], _) => Err(mistakes::not_found(&args.key)),
        (all, Some(SiblingsAs::Table | SiblingsAs::Json)) => table(app, all),
        ([one], None) => print(app, one.value.as_deref().unwrap_or_default()),
        (_, None) => Err(mistakes::siblings(read, retype, &args.read)),
    }
}

fn print(app: &App, bytes: &[u8]) -> Done {
    let text = std::str::from_utf8(bytes);
    if !app.out.is_table() {
        app.out.bytes(bytes)?;
    } else if io::stdout().is_terminal() && text.is_err() {
        app.out.line(&printable(bytes, usize::MAX))?;
        app.out.note("not UTF-8, shown escaped; -o raw writes the exact bytes");
    } else {
        app.out.bytes(bytes)?;
        app.out.bytes(b"\n")?;
    }
    Ok(Exit::Done)
}

fn table(app: &App, all: &[&Sibling]) -> Done {
    for (index, one) in all.iter().enumerate() {
        let shown = quoted(one.value.as_deref().unwrap_or_default());
        let (node, at) = (&one.node, clock(one.written_at));
        app.out.line(&format!("#{}  {shown}  by {node}  {at}", index + 1))?;
    }
    Ok(Exit::Done)
}

fn document(
    session: &Session,
    args: &Get,
    read: &Read,
    values: &[&Sibling],
    took: Duration,
) -> serde_json::Map<String, Value> {
    let mut map = json::object("galvani.get/1");
    json::put_bytes(&mut map, "key", &args.key);
    map.insert("bucket".to_owned(), args.bucket.bucket.as_str().into());
    map.insert("found".to_owned(), (!values.is_empty()).into());
    let siblings: Vec<Value> = values.iter().map(|one| mistakes::sibling_json(one)).collect();
    map.insert("siblings".to_owned(), siblings.into());
    map.insert("tombstones".to_owned(), (read.siblings.len() - values.len()).into());
    map.insert("context".to_owned(), read.context.to_string().into());
    let got = read.answers.iter().filter(|answer| answer.is_ok()).count();
    if let Some((n, r, _)) = session.numbers(&args.bucket, args.copies.n, args.read.r, None) {
        map.insert("quorum".to_owned(), value!({ "n": n, "r": r, "got": got }));
    }
    map.insert("replies".to_owned(), client::answers_json(&read.answers).into());
    map.insert("ms".to_owned(), json::millis(took));
    map
}
