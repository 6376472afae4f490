//! A command line that can be pasted into a shell: what blocks suggest is made of these.
//!
//! Words are kept as bytes and quoted only when shown, so that keys with spaces, quotes or a dash
//! in front come through a shell as they are. Next to read: `retype.rs`, which makes the line that
//! was typed from its arguments.

use crate::report::text::shell;
use galvani_client::Quorum;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// `galvani COMMAND PLACES OPTIONS [-- TAIL]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    command: &'static str,
    places: Vec<Vec<u8>>,
    options: Vec<(&'static str, Option<Vec<u8>>)>,
    tail: Vec<Vec<u8>>,
}

impl Line {
    /// A command, perhaps of several words.
    pub(crate) fn new(command: &'static str) -> Line {
        Line { command, ..Line::default() }
    }

    /// Adds an argument.
    pub(crate) fn place(mut self, word: impl AsRef<[u8]>) -> Line {
        self.places.push(word.as_ref().to_owned());
        self
    }

    /// Puts another argument in place of one.
    pub(crate) fn replace_place(mut self, index: usize, word: &str) -> Line {
        if let Some(place) = self.places.get_mut(index) {
            *place = word.as_bytes().to_owned();
        }
        self
    }

    /// Sets an option, in place of what it was.
    pub(crate) fn with(self, name: &'static str, value: impl fmt::Display) -> Line {
        self.with_bytes(name, value.to_string())
    }

    /// Adds an option that may be given several times.
    pub(crate) fn another(mut self, name: &'static str, value: impl fmt::Display) -> Line {
        self.options.push((name, Some(value.to_string().into_bytes())));
        self
    }

    /// The same with any bytes.
    pub(crate) fn with_bytes(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Line {
        let value = Some(value.as_ref().to_owned());
        match self.options.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.options.push((name, value)),
        }
        self
    }

    /// The same with a path.
    pub(crate) fn with_path(self, name: &'static str, value: impl AsRef<OsStr>) -> Line {
        self.with_bytes(name, value.as_ref().as_bytes())
    }

    /// Sets an option if it was given.
    pub(crate) fn given(self, name: &'static str, value: Option<impl fmt::Display>) -> Line {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Sets a flag without a value.
    pub(crate) fn flag(mut self, name: &'static str, on: bool) -> Line {
        if on && !self.options.iter().any(|(known, _)| *known == name) {
            self.options.push((name, None));
        }
        self
    }

    /// Takes an option out.
    pub(crate) fn without(mut self, name: &str) -> Line {
        self.options.retain(|(known, _)| *known != name);
        self
    }

    /// Whether an option or flag is set.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(known, _)| *known == name)
    }

    /// Takes these options over.
    pub(crate) fn with_all(mut self, options: &[(&'static str, Option<Vec<u8>>)]) -> Line {
        for (name, value) in options {
            self = match value {
                Some(value) => self.with_bytes(name, value),
                None => self.flag(name, true),
            };
        }
        self
    }

    /// Lowers those of the named quorums that were given and are over `most` of `n`.
    pub(crate) fn at_most(mut self, names: &[&'static str], most: u8, n: u8) -> Line {
        for (name, value) in &mut self.options {
            let asked = value.as_deref().and_then(|text| std::str::from_utf8(text).ok());
            let asked = asked.filter(|_| names.contains(name)).and_then(|text| text.parse().ok());
            if asked.is_some_and(|asked: Quorum| asked.resolve(n).is_none_or(|k| k > most)) {
                *value = Some(most.to_string().into_bytes());
            }
        }
        self
    }

    /// The words behind `--`.
    pub(crate) fn tail<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Line {
        self.tail = words.into_iter().map(|word| word.as_ref().as_bytes().to_owned()).collect();
        self
    }

    /// Whether it is short enough to be suggested.
    pub(crate) fn is_short(&self) -> bool {
        let words = self.places.iter().chain(&self.tail);
        words.map(Vec::len).sum::<usize>() <= TYPED_BYTES_MAX
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "galvani {}", self.command)?;
        let places = |f: &mut fmt::Formatter<'_>| {
            self.places.iter().try_for_each(|word| write!(f, " {}", shell(word)))
        };
        // A word with a dash in front is an option, unless it comes behind `--`. A command with a
        // tail has its own rule: its key may have one.
        let dashed = self.places.iter().any(|word| word.len() > 1 && word[0] == b'-');
        let behind = dashed && self.tail.is_empty();
        if !behind {
            places(f)?;
        }
        for (name, value) in &self.options {
            match value {
                None => write!(f, " {name}")?,
                Some(value) if value.first() == Some(&b'-') && value.len() > 1 => {
                    write!(f, " {name}={}", shell(value))?;
                }
                Some(value) => write!(f, " {name} {}", shell(value))?,
            }
        }
        if behind {
            f.write_str(" --")?;
            places(f)?;
        }
        if !self.tail.is_empty() {
            f.write_str(" --")?;
            self.tail.iter().try_for_each(|word| write!(f, " {}", shell(word)))?;
        }
        Ok(())
    }
}

/// A longer command is not typed again.
const TYPED_BYTES_MAX: usize = 2_000;
