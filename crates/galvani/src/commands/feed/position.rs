//! The file in which a feed's position is kept.
//!
//! Base64 on one line; then `to TARGET` and `since MILLISECONDS`, where the feed has them. Replaced as
//! a whole, so a crash leaves the old position or the new one. Two runs on one file are refused, for
//! each would undo the other's.

use crate::exit::Exit;
use crate::report::{Report, mistakes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use galvani_client::FeedToken;
use galvani_model::limits::FEED_TOKEN_BYTES_MAX;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A position on disk.
pub(crate) struct Position {
    path: PathBuf,
    /// Held while the run lasts.
    _lock: File,
    kept: Option<Kept>,
    last: Vec<u8>,
    /// The target; none: the screen.
    to: Option<String>,
    since: Option<SystemTime>,
}

/// What was kept: the position, and of which moment writes are shown.
type Kept = (FeedToken, Option<SystemTime>);

impl Position {
    /// Opens the file at `path`, which need not exist; one of another target is refused, for what that
    /// one was given the other was not.
    pub(crate) fn open(path: &Path, to: Option<&str>) -> Result<Position, Report> {
        let failed = |error: io::Error| mistakes::file(path, &error);
        let lock = File::create(beside(path, ".lock")).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let what = format!("feed: another run keeps its position in {}", path.display());
            let report = Report::new(Exit::Refused, what);
            return Err(report.why("each of the two would undo the other's position"));
        }
        let kept = match fs::read(path) {
            Ok(text) => Some(parse(path, &text, to)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Position {
            path: path.to_owned(),
            _lock: lock,
            kept,
            last: Vec::new(),
            to: to.map(str::to_owned),
            since: None,
        })
    }

    /// The position that was kept, once.
    pub(crate) fn take(&mut self) -> Option<Kept> {
        self.kept.take()
    }

    /// Says of which moment the feed shows writes.
    pub(crate) fn begin(&mut self, since: Option<SystemTime>) {
        self.since = since;
    }

    /// Keeps `token` in the place of what was kept.
    pub(crate) fn keep(&mut self, token: &FeedToken) -> Result<(), Report> {
        let bytes = token.to_bytes();
        if bytes == self.last {
            return Ok(());
        }
        if bytes.len() > FEED_TOKEN_BYTES_MAX {
            let what = format!("feed: the position has {} bytes, too many to keep", bytes.len());
            return Err(Report::new(Exit::Refused, what).why("the one before it is kept"));
        }
        let failed = |error: io::Error| mistakes::file(&self.path, &error);
        let part = beside(&self.path, ".part");
        let mut file = File::create(&part).map_err(failed)?;
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        let to = self.to.as_ref().map_or(String::new(), |to| format!("to {to}\n"));
        let since = self.since.map_or(String::new(), |since| {
            let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("since {}\n", since.as_millis())
        });
        file.write_all(format!("{text}\n{to}{since}").as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&part, &self.path).map_err(failed)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        folder.sync_all().map_err(failed)?;
        self.last = bytes;
        Ok(())
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The position on the first line of such a file, or why there is none.
pub(crate) fn token(text: &[u8]) -> Result<FeedToken, String> {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(first.trim_ascii()).map_err(|error| error.to_string())?;
    FeedToken::from_bytes(&bytes).map_err(|error| error.to_string())
}

fn parse(path: &Path, text: &[u8], to: Option<&str>) -> Result<Kept, Report> {
    let bad = |why: String| {
        let what = format!("feed: {} holds no position: {why}", path.display());
        let report = Report::new(Exit::Usage, what);
        report.next("begin anew", format!("rm {}", path.display()))
    };
    let mut lines = text.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (mut of, mut since) = (None, None);
    for line in lines.filter(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line).into_owned();
        match line.split_once(' ') {
            Some(("to", target)) => of = Some(target.to_owned()),
            Some(("since", ms)) => {
                let ms: u64 = ms.parse().map_err(|_| bad(format!("{line:?} is no time")))?;
                since = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
            }
            _ => return Err(bad(format!("{line:?} is not known"))),
        }
    }
    if of.as_deref() != to {
        let place = |to: Option<&str>| to.unwrap_or("the screen").to_owned();
        let (of, to) = (place(of.as_deref()), place(to));
        let what = format!("feed: {} is the position of {of}, not of {to}", path.display());
        let report = Report::new(Exit::Refused, what);
        return Err(report.why("what one was given the other was not: take a file of its own"));
    }
    Ok((token(first).map_err(bad)?, since))
}

#[cfg(test)]
mod tests {
    use super::Position;
    use galvani_client::FeedToken;
    use galvani_model::ids::ClusterId;
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_position_is_kept_and_found_and_belongs_to_one_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("at");
        let token = FeedToken { cluster: ClusterId(7), filter: 3, cursors: BTreeMap::new() };
        let mut first = Position::open(&path, None).expect("new");
        assert_eq!(first.take(), None);
        let moment = UNIX_EPOCH + Duration::from_millis(5);
        first.begin(Some(moment));
        first.keep(&token).expect("kept");
        let text = std::fs::read(&path).expect("there");
        assert_eq!(super::token(&text), Ok(token.clone()), "whatever stands below it");
        assert_eq!(Position::open(&path, None).map(drop).expect_err("locked").exit.code(), 5);
        drop(first);
        assert_eq!(Position::open(&path, None).expect("there").take(), Some((token, Some(moment))));
        let other = Position::open(&path, Some("redis://h/s")).map(drop).expect_err("another's");
        assert_eq!(other.exit.code(), 5);
        std::fs::write(&path, "AAAA").expect("written");
        assert_eq!(Position::open(&path, None).map(drop).expect_err("damaged").exit.code(), 2);
    }
}
