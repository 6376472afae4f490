//! `lagged`: a replica that follows the cluster at a delay, and questions to the one that runs.
//!
//! `run.rs` follows the feed; `socket.rs` carries questions and answers; `shown.rs` words the answers;
//! `diff.rs` and `restore.rs` read and write the cluster beside it.
//! What a replica is and does stands in `galvani-lagged`. Next to read: `lagged/run.rs`.

mod diff;
mod keys;
mod restore;
mod run;
mod shown;
mod socket;
mod sure;
mod tally;
mod verify;

use crate::args::lagged::{Advance, DotName, Get, Lagged, Ls, MomentArgs, SetLag, Verb};
use crate::commands::Done;
use crate::connect::App;
use crate::dev;
use crate::exit::Exit;
use crate::report::Report;
use galvani_client::{BucketName, Dot};
use galvani_lagged::control::{Answer, Ask};
use galvani_lagged::{AsOf, Blob, Change, Moment, Selector, Until};
use socket::Link;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Runs a replica, or asks the one that runs.
pub(crate) fn run(app: &App, args: Lagged) -> Done {
    let beside = match (&args.dir, &args.verb) {
        (None, Some(_)) => dev::lagged_replica(app)?,
        (Some(_), _) | (None, None) => None,
    };
    let (dir, start) = match (args.dir, beside) {
        (Some(dir), _) => (dir.clone(), format!("galvani lagged --dir {}", shown::word(&dir))),
        (None, Some(beside)) => beside,
        (None, None) => {
            let report = Report::new(Exit::Usage, "lagged: no directory was named");
            let report = match args.verb {
                None => report,
                Some(_) => report
                    .why("and the local cluster, if there is one, has no lagged replica")
                    .next("make one", "galvani dev -d --lagged 10m"),
            };
            return Err(report.next("try", "galvani lagged --dir DIR    or set GALVANI_LAGGED_DIR"));
        }
    };
    let Some(verb) = args.verb else {
        if args.own_session {
            // Fails only for the leader of a group, which is in no session that could end it.
            let _ = rustix::process::setsid();
        }
        return super::block_on(run::run(app, dir, run::Set::of(args.lag, args.feed_keep)));
    };
    let mut asker = Asker { app, link: Link::open(&dir, start)? };
    match verb {
        Verb::Status => asker.stands(&Ask::Status),
        Verb::Pause => asker.stands(&Ask::Pause),
        Verb::Resume => asker.stands(&Ask::Resume),
        Verb::SetLag(set) => asker.set_lag(&set),
        Verb::Advance(advance) => asker.advance(&advance),
        Verb::Get(get) => asker.get(get),
        Verb::Ls(ls) => asker.ls(&ls),
        Verb::Verify => asker.verify(),
        Verb::Diff(diff) => super::block_on(diff::run(&mut asker, diff)),
        Verb::Restore(restore) => super::block_on(restore::restore(&mut asker, *restore)),
        Verb::Undo(undo) => super::block_on(restore::undo(&mut asker, undo)),
    }
}

/// Asks the replica that runs in a directory.
struct Asker<'a> {
    app: &'a App,
    link: Link,
}

impl Asker<'_> {
    fn ask(&mut self, ask: &Ask) -> Result<Answer, Report> {
        self.link.ask(ask)
    }

    /// Asks something that is answered with how it stands.
    fn stands(&mut self, ask: &Ask) -> Done {
        match self.ask(ask)? {
            Answer::Status(status) => shown::status(&self.app.out, &status),
            other => Err(unfit(&other)),
        }
    }

    fn verify(&mut self) -> Done {
        match self.ask(&Ask::Verify)? {
            Answer::Verified(found) => shown::verified(&self.app.out, &found),
            other => Err(unfit(&other)),
        }
    }

    fn set_lag(&mut self, args: &SetLag) -> Done {
        let lag_ms = args.lag.as_millis() as u64;
        match args.yes || sure::sure(self, Change::Lag(lag_ms))? {
            true => self.stands(&Ask::SetLag { lag_ms }),
            false => Ok(Exit::Refused),
        }
    }

    fn advance(&mut self, args: &Advance) -> Done {
        let until = match args {
            Advance { to: Some(to), .. } => Until::Time(to.unix_ms(SystemTime::now())),
            Advance { before: Some(before), .. } => Until::Before(self.dot(before)?),
            Advance { before_request: Some(request), .. } => Until::BeforeRequest(*request),
            Advance { .. } => unreachable!("clap asks for one of them"),
        };
        if !args.yes && !sure::sure(self, Change::Advance(until))? {
            return Ok(Exit::Refused);
        }
        match self.ask(&Ask::Advance { until })? {
            Answer::Advancing { records } => shown::advancing(&self.app.out, records),
            other => Err(unfit(&other)),
        }
    }

    fn get(&mut self, args: Get) -> Done {
        let (_, moment, without) = self.moment(&args.moment)?;
        let key = Blob(args.key.clone());
        let ask = Ask::Get { bucket: args.bucket.bucket.clone(), key, moment, without };
        match self.ask(&ask)? {
            Answer::Key { values } => shown::key(&self.app.out, &args.key, &values),
            other => Err(unfit(&other)),
        }
    }

    fn ls(&mut self, args: &Ls) -> Done {
        let (_, moment, without) = self.moment(&args.moment)?;
        let mut listed = shown::Listed::new(&self.app.out, args.limit);
        let mut from = None;
        loop {
            let ask = Ask::Scan {
                bucket: args.bucket.bucket.clone(),
                prefix: Blob(args.prefix.clone()),
                from,
                limit: galvani_lagged::config::PAGE_KEYS_MAX,
                moment,
                without: without.clone(),
            };
            let Answer::Keys { keys, blurred, next } = self.ask(&ask)? else {
                return Err(Report::unexpected("lagged: the answer does not fit the question"));
            };
            let goes_on = listed.page(keys, blurred)?;
            match next {
                Some(place) if goes_on => from = Some(place),
                next => return listed.end(next.is_none() && goes_on),
            }
        }
    }

    /// Refuses a bucket that the replica does not know, before anything is begun.
    fn check_bucket(&mut self, bucket: &BucketName) -> Result<(), Report> {
        self.ask(&Ask::Lacking { bucket: bucket.clone(), keys: Vec::new() }).map(drop)
    }

    /// Finds the moment out, once: it stays the same over all pages.
    fn moment(&mut self, args: &MomentArgs) -> Result<(AsOf, Moment, Option<Selector>), Report> {
        let now = SystemTime::now();
        let as_of = self.as_of(args)?;
        let without = Selector {
            authors: args.without_author.clone(),
            requests: args.without_request.clone(),
            dots: Vec::new(),
            from_ms: args.without_from.map(|when| when.unix_ms(now)),
            until_ms: args.without_until.map(|when| when.unix_ms(now)),
            deletes: args.without_deletes,
        };
        let without = (without != Selector::default()).then_some(without);
        match self.ask(&Ask::Moment { as_of })? {
            Answer::Moment { moment } => Ok((as_of, moment, without)),
            other => Err(unfit(&other)),
        }
    }

    /// The moment as it was asked for.
    fn as_of(&mut self, args: &MomentArgs) -> Result<AsOf, Report> {
        Ok(match args {
            MomentArgs { at: Some(at), .. } => AsOf::Time(at.unix_ms(SystemTime::now())),
            MomentArgs { before: Some(before), .. } => AsOf::Before(self.dot(before)?),
            MomentArgs { before_request: Some(request), .. } => AsOf::BeforeRequest(*request),
            MomentArgs { .. } => AsOf::Latest,
        })
    }

    /// The write that a name means, asked of the replica if it is shortened.
    fn dot(&mut self, name: &DotName) -> Result<Dot, Report> {
        if let Some(dot) = name.whole() {
            return Ok(dot);
        }
        let (origin, counter) = (name.origin.clone(), name.counter);
        let Answer::Dots { dots } = self.ask(&Ask::Find { origin, counter })? else {
            return Err(Report::unexpected("lagged: the answer does not fit the question"));
        };
        match dots.as_slice() {
            [dot] => Ok(*dot),
            [] => {
                let what =
                    format!("lagged: no write {}:{} has come here", name.origin, name.counter);
                Err(Report::new(Exit::NotFound, what)
                    .next("see", "galvani explain KEY -o json    (the names of a key's writes)"))
            }
            several => {
                let all = several.iter().map(|dot| format!("{}:{}", dot.origin, dot.counter));
                let what = format!("lagged: {} writes are called so", several.len());
                Err(Report::new(Exit::Usage, what).why(all.collect::<Vec<_>>().join("  ")))
            }
        }
    }
}

fn unfit(answer: &Answer) -> Report {
    Report::unexpected(format!("lagged: the answer does not fit the question: {answer:?}"))
}

/// The socket of the replica that runs in `dir`.
fn socket_of(dir: &Path) -> PathBuf {
    dir.join(galvani_lagged::control::SOCKET)
}
