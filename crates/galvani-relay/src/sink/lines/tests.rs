//! Files: torn lines, failing writes, deliveries that are dropped.

use super::{FileJournal, Journal, Lines, whole_lines};
use crate::outgoing::Outgoing;
use crate::sink::{Failure, Sent, Sink};
use std::fs;
use std::future::Future;
use std::sync::mpsc;
use std::task::{Context, Waker};

fn events(ids: &[&str]) -> Vec<Outgoing> {
    let event = |id: &&str| {
        let body = format!("{{\"id\":\"{id}\"}}").into();
        Outgoing::new((*id).into(), "t".into(), "k".into(), body)
    };
    ids.iter().map(event).collect()
}

#[tokio::test]
async fn lines_are_in_their_order_and_stay_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    for ids in [["1", "2"], ["3", "4"]] {
        let lines = Lines::new(FileJournal::open(&path, false).unwrap());
        assert_eq!(lines.send(&events(&ids)).await, Sent { taken: 2, known: 0, failure: None });
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}\n{\"id\":\"4\"}\n");
}

#[test]
fn a_torn_last_line_is_cut_off_and_a_foreign_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let long = format!("{{\"id\":\"1\"}}\n{{\"{}", "x".repeat(200_000));
    for (text, kept) in [
        ("", 0),
        ("{\"id\":\"1\"}\n", 11),
        ("{\"id\":\"1\"}\n{\"b\"", 11),
        ("{\"id\":\"1\"}\n\0\0\0", 11),
        ("{\"b\"", 0),
        (long.as_str(), 11),
    ] {
        fs::write(&path, text).unwrap();
        drop(FileJournal::open(&path, false).unwrap());
        assert_eq!(fs::read(&path).unwrap(), &text.as_bytes()[..kept]);
    }
    for text in ["name: x", "a\nb", &format!("x{}", "{".repeat(100_000))] {
        fs::write(&path, text).unwrap();
        assert!(FileJournal::open(&path, false).err().unwrap().contains("another file"));
        assert_eq!(fs::read(&path).unwrap(), text.as_bytes());
    }
    // Lines, and none of them ours: added to only if that is said.
    let long = format!("{{\"id\":\"1\"}}\n{{\"no id\":\"{}\"}}\n", "x".repeat(700_000));
    for text in ["mine\n", "{\"id\":\"1\"}\n7\n", "{\"id\":\"1\"}\n\n", &long] {
        fs::write(&path, text).unwrap();
        assert!(FileJournal::open(&path, false).err().unwrap().contains("--force"), "{text:.20}");
        let mut journal = FileJournal::open(&path, true).unwrap();
        journal.append(b"{\"id\":\"2\"}\n").unwrap();
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), format!("{text}{{\"id\":\"2\"}}\n").as_bytes());
        FileJournal::open(&path, false).unwrap();
    }
    fs::write(&path, format!("x{}", "{".repeat(100_000))).unwrap();
    let mut file = fs::File::open(&path).unwrap();
    assert!(whole_lines(&mut file).is_err());
}

#[test]
fn two_relays_cannot_write_to_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let first = FileJournal::open(&path, false).unwrap();
    assert!(FileJournal::open(&path, false).err().unwrap().contains("another relay"));
    drop(first);
    FileJournal::open(&path, false).unwrap();
}

/// Takes what it is given only after it is told to.
struct Gated {
    started: mpsc::Sender<()>,
    go: mpsc::Receiver<Result<(), Failure>>,
    written: mpsc::Sender<String>,
}

impl Journal for Gated {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.started.send(()).unwrap();
        self.go.recv().unwrap()?;
        self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_dropped_delivery_is_written_once_and_before_the_next() {
    let (started_tx, started) = mpsc::channel();
    let (go, go_rx) = mpsc::channel();
    let (written_tx, written) = mpsc::channel();
    let lines = Lines::new(Gated { started: started_tx, go: go_rx, written: written_tx });
    let first = events(&["1", "2"]);
    {
        let mut send = Box::pin(lines.send(&first));
        let begun = || started.try_recv().is_ok();
        while !begun() {
            assert!(send.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::task::yield_now().await;
        }
    }
    // It was dropped with the writing under way.
    go.send(Ok(())).unwrap();
    go.send(Ok(())).unwrap();
    let sent = lines.send(&events(&["1", "2", "3"])).await;
    assert_eq!(sent, Sent { taken: 3, known: 2, failure: None });
    assert_eq!(written.recv().unwrap(), "{\"id\":\"1\"}\n{\"id\":\"2\"}\n");
    assert_eq!(written.recv().unwrap(), "{\"id\":\"3\"}\n");
    go.send(Err(Failure::down("full"))).unwrap();
    assert_eq!(lines.send(&events(&["4"])).await, Sent::failed(Failure::down("full")));
    go.send(Ok(())).unwrap();
    assert_eq!(lines.send(&events(&["4"])).await, Sent { taken: 1, known: 0, failure: None });
}

#[test]
fn a_write_that_fails_half_way_leaves_no_half_line() {
    // A descriptor that can only be read stands for a disk that is full.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, "{\"id\":\"1\"}\n").unwrap();
    let mut journal = FileJournal::open(&path, false).unwrap();
    journal.file = fs::File::open(&path).unwrap();
    assert!(matches!(journal.append(b"{}\n"), Err(Failure::Down { .. })));
    // It could not be cut back either, so nothing is written any more.
    let after = journal.append(b"{}\n");
    assert!(matches!(after, Err(Failure::Unusable { why }) if why.contains("torn")));
}
