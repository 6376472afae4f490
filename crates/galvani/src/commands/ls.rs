//! `ls`: the keys of a bucket, over all partitions, page by page as they come.
//!
//! Memory does not grow with the bucket. Keys come in no order; what is written meanwhile may or
//! may not be seen, and the last line says so.

use crate::args::Format;
use crate::args::data::Ls;
use crate::commands::{Done, options};
use crate::connect::{App, RETRIES};
use crate::exit::Exit;
use crate::report::client::{self, About, Retype};
use crate::report::json;
use crate::report::text::{count, key as shown};
use galvani_client::ListedKey;
use serde_json::{Map, Value};

/// Lists the keys.
pub(crate) async fn run(app: &App, args: Ls) -> Done {
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let about = About { bucket: Some(args.bucket.bucket.clone()), ..app.about() };
    let subject = options::subject(&args.bucket.bucket, &args.prefix);
    let retype = Retype { command: "ls", subject, line: app.again(args.line()), about };
    let mut list = session.bucket(&args.bucket).list(args.prefix.clone());
    if args.strict {
        list = list.strict();
    }
    if let Some(r) = args.read.r {
        list = list.r(r);
    }
    let limit = args.limit.map_or(u64::MAX, u64::from);
    let (mut seen, mut all) = (0u64, Vec::new());
    let mut complete = true;
    'pages: while let Some(page) =
        list.next_page().await.map_err(|error| client::report(&error, &retype))?
    {
        for listed in page.keys {
            if args.conflicts && listed.values < 2 {
                continue;
            }
            if seen == limit {
                complete = false;
                break 'pages;
            }
            seen += 1;
            match app.out.format {
                Format::Json => all.push(entry(&listed)),
                Format::Jsonl => app.out.json(entry(&listed))?,
                Format::Raw => {
                    app.out.bytes(&listed.key)?;
                    app.out.bytes(b"\n")?;
                }
                Format::Table => app.out.line(&row(&listed, args.keys_only))?,
            }
        }
    }
    if app.out.format == Format::Json {
        let mut map = json::object("galvani.ls/1");
        map.insert("keys".to_owned(), all.into());
        map.insert("complete".to_owned(), complete.into());
        map.insert("approximate".to_owned(), true.into());
        app.out.json(map)?;
    } else if app.out.is_table() && !args.keys_only {
        let more = if complete { "" } else { ", and there are more" };
        app.out.say(&format!("{}{more} (approximate while others write)", count(seen, "key")));
    }
    Ok(Exit::Done)
}

fn row(listed: &ListedKey, keys_only: bool) -> String {
    let key = shown(&listed.key);
    match (listed.values, keys_only) {
        (0 | 1, _) | (_, true) => key,
        (values, false) => format!("{key}  ({values} values)"),
    }
}

fn entry(listed: &ListedKey) -> Value {
    let mut map = Map::new();
    json::put_bytes(&mut map, "key", &listed.key);
    map.insert("values".to_owned(), listed.values.into());
    Value::Object(map)
}
