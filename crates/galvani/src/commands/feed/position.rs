//! The file in which a feed's position is kept.
//!
//! Base64 on one line, and the target it belongs to on the next; replaced as a whole, so a crash leaves
//! the old position or the new one. Two runs on one file are refused, for each would undo the other's.

use crate::exit::Exit;
use crate::report::{Report, mistakes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use galvani_client::FeedToken;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A position on disk.
pub(crate) struct Position {
    path: PathBuf,
    /// Held while the run lasts.
    _lock: File,
    kept: Option<FeedToken>,
    last: Vec<u8>,
    /// The target; none: the screen.
    to: Option<String>,
}

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
        })
    }

    /// The position that was kept, once.
    pub(crate) fn take(&mut self) -> Option<FeedToken> {
        self.kept.take()
    }

    /// Keeps `token` in the place of what was kept.
    pub(crate) fn keep(&mut self, token: &FeedToken) -> Result<(), Report> {
        let bytes = token.to_bytes();
        if bytes == self.last {
            return Ok(());
        }
        let failed = |error: io::Error| mistakes::file(&self.path, &error);
        let part = beside(&self.path, ".part");
        let mut file = File::create(&part).map_err(failed)?;
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        let to = self.to.as_ref().map_or(String::new(), |to| format!("{to}\n"));
        file.write_all(format!("{text}\n{to}").as_bytes()).map_err(failed)?;
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

fn parse(path: &Path, text: &[u8], to: Option<&str>) -> Result<FeedToken, Report> {
    let bad = |why: String| {
        let what = format!("feed: {} holds no position: {why}", path.display());
        let report = Report::new(Exit::Usage, what);
        report.next("begin anew", format!("rm {}", path.display()))
    };
    let mut lines = text.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let of = lines.next().map(String::from_utf8_lossy).filter(|of| !of.is_empty());
    if of.as_deref() != to {
        let place = |to: Option<&str>| to.unwrap_or("the screen").to_owned();
        let (of, to) = (place(of.as_deref()), place(to));
        let what = format!("feed: {} is the position of {of}, not of {to}", path.display());
        let report = Report::new(Exit::Refused, what);
        return Err(report.why("what one was given the other was not: take a file of its own"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(first).map_err(|error| bad(error.to_string()))?;
    FeedToken::from_bytes(&bytes).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::Position;
    use galvani_client::FeedToken;
    use galvani_model::ids::ClusterId;
    use std::collections::BTreeMap;

    #[test]
    fn a_position_is_kept_and_found_and_belongs_to_one_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("at");
        let token = FeedToken { cluster: ClusterId(7), filter: 3, cursors: BTreeMap::new() };
        let mut first = Position::open(&path, None).expect("new");
        assert_eq!(first.take(), None);
        first.keep(&token).expect("kept");
        assert_eq!(Position::open(&path, None).map(drop).expect_err("locked").exit.code(), 5);
        drop(first);
        assert_eq!(Position::open(&path, None).expect("there").take(), Some(token));
        let other = Position::open(&path, Some("redis://h/s")).map(drop).expect_err("another's");
        assert_eq!(other.exit.code(), 5);
        std::fs::write(&path, "AAAA").expect("written");
        assert_eq!(Position::open(&path, None).map(drop).expect_err("damaged").exit.code(), 2);
    }
}
