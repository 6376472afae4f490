//! `feed-cost`: what writes cost with each kind of feed, and how soon a consumer is shown them.
//!
//! Prints the two tables of `docs/performance.md`. Run it with `--release`. See `feed_cost.rs`.

use galvani_cluster_tests::feed_cost::{Settings, measure};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let Some(settings) = parse(std::env::args().skip(1)) else {
        eprintln!("error  {USAGE}");
        return ExitCode::from(2);
    };
    println!("{settings:?}");
    print!("{}", measure(&settings));
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Settings> {
    let mut settings = Settings::default();
    while let Some(word) = words.next() {
        let value: usize = words.next()?.parse().ok()?;
        let seconds = Duration::from_secs(value as u64);
        match word.as_str() {
            "--rounds" => settings.rounds = value.clamp(1, 1_000),
            "--seconds" => settings.turn = seconds,
            "--lag-seconds" => settings.lag = seconds,
            "--writers" => settings.writers = value.clamp(1, 1_024),
            "--keys" => settings.keys = value,
            "--value" => settings.value = value.clamp(8, 1 << 20),
            _ => return None,
        }
    }
    Some(settings)
}

const USAGE: &str = "options of feed-cost: --rounds 5 --seconds 4 --lag-seconds 8 --writers 32 --keys 10000 --value 100";
