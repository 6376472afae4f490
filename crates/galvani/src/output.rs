//! Where words go: data to stdout, talk to stderr, in the format that was asked for.
//!
//! A reader that went away (`| head`) ends the command quietly. Nothing here words anything:
//! `report/` does.

use crate::args::{Color, Format, Global};
use crate::report::Report;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// How one command speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How data is written.
    pub(crate) format: Format,
    /// Nothing but data and errors.
    pub(crate) quiet: bool,
    /// More talk.
    pub(crate) verbose: bool,
    colour: bool,
}

impl Output {
    /// As the options say.
    pub(crate) fn of(global: &Global) -> Output {
        let colour = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        let Global { output: format, quiet, verbose, .. } = *global;
        Output { format, quiet, verbose, colour }
    }

    /// Whether data is for people.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether data is JSON.
    pub(crate) fn is_json(&self) -> bool {
        match self.format {
            Format::Json | Format::Jsonl => true,
            Format::Table | Format::Raw => false,
        }
    }

    /// One line of data.
    pub(crate) fn line(&self, text: &str) -> Result<(), Report> {
        let mut out = io::stdout().lock();
        written(writeln!(out, "{text}"))
    }

    /// Exact bytes of data.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Report> {
        let mut out = io::stdout().lock();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// A JSON document, on one line.
    pub(crate) fn json(&self, value: impl Into<Value>) -> Result<(), Report> {
        self.line(&value.into().to_string())
    }

    /// The same where nothing was said of how to speak.
    pub(crate) fn document(value: &Value) -> Result<(), Report> {
        let mut out = io::stdout().lock();
        written(writeln!(out, "{value}"))
    }

    /// A line of talk, unless `-q`.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            talk(text);
        }
    }

    /// A remark that is no error, unless `-q`.
    pub(crate) fn note(&self, text: &str) {
        self.say(&format!("note   {text}"));
    }

    /// A failure: for people on stderr, and with JSON as a document on stdout too.
    pub(crate) fn error(&self, command: &str, report: &Report) {
        if self.is_json() {
            // Standard output may be gone: then there is nobody to tell.
            let _ = Output::document(&report.to_json(command));
        }
        self.block(report);
    }

    /// A failure on stderr only: what was found is on stdout already.
    pub(crate) fn block(&self, report: &Report) {
        let text = report.to_string();
        match (self.colour, text.strip_prefix("error")) {
            (true, Some(rest)) => talk(&format!("\x1b[1;31merror\x1b[0m{rest}")),
            (true, None) | (false, _) => talk(&text),
        }
    }
}

/// Talk must not fail: a closed stderr is no reason to stop.
fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// What became of a write to stdout; ends the process if nobody reads it.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Report> {
    match result {
        Ok(()) => Ok(()),
        // The reader has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Report::unexpected(format!("stdout: {error}"))),
    }
}

/// A table without lines: columns apart by two spaces.
pub(crate) fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A table's text without spaces at the ends of its lines.
pub(crate) fn trimmed(table: &comfy_table::Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}
