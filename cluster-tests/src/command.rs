//! One run of the command line: its exit code and what it wrote where.
//!
//! Every run has a deadline and is killed when it passes: a command that hangs is a failure with
//! a name, not a test that never ends.

use crate::wait;
use serde_json::Value;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command, for messages.
    pub line: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its data.
    pub stdout: Vec<u8>,
    /// Its talk.
    pub stderr: String,
}

impl Ran {
    /// Runs `command` with `stdin` until it ends, at most [`COMMAND_TIME`].
    pub fn of(command: &mut Command, stdin: &[u8]) -> Ran {
        let running = Running::start(command, stdin);
        running.finish()
    }

    /// Panics with all it said unless it ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Its data as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|_| panic!("no UTF-8: {self}"))
    }

    /// Its data as one JSON document that carries the schema `schema`.
    #[track_caller]
    pub fn json(&self, schema: &str) -> Value {
        let value: Value = serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self}"));
        assert_eq!(value["schema"], schema, "{self}");
        value
    }

    /// Panics unless its talk contains every one of `parts`.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Ran {
        for part in parts {
            assert!(self.stderr.contains(part), "does not say {part:?}: {self}");
        }
        self
    }

    /// Panics unless its talk is an error in three parts: what failed, why, what to type next.
    #[track_caller]
    pub fn is_three_part_error(self) -> Ran {
        let error = self.stderr.lines().position(|line| line.starts_with("error  "));
        let head = error.unwrap_or_else(|| panic!("no error line: {self}"));
        let rest: Vec<&str> = self.stderr.lines().skip(head + 1).collect();
        // The cause stands behind what failed, or on lines of its own.
        let head = self.stderr.lines().nth(head).unwrap_or_default();
        let why = head.contains(": ") || rest.iter().any(|line| line.starts_with("       "));
        let next = rest.iter().any(|line| is_next(line));
        assert!(why, "no line says why: {self}");
        assert!(next, "no line says what to type next: {self}");
        self
    }

    /// What its error tells to type, in this order: its lines `  first  ..` and `  then   ..`, in words.
    pub fn told(&self) -> Vec<Vec<&str>> {
        let step = |line: &'_ str| -> Option<usize> {
            let head =
                ["  first  ", "  then   "].into_iter().find(|head| line.starts_with(head))?;
            Some(head.len())
        };
        let lines = self.stderr.lines().filter_map(|line| Some(line[step(line)?..].trim()));
        lines.map(|line| line.split(' ').collect()).collect()
    }
}

/// `  try  galvani ..`: two spaces, a word or more, two spaces, something to type.
fn is_next(line: &str) -> bool {
    match line.strip_prefix("  ") {
        Some(rest) if !rest.starts_with(' ') => rest.contains("  "),
        Some(_) | None => false,
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran { line, code, stdout, stderr } = self;
        let shown = String::from_utf8_lossy(&stdout[..stdout.len().min(SHOWN)]);
        write!(f, "{line}\nexit {code:?}\nstdout: {shown}\nstderr: {stderr}")
    }
}

/// A command that runs while the test goes on. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    line: String,
    began: Instant,
    child: Child,
    output: Option<[thread::JoinHandle<Vec<u8>>; 2]>,
}

impl Running {
    /// Starts `command` with `stdin`.
    pub fn start(command: &mut Command, stdin: &[u8]) -> Running {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let line: String = words.join(" ").chars().take(SHOWN).collect();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        let stdin = stdin.to_vec();
        let mut input = child.stdin.take().expect("stdin is a pipe");
        // A command that ends without reading closes the pipe: that is its right.
        thread::spawn(move || input.write_all(&stdin));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let output = Some([collect(stdout), collect(stderr)]);
        Running { line, began: Instant::now(), child, output }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be asked").is_some()
    }

    /// Waits for its end, at most [`COMMAND_TIME`] since its start.
    pub fn finish(mut self) -> Ran {
        let mut status = None;
        let left = COMMAND_TIME.saturating_sub(self.began.elapsed());
        wait::at_most(left, || {
            status = self.child.try_wait().expect("our own child can be asked");
            status.is_some()
        });
        let in_time = status.is_some();
        self.end();
        let output = self.output.take().expect("taken only here");
        let [stdout, stderr] = output.map(|reader| reader.join().expect("reading does not panic"));
        let ran = Ran {
            line: self.line.clone(),
            code: status.and_then(|status| status.code()),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        assert!(in_time, "not over after {COMMAND_TIME:?}: {ran}");
        ran
    }

    fn end(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn collect(mut source: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What was read before an error is still worth showing.
        let _ = source.read_to_end(&mut all);
        all
    })
}

/// Most time one command may take, on a loaded machine and in a debug build.
pub const COMMAND_TIME: Duration = Duration::from_secs(60);
/// Characters of a command and its data that are shown when it fails.
const SHOWN: usize = 2000;
