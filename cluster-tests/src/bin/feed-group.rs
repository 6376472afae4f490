//! `feed-group`: three members of a group follow writers at full speed while a node and a member are
//! killed; a verdict.
//!
//! Run it with `--release --keys 100000`. See `feed_group.rs`.

use galvani_cluster_tests::feed_group::{Settings, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(settings) = parse(std::env::args().skip(1)) else {
        eprintln!("error  options of feed-group: --keys 100000 --versions 2 --writers 32");
        return ExitCode::from(2);
    };
    println!("{settings:?}");
    let verdict = run(&settings);
    println!("{verdict}");
    if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Settings> {
    let mut settings = Settings::default();
    while let Some(word) = words.next() {
        let value: usize = words.next()?.parse().ok()?;
        match word.as_str() {
            "--keys" => settings.keys = value,
            "--versions" => settings.versions = value.max(1) as u64,
            "--writers" => settings.writers = value.clamp(1, 1_024),
            _ => return None,
        }
    }
    Some(settings)
}
