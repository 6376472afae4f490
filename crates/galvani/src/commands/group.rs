//! `group list|show|reset|delete` and `group dlq list|retry|drop`.
//!
//! What groups keep is read from the store; members are not asked, and learn of a change within a second
//! or so. Next to read: `galvani-client/src/group/status.rs`.

use crate::args::feed::Since;
use crate::args::group::{Dlq, Group, GroupCommand, Letters, Reset};
use crate::commands::feed::position;
use crate::commands::feed::shown;
use crate::commands::{Done, consumers};
use crate::connect::{App, RETRIES, Session};
use crate::exit::Exit;
use crate::output;
use crate::report::client::{self, Retype};
use crate::report::text::{Age, Span, count, grouped, printable};
use crate::report::{Report, json, mistakes};
use galvani_client::{
    BucketName, DeadLetter, FeedToken, GroupMember, GroupShard, GroupStatus, LetterChoice,
    OnPoison, Start,
};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Does what is asked with groups.
pub(crate) async fn run(app: &App, args: Group) -> Done {
    let command = args.command;
    let retype = Retype {
        command: "group",
        subject: command.group().to_owned(),
        line: app.again(command.line()),
        about: app.about(),
    };
    if let GroupCommand::Delete(delete) = &command
        && !delete.yes
    {
        let what = format!("group delete {}: takes positions and dead letters away", delete.group);
        let report = Report::new(Exit::Usage, what).why("NOTHING WAS WRITTEN");
        let line = retype.line.clone().flag("--yes", true);
        return Err(report.next("say", line.to_string()));
    }
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    match command {
        GroupCommand::List => list(app, &session, &retype).await,
        GroupCommand::Show(show) => {
            let status = session.client.group_status(&show.group).await;
            let status = status.map_err(|error| client::report(&error, &retype))?;
            let keep = consumers::keep(&session.client.status().await);
            print(app, &status, keep, show.shards)
        }
        GroupCommand::Reset(reset) => put(app, &session, &retype, reset).await,
        GroupCommand::Delete(delete) => {
            let gone = session.client.delete_group(&delete.group).await;
            gone.map_err(|error| client::report(&error, &retype))?;
            told(app, "galvani.group.delete/1", &delete.group, None, "deleted")
        }
        GroupCommand::Dlq(Dlq::List { group }) => letters(app, &session, &retype, &group).await,
        GroupCommand::Dlq(Dlq::Retry(letters)) => {
            let choice = choice(&letters);
            let retried = session.client.retry_dead_letters(&letters.group, &choice).await;
            let retried = retried.map_err(|error| client::report(&error, &retype))?;
            let found = found(retried, &letters, &retype)?;
            told(app, "galvani.group.dlq.retry/1", &letters.group, Some(found), "delivered again")
        }
        GroupCommand::Dlq(Dlq::Drop(letters)) => {
            let choice = choice(&letters);
            let dropped = session.client.drop_dead_letters(&letters.group, &choice).await;
            let dropped = dropped.map_err(|error| client::report(&error, &retype))?;
            let found = found(dropped, &letters, &retype)?;
            told(app, "galvani.group.dlq.drop/1", &letters.group, Some(found), "dropped")
        }
    }
}

async fn list(app: &App, session: &Session, retype: &Retype) -> Done {
    let failed = |error| client::report(&error, retype);
    let names = session.client.groups().await.map_err(failed)?;
    let mut groups = Vec::new();
    for name in &names {
        groups.push(session.client.group_status(name).await.map_err(failed)?);
    }
    if app.out.is_json() {
        let mut map = json::object("galvani.groups/1");
        let all = groups.iter().map(|status| Value::Object(fields(status)));
        map.insert("groups".to_owned(), all.collect());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    let mut table = output::table(&["group", "members", "behind", "dead letters", "follows"]);
    for status in &groups {
        table.add_row([
            status.name.clone(),
            status.members.len().to_string(),
            behind(status.behind),
            grouped(status.dead_letters),
            status.follows.clone(),
        ]);
    }
    app.out.line(&output::trimmed(&table))?;
    Ok(Exit::Done)
}

fn print(app: &App, status: &GroupStatus, keep: Option<Duration>, shards: bool) -> Done {
    if app.out.is_json() {
        let mut map = json::object("galvani.group/1");
        if let Value::Object(all) = document(status, keep) {
            map.extend(all);
        }
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    let GroupStatus { name, follows, start, .. } = status;
    let parked = match status.parked_keys {
        0 => String::new(),
        keys => format!(", {} parked", count(keys, "key")),
    };
    let kept = match status.oldest_kept_at {
        Some(at) => format!("oldest position kept {} ago", age(at)),
        None => "no position kept by live members".to_owned(),
    };
    app.out.line(&format!("{name}  follows {follows}, from {start}"))?;
    app.out.line(&format!(
        "{} behind  {}{parked}  {kept}",
        behind(status.behind),
        count(status.dead_letters, "dead letter")
    ))?;
    if let Some(left) = until_gone(status, keep) {
        let left = Age(left.as_secs());
        app.out.line(&format!("the oldest write not done with is kept for {left} at least"))?;
    }
    let halted = status.shards.iter().filter(|shard| shard.halted).count() as u64;
    if halted > 0 {
        app.out.line(&format!(
            "{} stands still: galvani group dlq list {name}",
            count(halted, "shard")
        ))?;
    }
    if status.members.is_empty() {
        app.out.line("no members")?;
    } else {
        let header = ["member", "shards", "waiting", "held", "unread", "lag", "heartbeat"];
        let mut table = output::table(&header);
        for member in &status.members {
            table.add_row([
                member.id.to_string(),
                member.shards.len().to_string(),
                grouped(member.waiting),
                grouped(member.in_flight),
                grouped(member.unread),
                Span(member.lag).to_string(),
                format!("{} ago", age(member.beat_at)),
            ]);
        }
        app.out.line(&output::trimmed(&table))?;
    }
    if shards {
        let mut table = output::table(&["shard", "behind", "held", "kept", "member"]);
        for shard in &status.shards {
            let members: Vec<String> = shard.members.iter().map(ToString::to_string).collect();
            table.add_row([
                shard.shard.to_string(),
                behind(shard.behind),
                grouped(shard.in_flight),
                shard.kept_at.map_or("-".to_owned(), |at| format!("{} ago", age(at))),
                if shard.halted { "halted".to_owned() } else { members.join(" ") },
            ]);
        }
        app.out.line(&output::trimmed(&table))?;
    }
    Ok(Exit::Done)
}

async fn put(app: &App, session: &Session, retype: &Retype, reset: Reset) -> Done {
    let start = match (&reset.token, reset.to) {
        (Some(path), _) => Start::Token(token(path)?),
        (None, Some(Since::Start)) => Start::Beginning,
        (None, Some(Since::From(when))) => Start::At(when.moment(SystemTime::now())),
        (None, Some(Since::Now) | None) => Start::Now,
    };
    let put = session.client.reset_group(&reset.group, start).await;
    put.map_err(|error| client::report(&error, retype))?;
    told(app, "galvani.group.reset/1", &reset.group, None, "put there: members follow in a second")
}

/// The position that a feed kept in a file.
fn token(path: &Path) -> Result<FeedToken, Report> {
    let text = std::fs::read(path).map_err(|error| mistakes::file(path, &error))?;
    let bad = |why: String| {
        let what = format!("group reset: {} holds no position: {why}", path.display());
        Report::new(Exit::Usage, what)
    };
    position::token(&text).map_err(bad)
}

async fn letters(app: &App, session: &Session, retype: &Retype, group: &str) -> Done {
    let letters = session.client.dead_letters(group).await;
    let letters = letters.map_err(|error| client::report(&error, retype))?;
    if app.out.is_json() {
        let mut map = json::object("galvani.group.dlq/1");
        map.insert("group".to_owned(), group.into());
        map.insert("letters".to_owned(), letters.iter().map(letter).collect());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    let mut table = output::table(&["id", "key", "tried", "since", "state", "error"]);
    for letter in &letters {
        let bucket = letter.key.bucket();
        let key = printable(letter.key.bytes(), KEY_SHOWN);
        table.add_row([
            letter.id.clone(),
            if bucket.as_str() == "default" { key } else { format!("{bucket}:{key}") },
            letter.attempts.to_string(),
            age(letter.buried_at).to_string(),
            if letter.retried { "retried" } else { state(letter.on_poison) }.to_owned(),
            printable(letter.error.as_bytes(), ERROR_SHOWN),
        ]);
    }
    app.out.line(&output::trimmed(&table))?;
    app.out.say(&count(letters.len() as u64, "dead letter"));
    Ok(Exit::Done)
}

fn choice(letters: &Letters) -> LetterChoice {
    match (&letters.id, &letters.key) {
        (Some(id), _) => LetterChoice::Event(id.clone()),
        (None, Some(key)) => {
            let bucket = letters.bucket.clone().unwrap_or_else(BucketName::default_bucket);
            LetterChoice::Key(bucket, key.clone())
        }
        (None, None) => LetterChoice::All,
    }
}

/// None although some were named is a mistake, and none of all is not.
fn found(number: u64, letters: &Letters, retype: &Retype) -> Result<u64, Report> {
    if number > 0 || letters.all {
        return Ok(number);
    }
    let what = format!("group dlq: {} has no such dead letter", letters.group);
    let see = retype.about.command("group dlq list").place(&letters.group);
    Err(Report::new(Exit::NotFound, what)
        .field("kind", "no_dead_letter")
        .next("see", see.to_string()))
}

fn told(app: &App, schema: &str, group: &str, letters: Option<u64>, what: &str) -> Done {
    if app.out.is_json() {
        let mut map = json::object(schema);
        map.insert("group".to_owned(), group.into());
        if let Some(letters) = letters {
            map.insert("letters".to_owned(), letters.into());
        }
        app.out.json(map)?;
    } else if !app.out.quiet {
        let what = match letters {
            Some(letters) => format!("{} {what}", count(letters, "dead letter")),
            None => what.to_owned(),
        };
        app.out.line(&format!("ok  {group}  {what}"))?;
    }
    Ok(Exit::Done)
}

fn behind(behind: Option<u64>) -> String {
    behind.map_or("?".to_owned(), grouped)
}

fn age(at: SystemTime) -> Age {
    Age(SystemTime::now().duration_since(at).unwrap_or_default().as_secs())
}

fn state(on_poison: OnPoison) -> &'static str {
    match on_poison {
        OnPoison::ParkKey => "key parked",
        OnPoison::Skip => "skipped",
        OnPoison::Halt => "shard halted",
    }
}

/// How long the oldest write is kept, at least, that members have not been sent or are not done with; `None`
/// if there is none, or writes are kept for ever. Later than that it may be gone, if it was replaced, for
/// whoever has to read it then.
pub(super) fn until_gone(status: &GroupStatus, keep: Option<Duration>) -> Option<Duration> {
    let now = SystemTime::now();
    let ages = status.members.iter().flat_map(|member| {
        let unread = (member.unread > 0).then_some(member.lag);
        let held = member.oldest_at.map(|at| now.duration_since(at).unwrap_or_default());
        [unread, held]
    });
    let oldest = ages.flatten().max()?;
    Some(keep?.saturating_sub(oldest))
}

/// All of a group.
pub(super) fn document(status: &GroupStatus, keep: Option<Duration>) -> Value {
    let mut map = fields(status);
    let left = until_gone(status, keep).map(|left| left.as_secs());
    map.insert("seconds_to_truncation".to_owned(), left.into());
    map.insert("shards".to_owned(), status.shards.iter().map(shard).collect());
    Value::Object(map)
}

/// All of a group but its shards.
fn fields(status: &GroupStatus) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("name".to_owned(), status.name.as_str().into());
    map.insert("follows".to_owned(), status.follows.as_str().into());
    map.insert("start".to_owned(), status.start.as_str().into());
    map.insert("started_at".to_owned(), json::time(status.started_at).into());
    map.insert("resets".to_owned(), status.resets.into());
    map.insert("members".to_owned(), status.members.iter().map(member).collect());
    map.insert("behind".to_owned(), status.behind.into());
    map.insert("oldest_kept_at".to_owned(), status.oldest_kept_at.map(json::time).into());
    map.insert("dead_letters".to_owned(), status.dead_letters.into());
    map.insert("parked_keys".to_owned(), status.parked_keys.into());
    map
}

fn member(member: &GroupMember) -> Value {
    serde_json::json!({
        "id": member.id.to_string(),
        "joined_at": json::time(member.joined_at),
        "beat_at": json::time(member.beat_at),
        "shards": member.shards.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "waiting": member.waiting,
        "in_flight": member.in_flight,
        "unread": member.unread,
        "oldest_at": member.oldest_at.map(json::time),
        "lag_ms": json::millis(member.lag),
    })
}

fn shard(shard: &GroupShard) -> Value {
    serde_json::json!({
        "shard": shard.shard.to_string(),
        "members": shard.members.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "behind": shard.behind,
        "in_flight": shard.in_flight,
        "halted": shard.halted,
        "kept_at": shard.kept_at.map(json::time),
    })
}

fn letter(letter: &DeadLetter) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), letter.id.as_str().into());
    map.insert("shard".to_owned(), letter.shard.to_string().into());
    map.insert("bucket".to_owned(), letter.key.bucket().as_str().into());
    json::put_bytes(&mut map, "key", letter.key.bytes());
    map.insert("attempts".to_owned(), letter.attempts.into());
    map.insert("error".to_owned(), letter.error.as_str().into());
    map.insert("buried_at".to_owned(), json::time(letter.buried_at).into());
    map.insert("state".to_owned(), state(letter.on_poison).into());
    map.insert("retried".to_owned(), letter.retried.into());
    map.insert("cut".to_owned(), letter.cut.into());
    let event = shown::document(&letter.event).map(Value::Object);
    map.insert("event".to_owned(), event.into());
    Value::Object(map)
}

/// Characters of a key and of an error in a table.
const KEY_SHOWN: usize = 40;
const ERROR_SHOWN: usize = 60;
