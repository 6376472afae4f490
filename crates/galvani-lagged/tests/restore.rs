//! What a restore does to a key: what was there comes back, and no user's write is replaced.
//!
//! The cluster is a list of records, and what it shows is worked out plainly. The replica has some
//! of them. Steps are carried out on the list as a client would: under what was read.

mod common;

use bytes::Bytes;
use common::{
    LAG_MS, START_MS, at, delete, fresh, histories, key, live, naive, page, record, settle, write,
};
use galvani_lagged::compare::{Difference, LiveVersion, View, difference};
use galvani_lagged::restore::{
    Job, Outcome, Reason, Skipped, Step, WriteBack, plan, request_id, undo,
};
use galvani_lagged::{AsOf, Blob, Lagged, Moment, Selection, Selector};
use galvani_model::bucket::BucketName;
use galvani_model::ids::{ClusterId, NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{Dot, Kind, Record};
use galvani_storage::engine::MemoryEngine;
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

const NOW_MS: u64 = START_MS + 100 * LAG_MS;

fn read(cluster: &[Record], key: &Key) -> Vec<LiveVersion> {
    let versions = live(cluster.iter(), key).into_iter();
    versions
        .map(|(dots, record)| LiveVersion {
            dot: dots[0],
            value: (record.head.kind == Kind::Put).then(|| Blob(record.value.clone())),
            written_ms: record.head.hlc.unix_ms(),
            expires_ms: record.head.expires_ms,
        })
        .collect()
}

/// Carries a step out: each write has seen what the read showed.
fn carry_out(cluster: &mut Vec<Record>, key: &Key, step: &Step, ms: u64) -> Outcome {
    let seen: Vec<Record> =
        live(cluster.iter(), key).into_iter().map(|(_, record)| record.clone()).collect();
    let seen: Vec<&Record> = seen.iter().collect();
    let values: Vec<Option<&WriteBack>> = match step {
        Step::Write(values) => values.iter().map(Some).collect(),
        Step::Delete { .. } => vec![None],
        Step::Skip(_) | Step::Conflict(_) => return Outcome::Left,
    };
    let name = String::from_utf8(key.bytes().to_vec()).expect("plain");
    let mut dots = Vec::new();
    for value in values {
        let counter = 1 + cluster.iter().filter(|it| it.head.dot.origin.0 == 9).count() as u64;
        let text = value.map(|it| String::from_utf8(it.value.0.to_vec()).expect("plain"));
        let new = record(&name, (9, counter), &seen, ms, text);
        dots.push(new.head.dot);
        cluster.push(new);
    }
    Outcome::Written { dots }
}

fn values_of(cluster: &[Record], key: &Key) -> Vec<Bytes> {
    let mut values: Vec<Bytes> = naive(cluster.iter(), key).into_values().collect();
    values.sort_unstable();
    values
}

fn job(moment: Moment, bad: Option<Selector>) -> Job {
    let bucket = BucketName::default_bucket();
    Job {
        id: RequestId(77),
        cluster: ClusterId(1),
        selection: Selection::Prefix { bucket, prefix: Blob::default() },
        as_of: AsOf::Latest,
        moment,
        bad,
        delete_newer: false,
    }
}

fn view_of(replica: &mut Lagged<MemoryEngine>, cluster: &[Record], key: &Key, job: &Job) -> View {
    let live = read(cluster, key);
    replica.view(key, live, &job.moment, job.bad.as_ref(), NOW_MS).expect("within the window")
}

fn wanted(view: &View) -> Vec<Bytes> {
    let mut values: Vec<Bytes> = view.values_then().map(|then| then.value.0.clone()).collect();
    values.sort_unstable();
    values
}

/// Whether a live version is a user's that must stay: not there then, not bad, not what is wanted, and
/// newer or never seen by the replica.
fn must_stay(
    view: &View,
    job: &Job,
    arrived: &[Record],
    version: &LiveVersion,
    of: &Record,
) -> bool {
    let was_there = view.then.iter().any(|then| then.version.dots.contains(&version.dot));
    let is_wanted = version.value.as_ref().is_some_and(|it| wanted(view).contains(&it.0));
    let is_bad = match &job.bad {
        Some(bad) => bad.names(&of.head),
        None => of.head.kind == Kind::Delete,
    };
    let is_known = arrived.iter().any(|it| it.head.dot == version.dot);
    let is_newer = job.moment.is_before(of.head.hlc);
    !was_there && !is_wanted && !is_bad && (is_newer || !is_known)
}

proptest! {
    #[test]
    fn a_restore_replaces_no_users_write_and_brings_back_what_was_there(
        history in histories(30),
        had in 0..31usize,
        hold_ms in 0..2 * LAG_MS,
        back in 0..10u64,
        // Whose writes are bad; 0: deletions are, and nothing else.
        bad in 0..3u128,
        delete_newer in proptest::bool::ANY,
        latest in proptest::bool::ANY,
    ) {
        let arrived = history.arrived(had.min(history.records.len()));
        let mut replica = fresh();
        replica.arrive(page(&arrived), at(50_000)).expect("room");
        settle(&mut replica, at(50_000 + hold_ms));
        let last = history.records.iter().map(|it| it.head.hlc.unix_ms()).max().expect("one");
        let earliest = replica.earliest_ms().expect("it caught up");
        let as_of = match latest {
            true => AsOf::Latest,
            false => AsOf::Time(earliest.max(last - back * (last - START_MS) / 10)),
        };
        let moment = replica.moment(as_of, NOW_MS).expect("within the window");
        let bad = (bad > 0).then(|| {
            Selector { authors: vec![NodeId(bad)], ..Selector::default() }
        });
        let mut job = Job { delete_newer, ..job(moment, bad) };
        let mut cluster = history.records.clone();
        for key in history.keys() {
            let view = view_of(&mut replica, &cluster, &key, &job);
            let step = plan(&job, &view, NOW_MS);
            prop_assert_eq!(&step, &plan(&job, &view, NOW_MS), "planned twice");
            let before = read(&cluster, &key);
            let acts = matches!(step, Step::Write(_) | Step::Delete { .. });
            for (version, (_, of)) in before.iter().zip(live(cluster.iter(), &key)) {
                let of = cluster.iter().find(|it| it.head.dot == version.dot).unwrap_or(of);
                if acts {
                    prop_assert!(!must_stay(&view, &job, &arrived, version, of), "{step:?}");
                }
            }
            let outcome = carry_out(&mut cluster, &key, &step, 60_000);
            match &step {
                Step::Write(_) => prop_assert_eq!(values_of(&cluster, &key), wanted(&view)),
                Step::Delete { .. } => prop_assert!(values_of(&cluster, &key).is_empty()),
                Step::Skip(_) | Step::Conflict(_) => {}
            }
            if let Step::Write(values) = &step {
                prop_assert!(!values.is_empty());
                let again = view_of(&mut replica, &cluster, &key, &job);
                prop_assert_eq!(plan(&job, &again, NOW_MS), Step::Skip(Skipped::Same));
            }
            if acts {
                let back = undo(&job, &key, &before, &outcome, &read(&cluster, &key), NOW_MS);
                let mut undone = cluster.clone();
                carry_out(&mut undone, &key, &back, 61_000);
                prop_assert_eq!(values_of(&undone, &key), values_of(&history.records, &key));
            }
            job.selection = Selection::Key {
                bucket: BucketName::default_bucket(),
                key: Blob(Bytes::from_static(b"another")),
            };
            prop_assert_eq!(plan(&job, &view, NOW_MS), Step::Skip(Skipped::Outside));
            job.selection = Selection::Prefix {
                bucket: BucketName::default_bucket(),
                prefix: Blob::default(),
            };
        }
    }
}

/// A cluster in which `k` was written and then deleted, and a replica that has it all.
fn deleted() -> (Vec<Record>, Lagged<MemoryEngine>, Moment) {
    let good = write("k", (1, 1), &[], 1_000);
    let bad = delete("k", (2, 1), &[&good], 5_000);
    let mut replica = fresh();
    replica.arrive(page(&[good.clone(), bad.clone()]), at(6_000)).expect("room");
    let moment = replica.moment(AsOf::Time(START_MS + 4_000), NOW_MS).expect("within the window");
    (vec![good, bad], replica, moment)
}

fn step_of(replica: &mut Lagged<MemoryEngine>, cluster: &[Record], job: &Job) -> Step {
    let view = view_of(replica, cluster, &key("k"), job);
    plan(job, &view, NOW_MS)
}

#[test]
fn what_was_deleted_since_is_written_back_under_an_id_of_job_and_key() {
    let (cluster, mut replica, moment) = deleted();
    let job = job(moment, None);
    let expected = WriteBack {
        value: Blob(cluster[0].value.clone()),
        expires_ms: 0,
        from: Some(cluster[0].head.dot),
        hlc: cluster[0].head.hlc,
        request: request_id(job.id, &key("k"), 0),
    };
    assert_eq!(step_of(&mut replica, &cluster, &job), Step::Write(vec![expected]));
    assert_ne!(request_id(job.id, &key("k"), 0), request_id(job.id, &key("k"), 1));
    assert_ne!(request_id(job.id, &key("k"), 0), request_id(job.id, &key("l"), 0));
    assert_ne!(request_id(job.id, &key("k"), 0), request_id(RequestId(78), &key("k"), 0));
}

#[test]
fn a_write_after_the_deletion_is_a_conflict_unless_it_is_bad_too() {
    let (mut cluster, mut replica, moment) = deleted();
    let newer = write("k", (3, 1), &[&cluster[0], &cluster[1]], 5_500);
    cluster.push(newer.clone());
    let conflict = Step::Conflict(Reason::Newer(vec![newer.head.dot]));
    assert_eq!(step_of(&mut replica, &cluster, &job(moment, None)), conflict, "it never came here");
    replica.arrive(page(std::slice::from_ref(&newer)), at(6_000)).expect("room");
    assert_eq!(step_of(&mut replica, &cluster, &job(moment, None)), conflict);
    let bad = Selector { requests: vec![newer.head.rid], ..Selector::default() };
    assert!(matches!(step_of(&mut replica, &cluster, &job(moment, Some(bad))), Step::Write(_)));
}

#[test]
fn a_live_write_that_never_came_here_is_a_conflict_though_it_is_older() {
    let (mut cluster, mut replica, moment) = deleted();
    let stuck = write("k", (3, 1), &[], 2_000);
    cluster.push(stuck.clone());
    let conflict = Step::Conflict(Reason::Unknown(vec![stuck.head.dot]));
    assert_eq!(step_of(&mut replica, &cluster, &job(moment, None)), conflict);
}

#[test]
fn a_newer_write_that_the_cluster_does_not_show_is_a_conflict_and_an_alarm() {
    let (cluster, mut replica, moment) = deleted();
    let newer = write("k", (3, 1), &[&cluster[0], &cluster[1]], 5_500);
    replica.arrive(page(std::slice::from_ref(&newer)), at(6_000)).expect("room");
    let job = job(moment, None);
    let conflict = Step::Conflict(Reason::LiveLacks(vec![newer.head.dot]));
    assert_eq!(step_of(&mut replica, &cluster, &job), conflict);
    let view = view_of(&mut replica, &cluster, &key("k"), &job);
    assert_eq!(difference(&view, NOW_MS), Difference::LiveLacks(vec![newer.head.dot]));
}

#[test]
fn a_key_that_is_gone_without_a_bad_write_is_left_alone_where_bad_writes_are_named() {
    let (cluster, mut replica, moment) = deleted();
    let other = Selector { authors: vec![NodeId(8)], ..Selector::default() };
    // The cluster has collected the tombstone, so it shows nothing at all.
    let named = Selector { authors: vec![NodeId(2)], ..Selector::default() };
    let step = step_of(&mut replica, &[], &job(moment, Some(other)));
    assert_eq!(step, Step::Conflict(Reason::LiveLacks(vec![cluster[1].head.dot])));
    assert!(matches!(step_of(&mut replica, &[], &job(moment, Some(named))), Step::Write(_)));
    assert!(matches!(step_of(&mut replica, &[], &job(moment, None)), Step::Write(_)));
    // And one of which no deletion came here.
    let mut replica = fresh();
    replica.arrive(page(&cluster[..1]), at(6_000)).expect("room");
    let other = Selector { authors: vec![NodeId(8)], ..Selector::default() };
    let step = step_of(&mut replica, &[], &job(moment, Some(other)));
    assert_eq!(step, Step::Conflict(Reason::Unexplained));
}

#[test]
fn a_bad_write_that_is_applied_already_is_a_conflict() {
    let (cluster, mut replica, _) = deleted();
    settle(&mut replica, at(6_000 + LAG_MS));
    let moment = replica.moment(AsOf::Latest, NOW_MS).expect("always");
    let bad = Selector { authors: vec![NodeId(2)], ..Selector::default() };
    let step = step_of(&mut replica, &cluster, &job(moment, Some(bad)));
    assert_eq!(step, Step::Conflict(Reason::BadApplied(vec![cluster[1].head.dot])));
}

#[test]
fn as_if_a_write_had_not_been_keeps_what_was_written_after_it() {
    let first = write("k", (1, 1), &[], 1_000);
    let bad = write("k", (2, 1), &[&first], 2_000);
    let beside = write("k", (3, 1), &[&first], 3_000);
    let cluster = vec![first, bad, beside.clone()];
    let mut replica = fresh();
    replica.arrive(page(&cluster), at(6_000)).expect("room");
    let moment = replica.moment(AsOf::Latest, NOW_MS).expect("always");
    let bad = Selector { authors: vec![NodeId(2)], ..Selector::default() };
    match step_of(&mut replica, &cluster, &job(moment, Some(bad))) {
        Step::Write(values) => {
            assert_eq!(values.len(), 1);
            assert_eq!(values[0].value.0, beside.value);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_not_there_is_deleted_only_when_asked_for_and_only_if_it_is_bad() {
    let bad = write("k", (2, 1), &[], 5_000);
    let mut replica = fresh();
    replica.arrive(page(std::slice::from_ref(&bad)), at(6_000)).expect("room");
    let moment = replica.moment(AsOf::Time(START_MS + 4_000), NOW_MS).expect("in it");
    let named = Selector { authors: vec![NodeId(2)], ..Selector::default() };
    let cluster = [bad.clone()];
    let mut job = job(moment, Some(named));
    assert_eq!(step_of(&mut replica, &cluster, &job), Step::Skip(Skipped::NothingThen));
    job.delete_newer = true;
    assert!(matches!(step_of(&mut replica, &cluster, &job), Step::Delete { .. }));
    job.bad = None;
    let conflict = Step::Conflict(Reason::Newer(vec![bad.head.dot]));
    assert_eq!(step_of(&mut replica, &cluster, &job), conflict);
}

#[test]
fn a_value_that_has_expired_since_is_not_written_back() {
    let mut good = write("k", (1, 1), &[], 1_000);
    good.head.expires_ms = START_MS + 9_000;
    let bad = delete("k", (2, 1), &[&good], 5_000);
    let mut replica = fresh();
    replica.arrive(page(&[good.clone(), bad.clone()]), at(6_000)).expect("room");
    let moment = replica.moment(AsOf::Time(START_MS + 4_000), NOW_MS).expect("in it");
    let job = job(moment, None);
    let view = view_of(&mut replica, &[good, bad], &key("k"), &job);
    assert_eq!(plan(&job, &view, START_MS + 9_000), Step::Skip(Skipped::Same));
    match plan(&job, &view, START_MS + 8_999) {
        Step::Write(values) => assert_eq!(values[0].expires_ms, START_MS + 9_000),
        other => panic!("{other:?}"),
    }
}

#[test]
fn siblings_come_back_as_siblings_also_after_a_try_that_was_cut_short() {
    let (a, b) = (write("k", (1, 1), &[], 1_000), write("k", (3, 1), &[], 1_100));
    let bad = delete("k", (2, 1), &[&a, &b], 5_000);
    let mut cluster = vec![a, b, bad];
    let mut replica = fresh();
    replica.arrive(page(&cluster), at(6_000)).expect("room");
    let moment = replica.moment(AsOf::Time(START_MS + 4_000), NOW_MS).expect("in it");
    let job = job(moment, None);
    let Step::Write(values) = step_of(&mut replica, &cluster, &job) else { panic!("two values") };
    assert_eq!(values.len(), 2);
    // Only the first of them was written.
    carry_out(&mut cluster, &key("k"), &Step::Write(values[..1].to_vec()), 7_000);
    let again = step_of(&mut replica, &cluster, &job);
    assert_eq!(again, Step::Write(values));
    carry_out(&mut cluster, &key("k"), &again, 8_000);
    assert_eq!(values_of(&cluster, &key("k")).len(), 2);
    assert_eq!(step_of(&mut replica, &cluster, &job), Step::Skip(Skipped::Same));
}

#[test]
fn anothers_write_of_the_same_bytes_is_newer_all_the_same() {
    let (mut cluster, mut replica, moment) = deleted();
    let same = String::from_utf8(cluster[0].value.to_vec()).expect("plain");
    let users = record("k", (3, 1), &[&cluster[1].clone()], 5_500, Some(same));
    replica.arrive(page(std::slice::from_ref(&users)), at(6_500)).expect("room");
    cluster.push(users.clone());
    let mut job = job(moment, None);
    assert_eq!(step_of(&mut replica, &cluster, &job), Step::Skip(Skipped::Same));
    // With an end of its own it is another value.
    let mut ends = users;
    ends.head.dot.counter = 2;
    ends.head.expires_ms = NOW_MS + 60_000;
    job.id.0 += 1;
    replica.arrive(page(std::slice::from_ref(&ends)), at(6_600)).expect("room");
    cluster[2] = ends.clone();
    let conflict = Step::Conflict(Reason::Newer(vec![ends.head.dot]));
    assert_eq!(step_of(&mut replica, &cluster, &job), conflict);
}

#[test]
fn what_a_user_resolved_since_to_one_of_the_values_stays_resolved() {
    let (a, b) = (write("k", (1, 1), &[], 1_000), write("k", (3, 1), &[], 1_100));
    let same = String::from_utf8(a.value.to_vec()).expect("plain");
    let resolved = record("k", (4, 1), &[&a, &b], 5_000, Some(same));
    let cluster = vec![a, b, resolved.clone()];
    let mut replica = fresh();
    replica.arrive(page(&cluster), at(6_000)).expect("room");
    let moment = replica.moment(AsOf::Time(START_MS + 4_000), NOW_MS).expect("in it");
    let conflict = Step::Conflict(Reason::Newer(vec![resolved.head.dot]));
    assert_eq!(step_of(&mut replica, &cluster, &job(moment, None)), conflict);
}

#[test]
fn a_users_write_after_the_restore_is_not_undone() {
    let (mut cluster, mut replica, moment) = deleted();
    let job = job(moment, None);
    let before = read(&cluster, &key("k"));
    let step = step_of(&mut replica, &cluster, &job);
    let outcome = carry_out(&mut cluster, &key("k"), &step, 7_000);
    let users = write("k", (3, 1), &[], 8_000);
    cluster.push(users.clone());
    let live = read(&cluster, &key("k"));
    let step = undo(&job, &key("k"), &before, &outcome, &live, NOW_MS);
    assert_eq!(step, Step::Conflict(Reason::Newer(vec![users.head.dot])));
    let doubtful = Outcome::Failed { why: "timed out".to_owned() };
    let step = undo(&job, &key("k"), &before, &doubtful, &live, NOW_MS);
    assert_eq!(step, Step::Conflict(Reason::Unexplained), "what became of it is not known");
    let step = undo(&job, &key("k"), &before, &doubtful, &before, NOW_MS);
    assert_eq!(step, Step::Skip(Skipped::Back), "nothing did");
}

#[test]
fn what_is_taken_back_already_is_not_a_conflict() {
    let (mut cluster, mut replica, moment) = deleted();
    let job = job(moment, None);
    // There is a value in the place of the tombstone, which the job is told is bad.
    let old = write("k", (3, 1), &[&cluster[0], &cluster[1]], 5_500);
    cluster.push(old.clone());
    replica.arrive(page(&[old]), at(6_000)).expect("room");
    let bad = Selector { dots: vec![Dot::new(Origin(3), 1)], ..Selector::default() };
    let job = Job { bad: Some(bad), ..job };
    let before = read(&cluster, &key("k"));
    let step = step_of(&mut replica, &cluster, &job);
    let outcome = carry_out(&mut cluster, &key("k"), &step, 7_000);
    assert!(matches!(outcome, Outcome::Written { .. }), "{step:?}");
    let back = undo(&job, &key("k"), &before, &outcome, &read(&cluster, &key("k")), NOW_MS);
    assert!(matches!(back, Step::Write(_)), "{back:?}");
    carry_out(&mut cluster, &key("k"), &back, 8_000);
    for outcome in [outcome, Outcome::Failed { why: "timed out".to_owned() }] {
        let live = read(&cluster, &key("k"));
        let again = undo(&job, &key("k"), &before, &outcome, &live, NOW_MS);
        assert_eq!(again, Step::Skip(Skipped::Back));
    }
}

#[test]
fn what_somebody_deleted_after_the_restore_is_not_undone() {
    let (mut cluster, mut replica, moment) = deleted();
    let job = job(moment, None);
    let before = read(&cluster, &key("k"));
    let step = step_of(&mut replica, &cluster, &job);
    let outcome = carry_out(&mut cluster, &key("k"), &step, 7_000);
    // Deleted, and the tombstone is collected.
    let step = undo(&job, &key("k"), &before, &outcome, &[], NOW_MS);
    assert_eq!(step, Step::Skip(Skipped::Back), "it had none before either");
}

#[test]
fn a_newer_value_that_expired_and_is_collected_is_not_missed() {
    let (mut cluster, mut replica, moment) = deleted();
    let mut newer = write("k", (3, 1), &[&cluster[0], &cluster[1]], 5_500);
    newer.head.expires_ms = START_MS + 9_000;
    cluster.push(newer.clone());
    replica.arrive(page(&[newer]), at(6_000)).expect("room");
    let job = job(moment, None);
    let view = replica.view(&key("k"), Vec::new(), &moment, None, NOW_MS).expect("in it");
    assert!(matches!(plan(&job, &view, START_MS + 8_999), Step::Conflict(Reason::LiveLacks(_))));
    assert!(matches!(plan(&job, &view, START_MS + 9_000), Step::Write(_)));
}

#[test]
fn keys_differ_in_all_the_ways_there_are() {
    let first = write("k", (1, 1), &[], 1_000);
    let (next, beside) = (write("k", (2, 1), &[&first], 5_000), write("k", (3, 1), &[], 5_000));
    let gone = delete("k", (2, 1), &[&first], 5_000);
    let unknown = write("k", (8, 1), &[], 5_000);
    let lacks = |dot: Dot| vec![dot];
    let cases: Vec<(Vec<&Record>, Vec<&Record>, Difference)> = vec![
        (vec![&first], vec![&first], Difference::Equal),
        (vec![], vec![], Difference::Equal),
        (vec![&beside], vec![&beside], Difference::OnlyLive),
        (vec![&first, &gone], vec![&first, &gone], Difference::OnlyThen),
        (vec![&first, &gone], vec![], Difference::OnlyThen),
        (vec![&first, &next], vec![&first, &next], Difference::LiveReplaces),
        (vec![&first, &beside], vec![&first, &beside], Difference::Concurrent),
        (vec![&first], vec![], Difference::LiveLacks(lacks(first.head.dot))),
        (vec![&first], vec![&unknown], Difference::Unclear(lacks(first.head.dot))),
        (vec![&first], vec![&first, &unknown], Difference::Concurrent),
    ];
    for (number, (came, cluster, expected)) in cases.into_iter().enumerate() {
        let mut replica = fresh();
        let came: Vec<Record> = came.into_iter().cloned().collect();
        let cluster: Vec<Record> = cluster.into_iter().cloned().collect();
        replica.arrive(page(&came), at(6_000)).expect("room");
        let moment = replica.moment(AsOf::Time(START_MS + 4_000), NOW_MS).expect("in it");
        let view = view_of(&mut replica, &cluster, &key("k"), &job(moment, None));
        assert_eq!(difference(&view, NOW_MS), expected, "case {number}");
    }
}

#[test]
fn a_key_that_is_blurred_is_left_alone() {
    let (cluster, mut replica, moment) = deleted();
    settle(&mut replica, at(6_000 + LAG_MS));
    let job = job(moment, None);
    let view = view_of(&mut replica, &cluster, &key("k"), &job);
    assert_eq!(difference(&view, NOW_MS), Difference::Blurred);
    assert_eq!(plan(&job, &view, NOW_MS), Step::Conflict(Reason::Blurred));
}
