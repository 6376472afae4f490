//! The data directory: whose it is, who holds it, and whether the last stop can be trusted.
//!
//! It holds `galvani.json` (the identity), `lock` (held while open), `clean` (there only between a
//! clean stop and the next start) and the folder of the engine. Opening takes the lock first and
//! reads after; it never repairs an identity and never decides what a doubtful start means: that
//! is the node's to do, by taking new incarnations.
//! Next to read: `identity.rs`, `fingerprint.rs`.

mod error;
mod fingerprint;
mod identity;
pub mod lock;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use galvani_model::ids::{ClusterId, NodeId};

pub use error::{DirError, DirStep};
use fingerprint::Fingerprint;
use identity::IdentityFile;
use lock::{DirLock, LockError};

use crate::engine::PowerHistory;

/// The data directory's format. Any other one is refused: rows of format 1 have no index of
/// tombstones and count tombstones in their digests; rows of format 2 know no expiry, and
/// clock rows of format 3 no latest write; records of format 4 know no events, and formats up to 5 do not
/// tell until when what was trimmed was issued.
pub const FORMAT_VERSION: u32 = 6;

/// Whose data a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// An open data directory; this process alone holds it until it is dropped or stopped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: DirIdentity,
    _lock: DirLock,
}

/// A directory that was opened, and what is known of its last stop.
#[derive(Debug)]
pub struct OpenedDir {
    /// The directory.
    pub dir: DataDir,
    /// Whether what it holds is known to be all that was ever acknowledged.
    pub start: StartKind,
    /// Whether the engine's journal may have holes.
    pub power: PowerHistory,
}

/// What a start may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKind {
    /// The last stop was clean, on this machine, in this very directory.
    Clean,
    /// Counters may have gone backwards: every origin of this node needs a new incarnation,
    /// unless each batch was durable before its dot left.
    Unclean {
        /// What makes it doubtful.
        why: UncleanWhy,
    },
}

/// Why a start is not clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UncleanWhy {
    /// The directory has never been in use.
    First,
    /// The last process that used it did not stop cleanly.
    Crashed,
    /// It is a copy, was restored, or came from another machine: another node may have gone on
    /// from the same data.
    Copied,
}

fn take_lock(path: &Path) -> Result<DirLock, DirError> {
    DirLock::take(path).map_err(|error| match error {
        LockError::Held { pid } => DirError::Locked { pid },
        LockError::Io(error) => DirError::io(DirStep::Lock, &error),
    })
}

impl DataDir {
    /// Makes a data directory at `path`, which must be absent or hold nothing of this kind. It is
    /// complete and durable when this returns; after a crash it is absent or complete.
    ///
    /// Fails with [`DirError::Exists`] if there is one already.
    pub fn create(path: &Path, identity: DirIdentity) -> Result<OpenedDir, DirError> {
        fs::create_dir_all(path).map_err(|error| DirError::io(DirStep::Create, &error))?;
        let lock = take_lock(path)?;
        if path.join(IDENTITY_FILE).exists() {
            return Err(DirError::Exists);
        }
        let make = || {
            remove_if_there(&path.join(CLEAN_FILE))?;
            // Its first use begins here: a crash in it is to be told from a loss of power, too.
            write_whole(path, BOOT_FILE, fingerprint::boot_id().as_bytes())?;
            let temporary = path.join(IDENTITY_TEMPORARY);
            remove_if_there(&temporary)?;
            let mut file = File::create_new(&temporary)?;
            // The file's own inode is part of the fingerprint; renaming keeps it.
            let fingerprint = Fingerprint::of(&temporary)?;
            file.write_all(&IdentityFile::new(identity, fingerprint).to_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path.join(IDENTITY_FILE))?;
            sync_dir(path)?;
            // The directory's own name must be as durable as what is in it.
            match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
                Some(parent) => sync_dir(parent),
                None => Ok(()),
            }
        };
        make().map_err(|error| DirError::io(DirStep::Create, &error))?;
        Ok(OpenedDir {
            dir: DataDir { path: path.to_path_buf(), identity, _lock: lock },
            start: StartKind::Unclean { why: UncleanWhy::First },
            power: PowerHistory::SameBoot,
        })
    }

    /// Opens the data directory at `path`, which must be `expected`'s if that is given. From here
    /// on it counts as in use: unless [`DataDir::stop_clean`] is called the next start is unclean.
    ///
    /// Refusals change nothing: [`DirError::Empty`], [`DirError::Locked`],
    /// [`DirError::NewerFormat`], [`DirError::Belongs`], [`DirError::Damaged`].
    pub fn open(path: &Path, expected: Option<DirIdentity>) -> Result<OpenedDir, DirError> {
        let identity_path = path.join(IDENTITY_FILE);
        if !identity_path.exists() {
            return Err(DirError::Empty);
        }
        let lock = take_lock(path)?;
        let file = IdentityFile::read(&identity_path)?;
        if let Some(expected) = expected
            && expected != file.identity
        {
            return Err(DirError::Belongs { found: file.identity, expected });
        }
        let here =
            Fingerprint::of(&identity_path).map_err(|error| DirError::io(DirStep::Read, &error))?;
        let start = start_kind(path, &file, &here)?;
        let power = match start {
            StartKind::Clean => PowerHistory::SameBoot,
            StartKind::Unclean { why: UncleanWhy::Crashed } => power_since_use(path)?,
            // What the source went through is not known.
            StartKind::Unclean { why: UncleanWhy::Copied | UncleanWhy::First } => {
                PowerHistory::MayHaveLostPower
            }
        };
        let dir = DataDir { path: path.to_path_buf(), identity: file.identity, _lock: lock };
        dir.begin_use().map_err(|error| DirError::io(DirStep::Mark, &error))?;
        Ok(OpenedDir { dir, start, power })
    }

    /// A copy is at home here from now on: whoever uses it has dealt with what it may have forgotten
    /// ([`UncleanWhy::Copied`]). Until then each start finds it a copy. Nothing otherwise.
    pub fn settle(&self) -> Result<(), DirError> {
        self.adopt().map_err(|error| DirError::io(DirStep::Mark, &error))
    }

    fn adopt(&self) -> io::Result<()> {
        let path = self.path.join(IDENTITY_FILE);
        let file = IdentityFile::read(&path).map_err(io::Error::other)?;
        if file.fingerprint == Fingerprint::of(&path)? {
            return Ok(());
        }
        // Written in place of the old one it would have a new inode: the name is taken by a new file
        // whose own facts are what it says.
        let temporary = self.path.join(IDENTITY_TEMPORARY);
        remove_if_there(&temporary)?;
        let mut new = File::create_new(&temporary)?;
        let fingerprint = Fingerprint::of(&temporary)?;
        new.write_all(&IdentityFile::new(self.identity, fingerprint).to_bytes())?;
        new.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(&self.path)
    }

    /// Marks the stop as clean and gives the directory up. Call it last: after the engine was
    /// synced and closed. If it fails the next start is unclean, which is safe.
    pub fn stop_clean(self) -> Result<(), DirError> {
        let mark = || {
            self.adopt()?;
            let fingerprint = Fingerprint::of(&self.path.join(IDENTITY_FILE))?;
            let mark = identity::CleanMark::new(self.identity, fingerprint);
            write_whole(&self.path, CLEAN_FILE, &mark.to_bytes())
        };
        mark().map_err(|error| DirError::io(DirStep::Mark, &error))
    }

    /// Whose data this is.
    pub fn identity(&self) -> DirIdentity {
        self.identity
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the engine's files belong.
    pub fn engine_path(&self) -> PathBuf {
        self.path.join(ENGINE_DIR)
    }

    /// Durably takes the clean mark away and notes the boot.
    fn begin_use(&self) -> io::Result<()> {
        remove_if_there(&self.path.join(CLEAN_FILE))?;
        // First: if this fails the mark is gone all the same.
        sync_dir(&self.path)?;
        write_whole(&self.path, BOOT_FILE, fingerprint::boot_id().as_bytes())?;
        Ok(())
    }
}

fn start_kind(path: &Path, file: &IdentityFile, here: &Fingerprint) -> Result<StartKind, DirError> {
    if file.fingerprint != *here {
        return Ok(StartKind::Unclean { why: UncleanWhy::Copied });
    }
    let mark = match fs::read(path.join(CLEAN_FILE)) {
        Ok(bytes) => identity::CleanMark::parse(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(DirError::io(DirStep::Read, &error)),
    };
    let is_ours =
        |mark: &identity::CleanMark| mark.identity == file.identity && mark.fingerprint == *here;
    Ok(match mark {
        Some(mark) if is_ours(&mark) => StartKind::Clean,
        // A torn or foreign mark is no mark.
        Some(_) | None => match path.join(BOOT_FILE).exists() || path.join(ENGINE_DIR).exists() {
            true => StartKind::Unclean { why: UncleanWhy::Crashed },
            false => StartKind::Unclean { why: UncleanWhy::First },
        },
    })
}

/// Whether the machine has started anew since the directory was last opened.
fn power_since_use(path: &Path) -> Result<PowerHistory, DirError> {
    let now = fingerprint::boot_id();
    match fs::read(path.join(BOOT_FILE)) {
        Ok(then) if !now.is_empty() && then == now.as_bytes() => Ok(PowerHistory::SameBoot),
        Ok(_) => Ok(PowerHistory::MayHaveLostPower),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PowerHistory::MayHaveLostPower),
        Err(error) => Err(DirError::io(DirStep::Read, &error)),
    }
}

/// Puts `bytes` at `name` in `dir`, durably: the old content or the new, never a mixture.
fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes names in `dir` durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

const IDENTITY_FILE: &str = "galvani.json";
const IDENTITY_TEMPORARY: &str = "galvani.json.new";
const CLEAN_FILE: &str = "clean";
const BOOT_FILE: &str = "boot";
const ENGINE_DIR: &str = "engine";
