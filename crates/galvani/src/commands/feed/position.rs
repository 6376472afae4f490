//! The file in which a feed's position is kept.
//!
//! Base64 on one line, replaced as a whole: a crash leaves the old position or the new one. Two runs on
//! one file are refused, for each would undo the other's.

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
}

impl Position {
    /// Opens the file at `path`, which need not exist.
    pub(crate) fn open(path: &Path) -> Result<Position, Report> {
        let failed = |error: io::Error| mistakes::file(path, &error);
        let lock = File::create(beside(path, ".lock")).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let what = format!("feed: another run keeps its position in {}", path.display());
            let report = Report::new(Exit::Refused, what);
            return Err(report.why("each of the two would undo the other's position"));
        }
        let kept = match fs::read(path) {
            Ok(text) => Some(parse(path, &text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Position { path: path.to_owned(), _lock: lock, kept, last: Vec::new() })
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
        file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
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

fn parse(path: &Path, text: &[u8]) -> Result<FeedToken, Report> {
    let bad = |why: String| {
        let what = format!("feed: {} holds no position: {why}", path.display());
        let report = Report::new(Exit::Usage, what);
        report.next("begin anew", format!("rm {}", path.display()))
    };
    let bytes =
        URL_SAFE_NO_PAD.decode(text.trim_ascii()).map_err(|error| bad(error.to_string()))?;
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
        let mut first = Position::open(&path).expect("new");
        assert_eq!(first.take(), None);
        first.keep(&token).expect("kept");
        assert_eq!(Position::open(&path).map(drop).expect_err("locked").exit.code(), 5);
        drop(first);
        assert_eq!(Position::open(&path).expect("there").take(), Some(token));
        std::fs::write(&path, "AAAA").expect("written");
        assert_eq!(Position::open(&path).map(drop).expect_err("damaged").exit.code(), 2);
    }
}
