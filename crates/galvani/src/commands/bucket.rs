//! `bucket create|list|show`.
//!
//! `n` and the policy are for the bucket's life, so `create` says what it took as default.
//! Next to read: `galvani-client/src/admin.rs`.

use crate::args::bucket::{Bucket, BucketCommand, Create};
use crate::args::line::Line;
use crate::commands::Done;
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::client::{self, About, Retype};
use crate::report::text::Size;
use crate::report::{Report, json};
use galvani_client::{BucketName, BucketProps, ConflictPolicy, ErrorKind, FeedMode};
use serde_json::{Map, Value, json as value};
use std::time::Duration;

/// Does what is asked with buckets.
pub(crate) async fn run(app: &App, args: Bucket) -> Done {
    let session = app.connect().await?;
    match args.command {
        BucketCommand::Create(create) => make(app, &session, create).await,
        BucketCommand::List => list(app, &session).await,
        BucketCommand::Show { name } => show(app, &session, &name).await,
    }
}

async fn make(app: &App, session: &Session, args: Create) -> Done {
    let retype = retype(app, "bucket create", Some(&args.name), args.line());
    let view = session.client.cluster();
    let n = match (args.n, view.buckets.get(&BucketName::default_bucket())) {
        (Some(n), _) => n,
        (None, Some(default)) => default.n,
        (None, None) => view.layout.n(),
    };
    let value_bytes_max = u32::try_from(args.max_value).unwrap_or(u32::MAX);
    let (policy, ttl_ms) = (args.policy.into(), args.ttl.as_millis() as u64);
    let props = BucketProps {
        n,
        r: args.r,
        w: args.w,
        policy,
        value_bytes_max,
        ttl_ms,
        feed: args.feed.into(),
    };
    let name = args.name.as_str();
    let made = session.client.create_bucket(name, props.clone()).await;
    made.map_err(|error| client::report(&error, &retype))?;
    if app.out.is_json() {
        let mut map = json::object("galvani.bucket/1");
        map.insert("name".to_owned(), name.into());
        map.extend(fields(&props));
        app.out.json(map)?;
    } else if !app.out.quiet {
        app.out.line(&format!("ok  bucket {name}  {}", words(&props)))?;
    }
    Ok(Exit::Done)
}

async fn list(app: &App, session: &Session) -> Done {
    let retype = retype(app, "bucket list", None, Line::new("bucket list"));
    let buckets = session.client.buckets().await;
    let buckets = buckets.map_err(|error| client::report(&error, &retype))?;
    if app.out.is_json() {
        let one = |(name, props): (&BucketName, &BucketProps)| {
            let mut map = fields(props);
            map.insert("name".to_owned(), name.as_str().into());
            Value::Object(map)
        };
        let mut map = json::object("galvani.buckets/1");
        map.insert("buckets".to_owned(), buckets.iter().map(one).collect());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    let mut table = crate::output::table(&[
        "bucket",
        "n",
        "r",
        "w",
        "conflicts",
        "largest value",
        "ttl",
        "feed",
    ]);
    for (name, props) in &buckets {
        table.add_row([
            name.to_string(),
            props.n.to_string(),
            props.r.to_string(),
            props.w.to_string(),
            policy(props.policy).to_owned(),
            Size(u64::from(props.value_bytes_max)).to_string(),
            ttl(props.ttl_ms),
            feed(props.feed).to_owned(),
        ]);
    }
    app.out.line(&crate::output::trimmed(&table))?;
    Ok(Exit::Done)
}

async fn show(app: &App, session: &Session, name: &BucketName) -> Done {
    let line = Line::new("bucket show").place(name.as_str());
    let retype = retype(app, "bucket show", Some(name), line);
    let buckets = session.client.buckets().await;
    let buckets = buckets.map_err(|error| client::report(&error, &retype))?;
    let Some(props) = buckets.get(name) else { return Err(unknown(name, &retype.about)) };
    if app.out.is_json() {
        let mut map = json::object("galvani.bucket/1");
        map.insert("name".to_owned(), name.as_str().into());
        map.extend(fields(props));
        app.out.json(map)?;
    } else {
        app.out.line(&format!("{name}  {}", words(props)))?;
    }
    Ok(Exit::Done)
}

fn unknown(name: &BucketName, about: &About) -> Report {
    let kind = ErrorKind::UnknownBucket { bucket: name.to_string() };
    Report::new(Exit::NotFound, kind.to_string()).field("kind", "unknown_bucket").next_line(vec![
        ("see", about.command("bucket list").to_string()),
        ("make", about.command("bucket create").place(name.as_str()).to_string()),
    ])
}

fn words(props: &BucketProps) -> String {
    let BucketProps { n, r, w, .. } = props;
    let size = Size(u64::from(props.value_bytes_max));
    let (conflicts, ttl, feed) = (policy(props.policy), ttl(props.ttl_ms), feed(props.feed));
    format!(
        "n={n} r={r} w={w}  conflicts: {conflicts}  values up to {size}  ttl: {ttl}  feed: {feed}"
    )
}

/// A bucket's time to live as `--ttl` takes it.
fn ttl(ttl_ms: u64) -> String {
    match ttl_ms {
        0 => "none".to_owned(),
        ms => humantime::format_duration(Duration::from_millis(ms)).to_string(),
    }
}

fn fields(props: &BucketProps) -> Map<String, Value> {
    let fields = value!({
        "n": props.n,
        "r": props.r.to_string(),
        "w": props.w.to_string(),
        "policy": policy(props.policy),
        "value_bytes_max": props.value_bytes_max,
        "ttl_ms": props.ttl_ms,
        "feed": feed(props.feed),
    });
    match fields {
        Value::Object(map) => map,
        other => Map::from_iter([("properties".to_owned(), other)]),
    }
}

/// What the feed shows of a bucket, as `--feed` takes it.
fn feed(feed: FeedMode) -> &'static str {
    match feed {
        FeedMode::Off => "off",
        FeedMode::Keys => "keys",
        FeedMode::New => "new",
        FeedMode::NewAndOld => "new_and_old",
    }
}

fn policy(policy: ConflictPolicy) -> &'static str {
    match policy {
        ConflictPolicy::Siblings => "siblings",
        ConflictPolicy::Lww => "lww",
    }
}

fn retype(app: &App, command: &'static str, name: Option<&BucketName>, line: Line) -> Retype {
    let about = About { bucket: name.cloned(), ..app.about() };
    let subject = name.map(BucketName::to_string).unwrap_or_default();
    Retype { command, subject, line: app.again(line), about }
}
