//! Before a bench: every key has a value of the right size, and its context is known.
//!
//! Nothing is measured here, so a cluster that takes only so much gets its time: refused keys are
//! tried again as long as any key gets done. Next to read: `bench.rs`.

use crate::args::bench::Run;
use crate::commands::bench::driver::{fill, name};
use crate::commands::options;
use crate::connect::{App, Session};
use crate::report::Report;
use crate::report::client::{self, Retype};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use galvani_client::{Context, Error, ErrorKind};
use galvani_load::ledger::{Ledger, Name};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Gives every key a value of the right size, and enters what is there in the ledger.
pub(crate) async fn run(
    app: &App,
    session: &Session,
    args: &Run,
    ledger: &mut Ledger<Context>,
    retype: &Retype,
) -> Result<(), Report> {
    let patience = &Patience { last: Cell::new(Instant::now()), told: Cell::new(false) };
    let value = &fresh(args, ledger);
    // In the order of keys: the ledger knows them by their index.
    let mut made = stream::iter(0..args.keys.get() as usize)
        .map(|key| async move {
            let name = name(key, None);
            let made = patient(app, session, args, &name, value, patience).await;
            made.map_err(|error| {
                let subject = options::subject(&args.bucket.bucket, &name);
                client::report(&error, &Retype { subject, ..retype.clone() })
            })
        })
        .buffered(AT_ONCE);
    while let Some(key) = made.next().await {
        let (context, first) = key?;
        ledger.add(context, first);
    }
    Ok(())
}

/// The value of keys that have none of the right size.
fn fresh(args: &Run, ledger: &Ledger<Context>) -> Bytes {
    let mut value = fill(args.value_bytes() as usize).to_vec();
    ledger.first_name().stamp(&mut value);
    value.into()
}

/// What is known of a key, and the name of its value.
type Known = (Context, Option<Name>);

async fn patient(
    app: &App,
    session: &Session,
    args: &Run,
    name: &Bytes,
    value: &Bytes,
    patience: &Patience,
) -> Result<Known, Error> {
    loop {
        let error = match one(session, args, name, value).await {
            Ok(known) => {
                patience.last.set(Instant::now());
                return Ok(known);
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

async fn one(session: &Session, args: &Run, name: &Bytes, value: &Bytes) -> Result<Known, Error> {
    let bucket = session.bucket(&args.bucket);
    let get = options::read(bucket.get(name.clone()), args.copies, args.read);
    let read = get.await?;
    let ready: Vec<&Bytes> = read.values().collect();
    if let [one] = ready[..]
        && one.len() == value.len()
    {
        let first = Name::of(one);
        return Ok((read.context, first));
    }
    let put = bucket.put(name.clone(), value.clone()).after(&read);
    let put = options::write(put, args.copies, args.write);
    put.send().await.map(|written| (written.context, Name::of(value)))
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
