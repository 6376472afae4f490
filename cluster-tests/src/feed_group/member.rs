//! A member of the group: a process of the program, whose lines are read as they come.
//!
//! It can be killed at any moment; then a last line of which only the beginning came counts as not
//! delivered. Dropping it kills it, too.

use super::Log;
use super::verdict::Seen;
use crate::cluster::Cluster;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};

/// The process, and the thread that reads it.
pub(super) struct Member {
    index: usize,
    child: Child,
    reader: Option<JoinHandle<()>>,
    /// What it says beside its events.
    talk: PathBuf,
}

impl Member {
    /// Joins the group, which shows all keys that begin with `k`.
    pub(super) fn start(cluster: &Cluster, group: &str, index: usize, log: Log) -> Member {
        let talk = cluster.scratch().join(format!("member-{index}.log"));
        let file = std::fs::File::create(&talk).expect("a file in the test's own directory");
        let mut command = cluster.command();
        command.args(["feed", "k", "--bucket", "default", "--group", group, "-o", "jsonl"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("the program is built");
        let stdout = child.stdout.take().expect("it is a pipe");
        let reader = Some(thread::spawn(move || read(stdout, index, &log)));
        Member { index, child, reader, talk }
    }

    /// Panics with what it said if it has ended.
    pub(super) fn lives(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            let said = std::fs::read_to_string(&self.talk).unwrap_or_default();
            panic!("member {} ended with {status}: {said}", self.index);
        }
    }

    /// SIGKILL. What it had printed is in the log when this returns.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has said why.
            let _ = reader.join();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(stdout: impl Read, member: usize, log: &Log) {
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        if line.last() == Some(&b'\n') {
            let seen = seen(&line, member);
            log.lock().expect("no holder panics").extend(seen);
        }
        line.clear();
    }
}

/// The write that a line is about; `None` for lines that are about something else.
fn seen(line: &[u8], member: usize) -> Option<Seen> {
    let event: Value = serde_json::from_slice(line).expect("a document a line");
    if event["schema"] != "galvani.feed.change/1" {
        return None;
    }
    let version = event["value"].as_str().and_then(|value| value.parse().ok());
    let write = (event["key"].as_str()?.to_owned(), version.expect("writers store numbers"));
    Some(Seen { member, write, late: event["late"] == true, again: !event["dup_of"].is_null() })
}
