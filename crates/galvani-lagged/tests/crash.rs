//! A kill at every step loses nothing and doubles nothing.
//!
//! A script of pages, steps, pauses and retries runs over engines in memory. At each of its actions one
//! of the two engines fails in one of several ways, or the process just ends; then the power may go,
//! too. After the next start the position must be exactly what is held, all that was acknowledged
//! must be there, and a feed that goes on from the position must end in what never failing gives.

mod common;

use common::{
    KEEPS, LAG_MS, START_MS, at, delete, held, key, naive, open, page, position, retry_of, settle,
    shard_of, shown, write,
};
use galvani_lagged::{Hole, Lagged, LaggedError};
use galvani_model::ids::Origin;
use galvani_model::version::{Dot, PartitionClock, Range, Record};
use galvani_storage::engine::{CrashKeep, FailKind, MemoryEngine};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug)]
enum Action {
    /// These records come, as one page.
    Arrive(usize, usize),
    /// So much later something may be due.
    Step(u64),
    Pause,
    Resume,
}

const SCRIPT: &[Action] = &[
    Action::Arrive(0, 3),
    Action::Step(LAG_MS / 2),
    Action::Arrive(3, 5),
    Action::Step(LAG_MS),
    Action::Arrive(2, 7),
    Action::Pause,
    Action::Step(2 * LAG_MS),
    Action::Resume,
    Action::Step(2 * LAG_MS),
    Action::Arrive(7, 10),
    Action::Step(3 * LAG_MS),
];

/// Siblings, a deletion, a retry, and a write that comes after what replaces it.
fn records() -> Vec<Record> {
    let a1 = write("a", (1, 1), &[], 10);
    let a2 = write("a", (2, 1), &[], 11);
    let b1 = write("b", (1, 2), &[], 12);
    let a3 = write("a", (1, 3), &[&a1, &a2], 20);
    let b2 = delete("b", (2, 2), &[&b1], 21);
    let c1 = write("c", (3, 1), &[], 22);
    let again = retry_of(&c1, (1, 4));
    let c2 = write("c", (3, 2), &[&c1], 30);
    let a4 = write("a", (2, 3), &[], 31);
    let b3 = write("b", (3, 3), &[&b1, &b2], 32);
    vec![a1, a3, a2, b2, c1, b1, again, c2, a4, b3]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Journal(FailKind),
    Base(FailKind),
    JournalSync,
    BaseSync,
}

const FAULTS: [Fault; 9] = [
    Fault::None,
    Fault::Journal(FailKind::Full),
    Fault::Journal(FailKind::IoLost),
    Fault::Journal(FailKind::IoKept),
    Fault::Base(FailKind::Full),
    Fault::Base(FailKind::IoLost),
    Fault::Base(FailKind::IoKept),
    Fault::JournalSync,
    Fault::BaseSync,
];

fn order(fault: Fault, journal: &MemoryEngine, base: &MemoryEngine) {
    match fault {
        Fault::None => {}
        Fault::Journal(kind) => journal.fail_next_commits([kind]),
        Fault::Base(kind) => base.fail_next_commits([kind]),
        Fault::JournalSync => journal.fail_next_sync(),
        Fault::BaseSync => base.fail_next_sync(),
    }
}

fn run(
    replica: &mut Lagged<MemoryEngine>,
    action: Action,
    records: &[Record],
    acknowledged: &mut BTreeSet<Dot>,
) -> Result<(), LaggedError> {
    match action {
        Action::Arrive(from, to) => {
            replica.arrive(page(&records[from..to]), at(from as u64 * 100))?;
            acknowledged.extend(records[from..to].iter().map(|record| record.head.dot));
        }
        Action::Step(ms) => drop(replica.step(at(ms))?),
        Action::Pause => drop(replica.pause(at(LAG_MS))?),
        Action::Resume => replica.resume(at(LAG_MS))?,
    }
    Ok(())
}

#[test]
fn a_kill_at_every_step_loses_and_doubles_nothing() {
    let records = records();
    let mut failed = 0;
    for last in 0..SCRIPT.len() {
        for fault in FAULTS {
            for keep in KEEPS {
                let what = format!("killed after {last} ({:?}), {fault:?}, {keep:?}", SCRIPT[last]);
                let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
                let mut replica = open(&journal, &base);
                let mut acknowledged = BTreeSet::new();
                for (index, &action) in SCRIPT[..=last].iter().enumerate() {
                    if index == last {
                        order(fault, &journal, &base);
                    }
                    let done = run(&mut replica, action, &records, &mut acknowledged);
                    failed += usize::from(done.is_err());
                    assert!(index == last || done.is_ok(), "{what}");
                }
                drop(replica);
                journal.crash(keep);
                base.crash(keep);
                let mut replica = open(&journal, &base);

                let here = held(&mut replica, &records);
                assert_eq!(position(&replica, &records), here, "{what}");
                assert!(acknowledged.is_subset(&here), "{what}: {acknowledged:?}, {here:?}");
                let waiting = replica.status(at(0)).expect("readable").journal_records;
                let applied = replica.status(at(0)).expect("readable").applied;
                assert_eq!(waiting + applied, here.len() as u64, "{what}");
                let come = || records.iter().filter(|record| here.contains(&record.head.dot));
                for name in ["a", "b", "c"] {
                    assert_eq!(
                        shown(&mut replica, &key(name)),
                        naive(come(), &key(name)),
                        "{what}"
                    );
                }

                // The feed goes on from the position, and brings one that is there already.
                let missing: Vec<Record> = records
                    .iter()
                    .filter(|record| {
                        !here.contains(&record.head.dot) || record.head.dot.counter == 1
                    })
                    .cloned()
                    .collect();
                replica.arrive(page(&missing), at(10)).expect("room");
                replica.resume(at(10)).expect("room");
                settle(&mut replica, at(9 * LAG_MS));
                let status = replica.status(at(9 * LAG_MS)).expect("readable");
                assert_eq!(status.journal_records, 0, "{what}");
                assert_eq!(status.journal_bytes, 0, "{what}");
                assert_eq!(status.applied, records.len() as u64, "{what}");
                for name in ["a", "b", "c"] {
                    let expected = naive(records.iter(), &key(name));
                    assert_eq!(shown(&mut replica, &key(name)), expected, "{what}");
                }
            }
        }
    }
    assert!(failed > 100, "the faults that were ordered happen: {failed}");
}

#[test]
fn what_is_gone_is_known_together_with_the_time_that_it_hides_or_not_at_all() {
    let shard = shard_of(&key("a"));
    let dots = PartitionClock::from_iter([Range { origin: Origin(1), first: 1, last: 9 }]);
    let mut gap = page(&[]);
    gap.gone.insert(shard, dots);
    let mut failed = 0;
    for fault in FAULTS {
        for keep in KEEPS {
            let what = format!("{fault:?}, {keep:?}");
            let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
            let mut replica = open(&journal, &base);
            replica.heard(START_MS + 50, 0, at(60)).expect("room");
            order(fault, &journal, &base);
            let arrived = replica.arrive(gap.clone(), at(100));
            failed += usize::from(arrived.is_err());
            drop(replica);
            journal.crash(keep);
            base.crash(keep);
            let mut replica = open(&journal, &base);
            let status = replica.status(at(0)).expect("readable");
            let hole = Hole { from_ms: START_MS + 50, until_ms: START_MS + 100 };
            let done = replica.positions().get(&shard).map_or(0, |it| it.delivered().len());
            match status.gone {
                0 => {
                    assert_eq!((arrived.is_ok(), done, status.holes), (false, 0, vec![]), "{what}")
                }
                gone => assert_eq!((gone, done, status.holes), (9, 9, vec![hole]), "{what}"),
            }
            replica.arrive(gap.clone(), at(100)).expect("room");
            let status = replica.status(at(0)).expect("readable");
            assert_eq!((status.gone, status.holes), (9, vec![hole]), "{what}");
        }
    }
    assert!(failed >= 12, "the faults that were ordered happen: {failed}");
}

#[test]
fn a_record_that_is_in_the_base_and_still_in_the_journal_is_one() {
    let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
    let mut replica = open(&journal, &base);
    let record = write("k", (1, 1), &[], 0);
    replica.arrive(page(std::slice::from_ref(&record)), at(0)).expect("room");
    journal.fail_next_commits([FailKind::Full]);
    let stepped = replica.step(at(LAG_MS));
    assert!(matches!(stepped, Err(LaggedError::Full)), "the base has it, the journal kept it");
    for replica in [&mut replica, &mut open(&journal, &base)] {
        assert_eq!(shown(replica, &key("k")), naive([&record].into_iter(), &key("k")));
        assert_eq!(replica.status(at(LAG_MS)).expect("readable").journal_records, 1);
    }
    assert_eq!(settle(&mut replica, at(LAG_MS)), 1);
    assert_eq!(replica.status(at(LAG_MS)).expect("readable").journal_records, 0);
    assert_eq!(shown(&mut replica, &key("k")), naive([&record].into_iter(), &key("k")));
}

#[test]
fn after_a_write_in_doubt_nothing_is_written_until_it_is_opened_again() {
    let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
    let mut replica = open(&journal, &base);
    let record = write("k", (1, 1), &[], 0);
    journal.fail_next_commits([FailKind::IoKept]);
    let doubtful = replica.arrive(page(std::slice::from_ref(&record)), at(0));
    assert!(matches!(doubtful, Err(LaggedError::InDoubt)));
    let again = replica.arrive(page(std::slice::from_ref(&record)), at(0));
    assert!(matches!(again, Err(LaggedError::InDoubt)), "it may be there");
    journal.crash(CrashKeep::Committed);
    let mut replica = open(&journal, &base);
    let stored = replica.arrive(page(&[record]), at(0)).expect("room");
    assert_eq!((stored.new, stored.duplicates), (0, 1), "it was there");
}
