//! `update KEY -- CMD`: read, let a command merge, write under the context read.
//!
//! The command gets one JSON line per value on stdin and prints the merged value. If others wrote
//! at the same time, the key has siblings after the write: then it is read and merged again, a
//! bounded number of times, with pauses. A command sees its own earlier result among the values
//! then. One that fails in the first round writes nothing.

use crate::args::data::Update;
use crate::commands::put::{ok_line, written_json};
use crate::commands::{Done, options};
use crate::connect::App;
use crate::exit::Exit;
use crate::report::{Report, client, json, mistakes};
use bytes::Bytes;
use galvani_client::Read;
use galvani_model::limits::VALUE_BYTES_MAX;
use std::ffi::OsString;
use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Updates the key.
pub(crate) async fn run(app: &App, args: Update) -> Done {
    let session = app.connect().await?;
    let retype = options::retype("update", &args.bucket.bucket, &args.key, " -- CMD");
    let bucket = session.bucket(&args.bucket);
    let began = Instant::now();
    let mut stored = None;
    for round in 1..=ROUNDS_MAX {
        // Once a round is stored no later failure may say that nothing was written.
        let told = |report: Report| match stored {
            None => report,
            Some(acks) => after_a_round(&report, &args, acks),
        };
        let get = options::read(bucket.get(args.key.clone()), args.copies, args.read);
        let read = get.await.map_err(|error| told(client::report(&error, &retype)))?;
        let value = merged(&args, &read).await.map_err(told)?;
        let put = bucket.put(args.key.clone(), value).after(&read);
        let put = options::write(put, args.copies, args.write);
        let written = put.send().await.map_err(|error| told(client::report(&error, &retype)))?;
        stored = Some(written.acks);
        if written.siblings_now > 1 {
            let now = written.siblings_now;
            app.out.note(&format!("others wrote at the same time ({now} values); round {round}"));
            // Apart from the others, and from each other: writers in step never get through.
            let jitter = u64::from(began.elapsed().subsec_nanos()) % 20;
            let pause = (5u64 << round.min(5)) + jitter * u64::from(round);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            continue;
        }
        if app.out.is_json() {
            let mut map = written_json("galvani.update/1", &written, began.elapsed());
            json::put_bytes(&mut map, "key", &args.key);
            map.insert("rounds".to_owned(), round.into());
            app.out.json(map)?;
        } else if !app.out.quiet && app.out.is_table() {
            app.out.line(&ok_line(&written))?;
        }
        return Ok(Exit::Done);
    }
    let place = mistakes::place(args.bucket.bucket.as_str(), &args.key);
    Err(Report::new(
        Exit::Siblings,
        format!("update {place}: still siblings after {ROUNDS_MAX} rounds"),
    )
    .why("the key is written faster than it can be merged; nothing is lost")
    .next("see", format!("galvani get {place} --siblings table")))
}

/// A failure after an earlier round was stored beside the writes of others.
fn after_a_round(report: &Report, args: &Update, acks: u8) -> Report {
    let place = mistakes::place(args.bucket.bucket.as_str(), &args.key);
    Report::new(Exit::Unknown, format!("update {place}: a later round failed: {}", report.what()))
        .why("AN EARLIER ROUND IS STORED, beside what others wrote at the same time")
        .next("see", format!("galvani get {place} --siblings table"))
        .field("applied", "maybe")
        .field("acks", acks)
}

/// What the command prints for the values read.
async fn merged(args: &Update, read: &Read) -> Result<Bytes, Report> {
    let mut input = Vec::new();
    for sibling in read.siblings.iter().filter(|one| one.value.is_some()) {
        input.extend_from_slice(mistakes::sibling_json(sibling).to_string().as_bytes());
        input.push(b'\n');
    }
    let command = args.command.clone();
    // The client must go on answering its servers while the command runs.
    let ran = tokio::task::spawn_blocking(move || filter(&command, input)).await;
    let mut value = match ran {
        Ok(result) => result?,
        Err(_) => return Err(Report::unexpected("update: the command's thread failed")),
    };
    if !args.exact && value.last() == Some(&b'\n') {
        value.pop();
    }
    Ok(value.into())
}

/// Runs `command` with `input` on stdin; what it prints.
fn filter(command: &[OsString], input: Vec<u8>) -> Result<Vec<u8>, Report> {
    let name = command[0].to_string_lossy().into_owned();
    let failed = |why: String| {
        Report::new(Exit::Refused, format!("update: {name}: {why}"))
            .why("NOTHING WAS WRITTEN")
            .field("kind", "command_failed")
            .field("applied", "no")
    };
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A command may print before it has read all, or never read: its own thread feeds it.
    let feeder = std::thread::spawn(move || match stdin.write_all(&input) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    });
    let mut printed = Vec::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    let read = stdout.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut printed);
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    read.map_err(|error| failed(error.to_string()))?;
    let fed = feeder.join().unwrap_or(Ok(()));
    fed.map_err(|error| failed(format!("stdin: {error}")))?;
    if printed.len() > VALUE_BYTES_MAX {
        return Err(failed(format!("printed more than {VALUE_BYTES_MAX} bytes")));
    }
    match status.success() {
        true => Ok(printed),
        false => Err(failed(format!("{status}"))),
    }
}

/// Merging again helps against a few writers at once, not against a flood.
const ROUNDS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::filter;

    fn words(line: &str) -> Vec<std::ffi::OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn a_command_turns_values_into_a_value() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(filter(&words("cat"), input.clone()).expect("cat"), input);
        assert_eq!(filter(&words("echo done"), input).expect("never reads"), b"done\n");
    }

    #[test]
    fn a_command_that_fails_writes_nothing() {
        for line in ["false", "no-such-command-here"] {
            let report = filter(&words(line), Vec::new()).expect_err(line);
            assert_eq!(report.exit.code(), 5);
            assert!(report.to_string().contains("NOTHING WAS WRITTEN"), "{report}");
        }
    }
}
