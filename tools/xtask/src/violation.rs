//! One broken house rule: where it is, what it is, and what to do about it.

use std::fmt;

/// One broken rule. Displays as `path:line: [rule] what; remedy`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file, relative to the repository root, with forward slashes.
    pub path: String,
    /// The line, counted from 1; 1 where the rule is about the whole file.
    pub line: usize,
    /// The rule's short name, which is also its file under `checks/`.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
    /// What to do instead.
    pub remedy: String,
}

impl Violation {
    /// A violation of `rule` at `path:line`.
    pub fn new(
        rule: &'static str,
        path: &str,
        line: usize,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { path: path.to_owned(), line, rule, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, what, remedy } = self;
        write!(f, "{path}:{line}: [{rule}] {what}; {remedy}")
    }
}
