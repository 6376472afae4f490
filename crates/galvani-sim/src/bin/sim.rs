//! The runner of the simulator: many seeds, a summary, and on failure one command that replays it.
//!
//! It has arguments, a clock and threads; the crate it drives has none. Usage: see `USAGE`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A runner drives pure code from outside.

use galvani_sim::{Coverage, Mutant, Outcome, RunOptions, run_seed};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

const USAGE: &str = "\
usage: cargo xtask sim [--seeds N] [--from S] [--jobs J] [--keep-going] [--mutant NAME]
                       [--lines L] [--verbose]
       cargo xtask sim --seed S [--mutant NAME] [--verbose]

  --seeds N      how many seeds to run (100)
  --from S       the first seed (1)
  --seed S       one seed: the same as --from S --seeds 1
  --jobs J       threads (what the machine has)
  --keep-going   run all of them whatever fails, and name each that does
  --mutant NAME  plant a bug; without a name's match, list them
  --lines L      how many of its last events a failed seed shows (100)
  --verbose      show what each seed drew, and the last events of one that failed
";

struct Args {
    seeds: u64,
    from: u64,
    jobs: usize,
    mutant: Option<Mutant>,
    verbose: bool,
    keep_going: bool,
    lines: usize,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let jobs = thread::available_parallelism().map_or(1, |count| count.get());
    let (verbose, keep_going) = (false, false);
    let mut parsed =
        Args { seeds: 100, from: 1, jobs, mutant: None, verbose, keep_going, lines: 100 };
    while let Some(flag) = args.next() {
        let mut number = || {
            let value = args.next().ok_or(format!("{flag} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{flag}: {value:?} is not a number"))
        };
        match flag.as_str() {
            "--seeds" => parsed.seeds = number()?,
            "--from" => parsed.from = number()?,
            "--seed" => (parsed.from, parsed.seeds) = (number()?, 1),
            "--jobs" => parsed.jobs = number()?.clamp(1, 256) as usize,
            "--mutant" => {
                let name = args.next().unwrap_or_default();
                let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
                let unknown = |error| format!("{error}; there are: {}", names.join(" "));
                parsed.mutant = Some(name.parse().map_err(unknown)?);
            }
            "--lines" => parsed.lines = number()?.clamp(1, 10_000_000) as usize,
            "--verbose" => parsed.verbose = true,
            "--keep-going" => parsed.keep_going = true,
            _ => return Err(format!("unknown argument {flag:?}\n{USAGE}")),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("sim: {error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut coverage = Coverage::default();
    let mut failed: Vec<Outcome> = Vec::new();
    let (mut done, mut events, mut micros) = (0u64, 0u64, 0u64);
    run_all(&args, |outcome| {
        done += 1;
        events += outcome.events;
        micros += outcome.micros;
        coverage.merge(&outcome.coverage);
        if args.verbose {
            println!("seed {}: {} [{:016x}]", outcome.seed, outcome.profile, outcome.trace_hash);
        }
        if let Some(violation) = &outcome.violation {
            if args.keep_going {
                println!("FAILED seed {}: {violation}", outcome.seed);
            }
            failed.push(outcome);
        }
        if done.is_multiple_of(PROGRESS) {
            eprintln!("{done} seeds, {} failed, {:.0?}", failed.len(), started.elapsed());
        }
    });
    let took = started.elapsed().as_secs_f64();
    let virtual_s = micros as f64 / 1e6;
    println!("{coverage}");
    println!(
        "{done} seeds, {events} events, {virtual_s:.0} virtual seconds in {took:.1} s \
         ({:.0} events/s, {:.0}x real time)",
        events as f64 / took,
        virtual_s / took
    );
    match failed.iter().min_by_key(|outcome| outcome.seed) {
        None => ExitCode::SUCCESS,
        Some(outcome) => {
            show_failure(&args, outcome);
            println!("{} of {done} seeds failed", failed.len());
            ExitCode::FAILURE
        }
    }
}

/// Seeds between two lines of progress.
const PROGRESS: u64 = 1_000;

/// Runs the seeds on `jobs` threads and hands each outcome on; after a failure no further seed is begun,
/// unless all are asked for.
fn run_all(args: &Args, mut on_outcome: impl FnMut(Outcome)) {
    let next = AtomicU64::new(args.from);
    let end = args.from.saturating_add(args.seeds);
    let options = RunOptions { mutant: args.mutant, keep_lines: 0 };
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = run_seed(seed, options);
                    if outcome.violation.is_some() && !args.keep_going {
                        next.store(end, Ordering::Relaxed);
                    }
                    if send.send(outcome).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        receive.iter().for_each(&mut on_outcome);
    })
}

/// Runs a failed seed again with text, and says how to do that.
fn show_failure(args: &Args, outcome: &Outcome) {
    let options = RunOptions { mutant: args.mutant, keep_lines: args.lines };
    let again = run_seed(outcome.seed, options);
    println!("\nseed {}: {}", outcome.seed, outcome.profile);
    for line in &again.lines {
        println!("{line}");
    }
    if let Some(violation) = &outcome.violation {
        println!("\nFAILED seed {}: {violation}", outcome.seed);
    }
    if again.trace_hash != outcome.trace_hash {
        println!("and the same seed went another way the second time: determinism is broken");
    }
    let mutant = args.mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant}"));
    println!("replay: cargo xtask sim --from {} --seeds 1 --verbose{mutant}", outcome.seed);
}
