//! The lines of a file that is imported: numbered, bounded in length, read a few ahead.
//!
//! A thread of their own reads them, so that a pipe that gives nothing holds up nobody else. What
//! is in a line is `record.rs`'s matter.

use crate::exit::Exit;
use crate::report::{Report, mistakes};
use futures_util::stream::{self, BoxStream, StreamExt};
use galvani_model::limits::{KEY_BYTES_MAX, SIBLINGS_MAX, VALUE_BYTES_MAX};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use tokio::sync::mpsc;

/// A line of the file.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Lines as they come; an unreadable one ends it.
pub(crate) type Source = BoxStream<'static, Result<Line, Report>>;

/// The lines of the file, empty ones left out; an unreadable one ends it.
struct Lines {
    source: Box<dyn BufRead + Send>,
    number: u64,
    skip: u64,
    done: bool,
}

impl Iterator for Lines {
    type Item = Result<Line, Report>;

    fn next(&mut self) -> Option<Result<Line, Report>> {
        while !self.done {
            let mut bytes = Vec::new();
            let mut bounded = io::Read::take(&mut self.source, LINE_BYTES_MAX + 1);
            self.number += 1;
            let failed = match bounded.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.len() as u64 > LINE_BYTES_MAX => "the line is too long".to_owned(),
                Ok(_) => {
                    let text = bytes.trim_ascii();
                    if self.number <= self.skip || text.is_empty() {
                        continue;
                    }
                    return Some(Ok(Line { number: self.number, bytes: text.to_vec() }));
                }
                Err(error) => error.to_string(),
            };
            self.done = true;
            let what = format!("import: line {}: {failed}", self.number);
            return Some(Err(Report::unexpected(what)));
        }
        None
    }
}

/// The file's lines, those skipped left out, and how many there are in all if it can be known. `-`
/// is stdin.
pub(crate) fn open(path: &Path, skip: u64) -> Result<(Source, Option<u64>), Report> {
    let (source, total) = match path.as_os_str() == "-" {
        true => (Box::new(BufReader::new(io::stdin())) as Box<dyn BufRead + Send>, None),
        false => file(path)?,
    };
    let lines = Lines { source, number: 0, skip, done: false };
    let (sender, mut receiver) = mpsc::channel(LINES_AHEAD);
    // A pipe may give nothing for long: the links to the servers must live on meanwhile.
    let reader = move || {
        for line in lines {
            if sender.blocking_send(line).is_err() {
                // The import has ended.
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("import-reader".to_owned())
        .spawn(reader)
        .map_err(|error| Report::unexpected(format!("no thread: {error}")))?;
    Ok((stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed(), total))
}

fn file(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Report> {
    let file = |error| mistakes::file(path, &error);
    let opened = File::open(path).map_err(file)?;
    if opened.metadata().map_err(file)?.is_dir() {
        return Err(Report::new(Exit::Usage, format!("{}: is a directory", path.display())));
    }
    let regular = opened.metadata().map_err(file)?.is_file();
    let total = match regular {
        true => Some(count_lines(File::open(path).map_err(file)?).map_err(file)?),
        false => None,
    };
    Ok((Box::new(BufReader::new(opened)), total))
}

fn count_lines(file: File) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut lines = 0;
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Ok(lines);
        }
        lines += block.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let length = block.len();
        reader.consume(length);
    }
}

/// Lines read ahead.
const LINES_AHEAD: usize = 64;
/// Longest line: every byte of a key with the most and largest values, escaped as `\u0000`.
const LINE_BYTES_MAX: u64 = 6 * (KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX + 64 * SIBLINGS_MAX) as u64;

#[cfg(test)]
mod tests {
    use super::Lines;

    fn lines(text: &'static str, skip: u64) -> Vec<(u64, String)> {
        let lines = Lines { source: Box::new(text.as_bytes()), number: 0, skip, done: false };
        lines
            .map(|line| line.map_err(|report| report.to_string()).expect("readable"))
            .map(|line| (line.number, String::from_utf8_lossy(&line.bytes).into_owned()))
            .collect()
    }

    #[test]
    fn lines_are_numbered_and_empty_ones_left_out() {
        let text = "a\n\n b \r\nlast";
        let all = [(1, "a"), (3, "b"), (4, "last")].map(|(n, text)| (n, text.to_owned()));
        assert_eq!(lines(text, 0), all);
        assert_eq!(lines(text, 1), all[1..]);
        assert_eq!(lines("", 0), []);
    }
}
