//! A command line that makes no sense: the parser's own words for people, and a document for
//! scripts that asked for JSON.
//!
//! The parser stops before it knows the format, so the words are searched for it here.

use crate::args::{Cli, Format};
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use std::ffi::OsString;

/// Tells of the error, or prints the help or the version that was asked for; how to end.
pub(crate) fn tell(error: &clap::Error, words: &[OsString]) -> Exit {
    // Where its stream is gone there is nobody to tell.
    let _ = error.print();
    if error.exit_code() == 0 {
        return Exit::Done;
    }
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if wants_json(&words, std::env::var("GALVANI_OUTPUT").ok()) {
        let command = command_of(&words);
        let report = report(&error.to_string(), &command);
        let _ = Output::document(&report.to_json(&command));
    }
    Exit::Usage
}

/// What is wrong with a value that begins as an option does, such as `--ttl -5`: the parser only
/// says that it knows no option `-5`.
pub(crate) fn clearer(words: &[OsString]) -> Option<clap::Error> {
    let own = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let negative = |word: &OsString| {
        let bytes = word.as_encoded_bytes();
        bytes.len() > 1 && bytes[0] == b'-' && bytes[1].is_ascii_digit()
    };
    let at = words[..own].iter().position(negative).filter(|at| *at > 0)?;
    let mut joined = words[at - 1].clone();
    joined.push("=");
    joined.push(&words[at]);
    let as_value = [&words[..at - 1], &[joined], &words[at + 1..]].concat();
    let as_place = [&words[..at], &["--".into()], &words[at..]].concat();
    [as_value, as_place].into_iter().find_map(|words| match Cli::try_parse_from(words) {
        Err(error) if error.kind() == ErrorKind::ValueValidation => Some(error),
        Ok(_) | Err(_) => None,
    })
}

/// The parser's text in the parts of a block.
fn report(text: &str, command: &str) -> Report {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with("For more"));
    let what = lines.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let report = Report::new(Exit::Usage, what).field("kind", "usage");
    let report = lines.fold(report, Report::why);
    report.next(
        "see",
        match command {
            "galvani" => "galvani --help".to_owned(),
            command => format!("galvani help {command}"),
        },
    )
}

/// Whether the words, or else the environment, ask for JSON.
fn wants_json(words: &[String], variable: Option<String>) -> bool {
    let is_json = |text: &str| match Format::from_str(text, true) {
        Ok(Format::Json | Format::Jsonl) => true,
        Ok(Format::Table | Format::Raw) | Err(_) => false,
    };
    // What comes behind `--` is not for us.
    let mut words = words.iter().map(String::as_str).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--output") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('='),
            None => match word.strip_prefix('-').map(|word| word.trim_start_matches(['q', 'v'])) {
                Some("o") => words.next(),
                Some(rest) => rest.strip_prefix('o').map(|rest| rest.trim_start_matches('=')),
                None => None,
            },
        };
        if let Some(value) = value {
            return is_json(value);
        }
    }
    variable.is_some_and(|text| is_json(&text))
}

/// The command that was meant, as far as it can be told.
fn command_of(words: &[String]) -> String {
    let all = Cli::command();
    let known = words.iter().skip(1).find(|word| all.find_subcommand(word).is_some());
    known.cloned().unwrap_or_else(|| "galvani".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{clearer, command_of, report, wants_json};
    use crate::args::Cli;
    use clap::Parser;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn json_is_asked_for_anywhere_before_the_other_commands_words() {
        for line in [
            "galvani -o json put",
            "galvani put k -o json",
            "galvani put k -ojson",
            "galvani put k -o=jsonl",
            "galvani put k -qvo json",
            "galvani put k --output json",
            "galvani --output=JSON put k",
        ] {
            assert!(wants_json(&words(line), None), "{line}");
        }
        for line in [
            "galvani put json",
            "galvani put k -o table",
            "galvani put k -o xml",
            "galvani put k -o",
            "galvani put o json",
            "galvani update k -- cmd -o json",
        ] {
            assert!(!wants_json(&words(line), None), "{line}");
        }
        assert!(wants_json(&words("galvani put k"), Some("json".to_owned())));
        assert!(!wants_json(&words("galvani put k -o raw"), Some("json".to_owned())));
    }

    #[test]
    fn a_negative_value_is_told_what_is_allowed() {
        for (line, says) in [
            ("galvani put k v --ttl -5", "is not a time such as 10s"),
            ("galvani bench --rate -5", "is not a number from 1 on"),
            ("galvani bench --duration -5s", "is not a time such as"),
            ("galvani get k --timeout -1s", "is not a time such as"),
            ("galvani dev slow n3 -5ms", "is not a time such as"),
            ("galvani dev lossy n3 -5%", "is not a share from 0% to 100%"),
        ] {
            let words: Vec<_> = words(line).into_iter().map(Into::into).collect();
            Cli::try_parse_from(&words).expect_err(line);
            let error = clearer(&words).unwrap_or_else(|| panic!("{line}")).to_string();
            assert!(error.contains(says) && !error.contains("tip:"), "{line}: {error}");
        }
        for line in ["galvani get k -9", "galvani put k -5", "galvani -1", "galvani get k"] {
            let words: Vec<_> = words(line).into_iter().map(Into::into).collect();
            assert!(clearer(&words).is_none(), "{line}");
        }
    }

    #[test]
    fn the_parsers_words_become_the_parts_of_a_block() {
        let line = words("galvani put k -o json");
        let error = Cli::try_parse_from(&line).expect_err("no value");
        let json = report(&error.to_string(), &command_of(&line)).to_json("put");
        assert_eq!(json["schema"], "galvani.error/1");
        assert_eq!((&json["exit"], &json["kind"]), (&2.into(), &"usage".into()));
        assert_eq!(json["next"][0], "galvani help put");
        let what = json["error"].as_str().expect("text");
        assert!(!what.is_empty() && !what.contains("error:") && !what.contains('\n'), "{json}");
        assert_eq!(json["why"][0], "<VALUE|-|@FILE>", "{json}");
    }
}
