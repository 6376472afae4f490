//! Records wait for the whole lag from when they came, and the position is what is held.

mod common;

use common::{KEEP_MS, LAG_MS, START_MS, at, fresh, key, open, page, settle, shard_of, write};
use galvani_lagged::{AsOf, Change, Foreseen, Hole, LaggedError, Now, Stored, Until};
use galvani_model::feed::Cursor;
use galvani_model::ids::Origin;
use galvani_model::version::{Dot, PartitionClock, Range};
use galvani_storage::engine::MemoryEngine;

#[test]
fn a_record_waits_for_the_lag_whatever_time_it_bears() {
    let mut replica = fresh();
    // Stuck somewhere for two hours: it is as new here as one written now.
    let late = write("k", (1, 1), &[], 0);
    let came = 2 * 3_600_000;
    replica.arrive(page(&[late]), at(came)).expect("room");
    assert_eq!(settle(&mut replica, at(came + LAG_MS - 1)), 0);
    assert_eq!(settle(&mut replica, at(came + LAG_MS)), 1);
}

#[test]
fn records_are_applied_in_order_of_arrival() {
    let mut replica = fresh();
    for (number, ms) in [(1, 5_000), (2, 1_000), (3, 3_000)] {
        let name = format!("k{number}");
        replica.arrive(page(&[write(&name, (1, number), &[], ms)]), at(number * 10)).expect("room");
    }
    for (ms, applied) in [(LAG_MS + 9, 0), (LAG_MS + 10, 1), (LAG_MS + 25, 2), (LAG_MS + 30, 3)] {
        settle(&mut replica, at(ms));
        assert_eq!(replica.status(at(ms)).expect("readable").applied, applied, "{ms}");
    }
}

/// L1.
#[test]
fn a_jump_of_the_wall_clock_makes_no_record_due() {
    let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
    let mut replica = open(&journal, &base);
    replica.arrive(page(&[write("a", (1, 1), &[], 0)]), at(0)).expect("room");
    let jumped = |ms: u64, by: i64| Now {
        micros: ms * 1000,
        unix_ms: START_MS.checked_add_signed(by).expect("in range") + ms,
    };
    let day = 86_400_000;
    assert_eq!(settle(&mut replica, jumped(1_000, day)), 0, "forwards");
    replica.arrive(page(&[write("b", (1, 2), &[], 0)]), jumped(2_000, day)).expect("room");
    replica.arrive(page(&[write("c", (1, 3), &[], 0)]), jumped(3_000, -day)).expect("room");
    assert_eq!(settle(&mut replica, jumped(LAG_MS - 1, -day)), 0, "backwards");
    assert_eq!(settle(&mut replica, jumped(LAG_MS, -day)), 1);
    assert_eq!(settle(&mut replica, jumped(LAG_MS + 1_999, -day)), 0);
    assert_eq!(settle(&mut replica, jumped(LAG_MS + 3_000, -day)), 2);
}

/// L1.
#[test]
fn a_restart_makes_no_record_due_earlier() {
    let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
    let mut replica = open(&journal, &base);
    replica.arrive(page(&[write("a", (1, 1), &[], 0)]), at(0)).expect("room");
    assert_eq!(settle(&mut replica, at(LAG_MS / 2)), 0);
    drop(replica);
    // A new process counts from a zero of its own, and the wall clock is a day on.
    let mut replica = open(&journal, &base);
    let now = |ms: u64| Now { micros: ms * 1000, unix_ms: START_MS + 86_400_000 + ms };
    assert_eq!(settle(&mut replica, now(0)), 0);
    assert_eq!(settle(&mut replica, now(LAG_MS / 2 - 1)), 0, "half of the lag was noted");
    assert_eq!(settle(&mut replica, now(LAG_MS / 2)), 1);
}

#[test]
fn a_record_that_came_before_changes_nothing() {
    let mut replica = fresh();
    let record = write("k", (1, 1), &[], 0);
    let twice = page(&[record.clone(), record.clone()]);
    let stored = replica.arrive(twice, at(1)).expect("room");
    assert_eq!(stored, Stored { new: 1, duplicates: 1 });
    settle(&mut replica, at(1 + LAG_MS));
    let stored = replica.arrive(page(&[record]), at(2 + LAG_MS)).expect("room");
    assert_eq!(stored, Stored { new: 0, duplicates: 1 }, "the base has it");
    assert_eq!(replica.status(at(2 + LAG_MS)).expect("readable").journal_records, 0);
}

#[test]
fn a_position_is_what_is_held_and_one_that_is_ahead_is_refused() {
    let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
    let mut replica = open(&journal, &base);
    let record = write("k", (1, 1), &[], 0);
    let (shard, origin) = (shard_of(&key("k")), record.head.dot.origin);
    let through = |last| Cursor::at(PartitionClock::from_iter([Range { origin, first: 1, last }]));
    let mut ahead = page(std::slice::from_ref(&record));
    ahead.positions.insert(shard, through(2));
    match replica.arrive(ahead.clone(), at(1)) {
        Err(LaggedError::Ahead { missing, .. }) => assert_eq!(missing.len(), 1),
        other => panic!("{other:?}"),
    }
    assert!(replica.positions().is_empty(), "nothing of the page was kept");
    // A write that nobody has any more is done with, and counted.
    let gone = PartitionClock::from_iter([Range { origin, first: 2, last: 2 }]);
    ahead.gone.insert(shard, gone);
    replica.arrive(ahead, at(1)).expect("room");
    for replica in [&mut replica, &mut open(&journal, &base)] {
        assert_eq!(replica.positions(), [(shard, through(2))].into());
        assert_eq!(replica.status(at(2)).expect("readable").gone, 1);
    }
}

#[test]
fn what_is_overdue_is_kept_with_the_position() {
    let mut replica = fresh();
    let first = write("k", (1, 1), &[], 0);
    let second = write("k", (1, 2), &[&first], 1);
    let shard = shard_of(&key("k"));
    let mut early = page(std::slice::from_ref(&second));
    let mut position = Cursor::default();
    position.deliver(second.head.dot);
    position.owe(&second.head.past);
    early.positions.insert(shard, position);
    replica.arrive(early, at(1)).expect("room");
    assert!(replica.positions()[&shard].is_late(first.head.dot));
    replica.arrive(page(std::slice::from_ref(&first)), at(2)).expect("room");
    assert!(!replica.positions()[&shard].is_late(first.head.dot), "it came");
}

#[test]
fn a_gap_hides_its_own_time_and_leaves_the_window_before_it() {
    let mut replica = fresh();
    let old = write("k", (7, 1), &[], 100);
    replica.arrive(page(std::slice::from_ref(&old)), at(150)).expect("room");
    replica.heard(START_MS + 400, 0, at(500)).expect("room");
    assert_eq!(replica.earliest_ms(), Some(1));
    let mut gap = page(&[]);
    let origin = galvani_model::ids::Origin(1);
    let gone = PartitionClock::from_iter([Range { origin, first: 1, last: 9 }]);
    gap.gone.insert(shard_of(&key("k")), gone);
    replica.arrive(gap.clone(), at(700)).expect("room");
    replica.arrive(gap, at(900)).expect("room");
    let new = write("k", (7, 2), &[&old], 600);
    replica.arrive(page(std::slice::from_ref(&new)), at(900)).expect("room");
    replica.heard(START_MS + 950, 0, at(1_000)).expect("room");
    assert_eq!(replica.earliest_ms(), Some(1));
    let hole = Hole { from_ms: START_MS + 400, until_ms: START_MS + 700 };
    assert_eq!(replica.status(at(1_000)).expect("readable").holes, [hole], "nothing new is gone");
    for (ms, shows) in [(399, Some(&old)), (400, None), (699, None), (700, Some(&new))] {
        match (replica.moment(AsOf::Time(START_MS + ms), START_MS + 1_000), shows) {
            (Ok(moment), Some(record)) => {
                let found = replica.read_at(&key("k"), &moment, None).expect("exact");
                assert_eq!(found.expect("there").versions[0].dots[0], record.head.dot, "{ms}");
            }
            (Err(LaggedError::Unknown { .. }), None) => {}
            (other, _) => panic!("{ms}: {other:?}"),
        }
    }
    // A write of that time that waits is in it, too.
    let before = replica.moment(AsOf::Before(new.head.dot), START_MS + 1_000);
    assert!(matches!(before, Err(LaggedError::Unknown { .. })));
    // The old window is there until what came after it is applied, and the new one is whole then.
    settle(&mut replica, at(150 + LAG_MS));
    assert!(replica.moment(AsOf::Time(START_MS + 399), START_MS + LAG_MS).is_ok());
    settle(&mut replica, at(900 + LAG_MS));
    assert_eq!(replica.earliest_ms(), Some(START_MS + 900));
    assert_eq!(replica.status(at(900 + LAG_MS)).expect("readable").holes, []);
}

#[test]
fn what_is_gone_before_it_has_caught_up_hides_nothing() {
    let mut replica = open(&MemoryEngine::new(), &MemoryEngine::new());
    let gone = PartitionClock::from_iter([Range { origin: Origin(1), first: 1, last: 9 }]);
    let mut gap = page(&[]);
    gap.gone.insert(shard_of(&key("k")), gone);
    replica.arrive(gap, at(700)).expect("room");
    replica.heard(START_MS + 800, 0, at(900)).expect("room");
    let status = replica.status(at(1_000)).expect("readable");
    assert_eq!(
        (status.gone, status.holes, status.protected_since_ms),
        (9, vec![], Some(START_MS + 800))
    );
}

#[test]
fn a_damaged_record_is_refused_with_its_whole_page() {
    let mut replica = fresh();
    let mut bad = write("k", (1, 2), &[], 0);
    bad.head.value_hash ^= 1;
    let refused = replica.arrive(page(&[write("k", (1, 1), &[], 0), bad]), at(1));
    assert!(matches!(refused, Err(LaggedError::NotIntact { .. })));
    assert!(replica.positions().is_empty());
}

#[test]
fn a_pause_holds_what_is_due_over_a_restart_and_resuming_lets_it_go() {
    let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
    let mut replica = open(&journal, &base);
    replica.arrive(page(&[write("a", (1, 1), &[], 0)]), at(0)).expect("room");
    assert_eq!(replica.pause(at(10)).expect("room"), START_MS + 10);
    assert_eq!(replica.pause(at(20)).expect("room"), START_MS + 10, "it stands since then");
    drop(replica);
    let mut replica = open(&journal, &base);
    replica.arrive(page(&[write("b", (1, 2), &[], 0)]), at(30)).expect("records still come");
    let stepped = replica.step(at(5 * LAG_MS)).expect("room");
    assert_eq!((stepped.applied, stepped.due_in_ms), (0, None));
    let status = replica.status(at(5 * LAG_MS)).expect("readable");
    assert_eq!((status.paused_since_ms, status.journal_records), (Some(START_MS + 10), 2));
    replica.resume(at(5 * LAG_MS)).expect("room");
    assert_eq!(settle(&mut replica, at(5 * LAG_MS)), 2);
    assert_eq!(replica.status(at(5 * LAG_MS)).expect("readable").paused_since_ms, None);
}

#[test]
fn going_on_stops_before_the_write_that_was_named_also_during_a_pause() {
    let mut replica = fresh();
    let records: Vec<_> = (1..=6).map(|n| write("k", (1, n), &[], n)).collect();
    for (index, record) in records.iter().enumerate() {
        replica.arrive(page(std::slice::from_ref(record)), at(10 * index as u64)).expect("room");
    }
    replica.pause(at(60)).expect("room");
    for (until, applied) in [
        (Until::Time(START_MS + 10), 2),
        (Until::Before(records[3].head.dot), 3),
        (Until::BeforeRequest(records[4].head.rid), 4),
    ] {
        replica.advance(until, at(60)).expect("ahead");
        settle(&mut replica, at(60));
        assert_eq!(replica.status(at(60)).expect("readable").applied, applied, "{until:?}");
    }
    let ahead = replica.advance(Until::Time(START_MS + 61), at(60));
    assert!(matches!(ahead, Err(LaggedError::Future { .. })), "it has not come yet");
    let back = replica.advance(Until::Before(records[0].head.dot), at(60));
    assert!(matches!(back, Err(LaggedError::Behind)), "the base does not go back");
    let moment = replica.moment(AsOf::Before(records[4].head.dot), START_MS + 60);
    assert!(moment.is_ok(), "the write itself still waits");
}

#[test]
fn a_shorter_lag_makes_records_due_and_a_senseless_one_is_refused() {
    let mut replica = fresh();
    replica.arrive(page(&[write("k", (1, 1), &[], 0)]), at(0)).expect("room");
    replica.set_lag(1_000, at(10)).expect("in range");
    assert_eq!(replica.step(at(10)).expect("room").due_in_ms, Some(990));
    assert_eq!(settle(&mut replica, at(1_000)), 1);
    assert!(matches!(replica.set_lag(u64::MAX, at(10)), Err(LaggedError::LagRange { .. })));
}

#[test]
fn what_a_change_would_take_from_the_window_is_told_and_not_done() {
    let mut replica = fresh();
    for n in 1..=4 {
        let record = write("k", (1, n), &[], n * 1_000);
        replica.arrive(page(&[record]), at(n * 1_000)).expect("room");
    }
    let foreseen = |records, then_ms: u64| Foreseen {
        lag_ms: LAG_MS,
        records,
        earliest_ms: Some(1),
        earliest_then_ms: Some(if records == 0 { 1 } else { START_MS + then_ms }),
    };
    for (change, expected) in [
        (Change::Lag(LAG_MS), foreseen(0, 0)),
        (Change::Lag(2_000), foreseen(3, 3_000)),
        (Change::Lag(0), foreseen(4, 4_000)),
        (Change::Advance(Until::Time(START_MS + 2_500)), foreseen(2, 2_000)),
        (Change::Advance(Until::Before(Dot::new(Origin(1), 1))), foreseen(0, 0)),
    ] {
        assert_eq!(replica.foresee(change, at(5_000)).expect("known"), expected, "{change:?}");
        let status = replica.status(at(5_000)).expect("readable");
        assert_eq!((status.journal_records, status.lag_target_ms), (4, LAG_MS));
    }
    // And it is what happens then.
    replica.set_lag(2_000, at(5_000)).expect("in range");
    assert_eq!(settle(&mut replica, at(5_000)), 3);
    assert_eq!(replica.earliest_ms(), Some(START_MS + 3_000));
    assert!(matches!(
        replica.foresee(Change::Lag(u64::MAX), at(5_000)),
        Err(LaggedError::LagRange { .. })
    ));
}

#[test]
fn the_status_tells_the_window() {
    let mut replica = fresh();
    replica.arrive(page(&[write("a", (1, 1), &[], 0)]), at(0)).expect("room");
    replica.arrive(page(&[write("b", (1, 2), &[], 5_000)]), at(5_000)).expect("room");
    settle(&mut replica, at(LAG_MS + 1_000));
    replica.heard(START_MS + 60_000, 0, at(LAG_MS + 1_000)).expect("room");
    let status = replica.status(at(LAG_MS + 1_000)).expect("readable");
    assert_eq!(status.lag_target_ms, LAG_MS);
    assert_eq!(status.lag_actual_ms, Some(LAG_MS + 1_000 - 5_000));
    assert_eq!(status.protected_since_ms, Some(START_MS));
    assert_eq!(status.window_seconds, (LAG_MS + 1_000) / 1000);
    assert_eq!(status.complete_through_ms, Some(START_MS + 60_000));
    assert_eq!((status.applied, status.journal_records), (1, 1));
    assert!(status.journal_bytes > 0);
    assert_eq!(status.seconds_to_truncation, Some((60_000 + KEEP_MS - LAG_MS - 1_000) / 1000));
    settle(&mut replica, at(LAG_MS + 5_000));
    let status = replica.status(at(LAG_MS + 5_000)).expect("readable");
    assert_eq!((status.journal_records, status.journal_bytes), (0, 0));
}
