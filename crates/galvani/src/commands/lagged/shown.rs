//! How the answers of a lagged replica are written: for people, and as JSON.
//!
//! Nothing is asked here. Next to read: `galvani-lagged/src/status.rs`, what the figures mean.

use crate::args::Format;
use crate::commands::Done;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use crate::report::json;
use crate::report::text::{Size, Span, count, key as shown_key, shell};
use galvani_lagged::control::Value as Was;
use galvani_lagged::{Blob, Status, Verified};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A command on the same replica.
pub(super) fn again(dir: &Path, verb: &str) -> String {
    format!("galvani lagged {verb} --dir {}", word(dir))
}

/// A path as one word of a shell.
pub(super) fn word(path: &Path) -> String {
    shell(path.as_os_str().as_encoded_bytes()).into_owned()
}

const DAY_MS: u64 = 24 * 3_600_000;

/// A lag, as it is typed: `1h 30m`.
pub(super) fn lag(ms: u64) -> String {
    let (days, rest) = (ms / DAY_MS, Duration::from_millis(ms % DAY_MS));
    match (days, rest.is_zero()) {
        (0, _) => humantime::format_duration(rest).to_string(),
        (days, true) => format!("{days}d"),
        (days, false) => format!("{days}d {}", humantime::format_duration(rest)),
    }
}

/// How it stands.
pub(super) fn status(out: &Output, status: &Status) -> Done {
    if out.is_json() {
        out.json(document(status))?;
        return Ok(Exit::Done);
    }
    for line in words(status) {
        out.line(&line)?;
    }
    for line in status.warnings(super::keys::unix_ms(SystemTime::now())) {
        out.line(&format!("WARN  {line}"))?;
    }
    Ok(Exit::Done)
}

/// What a comparison found.
pub(super) fn verified(out: &Output, found: &Verified) -> Done {
    let exit = match (found.is_well(), found.unread) {
        (false, _) => Exit::TimedOut,
        (true, 0) => Exit::Done,
        (true, _) => Exit::Unknown,
    };
    if out.is_json() {
        let mut map = json::object("galvani.lagged.verify/1");
        map.insert("well".to_owned(), found.is_well().into());
        // All its fields are numbers and texts, and none of them is called `schema` or `well`.
        if let Ok(Value::Object(fields)) = serde_json::to_value(found) {
            map.extend(fields);
        }
        out.json(map)?;
        return Ok(exit);
    }
    for line in found.damaged_files.iter().map(|file| format!("DAMAGED  {file}")) {
        out.line(&line)?;
    }
    for line in &found.named {
        out.line(line)?;
    }
    out.line(&counted(found))?;
    Ok(exit)
}

fn counted(found: &Verified) -> String {
    let counts = [
        (found.lost, "LOST in the cluster"),
        (found.missing, "MISSING here"),
        (found.damaged, "not readable here"),
        (found.damaged_files.len() as u64, "damaged files here"),
        (found.unclear, "unclear"),
        (found.unread, "not read in the cluster"),
    ];
    let counts = counts.iter().filter(|(number, _)| *number > 0);
    let wrong: Vec<String> = counts.map(|(number, what)| format!("{number} {what}")).collect();
    let keys = count(found.keys, "key");
    match wrong.is_empty() {
        true => format!("{keys} compared, all as in the cluster; all files are whole"),
        false => format!("{keys} compared: {}", wrong.join("   ")),
    }
}

fn words(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    let behind = lag(status.lag_target_ms);
    lines.push(match status.paused_since_ms {
        Some(since) => format!("PAUSED since {}: nothing is applied, writes wait", time(since)),
        None => format!("{behind} behind on purpose"),
    });
    lines.push(match status.protected_since_ms {
        Some(since) => format!(
            "shows any moment from {} on ({} back)",
            time(since),
            Span(Duration::from_secs(status.window_seconds))
        ),
        None => "NOT PROTECTED: it has not caught up with the cluster yet".to_owned(),
    });
    lines.push(match status.complete_through_ms {
        Some(through) => format!("has every write that was acknowledged before {}", time(through)),
        None => "how complete it is is not known".to_owned(),
    });
    let oldest = status.lag_actual_ms.map_or(String::new(), |ms| {
        format!(", the oldest for {}", Span(Duration::from_millis(ms)))
    });
    lines.push(format!(
        "{} wait{oldest} ({})   {} applied",
        count(status.journal_records, "write"),
        Size(status.journal_bytes),
        count(status.applied, "write"),
    ));
    let full = status.disk_seconds_left.map_or(String::new(), |left| {
        format!(", full in {} at the rate of the last hour", lag(left.saturating_mul(1000)))
    });
    lines.push(format!(
        "disk {} used, {} free{full}",
        Size(status.disk_bytes),
        Size(status.disk_free_bytes)
    ));
    if let Some(left) = status.seconds_to_truncation {
        lines.push(format!(
            "if it stopped now, the nodes would keep what it lacks for {}",
            lag(left.saturating_mul(1000))
        ));
    }
    lines.push(match (&status.verified, status.verified_at_ms) {
        (Some(found), Some(at)) => format!("verified {}: {}", time(at), counted(found)),
        _ => "not compared with the cluster yet".to_owned(),
    });
    if status.gone > 0 {
        let gone = count(status.gone, "write");
        lines.push(format!("GONE: {gone} that no node had any more when it asked"));
    }
    for hole in &status.holes {
        let (from, until) = (time(hole.from_ms), time(hole.until_ms));
        lines.push(format!("NOT KNOWN: what was there from {from} to {until}"));
    }
    if status.damaged > 0 {
        lines.push(format!("DAMAGED: {}; seed a new directory", count(status.damaged, "row")));
    }
    lines
}

fn document(status: &Status) -> Value {
    let mut map = json::object("galvani.lagged/1");
    // All its fields are numbers, and none of them is called `schema`.
    if let Ok(Value::Object(fields)) = serde_json::to_value(status) {
        map.extend(fields);
    }
    map.into()
}

/// So many writes go on.
pub(super) fn advancing(out: &Output, records: u64) -> Done {
    if out.is_json() {
        let mut map = json::object("galvani.lagged.advance/1");
        map.insert("records".to_owned(), records.into());
        out.json(map)?;
    } else {
        out.line(&format!("{} to be applied now", count(records, "write")))?;
    }
    Ok(Exit::Done)
}

/// A key as it was.
pub(super) fn key(out: &Output, key: &[u8], values: &[Was]) -> Done {
    if out.is_json() {
        let mut map = json::object("galvani.lagged.get/1");
        json::put_bytes(&mut map, "key", key);
        let siblings: Vec<Value> = values.iter().map(sibling).collect();
        map.insert("siblings".to_owned(), siblings.into());
        out.json(map)?;
        return exit_of(key, values);
    }
    match values {
        [value] => {
            out.bytes(&value.value.0)?;
            if out.format != Format::Raw {
                out.bytes(b"\n")?;
            }
        }
        [] => {}
        several => {
            for value in several {
                let text = crate::report::text::quoted(&value.value.0);
                out.line(&format!("{text}  written {}", time(value.written_ms)))?;
            }
        }
    }
    exit_of(key, values)
}

fn exit_of(key: &[u8], values: &[Was]) -> Done {
    match values {
        [] => {
            let what = format!("lagged: {} had no value then", shown_key(key));
            Err(Report::new(Exit::NotFound, what))
        }
        [_] => Ok(Exit::Done),
        _ => Ok(Exit::Siblings),
    }
}

fn sibling(value: &Was) -> Value {
    let mut map = Map::new();
    json::put_bytes(&mut map, "value", &value.value.0);
    let dots = value.dots.iter().map(|dot| format!("{}:{}", dot.origin, dot.counter));
    map.insert("dots".to_owned(), dots.collect::<Vec<_>>().into());
    map.insert("author".to_owned(), value.author.to_string().into());
    map.insert("written_at".to_owned(), time(value.written_ms).into());
    if value.expires_ms > 0 {
        map.insert("expires_at".to_owned(), time(value.expires_ms).into());
    }
    map.into()
}

/// Keys as they come.
pub(super) struct Listed<'a> {
    out: &'a Output,
    left: u64,
    keys: Vec<Value>,
    blurred: Vec<Value>,
    seen: u64,
}

impl<'a> Listed<'a> {
    /// At most `limit` of them.
    pub(super) fn new(out: &'a Output, limit: Option<u64>) -> Listed<'a> {
        let left = limit.unwrap_or(u64::MAX);
        Listed { out, left, keys: Vec::new(), blurred: Vec::new(), seen: 0 }
    }

    /// Writes a page; false if there is no need for another.
    pub(super) fn page(&mut self, keys: Vec<Blob>, blurred: Vec<Blob>) -> Result<bool, Report> {
        let name = |key: &Blob| {
            let mut map = Map::new();
            json::put_bytes(&mut map, "key", &key.0);
            Value::from(map)
        };
        self.blurred.extend(blurred.iter().map(name));
        for key in keys {
            if self.left == 0 {
                return Ok(false);
            }
            self.left -= 1;
            self.seen += 1;
            match self.out.format {
                Format::Json => self.keys.push(name(&key)),
                Format::Jsonl => self.out.json(name(&key))?,
                Format::Raw => {
                    self.out.bytes(&key.0)?;
                    self.out.bytes(b"\n")?;
                }
                Format::Table => self.out.line(&shown_key(&key.0))?,
            }
        }
        Ok(true)
    }

    /// Sums up. `complete`: there are no more.
    pub(super) fn end(self, complete: bool) -> Done {
        let blurred = self.blurred.len() as u64;
        if self.out.format == Format::Json {
            let mut map = json::object("galvani.lagged.ls/1");
            map.insert("keys".to_owned(), self.keys.into());
            map.insert("blurred".to_owned(), self.blurred.into());
            map.insert("complete".to_owned(), complete.into());
            self.out.json(map)?;
        } else {
            let more = if complete { "" } else { ", and there are more" };
            self.out.say(&format!("{}{more}", count(self.seen, "key")));
        }
        if blurred > 0 {
            let keys = count(blurred, "key");
            self.out.note(&format!(
                "{keys} were written after that moment, and that is applied: not known, not listed"
            ));
        }
        Ok(Exit::Done)
    }
}

fn time(unix_ms: u64) -> String {
    json::time(at(unix_ms))
}

fn at(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

#[cfg(test)]
mod tests {
    use super::{document, words};
    use galvani_lagged::{Hole, Status};

    #[test]
    fn what_is_wrong_stands_out() {
        let fine = Status {
            lag_target_ms: 3_600_000,
            protected_since_ms: Some(1_000),
            complete_through_ms: Some(2_000),
            ..Status::default()
        };
        let text = words(&fine).join("\n");
        for word in ["NOT PROTECTED", "PAUSED", "GONE", "NOT KNOWN", "DAMAGED"] {
            assert!(!text.contains(word), "{text}");
        }
        let holes = vec![Hole { from_ms: 1, until_ms: 2 }];
        let bad =
            Status { paused_since_ms: Some(5), gone: 1, damaged: 2, holes, ..Status::default() };
        let text = words(&bad).join("\n");
        for word in ["NOT PROTECTED", "PAUSED", "GONE", "NOT KNOWN", "DAMAGED"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn every_figure_is_in_the_document() {
        let json = document(&Status { lag_target_ms: 7, ..Status::default() });
        assert_eq!(json["schema"], "galvani.lagged/1");
        assert_eq!(json["lag_target_ms"], 7);
        assert_eq!(json.as_object().map(|it| it.len()), Some(21));
        for alarm in ["disk_seconds_left", "seconds_to_truncation", "verified_at_ms"] {
            assert!(json[alarm].is_null(), "not known");
        }
    }
}
