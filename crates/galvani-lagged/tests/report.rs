//! A report is read back as it was written, wherever it was cut, and a job goes on from it.

mod common;

use bytes::Bytes;
use common::{at, fresh, key, page, write};
use galvani_lagged::compare::LiveVersion;
use galvani_lagged::control::{Answer, Ask, answer};
use galvani_lagged::restore::{
    Job, Outcome, Report, ReportError, ReportWriter, Skipped, Step, WriteBack, request_id,
};
use galvani_lagged::{AsOf, Blob, Change, Moment, Selection, Selector, Until};
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::version::Dot;
use std::fs;
use std::io::Write;

fn job() -> Job {
    let bucket = BucketName::default_bucket();
    Job {
        id: RequestId(5),
        cluster: ClusterId(1),
        selection: Selection::Prefix { bucket, prefix: Blob(Bytes::from_static(b"a\xff")) },
        as_of: AsOf::Before(Dot::new(Origin(4), 9)),
        moment: Moment { below: Some(Hlc(77)), at_ms: 1 },
        bad: Some(Selector { requests: vec![RequestId(3)], deletes: true, ..Selector::default() }),
        delete_newer: true,
    }
}

fn steps() -> Vec<(Key, Step, Vec<LiveVersion>)> {
    let binary = Key::new(BucketName::default_bucket(), &b"a\xff\0"[..]).expect("short");
    let dot = Dot::new(Origin(7), 3);
    let value = |bytes: &'static [u8]| Blob(Bytes::from_static(bytes));
    let back = WriteBack {
        value: value(b"\xfe\n"),
        expires_ms: 9,
        from: Some(dot),
        hlc: Hlc(6),
        request: request_id(RequestId(5), &binary, 0),
    };
    let found = LiveVersion { dot, value: None, written_ms: 4, expires_ms: 0 };
    let other = LiveVersion { value: Some(value(b"\"quoted\"\n")), ..found.clone() };
    vec![
        (binary, Step::Write(vec![back]), vec![found]),
        (key("a2"), Step::Delete { request: RequestId(8) }, vec![other]),
        (key("a3"), Step::Skip(Skipped::NothingThen), vec![]),
    ]
}

#[test]
fn a_report_is_read_back_and_gone_on_with_wherever_it_was_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("restore.jsonl");
    let mut writer = ReportWriter::create(&path, &job()).expect("written");
    let outcome = Outcome::Written { dots: vec![Dot::new(Origin(9), 1)] };
    for (key, step, before) in &steps() {
        writer.step(key, step, before).expect("written");
        writer.sync().expect("written");
        writer.done(key, &outcome).expect("written");
    }
    drop(writer);
    assert!(ReportWriter::create(&path, &job()).is_err(), "a report is never written over");
    let whole = fs::read(&path).expect("there");
    let ends: Vec<usize> = whole
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    assert_eq!(ends.len(), 1 + 2 * steps().len(), "a line each");
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        let lines = ends.iter().filter(|end| **end <= cut).count();
        if lines == 0 {
            assert!(matches!(Report::read(&path), Err(ReportError::NoJob)), "cut at {cut}");
            continue;
        }
        let (report, mut writer) = ReportWriter::resume(&path, &job()).expect("read");
        assert_eq!(report.job, job());
        assert_eq!(report.entries.len(), lines / 2, "cut at {cut}");
        for (index, (key, step, before)) in steps().iter().enumerate() {
            assert_eq!(report.is_done(key), lines >= 3 + 2 * index, "cut at {cut}");
            if let Some(entry) = report.entries.get(key) {
                assert_eq!((&entry.step, &entry.before), (step, before));
            }
            if !report.is_done(key) {
                // A later try finds something else; what the first one found counts.
                writer.step(key, step, &[]).expect("written");
                writer.done(key, &outcome).expect("written");
            }
        }
        drop(writer);
        let again = Report::read(&path).expect("whole");
        assert!(steps().iter().all(|(key, _, _)| again.is_done(key)), "cut at {cut}");
        if lines == 2 {
            assert_eq!(again.entries[&steps()[0].0].before, steps()[0].2);
        }
    }
}

#[test]
fn a_report_of_another_job_or_with_a_damaged_line_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("restore.jsonl");
    drop(ReportWriter::create(&path, &job()).expect("written"));
    let other = Job { id: RequestId(6), ..job() };
    let refused = ReportWriter::resume(&path, &other).map(drop);
    assert!(matches!(refused, Err(ReportError::OtherJob)));
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("there");
    file.write_all(b"{}\n").expect("written");
    assert!(matches!(Report::read(&path), Err(ReportError::Damaged { number: 2, .. })));
    fs::write(&path, "{\"line\":\"job\"}\n").expect("written");
    assert!(matches!(Report::read(&path), Err(ReportError::NoJob)));
}

/// As it goes over the socket.
fn ask(
    replica: &mut galvani_lagged::Lagged<galvani_storage::engine::MemoryEngine>,
    ask: Ask,
) -> Answer {
    let line = serde_json::to_string(&ask).expect("JSON");
    let ask: Ask = serde_json::from_str(&line).expect("ours");
    let answer = answer(replica, ask, at(2_000));
    let line = serde_json::to_string(&answer).expect("JSON");
    assert!(!line.contains('\n'));
    let read: Answer = serde_json::from_str(&line).expect("ours");
    assert_eq!(read, answer);
    answer
}

#[test]
fn whatever_is_asked_over_the_socket_is_answered_in_one_line() {
    let mut replica = fresh();
    let record = write("k", (1, 1), &[], 500);
    replica.arrive(page(std::slice::from_ref(&record)), at(1_000)).expect("room");
    let bucket = BucketName::default_bucket;
    replica.learn_bucket(&bucket(), Default::default()).expect("room");
    let status = |answer: Answer| match answer {
        Answer::Status(status) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(ask(&mut replica, Ask::Status)).journal_records, 1);
    assert!(status(ask(&mut replica, Ask::Pause)).paused_since_ms.is_some());
    assert!(status(ask(&mut replica, Ask::Resume)).paused_since_ms.is_none());
    assert_eq!(status(ask(&mut replica, Ask::SetLag { lag_ms: 5 })).lag_target_ms, 5);
    let as_of = AsOf::Time(common::START_MS + 1_500);
    let Answer::Moment { moment } = ask(&mut replica, Ask::Moment { as_of }) else {
        panic!("within the window");
    };
    let key = Blob(Bytes::from_static(b"k"));
    let got =
        ask(&mut replica, Ask::Get { bucket: bucket(), key: key.clone(), moment, without: None });
    match got {
        Answer::Key { values } => assert_eq!(values[0].value.0, record.value),
        other => panic!("{other:?}"),
    }
    let prefix = Blob::default();
    let scan = Ask::Scan { bucket: bucket(), prefix, from: None, limit: 9, moment, without: None };
    let keys = ask(&mut replica, scan);
    assert_eq!(keys, Answer::Keys { keys: vec![key.clone()], blurred: vec![], next: None });
    let version = LiveVersion {
        dot: record.head.dot,
        value: Some(Blob(Bytes::from_static(b"\xff"))),
        written_ms: 1,
        expires_ms: 0,
    };
    let view = Ask::View { bucket: bucket(), key, live: vec![version], moment, without: None };
    match ask(&mut replica, view) {
        Answer::View(view) => assert_eq!(view.live[0].head, Some(record.head.clone())),
        other => panic!("{other:?}"),
    }
    let advance = Ask::Advance { until: Until::Before(record.head.dot) };
    assert_eq!(ask(&mut replica, advance), Answer::Advancing { records: 0 });
    let origin = record.head.dot.origin.to_string();
    for (origin, counter, found) in [(&origin[..6], 1, 1), (&origin, 2, 0), ("f", 1, 0)] {
        let find = Ask::Find { origin: origin.to_owned(), counter };
        let dots = vec![record.head.dot; found];
        assert_eq!(ask(&mut replica, find), Answer::Dots { dots });
    }
    let foresee = Ask::Foresee { change: Change::Advance(Until::Before(record.head.dot)) };
    match ask(&mut replica, foresee) {
        Answer::Foreseen(foreseen) => assert_eq!((foreseen.lag_ms, foreseen.records), (5, 0)),
        other => panic!("{other:?}"),
    }
    let nowhere: BucketName = "nowhere".parse().expect("a name");
    let (prefix, key) = (Blob::default(), Blob(Bytes::from_static(b"k")));
    let scan =
        Ask::Scan { bucket: nowhere.clone(), prefix, from: None, limit: 9, moment, without: None };
    let get = Ask::Get { bucket: nowhere.clone(), key: key.clone(), moment, without: None };
    let view = Ask::View { bucket: nowhere.clone(), key, live: vec![], moment, without: None };
    let lacking = Ask::Lacking { bucket: nowhere, keys: vec![] };
    for about_it in [scan, get, view, lacking] {
        match ask(&mut replica, about_it) {
            Answer::Refused { why } => assert!(why.contains("no bucket \"nowhere\""), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let keys = ["k", "l"].map(|it| Blob(Bytes::from_static(it.as_bytes()))).to_vec();
    let lacking = ask(&mut replica, Ask::Lacking { bucket: bucket(), keys: keys.clone() });
    assert_eq!(lacking, Answer::Keys { keys: keys[1..].to_vec(), blurred: vec![], next: None });
    assert!(matches!(ask(&mut replica, Ask::Verify), Answer::Refused { .. }));
    let early = Ask::Moment { as_of: AsOf::Time(0) };
    match ask(&mut replica, early) {
        Answer::Refused { why } => assert!(why.contains("shows moments from"), "{why}"),
        other => panic!("{other:?}"),
    }
}
