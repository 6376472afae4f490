//! The control socket of a lagged replica: one line of JSON each way, as often as one likes.
//!
//! It lies in the replica's directory, with mode 0600, and answers only the account that runs the
//! replica, and root. Questions go to the loop that owns the replica, one at a time; a connection that
//! says nothing sensible is closed. Next to read: `run.rs`.

use super::{shown, socket_of};
use crate::exit::Exit;
use crate::report::Report;
use galvani_lagged::control::{Answer, Ask, LINE_BYTES_MAX};
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, unix};
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for their turn; more wait in their connections.
const WAITING: usize = 16;

/// A question, and whom to answer.
pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) to: oneshot::Sender<Answer>,
}

/// A way for questions to whoever has the second half; dropped, the socket answers nobody.
pub(super) fn questions() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(WAITING)
}

/// Opens the socket in `dir`, which this process holds: one that is left from an earlier process goes.
/// What is asked there goes to `sender`.
pub(super) fn listen(dir: &Path, sender: mpsc::Sender<Asked>) -> io::Result<()> {
    let path = socket_of(dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // Too many open files, say: it is tried again with the next one.
                    Err(_) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                },
            };
            // The mode says the same; before it was set somebody else may have got in.
            if stream.peer_cred().is_ok_and(|peer| is_allowed(peer.uid())) {
                tokio::spawn(serve(stream.into_split(), sender.clone()));
            }
        }
    });
    Ok(())
}

fn is_allowed(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() || uid == 0
}

async fn serve(
    (reader, mut writer): (unix::OwnedReadHalf, unix::OwnedWriteHalf),
    to: mpsc::Sender<Asked>,
) {
    let mut reader = tokio::io::BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = LINE_BYTES_MAX as u64;
        let read = (&mut reader).take(most).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|bytes| bytes > 0) || line.last() != Some(&b'\n') {
            return;
        }
        let answer = match serde_json::from_slice(&line) {
            Err(error) => Answer::Refused { why: format!("not a question: {error}") },
            Ok(ask) => {
                let (sender, answer) = oneshot::channel();
                if to.send(Asked { ask, to: sender }).await.is_err() {
                    return;
                }
                match answer.await {
                    Ok(answer) => answer,
                    Err(_) => return,
                }
            }
        };
        let Ok(mut text) = serde_json::to_vec(&answer) else { return };
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() {
            return;
        }
    }
}

/// A connection to the replica that runs in a directory.
pub(super) struct Link {
    dir: PathBuf,
    /// The command that starts it.
    start: String,
    stream: BufReader<UnixStream>,
}

impl Link {
    /// Connects to the replica that runs in `dir`, and is started with the command `start`.
    pub(super) fn open(dir: &Path, start: String) -> Result<Link, Report> {
        match UnixStream::connect(socket_of(dir)) {
            Ok(stream) => {
                Ok(Link { dir: dir.to_path_buf(), start, stream: BufReader::new(stream) })
            }
            Err(error) => Err(unreachable(dir, start, &error)),
        }
    }

    fn lost(&self, error: &io::Error) -> Report {
        unreachable(&self.dir, self.start.clone(), error)
    }

    /// The directory it runs in.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Asks, and waits for the answer. A refusal is a block.
    pub(super) fn ask(&mut self, ask: &Ask) -> Result<Answer, Report> {
        let mut line = serde_json::to_vec(ask)
            .map_err(|error| Report::unexpected(format!("lagged: the question: {error}")))?;
        line.push(b'\n');
        let read = self.stream.get_mut().write_all(&line).and_then(|()| {
            line.clear();
            (&mut self.stream).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)
        });
        match read {
            Err(error) => return Err(self.lost(&error)),
            Ok(_) if line.last() != Some(&b'\n') => {
                return Err(self.lost(&io::Error::from(ErrorKind::UnexpectedEof)));
            }
            Ok(_) => {}
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Refused { why }) => {
                let status = shown::again(&self.dir, "status");
                Err(Report::new(Exit::Refused, format!("lagged: {why}")).next("see", status))
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                Err(Report::unexpected(format!("lagged: its answer is not one: {error}")))
            }
        }
    }
}

fn unreachable(dir: &Path, start: String, error: &io::Error) -> Report {
    let what = format!("lagged: no lagged replica answers in {}", dir.display());
    let report = match error.kind() {
        ErrorKind::PermissionDenied => {
            Report::new(Exit::NotTrusted, what).why("only the account that runs it may ask it")
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Report::new(Exit::NoServer, what).why("it does not run")
        }
        _ => Report::new(Exit::NoServer, what).why(error.to_string()),
    };
    report.next("start it", start)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Link, listen, questions, socket_of};
    use crate::exit::Exit;
    use galvani_lagged::Status;
    use galvani_lagged::control::{Answer, Ask};
    use std::os::unix::fs::PermissionsExt;

    fn on_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test);
    }

    #[test]
    fn a_question_is_answered_and_nobody_else_may_ask() {
        on_runtime(async {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(socket_of(dir.path()), "left over").expect("written");
            let (sender, mut asked) = questions();
            listen(dir.path(), sender).expect("free");
            let mode = std::fs::metadata(socket_of(dir.path())).expect("there").permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
            let path = dir.path().to_owned();
            let asker = tokio::task::spawn_blocking(move || {
                let mut link = Link::open(&path, String::new())
                    .map_err(|report| report.to_string())
                    .expect("open");
                [Ask::Status, Ask::Pause].map(|it| link.ask(&it).expect("answered"))
            });
            for expected in [Ask::Status, Ask::Pause] {
                let Asked { ask, to } = asked.recv().await.expect("asked");
                assert_eq!(ask, expected);
                to.send(Answer::Status(Status::default())).expect("waits");
            }
            let answers = asker.await.expect("no panic");
            assert_eq!(answers, [(); 2].map(|()| Answer::Status(Status::default())));
        });
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        use std::io::{BufRead, BufReader, Write};
        on_runtime(async {
            let dir = tempfile::tempdir().expect("a directory");
            let (sender, _asked) = questions();
            listen(dir.path(), sender).expect("free");
            let path = socket_of(dir.path());
            let line = tokio::task::spawn_blocking(move || {
                let mut stream = std::os::unix::net::UnixStream::connect(path).expect("open");
                stream.write_all(b"{\"ask\":\"everything\"}\n").expect("written");
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).expect("answered");
                line
            });
            let line = line.await.expect("no panic");
            assert!(line.contains("refused") && line.contains("not a question"), "{line}");
        });
    }

    #[test]
    fn one_that_does_not_run_is_said_to_and_how_to_start_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let start = "galvani lagged --dir d".to_owned();
        let Err(report) = Link::open(dir.path(), start) else { panic!("nobody is there") };
        assert_eq!(report.exit, Exit::NoServer);
        assert!(report.to_string().contains("galvani lagged --dir"), "{report}");
    }
}
