//! Error blocks: what failed, why (per replica), and what to type next.
//!
//! A [`Report`] is a value; `output.rs` prints it. All blocks are built in this folder: `client.rs`
//! words what the client says, `mistakes.rs` what goes wrong before a server is asked. Next to
//! read: `text.rs`, how values and times are written.

pub(crate) mod client;
pub(crate) mod faults;
pub(crate) mod json;
pub(crate) mod mistakes;
pub(crate) mod text;
pub(crate) mod usage;

use crate::exit::Exit;
use serde_json::{Map, Value, json};
use std::fmt;

/// Schema of an error in JSON.
const SCHEMA: &str = "galvani.error/1";

/// One failure as people and scripts see it.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What failed, one line.
    what: String,
    /// Why, one line each.
    why: Vec<String>,
    /// What to type next: lines of (label, command).
    next: Vec<Vec<(&'static str, String)>>,
    /// More for scripts.
    fields: Map<String, Value>,
}

impl Report {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Report {
        Report { exit, what: what.into(), why: Vec::new(), next: Vec::new(), fields: Map::new() }
    }

    /// Something that should not happen.
    pub(crate) fn unexpected(what: impl Into<String>) -> Report {
        Report::new(Exit::Unexpected, what)
    }

    /// Adds a line of reasons.
    pub(crate) fn why(mut self, line: impl Into<String>) -> Report {
        self.why.push(line.into());
        self
    }

    /// Adds a command to try.
    pub(crate) fn next(self, label: &'static str, command: impl Into<String>) -> Report {
        self.next_line(vec![(label, command.into())])
    }

    /// Adds several ways on, on one line.
    pub(crate) fn next_line(mut self, ways: Vec<(&'static str, String)>) -> Report {
        self.next.push(ways);
        self
    }

    /// Adds a field for scripts.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Report {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// For a command that writes, when it failed before anything was sent.
    pub(crate) fn never_sent(self) -> Report {
        match self.fields.contains_key("applied") {
            true => self,
            false => self.field("applied", "no"),
        }
    }

    /// Whether a field for scripts has this value.
    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.fields.get(name).is_some_and(|field| field == value)
    }

    /// What failed.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The same for scripts.
    pub(crate) fn to_json(&self, command: &str) -> Value {
        let next: Vec<&str> = self.next.iter().flatten().map(|(_, text)| text.as_str()).collect();
        let mut all = json!({
            "schema": SCHEMA,
            "command": command,
            "exit": self.exit.code(),
            "error": self.what,
            "why": self.why,
            "next": next,
        });
        if let Value::Object(map) = &mut all {
            map.extend(self.fields.clone());
        }
        all
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error  {}", self.what)?;
        for line in &self.why {
            write!(f, "\n       {line}")?;
        }
        let first = self.next.iter().filter_map(|ways| ways.first());
        let width = first.map(|(label, _)| label.len()).max().unwrap_or(0);
        for ways in &self.next {
            f.write_str("\n")?;
            for (index, (label, command)) in ways.iter().enumerate() {
                match index {
                    0 => write!(f, "  {label:width$}  {command}")?,
                    _ => write!(f, "      {label}  {command}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::exit::Exit;

    #[test]
    fn a_block_has_three_parts() {
        let report = Report::new(Exit::Refused, "put k: no")
            .why("because")
            .why("also")
            .next_line(vec![("see", "a".into()), ("pick", "b".into())])
            .next("merge", "c")
            .field("n", 3);
        assert_eq!(
            report.to_string(),
            "error  put k: no\n       because\n       also\n  see    a      pick  b\n  merge  c"
        );
        let json = report.to_json("put");
        assert_eq!(
            json.to_string(),
            r#"{"command":"put","error":"put k: no","exit":5,"n":3,"next":["a","b","c"],"schema":"galvani.error/1","why":["because","also"]}"#
        );
    }
}
