//! Repeats one of the hot functions, so that callgrind can count its instructions.
//!
//! `hot` lists the cases, `hot NAME [COUNT]` runs one. What is to be counted happens in
//! [`measured`], which callgrind is told to collect in; what it needs is made before.
//! `cargo xtask callgrind` runs all of them.

use galvani_benches::cases::{CASES, build};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        for (name, what) in CASES {
            println!("{name:<18} {what}");
        }
        return ExitCode::SUCCESS;
    };
    let count = match args.next().map_or(Ok(1_000), |count| count.parse()) {
        Ok(count) => count,
        Err(_) => return usage("COUNT is a number"),
    };
    // A tenth more warms up: caches of the program's own, capacities, first rows.
    let warm_up = count / 10;
    let Some(mut op) = build(&name, count + warm_up) else {
        return usage(&format!("there is no case {name}"));
    };
    (0..warm_up).for_each(|_| op());
    measured(&mut op, count);
    ExitCode::SUCCESS
}

fn usage(what: &str) -> ExitCode {
    eprintln!("hot: {what}\nusage: hot [NAME [COUNT]]; without NAME it lists the names");
    ExitCode::from(2)
}

/// All that is counted. Its name is known to `tools/xtask/src/callgrind.rs`.
#[inline(never)]
fn measured(op: &mut dyn FnMut(), count: u64) {
    for _ in 0..count {
        op();
    }
}
