//! `memnet`: clusters of real nodes in memory, one a seed. See `memnet/mod.rs`.

use galvani_cluster_tests::memnet::nemesis::Fault;
use galvani_cluster_tests::memnet::{Plant, Settings, run};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("error  {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut failed = Vec::new();
    for seed in asked.from..asked.from.saturating_add(asked.seeds) {
        let report = run(Settings { seed, time: asked.time, plant: asked.plant, only: asked.only });
        if asked.verbose {
            report.log.iter().for_each(|line| println!("{line}"));
            println!("{:?}\n{:?}", report.faults, report.tally.errors);
        }
        if asked.verbose || !report.passed() {
            println!("{report}");
        }
        if !report.passed() {
            failed.push(seed);
        }
    }
    println!("{} seeds, {} failed {failed:?}, {:?}", asked.seeds, failed.len(), began.elapsed());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Asked {
    seeds: u64,
    from: u64,
    time: Duration,
    plant: Option<Plant>,
    only: Option<Fault>,
    verbose: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let time = Duration::from_secs(10);
    let mut asked = Asked { seeds: 20, from: 1, time, plant: None, only: None, verbose: false };
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            return Err("options of memnet".to_owned());
        }
        if word == "--verbose" {
            asked.verbose = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--seeds" => asked.seeds = number()?,
            "--from" => asked.from = number()?,
            "--seconds" => asked.time = Duration::from_secs(number()?),
            "--plant" => {
                asked.plant = Some(match value.as_str() {
                    "half-open" => Plant::HalfOpen,
                    "cut-stays" => Plant::CutStays,
                    "disks-lie" => Plant::DisksLie,
                    "loss-unnoticed" => Plant::LossUnnoticed,
                    _ => return Err(format!("{value} is no bug to plant")),
                });
            }
            "--only" => {
                let is_it = |fault: &Fault| format!("{fault:?}").eq_ignore_ascii_case(&value);
                let found = Fault::ALL.into_iter().find(is_it);
                asked.only = Some(found.ok_or_else(|| {
                    format!("{value} is no fault: {:?}", Fault::ALL).to_lowercase()
                })?);
            }
            _ => return Err(format!("{word} is no option of memnet")),
        }
    }
    Ok(asked)
}

const USAGE: &str = "usage: memnet [--seeds N] [--from S] [--seconds N] [--only FAULT] [--verbose]
              [--plant half-open|cut-stays|disks-lie|loss-unnoticed]

Each seed is a cluster of real nodes in memory whose network and hosts break for --seconds (10) of
virtual time; it is judged by what its clients saw and by what all owners hold in the end.
A seed that failed is told with the reason; `--from S --seeds 1 --verbose` repeats it.";
