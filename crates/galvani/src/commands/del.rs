//! `del`: delete keys, as a put of nothing: what a read sees is replaced by a tombstone.
//!
//! A key that is not there is told as such (exit 3) and not written. Several keys and prefixes go
//! on after a failure; the exit code is that of the worst.

use crate::args::data::Del;
use crate::commands::put::{ok_line, token, written_json};
use crate::commands::{Done, options};
use crate::connect::{App, RETRIES, Session, TimeLeft};
use crate::exit::Exit;
use crate::report::text::{count, key as shown};
use crate::report::{Report, client, json, mistakes};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use galvani_client::{Context, Written};
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Deletes the keys.
pub(crate) async fn run(app: &App, args: Del) -> Done {
    if args.context.is_some() && args.keys.len() > 1 {
        let what = "del: a context is of one key, and several are named";
        return Err(Report::new(Exit::Usage, what).next("see", "galvani help del"));
    }
    let context = args.context.as_deref().zip(args.keys.first());
    let context = context.map(|(text, key)| token(text, app, &args.bucket, key)).transpose()?;
    match &args.prefix {
        Some(prefix) => {
            if !args.yes && !confirmed(app, &args, prefix)? {
                return Ok(Exit::Refused);
            }
            let session = app.connect_with(app.timeout(), RETRIES).await;
            let session = session.map_err(Report::never_sent)?;
            by_prefix(app, &session, &args, prefix.clone()).await
        }
        None => {
            let session = app.connect().await.map_err(Report::never_sent)?;
            several(app, &session, &args, context).await
        }
    }
}

async fn several(app: &App, session: &Session, args: &Del, context: Option<Context>) -> Done {
    let mut worst = Exit::Done;
    // Each key is a call; connecting is part of the first one's time.
    let mut time = session.time;
    for key in &args.keys {
        let began = Instant::now();
        let outcome = one(app, session, args, key, context.as_ref(), time).await;
        time = TimeLeft::of(app.timeout());
        let exit = match outcome {
            Ok(Some(written)) => {
                tell(app, key, &written, began.elapsed())?;
                Exit::Done
            }
            Ok(None) => {
                let report = mistakes::not_found(key);
                app.out.error("del", &report);
                report.exit
            }
            Err(report) => {
                app.out.error("del", &report);
                report.exit
            }
        };
        worst = worse(worst, exit);
    }
    Ok(worst)
}

/// Deletes one key. `None`: there was nothing to delete.
async fn one(
    app: &App,
    session: &Session,
    args: &Del,
    key: &Bytes,
    context: Option<&Context>,
    time: TimeLeft,
) -> Result<Option<Written>, Report> {
    let retype = options::retype(app, "del", &args.bucket.bucket, key, args.line_of(key));
    let bucket = session.bucket(&args.bucket);
    let seen = match context {
        Some(context) => context.clone(),
        None => {
            let get = options::read(bucket.get(key.clone()), args.copies, args.read);
            let get = get.timeout(time.left());
            let read = get.await;
            let read = read.map_err(|error| client::report(&error, &retype).never_sent())?;
            if read.values().next().is_none() {
                return Ok(None);
            }
            read.context
        }
    };
    let delete = options::write(bucket.delete(key.clone()).after(&seen), args.copies, args.write);
    let written = delete
        .timeout(time.left())
        .send()
        .await
        .map_err(|error| client::report(&error, &retype))?;
    Ok(Some(written))
}

fn tell(app: &App, key: &Bytes, written: &Written, took: Duration) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = written_json("galvani.del/1", written, took);
        json::put_bytes(&mut map, "key", key);
        app.out.json(map)
    } else if !app.out.quiet && app.out.is_table() {
        app.out.line(&ok_line(written))
    } else {
        Ok(())
    }
}

async fn by_prefix(app: &App, session: &Session, args: &Del, prefix: Bytes) -> Done {
    let listing = options::retype(app, "del", &args.bucket.bucket, &prefix, args.line());
    let mut list = session.bucket(&args.bucket).list(prefix);
    if let Some(r) = args.read.r {
        list = list.r(r);
    }
    let (mut deleted, mut failed, mut worst) = (0u64, 0u64, Exit::Done);
    while let Some(page) = list.next_page().await.map_err(|e| client::report(&e, &listing))? {
        let keys = page.keys.into_iter().map(|listed| listed.key);
        let mut deletes = stream::iter(keys)
            .map(|key| async move {
                one(app, session, args, &key, None, TimeLeft::of(app.timeout())).await
            })
            .buffer_unordered(AT_ONCE);
        while let Some(outcome) = deletes.next().await {
            match outcome {
                Ok(Some(_)) => deleted += 1,
                Ok(None) => {}
                Err(report) => {
                    failed += 1;
                    worst = worse(worst, report.exit);
                    app.out.error("del", &report);
                }
            }
        }
    }
    if app.out.is_json() {
        let mut map = json::object("galvani.del_prefix/1");
        map.insert("deleted".to_owned(), deleted.into());
        map.insert("failed".to_owned(), failed.into());
        app.out.json(map)?;
    } else if !app.out.quiet {
        let tail = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        app.out.line(&format!("ok  {} deleted{tail}", count(deleted, "key")))?;
    }
    Ok(worst)
}

fn confirmed(app: &App, args: &Del, prefix: &[u8]) -> Result<bool, Report> {
    if !io::stdin().is_terminal() {
        let what = "del --prefix deletes many keys: say --yes";
        let line = app.again(args.line().flag("--yes", true));
        let report = Report::new(Exit::Usage, what).why("NOTHING WAS WRITTEN");
        return Err(report.next("say", line.to_string()));
    }
    let mut err = io::stderr().lock();
    let bucket = &args.bucket.bucket;
    let asked = match prefix.is_empty() {
        true => write!(err, "delete every key of bucket {bucket}? [y/N] "),
        false => {
            write!(err, "delete every key of {bucket} that starts with {}? [y/N] ", shown(prefix))
        }
    };
    let mut answer = String::new();
    let told =
        asked.and_then(|()| err.flush()).and_then(|()| io::stdin().lock().read_line(&mut answer));
    Ok(told.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What matters more to a script: doubt, then refusal, then whatever came first.
pub(crate) fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::Done => 0,
        Exit::NotFound => 1,
        Exit::Siblings => 2,
        Exit::OutOfDate | Exit::Usage => 3,
        Exit::Refused | Exit::TimedOut => 4,
        Exit::NotTrusted | Exit::NoServer => 5,
        Exit::Unexpected | Exit::Interrupted => 6,
        Exit::Unknown => 7,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// Deletes under way at once.
const AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::worse;
    use crate::exit::Exit;

    #[test]
    fn doubt_outweighs_refusal() {
        assert_eq!(worse(Exit::Done, Exit::NotFound), Exit::NotFound);
        assert_eq!(worse(Exit::Unknown, Exit::Refused), Exit::Unknown);
        assert_eq!(worse(Exit::Refused, Exit::Unknown), Exit::Unknown);
        assert_eq!(worse(Exit::NotFound, Exit::Refused), Exit::Refused);
    }
}
