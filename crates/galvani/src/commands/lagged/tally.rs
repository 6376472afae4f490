//! What a restore came to: counted, and the conflicts by name.
//!
//! Nothing is asked here. Next to read: `restore.rs`.

use crate::commands::Done;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::json;
use crate::report::text::{count, key as shown_key};
use galvani_lagged::restore::{Outcome, Reason, Skipped, Step};
use std::path::Path;

/// Conflicts that are named; the rest is in the report.
const NAMED: usize = 20;

/// What a restore came to.
#[derive(Default)]
pub(super) struct Tally {
    written: u64,
    deleted: u64,
    same: u64,
    nothing_then: u64,
    /// Keys that have what they had before the job that is taken back.
    back: u64,
    conflicts: u64,
    failed: u64,
    /// Keys that an earlier try was done with.
    before: u64,
    named: Vec<String>,
}

impl Tally {
    /// A key was dealt with by an earlier try.
    pub(super) fn done_before(&mut self) {
        self.before += 1;
    }

    /// A key could not be read.
    pub(super) fn unread(&mut self, key: &[u8], why: &str) {
        self.failed += 1;
        self.name(format!("not read  {}: {why}", shown_key(key)));
    }

    /// A step that was not carried out, or is only shown.
    pub(super) fn step(&mut self, key: &[u8], step: &Step) {
        match step {
            Step::Skip(Skipped::Outside) => {}
            Step::Skip(Skipped::Same) => self.same += 1,
            Step::Skip(Skipped::NothingThen) => self.nothing_then += 1,
            Step::Skip(Skipped::Back) => self.back += 1,
            Step::Write(_) => self.written += 1,
            Step::Delete { .. } => self.deleted += 1,
            Step::Conflict(reason) => {
                self.conflicts += 1;
                self.name(format!("conflict  {}: {}", shown_key(key), words(reason)));
            }
        }
    }

    /// A step that was carried out.
    pub(super) fn done(&mut self, key: &[u8], step: &Step, outcome: &Outcome) {
        match outcome {
            Outcome::Written { .. } | Outcome::Left => self.step(key, step),
            Outcome::Failed { why } => {
                self.failed += 1;
                self.name(format!("failed    {}: {why}", shown_key(key)));
            }
        }
    }

    /// Says it all.
    pub(super) fn tell(self, out: &Output, report: Option<&Path>) -> Done {
        let exit = match (self.failed, self.conflicts) {
            (0, 0) => Exit::Done,
            (0, _) => Exit::Siblings,
            (_, _) => Exit::Unknown,
        };
        if out.is_json() {
            let mut map = json::object("galvani.lagged.restore/1");
            let counts = [
                ("written", self.written),
                ("deleted", self.deleted),
                ("same", self.same),
                ("nothing_then", self.nothing_then),
                ("back_already", self.back),
                ("conflicts", self.conflicts),
                ("failed", self.failed),
                ("done_before", self.before),
            ];
            map.extend(counts.map(|(name, number)| (name.to_owned(), number.into())));
            map.insert("dry_run".to_owned(), report.is_none().into());
            map.insert("named".to_owned(), self.named.into());
            if let Some(report) = report {
                map.insert("report".to_owned(), report.display().to_string().into());
            }
            out.json(map)?;
            return Ok(exit);
        }
        for line in &self.named {
            out.line(line)?;
        }
        let would = if report.is_some() { "" } else { "would be " };
        let back = match self.back {
            0 => String::new(),
            back => format!("{back} as before the job already   "),
        };
        out.line(&format!(
            "{} {would}written back   {} {would}deleted   {} the same   {back}{} without a value then   \
             {} in conflict, left alone   {} failed",
            count(self.written, "key"),
            self.deleted,
            self.same,
            self.nothing_then,
            self.conflicts,
            self.failed,
        ))?;
        let touched = self.written + self.deleted + self.conflicts + self.failed;
        if self.back > 0 && touched == 0 {
            out.say("it is taken back already: nothing is left to do");
            return Ok(exit);
        }
        match report {
            None => out.say("nothing was written: say --yes to do it"),
            Some(report) => out.say(&format!("report    {}", report.display())),
        }
        Ok(exit)
    }

    fn name(&mut self, line: String) {
        if self.named.len() < NAMED {
            self.named.push(line);
        }
    }
}

fn words(reason: &Reason) -> &'static str {
    match reason {
        Reason::Newer(_) => "somebody wrote it after that moment",
        Reason::Unknown(_) => "it shows a write that never came to the replica",
        Reason::LiveLacks(_) => "the cluster does not show a newer write that came to the replica",
        Reason::Unexplained => "what became of it since is not known",
        Reason::Blurred => "it was written after that moment, and that is applied already",
        Reason::BadApplied(_) => "a write to be left out is applied already",
    }
}
