//! A sync that is interrupted at every one of its steps: what a replica says it has taken in it has, always.

use super::refill::started;
use super::{Pair, SHARD, Side, peer};
use galvani_model::limits::Limits;
use galvani_model::store::Store;
use galvani_protocol::Input;
use galvani_storage::engine::{CrashKeep, FailKind};

/// What befalls the side that pulls, before one of its ticks is committed.
#[derive(Clone, Copy, Debug)]
enum Interrupt {
    /// The commit fails, for sure or in doubt.
    Commit(FailKind),
    /// The process dies, or the machine, which keeps so many of the commits that were not synced.
    Crash(CrashKeep),
    /// The link breaks, and comes back.
    Link,
}

/// So many pages follow each other, one tick each, with ticks between them.
const VALUES: usize = 6;
const VALUE_BYTES: usize = 400 << 10;

#[test]
fn sync_interrupted_at_every_step_never_runs_clock_ahead() {
    let mut interrupts = vec![Interrupt::Link];
    interrupts.extend([FailKind::Full, FailKind::IoLost, FailKind::IoKept].map(Interrupt::Commit));
    interrupts.push(Interrupt::Crash(CrashKeep::Committed));
    interrupts.extend([0, 1, 3].map(|unsynced| Interrupt::Crash(CrashKeep::Synced { unsynced })));
    for interrupt in interrupts {
        let mut at = 0;
        while interrupted(interrupt, at) {
            at += 1;
        }
        assert!(at >= VALUES / 2, "{interrupt:?}: a sync takes more than {at} ticks");
    }
}

/// One sync with the interruption at this tick; whether it got so far.
fn interrupted(interrupt: Interrupt, at: usize) -> bool {
    let what = format!("{interrupt:?} at tick {at}");
    let mut pair = Pair::of(1, Limits::default());
    for number in 0..VALUES {
        pair.put(0, &format!("k{number}"), vec![number as u8; VALUE_BYTES]);
    }
    meet(&mut pair);
    let mut ticks = 0;
    for _ in 0..2_500 {
        pair.now.micros += 1_000;
        for side in 0..2 {
            pair.handle(side, Input::Wake);
        }
        loop {
            let mut moved = false;
            for side in 0..2 {
                let changes = pair.sides[side].store.has_staged();
                if side == 1 && changes {
                    if ticks == at {
                        apply(interrupt, &mut pair);
                    }
                    ticks += 1;
                }
                let effects = pair.tick(side);
                if changes {
                    says_what_it_has(&mut pair.sides[side], &what);
                }
                for effect in effects {
                    moved = true;
                    pair.deliver(side, effect);
                }
            }
            if !moved {
                break;
            }
        }
        pair.sides[1].store.try_disk_again();
    }
    assert_eq!(pair.clock(0), pair.clock(1), "{what}: in the end it has all");
    ticks > at
}

fn apply(interrupt: Interrupt, pair: &mut Pair) {
    match interrupt {
        Interrupt::Commit(kind) => pair.sides[1].engine.fail_next_commits([kind]),
        Interrupt::Crash(keep) => {
            let engine = pair.sides[1].engine.clone();
            engine.crash(keep);
            pair.sides[1] = started(1, &engine, &Limits::default());
            part(pair);
            meet(pair);
        }
        Interrupt::Link => {
            part(pair);
            meet(pair);
        }
    }
}

fn meet(pair: &mut Pair) {
    pair.linked = true;
    for side in 0..2 {
        pair.handle(side, Input::PeerUp(peer(1 - side)));
    }
}

fn part(pair: &mut Pair) {
    pair.linked = false;
    for side in 0..2 {
        pair.handle(side, Input::PeerDown(peer(1 - side)));
    }
}

/// Clock and digest are those of the rows on its disk.
fn says_what_it_has(side: &mut Side, what: &str) {
    let Ok(says) = side.store.replica(SHARD) else { return };
    let says = (says.clock.clone(), says.digest);
    let has = side.store.derive_state(SHARD).expect("readable");
    assert_eq!(says, (has.clock, has.digest), "{what}");
}
