//! `cargo xtask`: the chores of this repository.
//!
//! `tidy` checks the house rules, `ci` runs every step that the build server runs, `sim` runs the
//! cluster simulator, `upgrade` replaces an earlier build under load, `guards` takes guards out whose
//! tests must notice, `callgrind` counts instructions.
//! Next to read: `lib.rs`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use xtask::{Tree, callgrind, checks, guards, repository_root, tidy, upgrade};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy [--verbose]   check the house rules; --verbose also lists what is over the aims
  ci                 run all steps of .ci/run
  sim [ARGS]         run the cluster simulator (release build) with ARGS
  upgrade --from REV replace three nodes built from the git revision REV by this build, under load
  guards [NAME]      take out each guard of tools/xtask/guards.toml whose name contains NAME, in a copy of
                     the last commit: its test must notice
  callgrind [CASE]   count instructions per operation of the hot functions whose name contains
                     CASE; needs valgrind
";

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let Some(root) = find_root() else {
        eprintln!("xtask: no workspace here: run it inside the repository");
        return ExitCode::from(2);
    };
    match command.to_str() {
        Some("tidy") => run_tidy(&root, &rest),
        Some("ci") if rest.is_empty() => run(Command::new(root.join(".ci/run")).current_dir(root)),
        Some("sim") => run(Command::new(cargo())
            .args(["run", "--release", "-p", "galvani-sim", "--bin", "sim", "--"])
            .args(rest)
            .current_dir(root)),
        Some("upgrade") => run_upgrade(&root, &rest),
        Some("guards") if rest.len() <= 1 => run_guards(&root, rest.first()),
        Some("callgrind") if rest.len() <= 1 => run_callgrind(&root, rest.first()),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(_) | None => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Cargo tells where this crate lies; a copy of the program run by hand looks from where it is.
fn find_root() -> Option<PathBuf> {
    let start = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    repository_root(&start.or_else(|| env::current_dir().ok())?)
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn run_tidy(root: &Path, args: &[OsString]) -> ExitCode {
    let verbose = match args {
        [] => false,
        [flag] if flag == "--verbose" => true,
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let tree = match Tree::load(root) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("xtask: cannot read the repository: {error}");
            return ExitCode::from(2);
        }
    };
    if verbose {
        let over = checks::size::over_aim(&tree);
        over.iter().for_each(|violation| println!("aim: {violation}"));
        println!("{} files and functions are over the aims", over.len());
    }
    let found = tidy(&tree);
    found.iter().for_each(|violation| println!("{violation}"));
    match found.len() {
        0 => {
            println!("tidy: {} Rust files, no violations", tree.rust_files().count());
            ExitCode::SUCCESS
        }
        count => {
            println!("tidy: {count} violations");
            ExitCode::FAILURE
        }
    }
}

fn run_upgrade(root: &Path, args: &[OsString]) -> ExitCode {
    let revision = match args {
        [flag, revision] if flag == "--from" => revision.to_string_lossy(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match upgrade::build(root, &cargo(), &revision) {
        Ok(old) => run(Command::new(cargo())
            .args(["run", "--locked", "-p", "galvani-cluster-tests", "--bin", "upgrade", "--"])
            .arg("--old")
            .arg(old)
            .current_dir(root)),
        Err(refusal) => {
            eprintln!("xtask: {refusal}");
            ExitCode::from(2)
        }
    }
}

fn run_guards(root: &Path, only: Option<&OsString>) -> ExitCode {
    let only = only.and_then(|only| only.to_str()).unwrap_or_default();
    match guards::run(root, &cargo(), only, |line| println!("{line}")) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(refusal) => {
            eprintln!("xtask: {refusal}");
            ExitCode::from(2)
        }
    }
}

fn run_callgrind(root: &Path, only: Option<&OsString>) -> ExitCode {
    let only = only.and_then(|only| only.to_str()).unwrap_or_default();
    let print = |line: &str| println!("{line}");
    match callgrind::run(root, cargo(), CALLGRIND_COUNT, only, print) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("xtask: {refusal}");
            ExitCode::from(2)
        }
    }
}

/// Operations of each case: enough to make single growing tables vanish in the mean.
const CALLGRIND_COUNT: u64 = 1_000;

fn run(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        // A command ended by a signal has no code of its own.
        Ok(status) => ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("xtask: cannot start {}: {error}", command.get_program().display());
            ExitCode::from(2)
        }
    }
}
