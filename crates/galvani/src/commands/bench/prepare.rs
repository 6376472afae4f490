//! Before a bench: every key has a value of the right size, and its context is known.
//!
//! Nothing is measured here, so a cluster that takes only so much gets its time: refused keys are
//! tried again as long as any key gets done. Next to read: `bench.rs`.

use crate::args::bench::Bench;
use crate::commands::bench::worker::Key;
use crate::commands::options;
use crate::connect::{App, Session};
use crate::report::Report;
use crate::report::client::{self, Retype};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use galvani_client::{Context, Error, ErrorKind};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Gives every key a value of the right size, and learns its context.
pub(crate) async fn run(
    app: &App,
    session: &Session,
    args: &Bench,
    value: &Bytes,
    retype: &Retype,
) -> Result<Vec<Key>, Report> {
    let patience = &Patience { last: Cell::new(Instant::now()), told: Cell::new(false) };
    let mut keys = Vec::with_capacity(args.keys.get() as usize);
    let mut made = stream::iter(0..args.keys.get())
        .map(|index| async move {
            let name = Bytes::from(format!("bench/{index:08}"));
            let context = patient(app, session, args, &name, value, patience).await;
            let context = context.map_err(|error| {
                let subject = options::subject(&args.bucket.bucket, &name);
                client::report(&error, &Retype { subject, ..retype.clone() })
            })?;
            Ok::<Key, Report>(Key { name, context: Some(context) })
        })
        .buffer_unordered(AT_ONCE);
    while let Some(key) = made.next().await {
        keys.push(key?);
    }
    Ok(keys)
}

async fn patient(
    app: &App,
    session: &Session,
    args: &Bench,
    name: &Bytes,
    value: &Bytes,
    patience: &Patience,
) -> Result<Context, Error> {
    loop {
        let error = match one(session, args, name, value).await {
            Ok(context) => {
                patience.last.set(Instant::now());
                return Ok(context);
            }
            Err(error) => error,
        };
        let Some(pause) = patience.pause(error.kind()) else { return Err(error) };
        if !patience.told.replace(true) {
            app.out.say(&format!(
                "waiting  {}: keys are made as fast as they are taken",
                error.kind()
            ));
        }
        tokio::time::sleep(pause).await;
    }
}

async fn one(
    session: &Session,
    args: &Bench,
    name: &Bytes,
    value: &Bytes,
) -> Result<Context, Error> {
    let bucket = session.bucket(&args.bucket);
    let get = options::read(bucket.get(name.clone()), args.copies, args.read);
    let read = get.await?;
    let mut values = read.values();
    let ready =
        values.next().is_some_and(|one| one.len() == value.len()) && values.next().is_none();
    drop(values);
    if ready {
        return Ok(read.context);
    }
    let put = bucket.put(name.clone(), value.clone()).after(&read);
    let put = options::write(put, args.copies, args.write);
    put.send().await.map(|written| written.context)
}

/// Waiting for a cluster that takes only so much.
struct Patience {
    /// When a key was done last.
    last: Cell<Instant>,
    told: Cell<bool>,
}

impl Patience {
    /// How long to wait, if it is a refusal that passes and any key got done lately.
    fn pause(&self, kind: &ErrorKind) -> Option<Duration> {
        match kind {
            ErrorKind::Overloaded { retry_after } | ErrorKind::RateLimited { retry_after } => {
                let open = self.last.get().elapsed() < IN_VAIN_MOST;
                open.then(|| (*retry_after).max(PAUSE_LEAST))
            }
            _ => None,
        }
    }
}

const AT_ONCE: usize = 64;
/// Refused keys are given up when no key got done for so long.
const IN_VAIN_MOST: Duration = Duration::from_secs(30);
/// So many workers that ask again at once would take the place of those that get something done.
const PAUSE_LEAST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::{IN_VAIN_MOST, PAUSE_LEAST, Patience};
    use galvani_client::ErrorKind;
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    #[test]
    fn only_refusals_that_pass_are_waited_for_and_not_in_vain_for_ever() {
        let patience = |ago: Duration| Patience {
            last: Cell::new(Instant::now().checked_sub(ago).expect("the machine runs for longer")),
            told: Cell::new(false),
        };
        let limited = |ms| ErrorKind::RateLimited { retry_after: Duration::from_millis(ms) };
        let new = patience(Duration::ZERO);
        assert_eq!(new.pause(&limited(300)), Some(Duration::from_millis(300)));
        assert_eq!(new.pause(&limited(0)), Some(PAUSE_LEAST));
        assert_eq!(new.pause(&ErrorKind::NoOwnerReachable), None);
        assert_eq!(patience(IN_VAIN_MOST).pause(&limited(300)), None);
    }
}
