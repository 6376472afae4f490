//! Exact text of the blocks: what people see is part of the interface.

use super::{About, Failure, Retype, block};
use crate::args::line::Line;
use crate::exit::Exit;
use galvani_client::{Applied, BucketName, ErrorKind, Outcome, Quorum, QuorumKind, ReplicaAnswer};
use std::time::Duration;

fn retype(command: &'static str, line: Line) -> Retype {
    let about = About {
        bucket: Some(BucketName::default_bucket()),
        key: Some("greeting".into()),
        timeout: Duration::from_secs(2),
        ..About::default()
    };
    Retype { command, subject: "greeting".to_owned(), line, about }
}

fn put() -> Retype {
    retype("put", Line::new("put").place("greeting").place("hi"))
}

fn get() -> Retype {
    retype("get", Line::new("get").place("greeting"))
}

fn answer(node: &str, outcome: Outcome, micros: u64) -> ReplicaAnswer {
    let took = (micros > 0).then(|| Duration::from_micros(micros));
    ReplicaAnswer { node: node.to_owned(), stands_in_for: None, outcome, took }
}

fn quorum(what: QuorumKind, need: u8, got: u8) -> ErrorKind {
    let after = Duration::from_millis(1996);
    ErrorKind::Quorum { what, need, got, n: 3, after, detail: "n3 no answer".to_owned() }
}

fn written(kind: &ErrorKind, applied: Applied, answers: &[ReplicaAnswer]) -> (u8, String) {
    let failure = Failure { kind, applied, answers, write: true };
    let report = block(&failure, &put());
    (report.exit.code(), report.to_string())
}

#[test]
fn an_unreached_w_says_who_has_it() {
    let answers = [
        answer("n1", Outcome::Stored, 640),
        answer("n2", Outcome::Stored, 930),
        answer("n3", Outcome::Pending, 0),
    ];
    let (code, text) = written(&quorum(QuorumKind::W, 3, 2), Applied::Maybe { acks: 2 }, &answers);
    assert_eq!(code, 6);
    assert_eq!(
        text,
        "error  put greeting: w=3 not reached, 2 of 3 acked in 2.0 s\n       \
         n1 stored 0.6 ms   n2 stored 0.9 ms   n3 no answer\n       \
         THE WRITE IS STORED on n1, n2 and reaches the others by itself. Repeating it is safe.\n  \
         try  galvani put greeting hi -w 2      or see who is down:  galvani status"
    );
}

#[test]
fn a_blind_write_in_doubt_is_not_called_safe_to_repeat() {
    let answers = [answer("n1", Outcome::Stored, 640), answer("n3", Outcome::Pending, 0)];
    let kind = quorum(QuorumKind::W, 3, 1);
    let applied = Applied::Maybe { acks: 1 };
    let failure = Failure { kind: &kind, applied, answers: &answers, write: true };
    let says = |line: Line| block(&failure, &retype("put", line)).to_string();
    let put = || Line::new("put").place("greeting").place("hi");
    assert!(says(put()).contains("Repeating it is safe."));
    assert!(says(put().flag("--blind", true)).contains("would add a sibling: without --blind"));
    assert!(says(put().with("--context", "c")).contains("would add a sibling: read again"));
}

#[test]
fn owners_known_down_refuse_a_strict_write() {
    let kind = ErrorKind::ReplicasDown {
        what: QuorumKind::W,
        need: 3,
        up: 2,
        n: 3,
        detail: "n3 unreachable".to_owned(),
    };
    let (code, text) = written(&kind, Applied::No, &[]);
    assert_eq!(code, 5);
    assert_eq!(
        text,
        "error  put greeting: w=3 needs 3 of 3 replicas, 2 reachable: n3 unreachable\n       \
         NOTHING WAS WRITTEN\n  \
         try  galvani put greeting hi -w 2      or see who is down:  galvani status"
    );
}

#[test]
fn a_quorum_above_n_is_refused() {
    let kind = ErrorKind::QuorumTooLarge { what: QuorumKind::W, asked: Quorum::Exactly(5), n: 3 };
    let (code, text) = written(&kind, Applied::No, &[]);
    assert_eq!(code, 5);
    assert_eq!(
        text,
        "error  put greeting: -w 5 asks for more copies than exist (n=3)\n       \
         NOTHING WAS WRITTEN\n  \
         try  galvani put greeting hi -w 3      or  galvani put greeting hi -w all"
    );
}

#[test]
fn a_value_too_large_names_both_sizes() {
    let kind = ErrorKind::TooLarge { size: 5_452_595, limit: 1 << 20 };
    let (code, text) = written(&kind, Applied::No, &[]);
    assert_eq!(code, 5);
    assert_eq!(
        text,
        "error  put greeting: 5.2 MiB is over the bucket's limit (1 MiB)\n       \
         NOTHING WAS WRITTEN\n       \
         split it, or use a bucket with a larger limit\n  \
         make  galvani bucket create large --max-value 6MiB\n  \
         then  galvani put greeting hi -b large"
    );
}

#[test]
fn a_context_of_another_key_is_refused() {
    let (code, text) = written(&ErrorKind::ContextOtherKey, Applied::No, &[]);
    assert_eq!(code, 5);
    assert_eq!(
        text,
        "error  put greeting: the context belongs to another key\n       \
         NOTHING WAS WRITTEN\n  \
         read again  galvani get greeting --context-out new.context\n  \
         then        galvani put greeting hi --context new.context"
    );
}

#[test]
fn too_many_siblings_ask_for_a_merge() {
    let kind = ErrorKind::TooManySiblings { count: 101, limit: 100 };
    let (code, text) = written(&kind, Applied::No, &[]);
    assert_eq!(code, 5);
    assert_eq!(
        text,
        "error  put greeting: it has 100 siblings, the limit\n       \
         NOTHING WAS WRITTEN\n       \
         blind writes, or writes under old contexts, left them; put --take picks one\n  \
         see  galvani get greeting --siblings table"
    );
}

#[test]
fn a_read_without_its_answers_timed_out() {
    let kind = quorum(QuorumKind::R, 3, 2);
    let failure = Failure { kind: &kind, applied: Applied::No, answers: &[], write: false };
    let report = block(&failure, &get());
    assert_eq!(report.exit, Exit::TimedOut);
    assert_eq!(
        report.to_string(),
        "error  get greeting: r=3 not reached, 2 of 3 answered in 2.0 s\n  \
         try  galvani get greeting -r 2      or see who is down:  galvani status"
    );
}

#[test]
fn a_smaller_quorum_keeps_the_other_options_and_lowers_those_that_need_more() {
    let line = Line::new("put").place("k").place("v").with("-w", "all").with("--dw", 3);
    let line = line.with("--pw", 1).flag("--strict", true).with("-b", "shop");
    let kind = quorum(QuorumKind::W, 3, 2);
    let maybe = Applied::Maybe { acks: 2 };
    let failure = Failure { kind: &kind, applied: maybe, answers: &[], write: true };
    let text = block(&failure, &retype("put", line)).to_string();
    let expected = "try  galvani put k v -w 2 --dw 2 --pw 1 --strict -b shop      or see";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_bucket_with_a_node_down_says_how_to_bring_it_back() {
    let line = Line::new("bucket create").place("logs").with("-n", 3);
    let mut retype = retype("bucket create", line);
    let kind = ErrorKind::NodeDown { node: "n3".to_owned() };
    let failure = Failure { kind: &kind, applied: Applied::No, answers: &[], write: true };
    let report = block(&failure, &retype);
    assert_eq!(report.exit.code(), 5);
    assert!(report.to_string().contains("NOTHING WAS WRITTEN"), "{report}");
    assert!(report.to_string().contains("  see   galvani status\n"), "{report}");
    let why = "node n3 became unreachable".to_owned();
    let half = ErrorKind::BucketRefused { why };
    let maybe = Applied::Maybe { acks: 1 };
    let failure_half = Failure { kind: &half, applied: maybe, answers: &[], write: true };
    let report = block(&failure_half, &retype);
    assert_eq!(report.exit.code(), 6);
    assert!(report.to_string().contains("SOME NODES MAY KNOW THE BUCKET"), "{report}");
    let again = "  try again  galvani bucket create logs -n 3      or see who is down:";
    assert!(report.to_string().contains(again), "{report}");
    retype.about.local = true;
    let text = block(&failure, &retype).to_string();
    assert!(text.contains("  start it  galvani dev start n3\n"), "{text}");
    assert!(text.ends_with("  then      galvani bucket create logs -n 3"), "{text}");
}

#[test]
fn exit_codes_follow_what_became_of_the_write() {
    let down = ErrorKind::Unreachable { detail: "n1".to_owned() };
    let lost = ErrorKind::ConnectionLost { detail: "n1".to_owned() };
    let tls = ErrorKind::Tls { detail: "n1".to_owned() };
    let identity = ErrorKind::Identity { what: "no good".to_owned() };
    let busy = ErrorKind::Overloaded { retry_after: Duration::from_millis(5) };
    let late = ErrorKind::Timeout { after: Duration::from_secs(2), detail: String::new() };
    let odd = ErrorKind::Protocol { what: "?".to_owned() };
    let cases = [
        (&down, Applied::No, true, 8),
        (&down, Applied::Maybe { acks: 0 }, true, 6),
        (&down, Applied::No, false, 8),
        (&lost, Applied::Maybe { acks: 0 }, true, 6),
        (&lost, Applied::No, false, 8),
        (&tls, Applied::No, true, 9),
        (&identity, Applied::No, false, 9),
        (&busy, Applied::No, true, 5),
        (&late, Applied::No, true, 5),
        (&late, Applied::Maybe { acks: 1 }, true, 6),
        (&late, Applied::No, false, 7),
        (&odd, Applied::No, true, 1),
        (&ErrorKind::NotPermitted, Applied::No, true, 9),
        (&ErrorKind::FaultsNotAllowed, Applied::No, false, 5),
    ];
    for (kind, applied, write, code) in cases {
        let failure = Failure { kind, applied, answers: &[], write };
        let retype = if write { put() } else { get() };
        assert_eq!(block(&failure, &retype).exit.code(), code, "{kind:?} {applied:?} {write}");
    }
}

#[test]
fn scripts_get_fields() {
    let kind = quorum(QuorumKind::W, 3, 1);
    let answers = [answer("n1", Outcome::Stored, 640), answer("n3", Outcome::Unreachable, 0)];
    let failure = Failure {
        kind: &kind,
        applied: Applied::Maybe { acks: 1 },
        answers: &answers,
        write: true,
    };
    let json = block(&failure, &put()).to_json("put");
    assert_eq!(json["schema"], "galvani.error/1");
    assert_eq!(json["exit"], 6);
    assert_eq!(json["kind"], "quorum");
    assert_eq!(json["applied"], "maybe");
    assert_eq!(json["acks"], 1);
    assert_eq!((&json["need"], &json["got"], &json["n"]), (&3.into(), &1.into(), &3.into()));
    assert_eq!(json["answers"][0]["ms"], 0.64);
    assert_eq!(json["answers"][1]["outcome"], "unreachable");
}
