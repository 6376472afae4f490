//! How an event is written: a line for people, or a JSON document with a schema.
//!
//! Bytes are never guessed, as elsewhere: `value` where they are UTF-8, else `value_b64`.

use crate::args::Format;
use crate::connect::App;
use crate::report::Report;
use crate::report::json;
use crate::report::text::{Span, count, key as shown};
use galvani_client::{Change, Checkpoint, Dot, Emitted, Event, Gap, Old, Source};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};

/// Writes one event.
pub(crate) fn write(app: &App, event: &Event) -> Result<(), Report> {
    match app.out.format {
        Format::Json | Format::Jsonl => match document(event) {
            Some(map) => app.out.json(map),
            None => Ok(()),
        },
        Format::Raw => match event {
            Event::Emitted(emitted) => app.out.bytes(&emitted.payload),
            Event::Changed(Change { value: Some(value), .. }) => app.out.bytes(value),
            _ => Ok(()),
        },
        Format::Table => match line(event) {
            Some(line) => app.out.line(&line),
            None => Ok(()),
        },
    }
}

/// Writes how far the feed is. `keep`: how long nodes keep what was replaced.
pub(crate) fn checkpoint(
    app: &App,
    checkpoint: &Checkpoint,
    keep: Option<Duration>,
) -> Result<(), Report> {
    let event = Event::Checkpoint(checkpoint.clone());
    if !app.out.is_json() {
        return write(app, &event);
    }
    let mut map = checkpoint_json(checkpoint);
    // What is behind is kept so long at least, and later than that it may be gone if it was replaced.
    let left = keep.filter(|_| checkpoint.behind > 0);
    let left = left.map(|keep| keep.saturating_sub(checkpoint.lag).as_secs());
    map.insert("seconds_to_truncation".to_owned(), left.into());
    app.out.json(map)
}

/// An event as one JSON document; `None` for what no command asks for.
pub(crate) fn document(event: &Event) -> Option<Map<String, Value>> {
    Some(match event {
        Event::Changed(change) => changed(change),
        Event::Emitted(emitted) => emitted_json(emitted),
        Event::Gap(gap) => gap_json(gap),
        Event::Checkpoint(checkpoint) => checkpoint_json(checkpoint),
        _ => return None,
    })
}

fn changed(change: &Change) -> Map<String, Value> {
    let mut map = json::object("galvani.feed.change/1");
    map.insert("id".to_owned(), change.id().to_string().into());
    put_source(&mut map, &change.source);
    map.insert("op".to_owned(), change.op.to_string().into());
    if let Some(value) = &change.value {
        json::put_bytes(&mut map, "value", value);
    }
    if let Some(end) = change.expires_at {
        map.insert("expires_at".to_owned(), json::time(end).into());
    }
    map.insert("supersedes".to_owned(), dots(&change.supersedes));
    map.insert("concurrent".to_owned(), dots(&change.concurrent));
    if !change.old.is_empty() {
        map.insert("old".to_owned(), change.old.iter().map(old).collect());
    }
    map
}

fn old(old: &Old) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), dot(old.dot).into());
    match &old.value {
        Some(Some(value)) => json::put_bytes(&mut map, "value", value),
        Some(None) => drop(map.insert("op".to_owned(), "delete".into())),
        None => drop(map.insert("kept".to_owned(), false.into())),
    }
    Value::Object(map)
}

fn emitted_json(emitted: &Emitted) -> Map<String, Value> {
    let mut map = json::object("galvani.feed.emitted/1");
    map.insert("id".to_owned(), emitted.id().to_string().into());
    put_source(&mut map, &emitted.source);
    map.insert("topic".to_owned(), emitted.topic.as_str().into());
    json::put_bytes(&mut map, "emit_key", &emitted.key);
    json::put_bytes(&mut map, "payload", &emitted.payload);
    map
}

fn gap_json(gap: &Gap) -> Map<String, Value> {
    let mut map = json::object("galvani.feed.gap/1");
    map.insert("shard".to_owned(), gap.shard.to_string().into());
    map.insert("writes".to_owned(), gap.gone.len().into());
    let ranges = gap
        .gone
        .ranges()
        .map(|range| Value::from(format!("{}.{}-{}", range.origin, range.first, range.last)));
    map.insert("gone".to_owned(), ranges.take(RANGES_SHOWN).collect());
    map
}

fn checkpoint_json(checkpoint: &Checkpoint) -> Map<String, Value> {
    let mut map = json::object("galvani.feed.checkpoint/1");
    map.insert("behind".to_owned(), checkpoint.behind.into());
    map.insert("lag_ms".to_owned(), json::millis(checkpoint.lag));
    map.insert("held".to_owned(), checkpoint.held.into());
    map.insert("unreadable".to_owned(), checkpoint.unreadable.into());
    let through = checkpoint.complete_through.map(json::time);
    map.insert("complete_through".to_owned(), through.into());
    map.insert("unheard".to_owned(), checkpoint.unheard.clone().into());
    map.insert("unserved".to_owned(), checkpoint.unserved.len().into());
    map
}

fn put_source(map: &mut Map<String, Value>, source: &Source) {
    map.insert("bucket".to_owned(), source.bucket.as_str().into());
    json::put_bytes(map, "key", &source.key);
    map.insert("written_at".to_owned(), json::time(source.written_at()).into());
    map.insert("node".to_owned(), source.node.as_str().into());
    map.insert("request_id".to_owned(), source.request_id.to_string().into());
    map.insert("shard".to_owned(), source.shard.to_string().into());
    map.insert("late".to_owned(), source.late.into());
    if let Some(of) = source.dup_of {
        map.insert("dup_of".to_owned(), dot(of).into());
    }
}

fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Changed(change) => {
            let what = match &change.value {
                Some(value) => format!("{} {}", change.op, brief(value)),
                None => change.op.to_string(),
            };
            let beside = match change.concurrent.len() {
                0 => String::new(),
                beside => format!("  beside {}", count(beside as u64, "value")),
            };
            format!("{}  {what}{beside}{}", head(&change.source), marks(&change.source))
        }
        Event::Emitted(emitted) => {
            let (source, payload) = (&emitted.source, brief(&emitted.payload));
            format!("{}  {} {payload}{}", head(source), emitted.topic, marks(source))
        }
        Event::Gap(gap) => {
            format!("gap  {} of {} not kept any more", count(gap.gone.len(), "write"), gap.shard)
        }
        Event::Checkpoint(checkpoint) => {
            let through = checkpoint.complete_through.map_or("-".to_owned(), clock);
            let (behind, lag) = (checkpoint.behind, Span(checkpoint.lag));
            format!("checkpoint  {behind} behind  lag {lag}  complete through {through}")
        }
        _ => return None,
    })
}

fn head(source: &Source) -> String {
    let key = shown(&source.key);
    let key = match source.bucket.as_str() {
        "default" => key,
        bucket => format!("{bucket}:{key}"),
    };
    format!("{}  {key}", clock(source.written_at()))
}

fn marks(source: &Source) -> String {
    let mut marks = String::new();
    if source.late {
        marks.push_str("  (late)");
    }
    if source.dup_of.is_some() {
        marks.push_str("  (again: a retry of a write shown before)");
    }
    marks
}

/// A value on one line, cut.
fn brief(value: &[u8]) -> String {
    let text = shown(&value[..value.len().min(BRIEF)]);
    if value.len() > BRIEF { format!("{text}...") } else { text }
}

fn dots(dots: &[Dot]) -> Value {
    dots.iter().map(|&one| Value::from(dot(one))).collect()
}

fn dot(dot: Dot) -> String {
    format!("{}.{}", dot.origin, dot.counter)
}

/// A moment as people read it: the time of day where they are.
fn clock(moment: SystemTime) -> String {
    match Timestamp::try_from(moment) {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// Bytes of a value on a line for people.
const BRIEF: usize = 60;
/// Ranges of a gap that are named.
const RANGES_SHOWN: usize = 32;
