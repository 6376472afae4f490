//! Random schedules of all that happens to a lagged replica: late arrivals, repeats, time that passes,
//! clocks that jump, pauses, failing disks, kills and power cuts, in any order.
//!
//! After each step: what was acknowledged is held and the position says exactly what is held (L3); nothing
//! reached the base before it had waited the whole lag, on a clock that runs while the replica does (L1);
//! and what is shown as the latest is what the records that came make, and no other (L2). In the end it has
//! caught up with what never failing gives. Next to read: `crash.rs`, every single step; `common/mod.rs`.

mod common;

use common::{
    History, KEEPS, LAG_MS, START_MS, held, histories, naive, open, page, position, shown,
};
use galvani_lagged::{Lagged, Now};
use galvani_model::version::{Dot, Record};
use galvani_storage::engine::{CrashKeep, FailKind, MemoryEngine};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

/// A replica, its disks, and what is true of it.
struct World {
    journal: MemoryEngine,
    base: MemoryEngine,
    replica: Option<Lagged<MemoryEngine>>,
    /// Since this process began, in milliseconds.
    steady_ms: u64,
    /// What the wall clock says.
    wall_ms: u64,
    /// For how long the replica has run in all, as far as its disk may know of it.
    ran_ms: u64,
    /// Of each record that may be there, `ran_ms` when it came first.
    came: BTreeMap<Dot, u64>,
    /// Records of which it was said that they are there.
    acknowledged: BTreeSet<Dot>,
}

impl World {
    fn new() -> World {
        let (journal, base) = (MemoryEngine::new(), MemoryEngine::new());
        let replica = Some(open(&journal, &base));
        let (steady_ms, wall_ms, ran_ms) = (0, START_MS, 0);
        let (came, acknowledged) = (BTreeMap::new(), BTreeSet::new());
        World { journal, base, replica, steady_ms, wall_ms, ran_ms, came, acknowledged }
    }

    fn now(&self) -> Now {
        Now { micros: self.steady_ms * 1_000, unix_ms: self.wall_ms }
    }

    fn replica(&mut self) -> &mut Lagged<MemoryEngine> {
        self.replica.as_mut().expect("it is opened again after each kill")
    }

    fn pass(&mut self, ms: u64) {
        self.steady_ms += ms;
        self.wall_ms += ms;
        self.ran_ms += ms;
    }

    /// The process ends, whatever its disks have of its last batches; another one begins.
    fn kill(&mut self, keep: CrashKeep, down_ms: u64) {
        self.replica = None;
        self.journal.crash(keep);
        self.base.crash(keep);
        self.steady_ms = 0;
        self.wall_ms += down_ms;
        self.replica = Some(open(&self.journal, &self.base));
    }

    /// Records come as one page. One that fails is gone on with by a process that is started anew.
    fn arrive(&mut self, records: &[Record]) {
        let (now, ran_ms) = (self.now(), self.ran_ms);
        let stored = self.replica().arrive(page(records), now).is_ok();
        if stored {
            self.acknowledged.extend(records.iter().map(|record| record.head.dot));
        } else {
            self.kill(CrashKeep::Committed, 0);
        }
        // One that was not acknowledged may be there all the same.
        for dot in held(self.replica(), records) {
            self.came.entry(dot).or_insert(ran_ms);
        }
    }

    fn step(&mut self) {
        let now = self.now();
        if self.replica().step(now).is_err() {
            self.kill(CrashKeep::Committed, 0);
        }
    }
}

/// What may be said of it at any time; why not, where it is wrong.
fn holds(world: &mut World, history: &History) -> Result<(), String> {
    let records = &history.records;
    let here = held(world.replica(), records);
    let told = position(world.replica(), records);
    if told != here {
        return Err(format!("L3: the position says {told:?}, held are {here:?}"));
    }
    if let Some(lost) = world.acknowledged.difference(&here).next() {
        return Err(format!("L3: {lost} was acknowledged and is gone"));
    }
    // What a power cut took comes again, and waits from then on.
    world.came.retain(|dot, _| here.contains(dot));
    let now = world.now();
    let status = world.replica().status(now).map_err(|error| error.to_string())?;
    let could = |came: &&u64| **came + LAG_MS <= world.ran_ms;
    let due = world.came.values().filter(could).count() as u64;
    if status.applied > due {
        return Err(format!("L1: {} applied, {due} have waited for the lag", status.applied));
    }
    let come = || records.iter().filter(|record| here.contains(&record.head.dot));
    for key in history.keys() {
        let (shown, expected) = (shown(world.replica(), &key), naive(come(), &key));
        if shown != expected {
            return Err(format!("L2: {key} shows {shown:?}, it is {expected:?}"));
        }
    }
    Ok(())
}

proptest! {
    /// L1, L2, L3 under whatever comes.
    #[test]
    fn whatever_happens_it_holds_what_came_for_the_whole_lag_and_loses_nothing(
        history in histories(24),
        steps in prop::collection::vec((0u8..14, any::<u16>()), 1..60),
    ) {
        let mut world = World::new();
        let arrived = history.arrived(history.records.len());
        let mut next = 0;
        for (what, with) in steps {
            let pick = usize::from(with);
            match what {
                0..=3 => {
                    let to = (next + pick % 4).min(arrived.len());
                    // Now and then what had come before comes again with it.
                    let from = if pick % 5 == 0 { next.saturating_sub(2) } else { next };
                    world.arrive(&arrived[from..to]);
                    next = to;
                }
                4..=6 => world.pass(u64::from(with)),
                7 => world.wall_ms = START_MS + 1_000 * u64::from(with),
                8 => {
                    let kinds = [FailKind::Full, FailKind::IoLost, FailKind::IoKept];
                    let engine = if pick % 2 == 0 { &world.journal } else { &world.base };
                    engine.fail_next_commits([kinds[pick % 3]]);
                }
                9 => {
                    let engine = if pick % 2 == 0 { &world.journal } else { &world.base };
                    engine.fail_next_sync();
                }
                10 => world.kill(KEEPS[pick % 4], u64::from(with) * 10),
                11 => {
                    let now = world.now();
                    let failed = match pick % 2 {
                        0 => world.replica().pause(now).is_err(),
                        _ => world.replica().resume(now).is_err(),
                    };
                    if failed {
                        world.kill(CrashKeep::Committed, 0);
                    }
                }
                _ => world.step(),
            }
            let held = holds(&mut world, &history);
            prop_assert!(held.is_ok(), "{what} {with}: {held:?}");
        }
        // What was ordered to fail may not have been met yet.
        world.kill(CrashKeep::Committed, 0);
        for _ in 0..3 {
            world.arrive(&arrived);
            let now = world.now();
            if world.replica().resume(now).is_err() {
                world.kill(CrashKeep::Committed, 0);
            }
            world.pass(2 * LAG_MS);
            for _ in 0..4 {
                world.step();
            }
        }
        let now = world.now();
        let status = world.replica().status(now).expect("readable");
        prop_assert_eq!((status.journal_records, status.applied), (0, arrived.len() as u64));
        let held = holds(&mut world, &history);
        prop_assert!(held.is_ok(), "in the end: {held:?}");
    }
}
