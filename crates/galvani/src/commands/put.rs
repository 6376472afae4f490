//! `put`: store a value. Without `--context` or `--blind` it replaces what a read sees.
//!
//! Shell users never asked for siblings: the read comes first, and the line says when more than one
//! value was superseded.

use crate::args::data::{InBucket, Put};
use crate::commands::{Done, options};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::client::{self, About, Retype};
use crate::report::text::{Span, count};
use crate::report::{Report, json, mistakes};
use bytes::Bytes;
use galvani_client::{Context, Outcome, Read, Written};
use galvani_model::limits::{SIBLINGS_WARN, VALUE_BYTES_MAX};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a write replaces.
enum Replaces {
    /// What this read saw.
    Seen(Box<Read>),
    /// What this token saw.
    Token(Context),
    /// Nothing.
    Nothing,
}

/// Stores the value.
pub(crate) async fn run(app: &App, args: Put) -> Done {
    let given = args.value.clone().map(value_of).transpose()?;
    let token = args.context.as_deref().map(|text| token(text, app, &args.bucket, &args.key));
    let token = token.transpose()?;
    let session = app.connect().await.map_err(Report::never_sent)?;
    let bucket = &args.bucket.bucket;
    let retype = options::retype(app, "put", bucket, &args.key, args.line());
    let began = Instant::now();
    let payloads = payloads(&args)?;
    let replaces = match (token, args.blind || args.emit_only) {
        (Some(token), _) => Replaces::Token(token),
        (None, true) => Replaces::Nothing,
        (None, false) => Replaces::Seen(Box::new(read(&session, &args, &retype).await?)),
    };
    let value = match (given, args.take, &replaces) {
        (Some(value), _, _) => value,
        (None, Some(take), Replaces::Seen(read)) => taken(read, take, &retype)?,
        (None, None, _) if args.emit_only => Bytes::new(),
        (None, _, _) => unreachable!("clap asks for a value or --take, which reads"),
    };
    let in_bucket = session.bucket(&args.bucket);
    let put = in_bucket.put(args.key.clone(), value);
    let mut put = match &replaces {
        Replaces::Nothing if args.emit_only => in_bucket.emit(args.key.clone()),
        Replaces::Seen(read) => put.after(&**read),
        Replaces::Token(token) => put.after(token),
        Replaces::Nothing => put.blind(),
    };
    for (topic, payload) in args.emit.iter().zip(payloads) {
        put = put.emit(topic.clone(), args.emit_key.clone().unwrap_or_default(), payload);
    }
    let mut put = options::write(put, args.copies, args.write).timeout(session.time.left());
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    let written = put.send().await.map_err(|error| client::report(&error, &retype))?;
    if let Some(path) = &args.context_out {
        save_context(path, &written.context)?;
    }
    tell(app, &session, &args, &replaces, &written, &retype.about, began.elapsed())?;
    Ok(Exit::Done)
}

/// What each event says. None said: they are empty.
fn payloads(args: &Put) -> Result<Vec<Bytes>, Report> {
    if !args.payload.is_empty() && args.payload.len() != args.emit.len() {
        let (emits, payloads) = (args.emit.len(), args.payload.len());
        let what = format!("put: {emits} --emit and {payloads} --payload");
        let report = Report::new(Exit::Usage, what).never_sent();
        return Err(report.why("each event has one payload, or none of them has"));
    }
    let mut payloads =
        args.payload.iter().cloned().map(value_of).collect::<Result<Vec<Bytes>, Report>>()?;
    payloads.resize(args.emit.len(), Bytes::new());
    Ok(payloads)
}

async fn read(session: &Session, args: &Put, retype: &Retype) -> Result<Read, Report> {
    let get = session.bucket(&args.bucket).get(args.key.clone());
    let get = options::read(get, args.copies, args.read).timeout(session.time.left());
    get.await.map_err(|error| {
        let report = client::report(&error, retype).never_sent();
        let blind = retype.line.clone().without("-r").without("--pr").flag("--blind", true);
        match error.is_retryable() && args.take.is_none() {
            true => {
                let report = report.why("put reads first, to replace what is there");
                match blind.is_short() {
                    true => report.next("or", blind.to_string()),
                    false => report,
                }
            }
            false => report,
        }
    })
}

fn taken(read: &Read, take: usize, retype: &Retype) -> Result<Bytes, Report> {
    let values: Vec<&Bytes> = read.values().collect();
    let picked = take.checked_sub(1).and_then(|index| values.get(index).copied());
    picked.cloned().ok_or_else(|| mistakes::no_such_sibling(take, values.len(), &retype.about))
}

fn tell(
    app: &App,
    session: &Session,
    args: &Put,
    replaces: &Replaces,
    written: &Written,
    about: &About,
    took: Duration,
) -> Result<(), Report> {
    let superseded = match replaces {
        Replaces::Seen(read) => Some(read.values().count()),
        Replaces::Token(_) | Replaces::Nothing => None,
    };
    if app.out.is_json() {
        let mut map = written_json("galvani.put/1", written, took);
        json::put_bytes(&mut map, "key", &args.key);
        map.insert("bucket".to_owned(), args.bucket.bucket.as_str().into());
        if let Some(superseded) = superseded {
            map.insert("superseded".to_owned(), superseded.into());
        }
        app.out.json(map)?;
    } else if !app.out.quiet && app.out.is_table() {
        app.out.line(&ok_line(written))?;
    }
    if let Some(superseded @ 2..) = superseded {
        app.out.note(&format!("superseded {superseded} values"));
    }
    match replaces {
        Replaces::Token(_) if written.siblings_now > 1 => {
            app.out.note(&mistakes::kept_as_sibling(written.siblings_now, about));
        }
        Replaces::Seen(_) if written.siblings_now > 1 => {
            app.out.note(&mistakes::written_meanwhile(written.siblings_now, about));
        }
        Replaces::Token(_) | Replaces::Seen(_) | Replaces::Nothing => {}
    }
    if written.siblings_now as usize >= SIBLINGS_WARN {
        app.out.note(&mistakes::many_siblings(written.siblings_now, about));
    }
    session.note_overlap(app, &args.bucket, args.copies.n, args.read.r, args.write.w);
    Ok(())
}

/// `ok  2 of 3 acked (n1 0.6 ms, n2 0.8 ms; n3 still pending)  1 value now  01J9Z4..`
pub(crate) fn ok_line(written: &Written) -> String {
    let (mut acked, mut others) = (Vec::new(), Vec::new());
    for answer in &written.answers {
        let who = match &answer.stands_in_for {
            Some(owner) => format!("{} for {owner}", answer.node),
            None => answer.node.clone(),
        };
        match (&answer.outcome, answer.took) {
            (Outcome::Stored | Outcome::StoredDurably | Outcome::Answered, Some(took)) => {
                acked.push(format!("{who} {}", Span(took)));
            }
            (Outcome::Stored | Outcome::StoredDurably | Outcome::Answered, None) => {
                acked.push(who);
            }
            (Outcome::Pending, _) => others.push(format!("{who} still pending")),
            (Outcome::Unreachable | Outcome::Refused(_), _) => others.push(answer.to_string()),
        }
    }
    let tail = match others.is_empty() {
        true => String::new(),
        false => format!("; {}", others.join(", ")),
    };
    let id = written.request_id.map(|id| format!("  {}", id.short())).unwrap_or_default();
    let owners = written.answers.iter().filter(|answer| answer.stands_in_for.is_none()).count();
    format!(
        "ok  {} of {} acked ({}{tail})  {} now{id}",
        written.acks,
        owners,
        acked.join(", "),
        count(u64::from(written.siblings_now), "value")
    )
}

/// What a write did, for scripts.
pub(crate) fn written_json(
    schema: &str,
    written: &Written,
    took: Duration,
) -> serde_json::Map<String, serde_json::Value> {
    let mut map = json::object(schema);
    map.insert("stored".to_owned(), written.dot.is_some().into());
    map.insert("acks".to_owned(), written.acks.into());
    map.insert("values_now".to_owned(), written.siblings_now.into());
    map.insert("context".to_owned(), written.context.to_string().into());
    if let Some(id) = written.request_id {
        map.insert("request_id".to_owned(), id.to_string().into());
    }
    map.insert("replies".to_owned(), client::answers_json(&written.answers).into());
    map.insert("ms".to_owned(), json::millis(took));
    map
}

/// The value an argument means: text, `-` for stdin, `@FILE`, `@@` for a text with an `@`.
fn value_of(argument: OsString) -> Result<Bytes, Report> {
    let bytes = argument.as_bytes();
    match bytes {
        b"-" => bounded("stdin", io::stdin().lock()),
        [b'@', b'@', ..] => Ok(Bytes::copy_from_slice(&bytes[1..])),
        [b'@', name @ ..] => {
            let path = Path::new(std::ffi::OsStr::from_bytes(name));
            let file = fs::File::open(path).map_err(|error| mistakes::file(path, &error))?;
            bounded(&path.display().to_string(), file)
        }
        _ => Ok(argument.into_vec().into()),
    }
}

/// All of `source`, if that can be a value at all.
fn bounded(from: &str, source: impl io::Read) -> Result<Bytes, Report> {
    let mut all = Vec::new();
    let limit = VALUE_BYTES_MAX as u64;
    let read = source.take(limit + 1).read_to_end(&mut all);
    read.map_err(|error| mistakes::file(Path::new(from), &error))?;
    match all.len() as u64 <= limit {
        true => Ok(all.into()),
        false => Err(mistakes::input_too_large(from, limit)),
    }
}

/// A context: the text itself, or a file that holds it.
pub(crate) fn token(
    text: &str,
    app: &App,
    bucket: &InBucket,
    key: &Bytes,
) -> Result<Context, Report> {
    let path = Path::new(text);
    let text = match path.is_file() {
        true => fs::read_to_string(path).map_err(|error| mistakes::file(path, &error))?,
        false => text.to_owned(),
    };
    text.trim().parse().map_err(|_| {
        let about =
            About { bucket: Some(bucket.bucket.clone()), key: Some(key.clone()), ..app.about() };
        mistakes::no_context(&about)
    })
}

/// Writes a context to a file.
pub(crate) fn save_context(path: &Path, context: &Context) -> Result<(), Report> {
    fs::write(path, format!("{context}\n")).map_err(|error| mistakes::file(path, &error))
}

#[cfg(test)]
mod tests {
    use super::value_of;
    use std::io::Write;

    #[test]
    fn a_value_is_text_or_a_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&[0, 0xff, b'\n']).expect("written");
        let at = format!("@{}", file.path().display());
        assert_eq!(value_of(at.into()).expect("read").as_ref(), [0, 0xff, b'\n']);
        assert_eq!(value_of("@@home".into()).expect("text").as_ref(), b"@home");
        assert_eq!(value_of("".into()).expect("text").as_ref(), b"");
        assert_eq!(value_of("@/no/such/file".into()).expect_err("none").exit.code(), 2);
    }
}
