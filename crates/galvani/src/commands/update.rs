//! `update KEY -- CMD`: read, let a command merge, write under the context read.
//!
//! The command gets one JSON line per value on stdin and prints the merged value. If others wrote
//! at the same time, the key has siblings after the write: then it is read and merged again, a
//! bounded number of times, with pauses. A command sees its own earlier result among the values
//! then. One that fails in the first round writes nothing.

use crate::args::data::Update;
use crate::commands::put::{ok_line, written_json};
use crate::commands::{Done, options};
use crate::connect::{App, Session, TimeLeft};
use crate::exit::Exit;
use crate::report::client::{self, Retype};
use crate::report::text::Span;
use crate::report::{Report, json, mistakes};
use bytes::Bytes;
use galvani_client::{Read, Written};
use galvani_model::limits::VALUE_BYTES_MAX;
use std::ffi::OsString;
use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Updates the key.
pub(crate) async fn run(app: &App, args: Update) -> Done {
    let session = app.connect().await.map_err(Report::never_sent)?;
    let bucket = &args.bucket.bucket;
    let retype = options::retype(app, "update", bucket, &args.key, args.line());
    let began = Instant::now();
    let mut time = session.time;
    let mut stored = None;
    for round in 1..=ROUNDS_MAX {
        let written = match one_round(&session, &args, &retype, &mut time).await {
            Ok(written) => written,
            // Once a round is stored no later failure may say that nothing was written.
            Err(report) => {
                return Err(match stored {
                    None => report,
                    Some(acks) => after_a_round(&report, &retype, acks),
                });
            }
        };
        if written.siblings_now <= 1 {
            tell(app, &args, &written, round, began.elapsed())?;
            return Ok(Exit::Done);
        }
        stored = Some(written.acks);
        let now = written.siblings_now;
        app.out.note(&format!("others wrote at the same time ({now} values); round {round}"));
        // Apart from the others, and from each other: writers in step never get through.
        let jitter = u64::from(began.elapsed().subsec_nanos()) % 20;
        let pause = (5u64 << round.min(5)) + jitter * u64::from(round);
        tokio::time::sleep(Duration::from_millis(pause).min(time.left())).await;
        if time.is_over() {
            return Err(still_siblings(&retype, &format!("in {}", Span(began.elapsed()))));
        }
    }
    Err(still_siblings(&retype, &format!("after {ROUNDS_MAX} rounds")))
}

/// Reads, runs the command and writes, within what is left of the time. What the command itself
/// takes does not count.
async fn one_round(
    session: &Session,
    args: &Update,
    retype: &Retype,
    time: &mut TimeLeft,
) -> Result<Written, Report> {
    let bucket = session.bucket(&args.bucket);
    let get = options::read(bucket.get(args.key.clone()), args.copies, args.read);
    let read = get.timeout(time.left()).await;
    let read = read.map_err(|error| client::report(&error, retype).never_sent())?;
    let began = Instant::now();
    let value = merged(args, &read).await?;
    time.extend(began.elapsed());
    let put = bucket.put(args.key.clone(), value).after(&read);
    let mut put = options::write(put, args.copies, args.write).timeout(time.left());
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    put.send().await.map_err(|error| client::report(&error, retype))
}

fn tell(
    app: &App,
    args: &Update,
    written: &Written,
    round: u32,
    took: Duration,
) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = written_json("galvani.update/1", written, took);
        json::put_bytes(&mut map, "key", &args.key);
        map.insert("rounds".to_owned(), round.into());
        app.out.json(map)
    } else if !app.out.quiet && app.out.is_table() {
        app.out.line(&ok_line(written))
    } else {
        Ok(())
    }
}

fn still_siblings(retype: &Retype, how_long: &str) -> Report {
    let subject = &retype.subject;
    Report::new(Exit::Siblings, format!("update {subject}: still siblings {how_long}"))
        .why("the key is written faster than it can be merged; nothing is lost")
        .next("see", retype.about.on_key("get").with("--siblings", "table").to_string())
}

/// A failure after an earlier round was stored beside the writes of others.
fn after_a_round(report: &Report, retype: &Retype, acks: u8) -> Report {
    let subject = &retype.subject;
    let what = format!("update {subject}: a later round failed: {}", report.what());
    Report::new(Exit::Unknown, what)
        .why("AN EARLIER ROUND IS STORED, beside what others wrote at the same time")
        .next("see", retype.about.on_key("get").with("--siblings", "table").to_string())
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
