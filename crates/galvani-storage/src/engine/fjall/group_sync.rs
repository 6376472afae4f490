//! Several lanes, one fsync.
//!
//! A lane that wants what it wrote to be safe either leads (calls the disk) or waits for a leader
//! that started after its write. While one sync runs, all later comers share the next one.
//! Next to read: `mod.rs`.

use parking_lot::{Condvar, Mutex};

use crate::engine::EngineError;

#[derive(Default)]
pub(super) struct GroupSync {
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Default)]
struct State {
    /// Rounds started and finished; the running one, if any, is number `started`.
    started: u64,
    finished: u64,
    failed: Option<Failed>,
}

/// The last unbroken run of failed rounds, kept for those who waited for one of them.
struct Failed {
    first: u64,
    last: u64,
    error: EngineError,
}

impl GroupSync {
    /// Returns once a sync that began after this call has ended, with its outcome. `sync` is run
    /// on this thread if none does.
    pub(super) fn sync(
        &self,
        sync: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        // A running round may have begun before our write: the one after it surely has not.
        let wanted = state.started + 1;
        while state.finished < wanted && state.started > state.finished {
            self.finished.wait(&mut state);
        }
        if state.finished >= wanted {
            return match &state.failed {
                Some(failed) if (failed.first..=failed.last).contains(&wanted) => {
                    Err(failed.error.clone())
                }
                Some(_) | None => Ok(()),
            };
        }
        state.started += 1;
        let round = state.started;
        drop(state);
        let outcome = sync();
        let mut state = self.state.lock();
        state.finished = round;
        if let Err(error) = &outcome {
            match &mut state.failed {
                Some(failed) if failed.last + 1 == round => failed.last = round,
                Some(_) | None => {
                    let error = error.clone();
                    state.failed = Some(Failed { first: round, last: round, error });
                }
            }
        }
        drop(state);
        self.finished.notify_all();
        outcome
    }

    /// How many syncs ran.
    pub(super) fn syncs(&self) -> u64 {
        self.state.lock().finished
    }
}

#[cfg(test)]
mod tests {
    use super::GroupSync;
    use crate::engine::EngineError;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Barrier};

    #[test]
    fn each_caller_is_covered_by_a_sync_that_began_after_its_write() {
        let group = Arc::new(GroupSync::default());
        let written = Arc::new(AtomicU64::new(0));
        let safe = Arc::new(AtomicU64::new(0));
        let lanes: Vec<_> = (0..4)
            .map(|_| {
                let (group, written, safe) = (group.clone(), written.clone(), safe.clone());
                std::thread::spawn(move || {
                    for _ in 0..500 {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        let sync = || {
                            let seen = written.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            safe.fetch_max(seen, Ordering::SeqCst);
                            Ok(())
                        };
                        group.sync(sync).expect("never fails");
                        assert!(safe.load(Ordering::SeqCst) >= mine);
                    }
                })
            })
            .collect();
        for lane in lanes {
            lane.join().expect("no lane panics");
        }
        assert!(group.syncs() <= 2_000);
    }

    #[test]
    fn a_failed_sync_fails_all_who_waited_for_it() {
        let group = Arc::new(GroupSync::default());
        let running = Arc::new(Barrier::new(2));
        let leader = {
            let (group, running) = (group.clone(), running.clone());
            std::thread::spawn(move || {
                group.sync(|| {
                    running.wait();
                    running.wait();
                    Ok(())
                })
            })
        };
        running.wait();
        let followers: Vec<_> = (0..3)
            .map(|_| {
                let group = group.clone();
                std::thread::spawn(move || group.sync(|| Err(EngineError::ReadOnly)))
            })
            .collect();
        running.wait();
        leader.join().expect("no panic").expect("its own sync went well");
        for follower in followers {
            let outcome = follower.join().expect("no panic");
            assert_eq!(outcome, Err(EngineError::ReadOnly));
        }
    }
}
