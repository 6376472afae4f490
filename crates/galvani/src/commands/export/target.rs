//! Where an export goes: stdout, or a file that gets its name when it is whole.
//!
//! Until then it is `FILE.part`, which goes when the target is dropped unfinished, however the
//! export ends.

use crate::context::io_report;
use crate::exit::Exit;
use crate::report::{Report, mistakes};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where records go.
#[derive(Debug)]
pub(crate) enum Target {
    /// To whoever reads.
    Stdout(BufWriter<io::Stdout>),
    /// To a file.
    File(Part),
}

/// A file that is not whole yet.
#[derive(Debug)]
pub(crate) struct Part {
    part: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    whole: bool,
}

impl Target {
    /// Opens it; `-` is stdout.
    pub(crate) fn create(path: &Path) -> Result<Target, Report> {
        if path.as_os_str() == "-" {
            return Ok(Target::Stdout(BufWriter::new(io::stdout())));
        }
        if path.is_dir() || path.file_name().is_none() {
            let what = format!("{}: is a directory", path.display());
            return Err(Report::new(Exit::Usage, what).why("an export is one file"));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let file = File::create(&part).map_err(|error| mistakes::file(path, &error))?;
        let file = BufWriter::new(file);
        Ok(Target::File(Part { part, path: path.to_owned(), file, whole: false }))
    }

    /// The file it will be; `None`: stdout.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Target::Stdout(_) => None,
            Target::File(part) => Some(&part.path),
        }
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Report> {
        match self {
            Target::Stdout(out) => crate::output::written(writeln!(out, "{text}")),
            Target::File(Part { part, file, .. }) => {
                writeln!(file, "{text}").map_err(|error| io_report(part, &error))
            }
        }
    }

    /// It is whole: gives the file its name.
    pub(crate) fn finish(&mut self) -> Result<(), Report> {
        match self {
            Target::Stdout(out) => crate::output::written(out.flush()),
            Target::File(Part { part, path, file, whole }) => {
                let done = file.flush().and_then(|()| file.get_ref().sync_all());
                let done = done.and_then(|()| fs::rename(&*part, path));
                done.map_err(|error| io_report(part, &error))?;
                *whole = true;
                Ok(())
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            // If it cannot be removed there is nothing left to do about it.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("all.jsonl");
        let names = || -> Vec<_> {
            let entries = std::fs::read_dir(dir.path()).expect("readable");
            entries.map(|entry| entry.expect("an entry").file_name()).collect()
        };
        let mut target = Target::create(&path).expect("created");
        target.line("{}").expect("written");
        assert_eq!(names(), ["all.jsonl.part"]);
        drop(target);
        assert!(names().is_empty(), "a failed export leaves nothing");
        let mut target = Target::create(&path).expect("created");
        target.line("{}").expect("written");
        target.finish().expect("whole");
        drop(target);
        assert_eq!(names(), ["all.jsonl"]);
        assert_eq!(std::fs::read(&path).expect("there"), b"{}\n");
        assert_eq!(Target::create(dir.path()).expect_err("a directory").exit.code(), 2);
    }
}
