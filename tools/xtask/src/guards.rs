//! `cargo xtask guards`: every guard of `guards.toml` is taken out once, and its test must notice.
//!
//! What the mutants of the simulator do for whole seeds, for guards that one test holds. It works in a
//! copy of the last commit below `target/guards`, with a target folder of its own: neither the work
//! tree nor its builds are touched. That the table is true of the sources is a test of this crate.
//! Next to read: `guards.toml`; `docs/cases.md` lists all guards.

use crate::upgrade::forget_package;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// One guard, how it is taken out, and the test that notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// In words.
    pub name: String,
    /// The file it stands in, from the root.
    pub file: String,
    /// What stands there, once.
    pub find: String,
    /// What is put there instead.
    pub put: String,
    /// The package of the test.
    pub package: String,
    /// The test's name.
    pub test: String,
}

/// What became of a test without its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It failed, as it must.
    Noticed,
    /// It passed.
    Missed,
    /// There is nothing to tell: it does not build, or no test of that name ran.
    Unknown,
}

/// The table of the repository at `root`; an error says what is wrong with it.
pub fn table(root: &Path) -> Result<Vec<Guard>, String> {
    let path = root.join("tools/xtask/guards.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let table: toml::Table =
        text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    let rows = table.get("guard").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    rows.iter().enumerate().map(|(at, row)| guard(at, row)).collect()
}

fn guard(at: usize, row: &toml::Value) -> Result<Guard, String> {
    let word = |name: &str| {
        let word = row.get(name).and_then(toml::Value::as_str).map(str::to_owned);
        word.ok_or_else(|| format!("guard {} has no {name}", at + 1))
    };
    Ok(Guard {
        name: word("name")?,
        file: word("file")?,
        find: word("find")?,
        put: word("put")?,
        package: word("package")?,
        test: word("test")?,
    })
}

/// The source without the guard. An error says how often it was found, if not once.
pub fn without(source: &str, guard: &Guard) -> Result<String, String> {
    match source.matches(guard.find.as_str()).count() {
        1 => Ok(source.replacen(guard.find.as_str(), &guard.put, 1)),
        found => Err(format!("{}: {:?} stands there {found} times", guard.file, guard.find)),
    }
}

/// What a run of one test says, by its output and whether it succeeded.
pub fn verdict(succeeded: bool, output: &str) -> Verdict {
    let ran =
        |word: &str| output.lines().any(|line| line.starts_with("test ") && line.ends_with(word));
    match (succeeded, ran("... ok"), ran("... FAILED")) {
        (true, true, false) => Verdict::Missed,
        (false, _, true) => Verdict::Noticed,
        _ => Verdict::Unknown,
    }
}

/// Takes out each guard whose name contains `only`, and tells what became of its test. Returns how many
/// were not noticed; an error: something could not be tried at all.
pub fn run(root: &Path, cargo: &OsStr, only: &str, tell: impl Fn(&str)) -> Result<usize, String> {
    let guards: Vec<Guard> =
        table(root)?.into_iter().filter(|guard| guard.name.contains(only)).collect();
    let copy = Copy::of_last_commit(root, cargo)?;
    // All of them first: what is tried after another guard was taken out is built anew in any case.
    let mut programs = BTreeMap::new();
    for guard in &guards {
        let of = (&guard.package, &guard.test);
        if programs.contains_key(&of) {
            continue;
        }
        let Run { verdict, program } = copy.test(guard, &[])?;
        if verdict != Verdict::Missed {
            return Err(format!("{} does not pass with its guard in place", guard.test));
        }
        programs.insert(of, program);
    }
    tell(&format!("{} tests pass with their guards in place", programs.len()));
    let mut missed = 0;
    for guard in &guards {
        let path = copy.source.join(&guard.file);
        let whole =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", guard.file))?;
        write(&path, &without(&whole, guard)?)?;
        // Only the program that the test is in: the others of its package need not be built.
        let run = copy.test(guard, &programs[&(&guard.package, &guard.test)]);
        write(&path, &whole)?;
        let verdict = run?.verdict;
        let word = match verdict {
            Verdict::Noticed => "noticed",
            Verdict::Missed => "MISSED",
            Verdict::Unknown => "DOES NOT BUILD",
        };
        missed += usize::from(verdict != Verdict::Noticed);
        tell(&format!("{word:<8} {}  ({})", guard.name, guard.test));
    }
    tell(&format!("{} guards, {missed} not noticed", guards.len()));
    Ok(missed)
}

/// One run of a test.
struct Run {
    verdict: Verdict,
    program: Vec<String>,
}

/// The words that name the one program in which a test ran; none if there were several, or if it is of a
/// kind that has no name. `names` is what cargo says of programs, `output` what these say, in one order.
pub fn program_of(output: &str, names: &str) -> Vec<String> {
    let names = names.lines().map(str::trim_start);
    let names: Vec<&str> =
        names.filter(|it| it.starts_with("Running ") || it.starts_with("Doc-tests ")).collect();
    let programs: Vec<&str> = output.split("\nrunning ").collect();
    // Before the first program it says nothing but an empty line.
    let is_one = |line: &str| line.starts_with("test ") && line.contains(" ... ");
    let ran = |program: &&str| program.lines().any(is_one);
    let mut ran = programs.iter().skip(1).zip(names).filter(|(program, _)| ran(program));
    let (Some((_, name)), None) = (ran.next(), ran.next()) else { return Vec::new() };
    let file = name.trim_start_matches("Running ").split(" (").next().unwrap_or_default();
    match file.strip_prefix("tests/") {
        Some(file) => {
            let name = file.trim_end_matches("/main.rs").trim_end_matches(".rs");
            vec!["--test".into(), name.into()]
        }
        None if file == "unittests src/lib.rs" => vec!["--lib".into()],
        None => Vec::new(),
    }
}

/// What is built anew for nearly every guard is built fast, and its tests run once.
const UNOPTIMISED: [&str; 2] = [
    "profile.dev.package.galvani-protocol.opt-level=0",
    "profile.dev.package.galvani-storage.opt-level=0",
];

/// A copy of the sources, with builds of its own.
struct Copy {
    source: PathBuf,
    target: PathBuf,
    cargo: OsString,
}

impl Copy {
    fn of_last_commit(root: &Path, cargo: &OsStr) -> Result<Copy, String> {
        let dir = root.join("target/guards");
        let (source, target) = (dir.join("source"), dir.join("target"));
        // Nobody misses it if it is not there.
        let _ = fs::remove_dir_all(&source);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut clone = Command::new("git");
        clone.args(["clone", "--quiet", "--shared"]).arg(root).arg(&source);
        let cloned = clone.status().map_err(|error| format!("git does not start: {error}"))?;
        match cloned.success() {
            true => Ok(Copy { source, target, cargo: cargo.to_owned() }),
            false => Err(format!("git clone: {cloned}")),
        }
    }

    /// Runs a guard's test, in the programs that the words `program` are of; no words: in all.
    fn test(&self, guard: &Guard, program: &[String]) -> Result<Run, String> {
        let mut test = Command::new(&self.cargo);
        test.args(["test", "--locked", "--no-fail-fast", "--package", &guard.package])
            .args(program)
            .arg(&guard.test)
            .args(UNOPTIMISED.iter().flat_map(|setting| ["--config", setting]))
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_TARGET_DIR", &self.target)
            .current_dir(&self.source)
            .stdin(Stdio::null());
        forget_package(&mut test);
        let Output { status, stdout, stderr } =
            test.output().map_err(|error| format!("cargo does not start: {error}"))?;
        let (said, names) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        Ok(Run { verdict: verdict(status.success(), &said), program: program_of(&said, &names) })
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
