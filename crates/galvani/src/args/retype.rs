//! From arguments back to the line that was typed, with every option that means something.
//!
//! One function a command. What these make is parsed again by the tests and must come out the same:
//! an option added to a command must be added here too.

use crate::args::bench::{Files, Pages, Run};
use crate::args::bucket::{Create, Policy, Shown};
use crate::args::data::{
    Copies, Del, Export, Get, Import, InBucket, Ls, Put, ReadQuorum, RepairWhen, Update,
    WriteQuorum,
};
use crate::args::feed::{Feed, Since};
use crate::args::line::Line;
use crate::args::{Format, Global};
use clap::ValueEnum;
use galvani_client::{BucketName, Quorum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Options as a [`Line`] takes them.
pub(crate) type Options = Vec<(&'static str, Option<Vec<u8>>)>;

impl Global {
    /// Which cluster: for every command on the same one. What the environment says is left out.
    pub(crate) fn cluster(&self, context: Option<&str>) -> Options {
        let mut options = Options::new();
        if let Some(name) = context.or(self.ctx.as_deref()) {
            push(&mut options, "--ctx", "GALVANI_CONTEXT", name.as_bytes());
        }
        if !self.server.is_empty() {
            push(&mut options, "--server", "GALVANI_SERVER", self.server.join(",").as_bytes());
        }
        if let Some(dir) = &self.identity {
            let dir = dir.as_os_str().as_encoded_bytes();
            push(&mut options, "--identity", "GALVANI_IDENTITY", dir);
        }
        options
    }

    /// How it is to be done: for the same command again.
    pub(crate) fn manner(&self) -> Options {
        let mut options = Options::new();
        if let Some(node) = &self.via {
            options.push(("--via", Some(node.as_bytes().to_owned())));
        }
        if let Some(timeout) = self.timeout {
            push(&mut options, "--timeout", "GALVANI_TIMEOUT", time(timeout).as_bytes());
        }
        if self.output != Format::Table {
            push(&mut options, "-o", "GALVANI_OUTPUT", word(self.output).as_bytes());
        }
        options.extend(
            [("-q", self.quiet), ("-v", self.verbose)]
                .iter()
                .filter_map(|(name, on)| on.then_some((*name, None))),
        );
        options
    }
}

fn push(options: &mut Options, name: &'static str, variable: &str, value: &[u8]) {
    let told = std::env::var_os(variable);
    if told.is_none_or(|told| told.as_encoded_bytes() != value) {
        options.push((name, Some(value.to_owned())));
    }
}

/// A value that is not the default.
fn other<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

/// The name of a choice on the command line.
fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Line {
    /// A bucket, unless it is what is meant anyway.
    pub(crate) fn in_bucket(self, bucket: &BucketName) -> Line {
        match bucket.as_str() {
            "default" if std::env::var_os("GALVANI_BUCKET").is_none() => self,
            name => self.with("-b", name),
        }
    }

    fn bucket(self, bucket: &InBucket) -> Line {
        self.in_bucket(&bucket.bucket)
    }

    fn writing(self, write: &WriteQuorum) -> Line {
        self.given("-w", write.w).given("--pw", write.pw).given("--dw", write.dw)
    }

    /// What a read asks for, without `--strict`.
    pub(crate) fn reading(self, read: &ReadQuorum) -> Line {
        self.given("-r", read.r).given("--pr", read.pr)
    }

    fn copies(self, copies: &Copies) -> Line {
        self.given("-n", copies.n).flag("--strict", copies.strict)
    }

    fn path(self, name: &'static str, path: Option<&std::path::PathBuf>) -> Line {
        match path {
            Some(path) => self.with_path(name, path),
            None => self,
        }
    }
}

/// A time to live as it can be typed again.
fn ttl(ttl: Duration) -> String {
    match ttl.is_zero() {
        true => "none".to_owned(),
        false => humantime::format_duration(ttl).to_string().replace(' ', ""),
    }
}

impl Put {
    pub(crate) fn line(&self) -> Line {
        let mut line = Line::new("put").place(&self.key);
        if let Some(value) = &self.value {
            line = line.place(value.as_encoded_bytes());
        }
        for emit in &self.emit {
            line = line.another("--emit", emit.as_str());
        }
        for payload in &self.payload {
            line = line.another("--payload", payload.display());
        }
        line.given("--emit-key", self.emit_key.as_ref())
            .flag("--emit-only", self.emit_only)
            .given("--context", self.context.as_ref())
            .flag("--blind", self.blind)
            .given("--take", self.take)
            .path("--context-out", self.context_out.as_ref())
            .given("--ttl", self.ttl.map(ttl))
            .writing(&self.write)
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }
}

impl Feed {
    pub(crate) fn line(&self) -> Line {
        let mut line = Line::new("feed");
        if let Some(prefix) = &self.prefix {
            line = line.place(prefix);
        }
        for bucket in &self.bucket {
            line = line.another("--bucket", bucket.as_str());
        }
        for topic in &self.topic {
            line = line.another("--topic", topic.as_str());
        }
        line.given("--from", self.from.and_then(from))
            .given("--until", self.until.map(word))
            .given("--limit", self.limit)
            .path("--token", self.token.as_ref())
            .given("--group", self.group.as_ref())
            .flag("--keys-only", self.keys_only)
            .given("--visibility", self.visibility.map(word))
            .given("--on-gap", self.on_gap.map(word))
            .flag("--checkpoints", self.checkpoints)
            .given("--to", self.to.as_ref())
            .path("--secret-file", self.secret_file.as_ref())
            .flag("--force", self.force)
            .given("--tries", self.tries)
            .tail(&self.command)
    }
}

/// A beginning as it can be typed again; `None` for the default.
pub(crate) fn from(from: Since) -> Option<String> {
    match from {
        Since::Now => None,
        Since::Start => Some("start".to_owned()),
        Since::From(when) => Some(when.to_string()),
    }
}

impl Get {
    pub(crate) fn line(&self) -> Line {
        Line::new("get")
            .place(&self.key)
            .given("--siblings", self.siblings.map(word))
            .path("--context-out", self.context_out.as_ref())
            .given("--repair", other(self.repair, RepairWhen::Background).map(word))
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }
}

impl Del {
    pub(crate) fn line(&self) -> Line {
        let line = self.keys.iter().fold(Line::new("del"), |line, key| line.place(key));
        let line = match &self.prefix {
            Some(prefix) => line.with_bytes("--prefix", prefix),
            None => line,
        };
        line.flag("--yes", self.yes)
            .given("--context", self.context.as_ref())
            .writing(&self.write)
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }

    /// The same for one of its keys.
    pub(crate) fn line_of(&self, key: &[u8]) -> Line {
        Line::new("del")
            .place(key)
            .given("--context", self.context.as_ref())
            .writing(&self.write)
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }
}

impl Update {
    pub(crate) fn line(&self) -> Line {
        Line::new("update")
            .place(&self.key)
            .flag("--exact", self.exact)
            .given("--ttl", self.ttl.map(ttl))
            .writing(&self.write)
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
            .tail::<&OsString>(&self.command)
    }
}

impl Ls {
    pub(crate) fn line(&self) -> Line {
        let line = match self.prefix.is_empty() {
            true => Line::new("ls"),
            false => Line::new("ls").place(&self.prefix),
        };
        line.flag("--conflicts", self.conflicts)
            .given("--limit", self.limit)
            .flag("--keys-only", self.keys_only)
            .reading(&self.read)
            .flag("--strict", self.strict)
            .bucket(&self.bucket)
    }
}

impl Import {
    pub(crate) fn line(&self) -> Line {
        Line::new("import")
            .place(self.file.as_os_str().as_encoded_bytes())
            .given("-c", other(self.concurrency, 64))
            .flag("--blind", self.blind)
            .given("--skip", other(self.skip, 0))
            .path("--failed", self.failed.as_ref())
            .given("--patience", other(self.patience, PATIENCE).map(time))
            .given("--max-failures", other(self.max_failures.get(), 1000))
            .writing(&self.write)
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }
}

impl Export {
    pub(crate) fn line(&self) -> Line {
        let line = Line::new("export").place(self.file.as_os_str().as_encoded_bytes());
        let line = match self.prefix.is_empty() {
            true => line,
            false => line.with_bytes("--prefix", &self.prefix),
        };
        line.given("-c", other(self.concurrency, 64))
            .given("--patience", other(self.patience, PATIENCE).map(time))
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }
}

impl Create {
    pub(crate) fn line(&self) -> Line {
        Line::new("bucket create")
            .place(self.name.as_str())
            .given("-n", self.n)
            .given("-r", other(self.r, Quorum::Majority))
            .given("-w", other(self.w, Quorum::Majority))
            .given("--policy", other(self.policy, Policy::Siblings).map(word))
            .given("--max-value", other(self.max_value, 1 << 20))
            .given("--ttl", other(self.ttl, Duration::ZERO).map(ttl))
            .given("--feed", other(self.feed, Shown::New).map(word))
    }
}

impl Run {
    /// The line of `bench`, or of one of its verbs.
    pub(crate) fn line(&self, command: &'static str) -> Line {
        let Files { save, pages: Pages { hlog, html, ycsb_output } } = &self.files;
        let file = |line: Line, name, path: &Option<PathBuf>| match path {
            Some(path) => line.with_path(name, path),
            None => line,
        };
        let line = Line::new(command)
            .place(word(self.workload()))
            .given("-c", self.concurrency)
            .given("--rate", self.rate)
            .flag("--overload", self.overload)
            .given("--keys", other(self.keys.get(), 10_000))
            .given("--value", self.value)
            .given("--count", self.count)
            .given("--duration", self.duration.map(time))
            .given("--warmup", other(self.warmup, Duration::from_secs(1)).map(time))
            .given("--reads", other(self.reads, 50))
            .given("--distribution", self.distribution.map(word))
            .given("--seed", other(self.seed, 1))
            .flag("--no-check", self.no_check);
        let line = file(line, "--save", save);
        let line = file(line, "--hlog", hlog);
        let line = file(line, "--html", html);
        file(line, "--ycsb-output", ycsb_output)
            .writing(&self.write)
            .reading(&self.read)
            .copies(&self.copies)
            .bucket(&self.bucket)
    }
}

/// The default of `--patience`.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
