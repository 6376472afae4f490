//! A look at the journals before fjall opens them.
//!
//! fjall takes the first entry that does not parse as the end of its journal and cuts the rest
//! off, even where damage in the middle hides batches that were synced; and damage that does
//! parse makes it refuse to open, even where it is only a half-written tail. So this walks the
//! journals first, changes nothing but a torn tail, and tells the two apart: a torn tail is one
//! batch that the data ends in, before its end mark, with no whole batch behind its start.
//! Format (fjall 3, uncompressed), all numbers little-endian:
//!
//! ```text
//! batch = start item* end
//! start = 01 | items u32 | seqno u64
//! item  = 02 | kind u8 | compression u8 | table u64
//!         | key length u16 | value length u32, twice | key | value
//! clear = 04 | table u64                              (counts as an item)
//! end   = 03 | xxh3-64 of the items u64 | "FJL" 03
//! ```
//!
//! The active file is made with zeros behind its data. Next to read: `mod.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::engine::{EngineError, IoStep};

/// Whether the machine may have lost power since the engine was last used.
///
/// The system writes pages back in any order, so after a power loss the last, unsynced part of
/// the journal may have holes with good batches behind them. While the machine stays up there is
/// no such excuse, and a hole is damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerHistory {
    /// The machine has been up all the time, or the engine was synced and closed.
    SameBoot,
    /// It may have lost power while the engine was in use.
    MayHaveLostPower,
}

/// The end of the newest journal, cut off because it was not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalCut {
    /// The journal's number.
    pub journal: u64,
    /// Where the last whole batch before the cut ends, in bytes.
    pub at: u64,
    /// How many bytes of data were cut off.
    pub bytes: u64,
    /// True if it was more than one half-written batch: the caller must treat everything unsynced
    /// at the time as lost here, and more if it does not trust this disk.
    pub has_hole: bool,
}

/// Checks every journal in `path` and cuts a torn tail off the newest.
pub(super) fn check(path: &Path, history: PowerHistory) -> Result<Option<JournalCut>, EngineError> {
    let failed = |error: io::Error| EngineError::from_io(IoStep::Open, &error);
    remove_copies(path).map_err(failed)?;
    let journals = list(path).map_err(failed)?;
    let mut last_seqno = None;
    for (index, (number, file)) in journals.iter().enumerate() {
        let walk = Walk::of(file, last_seqno).map_err(failed)?;
        last_seqno = walk.last_seqno;
        let Some(stop) = walk.stop else { continue };
        let is_newest = index + 1 == journals.len();
        let excused = stop.is_torn || history == PowerHistory::MayHaveLostPower;
        if !is_newest || !excused {
            let what = format!(
                "file {}: the batch at byte {} is damaged: {} ({} bytes follow)",
                file.display(),
                walk.valid_end,
                stop.why,
                walk.data_end - walk.valid_end
            );
            return Err(EngineError::Corrupt { table: None, what });
        }
        let file = OpenOptions::new().write(true).open(file).map_err(failed)?;
        file.set_len(walk.valid_end).and_then(|()| file.sync_all()).map_err(failed)?;
        let cut = JournalCut {
            journal: *number,
            at: walk.valid_end,
            bytes: walk.data_end - walk.valid_end,
            has_hole: !stop.is_torn,
        };
        tracing::warn!(?cut, "the journal's tail was not whole and was cut off");
        return Ok(Some(cut));
    }
    Ok(None)
}

/// Writes every journal in `path` to a file of its own and puts that in its place, durably.
///
/// After a sync that failed unseen (fjall's workers sync as well), or before a process died, the system
/// may hold pages that it takes for written and that are not on the disk: no later sync would write
/// them. What is read through such pages is written once more here. Where there is no room for that,
/// it is left: what stopped the workers was most likely that. Any other failure is one of the disk.
pub(super) fn write_anew(path: &Path) -> Result<(), EngineError> {
    let anew = |(number, file): &(u64, PathBuf)| {
        let copy = path.join(format!("{number}.{COPY}"));
        copy_bytes(file, &copy).and_then(|()| std::fs::rename(&copy, file))
    };
    let failed = |error: io::Error| EngineError::from_io(IoStep::Sync, &error);
    remove_copies(path).map_err(failed)?;
    let copied = list(path).and_then(|journals| journals.iter().try_for_each(anew));
    // Those that are in their places are to stay there.
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed)?;
    match copied {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            tracing::warn!(event = "journals_not_renewed", error = %error);
            remove_copies(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Takes away copies that were not finished: of no use, and they take room.
fn remove_copies(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == COPY) {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Copies by reading and writing: what the system would share between the two files may be just what
/// is not on the disk. Zeros, of which there are many behind the data, take no room.
fn copy_bytes(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; COPIED_BYTES];
    let mut length = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            to.set_len(length)?;
            return to.sync_all();
        }
        match buffer[..read].iter().all(|&byte| byte == 0) {
            true => drop(to.seek(SeekFrom::Current(read as i64))?),
            false => to.write_all(&buffer[..read])?,
        }
        length += read as u64;
    }
}

/// Read at once while a journal is copied.
const COPIED_BYTES: usize = 64 << 10;
/// What the name of a journal's copy ends with: fjall takes it for none.
const COPY: &str = "anew";

/// The journals in `path`, oldest first.
fn list(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "jnl") {
            let number = file.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let number = number.ok_or(io::ErrorKind::InvalidData)?;
            journals.push((number, file));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// What walking one journal found.
struct Walk {
    /// Where the last whole batch ends.
    valid_end: u64,
    /// Where the zeros begin that reach to the end of the file.
    data_end: u64,
    last_seqno: Option<u64>,
    /// Why the walk ended before `data_end`.
    stop: Option<Stop>,
}

/// Why a batch does not parse.
struct Stop {
    /// True if it is a half-written batch with nothing behind it.
    is_torn: bool,
    why: &'static str,
}

impl Walk {
    fn of(path: &Path, last_seqno: Option<u64>) -> io::Result<Walk> {
        let mut file = File::open(path)?;
        let data_end = data_end(&mut file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, &file);
        let mut parser = Parser::new(&mut reader, length);
        let mut walk = Walk { valid_end: 0, data_end, last_seqno, stop: None };
        while walk.valid_end < data_end {
            match parser.batch(walk.last_seqno)? {
                Ok(seqno) => {
                    walk.valid_end = parser.at;
                    walk.last_seqno = Some(seqno);
                }
                Err(why) => {
                    let is_torn = parser.at >= data_end
                        && !parser.met_wrong_end
                        && !walk.shows_a_later_batch(&mut file)?;
                    walk.stop = Some(Stop { is_torn, why });
                    break;
                }
            }
        }
        Ok(walk)
    }

    /// True if a whole batch, or the end mark of one, stands behind the start of the batch that
    /// does not parse: a turned bit in a length makes the walk run past all that follows.
    ///
    /// Values are in the journal as they came, so a client could plant such bytes; that would
    /// make a torn tail look like damage, never the reverse.
    fn shows_a_later_batch(&self, file: &mut File) -> io::Result<bool> {
        let length = self.data_end - self.valid_end;
        if length > TAIL_BYTES_MAX {
            return Ok(true);
        }
        file.seek(SeekFrom::Start(self.valid_end))?;
        let mut tail = vec![0; length as usize];
        file.read_exact(&mut tail)?;
        if tail.ends_with(END_MAGIC) {
            return Ok(true);
        }
        let mut work_left = length.saturating_mul(RESYNC_WORK);
        for at in 1..tail.len() {
            let mut rest = &tail[at..];
            if rest.len() < 14 || rest[0] != TAG_START || !matches!(rest[13], TAG_ITEM | TAG_CLEAR)
            {
                continue;
            }
            let rest_length = rest.len() as u64;
            let mut parser = Parser::new(&mut rest, rest_length);
            if parser.batch(self.last_seqno)?.is_ok() {
                return Ok(true);
            }
            // Bytes made to look like starts everywhere would cost the square of the length.
            work_left = work_left.saturating_sub(parser.at);
            if work_left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

struct Parser<R> {
    reader: R,
    at: u64,
    length: u64,
    items: Xxh3,
    /// An end mark was met that is wrong and is not the beginning of a right one.
    met_wrong_end: bool,
}

impl<R: Read> Parser<R> {
    fn new(reader: R, length: u64) -> Parser<R> {
        Parser { reader, at: 0, length, items: Xxh3::new(), met_wrong_end: false }
    }

    /// Takes in one batch and returns its number, or why there is none.
    fn batch(&mut self, last_seqno: Option<u64>) -> io::Result<Result<u64, &'static str>> {
        let Some(start) = self.take::<13>()? else {
            return Ok(Err("it ends in its start"));
        };
        if start[0] != TAG_START {
            return Ok(Err("it does not begin with a start mark"));
        }
        let items = u32::from_le_bytes(field(&start, 1));
        let seqno = u64::from_le_bytes(field(&start, 5));
        self.items.reset();
        for _ in 0..items {
            if let Err(why) = self.item()? {
                return Ok(Err(why));
            }
        }
        let Some(end) = self.take::<13>()? else {
            return Ok(Err("it ends in its end mark"));
        };
        if end[0] != TAG_END || end[9..] != *END_MAGIC {
            let right = end[9..].iter().zip(END_MAGIC).take_while(|(a, b)| a == b).count();
            self.met_wrong_end = end[9 + right..].iter().any(|byte| *byte != 0);
            return Ok(Err("its end mark is wrong"));
        }
        if u64::from_le_bytes(field(&end, 1)) != self.items.digest() {
            return Ok(Err("its checksum is wrong"));
        }
        // The number is outside the checksum, so it is held against its neighbours.
        if last_seqno.is_some_and(|last| seqno <= last || seqno - last > SEQNO_STEP_MAX) {
            return Ok(Err("its number is out of order"));
        }
        Ok(Ok(seqno))
    }

    fn item(&mut self) -> io::Result<Result<(), &'static str>> {
        let Some(tag) = self.take::<1>()? else {
            return Ok(Err("it ends before an item"));
        };
        self.items.update(&tag);
        match tag[0] {
            TAG_CLEAR => {
                let Some(table) = self.take::<8>()? else {
                    return Ok(Err("it ends in a clear mark"));
                };
                self.items.update(&table);
                Ok(Ok(()))
            }
            TAG_ITEM => {
                let Some(head) = self.take::<20>()? else {
                    return Ok(Err("it ends in an item"));
                };
                self.items.update(&head);
                let key_bytes = u16::from_le_bytes(field(&head, 10));
                let value_bytes = u32::from_le_bytes(field(&head, 12));
                let stored_bytes = u32::from_le_bytes(field(&head, 16));
                if head[1] != 0 || value_bytes != stored_bytes {
                    return Ok(Err("an item claims to be compressed"));
                }
                if !matches!(head[0], 0..=2) || key_bytes == 0 {
                    return Ok(Err("an item is of no known kind"));
                }
                self.skip_hashed(u64::from(key_bytes) + u64::from(stored_bytes))
            }
            _ => Ok(Err("an item has an unknown mark")),
        }
    }

    /// Takes in `count` bytes, or everything left if the file is shorter.
    fn skip_hashed(&mut self, mut count: u64) -> io::Result<Result<(), &'static str>> {
        let is_short = count > self.length - self.at;
        if is_short {
            count = self.length - self.at;
        }
        let mut buffer = [0; 4096];
        while count > 0 {
            let part = count.min(buffer.len() as u64) as usize;
            self.reader.read_exact(&mut buffer[..part])?;
            self.items.update(&buffer[..part]);
            self.at += part as u64;
            count -= part as u64;
        }
        Ok(if is_short { Err("an item reaches past the end") } else { Ok(()) })
    }

    /// The next `N` bytes; at the end of the file, takes what is left and returns `None`.
    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if (N as u64) > self.length - self.at {
            self.at = self.length;
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(Some(bytes))
    }
}

/// Where the zeros begin that end `file`, read from behind.
fn data_end(file: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut end = last_extent_end(file)?;
    while end > 0 {
        let part = end.min(READ_BYTES as u64);
        let begin = end - part;
        file.seek(SeekFrom::Start(begin))?;
        let bytes = &mut buffer[..part as usize];
        file.read_exact(bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// Where the last bytes that were ever written end: behind it the file is a hole, which is not
/// worth reading.
fn last_extent_end(file: &File) -> io::Result<u64> {
    let mut end = 0;
    loop {
        match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(end)) {
            Ok(begin) => end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(begin))?,
            Err(rustix::io::Errno::NXIO) => return Ok(end),
            // A file system that knows no holes.
            Err(_) => return Ok(file.metadata()?.len()),
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const END_MAGIC: &[u8; 4] = b"FJL\x03";

/// Batches, flushes and compactions draw from one counter; between two batches of one journal
/// there are never this many of them.
const SEQNO_STEP_MAX: u64 = 1 << 32;

const READ_BYTES: usize = 64 * 1024;

/// A half-written batch is one batch; more than this behind the last whole one is damage.
const TAIL_BYTES_MAX: u64 = 256 << 20;

/// How many times over the bytes of a tail may be walked in search of later batches.
const RESYNC_WORK: u64 = 64;
