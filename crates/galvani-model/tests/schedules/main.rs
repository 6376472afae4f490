//! Random schedules of three replicas over the real version algebra, with each load-bearing guard
//! switched off in turn: without the guard some schedule must lose, resurrect, diverge or show a
//! false sibling; with it none may. The schedules follow the model runs behind the design:
//! reads and writes with old contexts, a read's or an earlier write's, loss, duplication, reordering,
//! exchange by clocks, retries through another coordinator, and replicas whose counter goes back.

mod world;

use galvani_model::bucket::ConflictPolicy;
use world::{Broken, Guards, Setup, run};

/// Schedules that must all be sound.
const SOUND: u64 = 500;
/// Schedules of which at least one must notice that a guard is off; the first one ends the search.
const CAUGHT: u64 = 5000;

/// What breaks in `schedules` schedules, lazily, by seed.
fn broken(schedules: u64, setup: Setup) -> impl Iterator<Item = (u64, Broken)> {
    (0..schedules).filter_map(move |seed| run(seed, setup).map(|broken| (seed, broken)))
}

fn assert_sound(setup: Setup) {
    assert!(broken(SOUND, setup).next().is_none(), "{setup:?}: {:?}", broken(SOUND, setup).next());
}

fn assert_caught(guards: Guards, base: Setup) {
    let setup = Setup { guards, ..base };
    let caught = broken(CAUGHT, setup).next();
    assert!(caught.is_some(), "nothing noticed that a guard was off: {guards:?}");
}

#[test]
fn exact_contexts_lose_nothing() {
    for policy in [ConflictPolicy::Siblings, ConflictPolicy::Lww] {
        assert_sound(Setup { policy, ..Setup::default() });
    }
}

#[test]
fn retries_through_other_coordinators_lose_nothing_and_show_once() {
    for policy in [ConflictPolicy::Siblings, ConflictPolicy::Lww] {
        assert_sound(Setup { policy, retries: true, ..Setup::default() });
    }
}

#[test]
fn a_counter_that_went_back_is_harmless_under_a_new_incarnation() {
    assert_sound(Setup { rollback: true, ..Setup::default() });
    assert_sound(Setup { rollback: true, retries: true, ..Setup::default() });
}

#[test]
fn without_the_clock_check_compression_loses_updates() {
    let guards = Guards { compress_asks_clock: false, ..Guards::default() };
    assert_caught(guards, Setup::default());
}

#[test]
fn an_author_who_has_not_seen_all_must_not_claim_it() {
    let guards = Guards { author_saw_all: false, ..Guards::default() };
    assert_caught(guards, Setup::default());
}

#[test]
fn plain_version_vectors_lose_updates() {
    let guards = Guards { exact_contexts: false, ..Guards::default() };
    assert_caught(guards, Setup::default());
}

#[test]
fn tombstones_collected_by_proof_keep_everything_deleted() {
    assert_sound(Setup { collect: true, ..Setup::default() });
    assert_sound(Setup { collect: true, retries: true, ..Setup::default() });
}

#[test]
fn without_asking_the_clock_late_copies_come_back() {
    // The request index would hide it for as long as it remembers, which is not for ever.
    let forgetful = Guards { alias_rule: false, ..Guards::default() };
    let base = Setup { collect: true, ..Setup::default() };
    assert_sound(Setup { guards: forgetful, ..base });
    assert_caught(Guards { apply_asks_clock: false, ..forgetful }, base);
}

#[test]
fn tombstones_collected_before_all_they_replaced_is_everywhere_resurrect() {
    let guards = Guards { collect_asks_past: false, ..Guards::default() };
    assert_caught(guards, Setup { collect: true, ..Setup::default() });
}

#[test]
fn tombstones_collected_at_once_resurrect() {
    let guards = Guards { collect_asks_all: false, ..Guards::default() };
    assert_caught(guards, Setup { collect: true, ..Setup::default() });
}

#[test]
fn without_the_alias_rule_retries_make_false_siblings() {
    let guards = Guards { alias_rule: false, ..Guards::default() };
    assert_caught(guards, Setup { retries: true, ..Setup::default() });
}

#[test]
fn without_the_coordinator_knowing_the_request_a_retry_mints_twice_and_is_still_harmless() {
    let guards = Guards { coordinator_knows_request: false, ..Guards::default() };
    assert_sound(Setup { retries: true, guards, ..Setup::default() });
}

#[test]
fn without_a_new_incarnation_a_counter_that_went_back_loses_updates() {
    let guards = Guards { new_incarnation: false, ..Guards::default() };
    assert_caught(guards, Setup { rollback: true, ..Setup::default() });
}

#[test]
fn coordinators_dating_retries_by_their_own_clock_diverge_under_lww() {
    let guards = Guards { date_by_request: false, ..Guards::default() };
    let lww = Setup { policy: ConflictPolicy::Lww, retries: true, ..Setup::default() };
    assert_caught(guards, lww);
}
