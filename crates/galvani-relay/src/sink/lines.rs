//! Lines of JSON, on stdout or at the end of a file.
//!
//! A file's lines are synced before they are acknowledged; a last line that a crash tore is cut off when the
//! file is opened. Writing is done on a thread that may block, and goes on to its end even if the
//! delivery is dropped: what it wrote is remembered, so that it is not written twice.

use crate::outgoing::Outgoing;
use crate::sink::{Failure, Sent, Sink};
use bytes::Bytes;
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Something that lines can be put at the end of.
pub(crate) trait Journal: Send + 'static {
    /// Puts these bytes at the end, all or none, and makes them as safe as they get.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure>;
}

/// The sink for a [`Journal`].
pub(crate) struct Lines<J> {
    shared: Arc<Mutex<Shared<J>>>,
}

struct Shared<J> {
    journal: J,
    /// Ids of the run written last. One whose delivery was dropped may have been written all the same.
    last: HashSet<String>,
}

impl<J: Journal> Lines<J> {
    pub(crate) fn new(journal: J) -> Lines<J> {
        Lines { shared: Arc::new(Mutex::new(Shared { journal, last: HashSet::new() })) }
    }
}

impl<J: Journal> Sink for Lines<J> {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        let lines: Vec<(String, Bytes)> =
            events.iter().map(|event| (event.id.clone(), event.body.clone())).collect();
        // Taken here, not on the thread: those who wait get it in their order.
        let shared = self.shared.clone().lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let mut shared = shared;
            shared.write(lines)
        });
        match written.await {
            Ok(Ok(known)) => Sent { taken: events.len(), known, failure: None },
            Ok(Err(failure)) => Sent::failed(failure),
            Err(e) => Sent::failed(Failure::unusable(format!("the writing thread ended: {e}"))),
        }
    }

    fn run_max(&self) -> usize {
        RUN_MAX
    }

    fn by_key(&self) -> bool {
        false
    }

    fn timed(&self) -> bool {
        false
    }
}

impl<J: Journal> Shared<J> {
    /// Writes those that the last run did not have; returns how many it had.
    fn write(&mut self, lines: Vec<(String, Bytes)>) -> Result<usize, Failure> {
        let count = lines.len();
        let new: Vec<_> = lines.into_iter().filter(|(id, _)| !self.last.contains(id)).collect();
        if new.is_empty() {
            return Ok(count);
        }
        let mut bytes = Vec::with_capacity(new.iter().map(|(_, line)| line.len() + 1).sum());
        for (_, line) in &new {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        self.journal.append(&bytes)?;
        let known = count - new.len();
        if known == 0 {
            self.last.clear();
        }
        self.last.extend(new.into_iter().map(|(id, _)| id));
        Ok(known)
    }
}

/// Most lines under one sync.
const RUN_MAX: usize = 1024;

/// Standard output. Whoever reads it has the lines when it has read them, not before.
#[derive(Default)]
pub(crate) struct StdoutJournal {
    broken: bool,
}

impl Journal for StdoutJournal {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.broken {
            return Err(Failure::unusable("an earlier write to stdout failed half way"));
        }
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| {
            self.broken = true;
            Failure::unusable(match e.kind() {
                ErrorKind::BrokenPipe => "nobody reads stdout any more".to_owned(),
                _ => format!("cannot write to stdout: {e}"),
            })
        })
    }
}

/// A file of our own, locked.
pub(crate) struct FileJournal {
    file: File,
    /// How long it is with all that was acknowledged.
    length: u64,
    /// Set once nothing may be written any more, with the reason.
    broken: Option<String>,
}

impl FileJournal {
    /// Opens or makes the file, and cuts off a last line that a crash tore. One whose last whole line is no
    /// event is somebody else's, unless it is to be adopted.
    pub(crate) fn open(path: &Path, adopt: bool) -> Result<FileJournal, String> {
        let told = |what: &'static str| move |e: io::Error| format!("cannot {what}: {e}");
        let exists = path.exists();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(path).map_err(told("open it"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err("another relay writes to it: give this one a file of its own".into());
            }
            Err(TryLockError::Error(e)) => return Err(told("lock it")(e)),
        }
        let length = whole_lines(&mut file)?;
        if !adopt && !ends_in_event(&mut file, length)? {
            return Err(
                "its last line is no event: it is no file of a relay, and is left as it is; name \
                        another file, or say --force to add to it"
                    .into(),
            );
        }
        if length < file.metadata().map_err(told("look at it"))?.len() {
            tracing::warn!(file = %path.display(), length, "a torn last line is cut off");
            file.set_len(length).map_err(told("cut off its torn last line"))?;
        }
        file.sync_all().map_err(told("sync it"))?;
        if !exists {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let folder =
                File::open(parent.unwrap_or(Path::new("."))).map_err(told("sync its folder"))?;
            folder.sync_all().map_err(told("sync its folder"))?;
        }
        Ok(FileJournal { file, length, broken: None })
    }
}

impl Drop for FileJournal {
    /// Closing does not end the lock while a process that was forked meanwhile has not begun its program.
    fn drop(&mut self) {
        if let Err(e) = self.file.unlock() {
            tracing::debug!("cannot unlock a file: {e}");
        }
    }
}

impl Journal for FileJournal {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(why) = &self.broken {
            return Err(Failure::unusable(format!("{why}; open it again to go on")));
        }
        if let Err(e) = self.file.write_all(bytes) {
            // What was written of it must not stay: the next try begins a new line.
            if let Err(worse) = self.file.set_len(self.length) {
                self.broken = Some(format!("a line is torn ({e}) and stays so ({worse})"));
            }
            return Err(Failure::down(format!("cannot write: {e}")));
        }
        if let Err(e) = self.file.sync_data() {
            // A second sync may succeed without having written what the first one lost.
            let why = format!("its sync failed: {e}");
            self.broken = Some(why.clone());
            return Err(Failure::unusable(why));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// The length of the file up to the end of its last whole line. Fails if what comes after it does not look
/// like a torn line of ours: then the file is somebody else's.
fn whole_lines(file: &mut File) -> Result<u64, String> {
    let told = |e: io::Error| format!("cannot read it: {e}");
    let length = file.seek(SeekFrom::End(0)).map_err(told)?;
    let mut end = length;
    let mut block = vec![0; 64 * 1024];
    // What follows the last line end that was found, from its first byte.
    let mut first_of_tail = None;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start)).map_err(told)?;
        file.read_exact(part).map_err(told)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            first_of_tail = part.get(at + 1).copied().or(first_of_tail);
            end = start + at as u64 + 1;
            break;
        }
        first_of_tail = part.first().copied();
        end = start;
    }
    match first_of_tail {
        // Zeros: some file systems lengthen a file before its bytes are there.
        Some(b'{' | 0) | None => Ok(end),
        Some(_) => Err("its last line has no end and is not JSON: it is no file of a relay, and \
                        is left as it is; name another file"
            .into()),
    }
}

/// Whether the last whole line is an event, a JSON object with an id; also where there is no line.
fn ends_in_event(file: &mut File, length: u64) -> Result<bool, String> {
    let told = |e: io::Error| format!("cannot read it: {e}");
    let mut size = LINE_GUESS;
    loop {
        let start = length.saturating_sub(size);
        let mut tail = vec![0; (length - start) as usize];
        file.seek(SeekFrom::Start(start)).map_err(told)?;
        file.read_exact(&mut tail).map_err(told)?;
        // Without the end of the last line.
        let Some((_, lines)) = tail.split_last() else { return Ok(true) };
        let line = match lines.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => &lines[at + 1..],
            None if start == 0 => lines,
            None if size >= LINE_BYTES_MAX => return Ok(false),
            None => {
                size *= 8;
                continue;
            }
        };
        let event: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        return Ok(event.is_some_and(|event| event["id"].is_string()));
    }
}

/// What is read of a file's end at first, for its last line.
const LINE_GUESS: u64 = 64 * 1024;
/// Longer than any event: a write and what it replaced, in base64.
const LINE_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests;
