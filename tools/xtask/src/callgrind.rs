//! `cargo xtask callgrind`: instructions per operation of the hot functions.
//!
//! Builds `benches/src/bin/hot.rs` and runs each of its cases under valgrind's callgrind, which
//! counts only inside of the function `measured`. Instructions are counted, not timed: two runs of one
//! build differ by next to nothing, on a busy machine as on a quiet one.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why there are no counts.
#[derive(Debug)]
pub enum Refusal {
    /// valgrind is not on this machine.
    NoValgrind,
    /// A program could not be started, or failed.
    Failed {
        /// Which one, with its arguments.
        program: String,
        /// What it said.
        why: String,
    },
    /// callgrind wrote something that has no total.
    NoTotal {
        /// For which case.
        case: String,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NoValgrind => f.write_str(
                "valgrind is not installed, and nothing was counted: \
                 install it (`apt-get install valgrind`) and run this again",
            ),
            Refusal::Failed { program, why } => write!(f, "{program}: {why}"),
            Refusal::NoTotal { case } => write!(
                f,
                "callgrind counted nothing for {case}: is `measured` still the function in \
                 benches/src/bin/hot.rs that does the work?"
            ),
        }
    }
}

/// Counts every case whose name contains `only`, `count` operations each, and gives `print` a line
/// for each as soon as it is known.
pub fn run(
    root: &Path,
    cargo: OsString,
    count: u64,
    only: &str,
    mut print: impl FnMut(&str),
) -> Result<(), Refusal> {
    match Command::new("valgrind").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refusal::NoValgrind),
        Err(_) | Ok(_) => {}
    }
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "-p", "galvani-benches", "--bin", "hot"]);
    finish(build.current_dir(root))?;
    let hot = target_dir(root).join("release").join("hot");
    let cases = finish(&mut Command::new(&hot))?;
    print(&format!("{:<18} {:>18}  what", "case", "instructions/op"));
    for line in cases.lines() {
        let (name, what) = line.split_once(' ').unwrap_or((line, ""));
        if name.contains(only) {
            let total = count_case(&hot, name, count)?;
            print(&format!("{name:<18} {:>18}  {}", total / count, what.trim()));
        }
    }
    Ok(())
}

fn count_case(hot: &Path, name: &str, count: u64) -> Result<u64, Refusal> {
    let out = std::env::temp_dir().join(format!("callgrind.{}.{name}", std::process::id()));
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(&out);
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--tool=callgrind").arg(file).arg("--toggle-collect=*hot*measured*");
    let ran = finish(valgrind.arg(hot).arg(name).arg(count.to_string()));
    let text = std::fs::read_to_string(&out).unwrap_or_default();
    // Nobody misses it if it stays.
    let _ = std::fs::remove_file(&out);
    ran?;
    total_of(&text).ok_or_else(|| Refusal::NoTotal { case: name.to_owned() })
}

/// The total of all instructions in a file that callgrind wrote; `None` if none was counted.
fn total_of(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    total.split_whitespace().next()?.parse().ok().filter(|total| *total > 0)
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// Runs a program to its end; returns what it printed.
fn finish(command: &mut Command) -> Result<String, Refusal> {
    let program = command.get_program().display().to_string();
    let failed = |why: String| Refusal::Failed { program: program.clone(), why };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}\n{}", output.status, said.trim_end())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Refusal, total_of};

    #[test]
    fn the_total_is_read_and_nothing_counted_is_no_total() {
        let text = "version: 1\nevents: Ir\nfn=(1)\n12 34\n\ntotals: 1234567\n";
        assert_eq!(total_of(text), Some(1_234_567));
        assert_eq!(total_of("events: Ir\ntotals: 0\n"), None);
        assert_eq!(total_of("events: Ir\n"), None);
    }

    #[test]
    fn without_valgrind_the_message_says_what_to_type() {
        assert!(Refusal::NoValgrind.to_string().contains("apt-get install valgrind"));
    }
}
