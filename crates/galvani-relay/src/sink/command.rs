//! A command that is run once for each event.
//!
//! The event is its standard input and a few variables; success is its exit status 0. What it prints
//! goes where the relay's own output goes. A try that takes too long is ended by SIGKILL.

use crate::outgoing::Outgoing;
use crate::sink::{Failure, Sent, Sink};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// A command, as its words.
pub(crate) struct CommandSink {
    argv: Vec<String>,
}

impl CommandSink {
    /// `argv` has at least the program.
    pub(crate) fn new(argv: Vec<String>) -> CommandSink {
        CommandSink { argv }
    }

    fn start(&self, event: &Outgoing) -> Result<Child, Failure> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).stdin(Stdio::piped()).kill_on_drop(true);
        for (name, value) in &event.attributes {
            let name = name.to_ascii_uppercase().replace('-', "_");
            command.env(format!("GALVANI_{name}"), value);
        }
        command.env("GALVANI_EVENT_ID", &event.id).env("GALVANI_TOPIC", &event.subject);
        // A variable cannot have a zero byte; the body has every key.
        match event.key.contains(&0) {
            false => command.env("GALVANI_KEY", OsStr::from_bytes(&event.key)),
            true => command.env_remove("GALVANI_KEY"),
        };
        command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => {
                Failure::unusable(format!("cannot run {}: {e}", self.argv[0]))
            }
            _ => Failure::down(format!("cannot start {}: {e}", self.argv[0])),
        })
    }
}

impl Sink for CommandSink {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        let event = &events[0];
        let mut child = match self.start(event) {
            Ok(child) => child,
            Err(failure) => return Sent::failed(failure),
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A command may be done with an event without having read it.
            let write = async {
                stdin.write_all(&event.body).await?;
                stdin.write_all(b"\n").await?;
                stdin.shutdown().await
            };
            match write.await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(e) => return Sent::failed(Failure::passing(format!("cannot be fed: {e}"))),
            }
        }
        match child.wait().await {
            Ok(status) if status.success() => Sent::one(false),
            Ok(status) => Sent::failed(Failure::passing(status.to_string())),
            Err(e) => Sent::failed(Failure::passing(format!("cannot be waited for: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests;
