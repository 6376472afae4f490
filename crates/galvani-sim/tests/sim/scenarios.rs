//! Text scenarios with expected output, one file each under `scenarios/`.
//!
//! A block is a command, a line `----`, and what it says; blocks are parted by empty lines.
//! `UPDATE=1 cargo test -p galvani-sim --test sim scenarios` writes what is said now into the files:
//! read the difference before you keep it.

#![allow(clippy::disallowed_methods)] // A runner reads its scenarios from files.

use galvani_sim::Script;
use std::fs;
use std::path::{Path, PathBuf};

const RULE: &str = "----";

#[test]
fn every_scenario_says_what_it_said() {
    let update = std::env::var_os("UPDATE").is_some();
    let files = scenarios();
    assert!(files.len() >= 10, "scenarios are missing: {files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a scenario is readable text");
        let said = play(&text);
        if said == text {
            continue;
        }
        if update {
            fs::write(&path, said).expect("a scenario is writable when it is updated");
        } else {
            wrong.push(format!("{}\n{}", path.display(), difference(&text, &said)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A scenario with what its commands say now.
fn play(text: &str) -> String {
    let mut script = Script::new();
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        out.push_str(&format!("{line}\n{RULE}\n{}\n", script.execute(line)));
        // Skip what it said last time, up to the end of the block.
        let had_blank = lines.by_ref().any(str::is_empty);
        if had_blank {
            out.push('\n');
        }
    }
    out
}

fn difference(was: &str, is: &str) -> String {
    let pairs = was.lines().zip(is.lines());
    let first = pairs.enumerate().find(|(_, (was, is))| was != is);
    match first {
        Some((at, (was, is))) => format!("  line {}: expected {was:?}, got {is:?}", at + 1),
        None => "  one is longer than the other".into(),
    }
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(folder).expect("the scenarios are beside the tests");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "txt")).collect();
    paths.sort_unstable();
    paths
}
