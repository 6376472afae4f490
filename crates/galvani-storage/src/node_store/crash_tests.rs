//! The digest is written in the batch of what it stands for, so no crash can part the two.

use super::tests::{SHARD, open, record, stage, tombstone};
use crate::engine::{CrashKeep, FailKind, MemoryEngine};
use galvani_model::store::Store;
use galvani_model::version::Record;
use std::sync::Arc;

/// Writes, siblings, deletes; a tick each or several together.
fn script(counter: u64) -> (Record, bool) {
    let name = ["a", "b", "c", "d"][counter as usize % 4];
    let record = match counter % 5 {
        0 => tombstone(counter, name, &[counter - 4]),
        _ => record(counter, name),
    };
    (record, !counter.is_multiple_of(3))
}

/// A2.
#[test]
fn tree_stale_after_crash() {
    for last in 1..=30 {
        let keeps = [
            CrashKeep::Committed,
            CrashKeep::Synced { unsynced: 0 },
            CrashKeep::Synced { unsynced: last as usize / 2 },
            CrashKeep::Synced { unsynced: usize::MAX },
        ];
        for keep in keeps {
            for fails in [None, Some(FailKind::IoLost), Some(FailKind::IoKept)] {
                let engine = Arc::new(MemoryEngine::new());
                let mut store = open(&engine, true);
                for counter in 1..=last {
                    let (record, ends) = script(counter);
                    stage(&mut store, &record).expect("staged");
                    // The last tick is cut short, with something staged or in doubt.
                    if counter == last {
                        engine.fail_next_commits(fails);
                        let committed = fails.map(|_| store.commit(false));
                        assert!(committed.is_none_or(|committed| committed.is_err()));
                    } else if ends {
                        store.commit(counter % 7 == 0).expect("room");
                    }
                }
                engine.crash(keep);
                let what = format!("{last} writes, {keep:?}, {fails:?}");
                let mut again = open(&engine, false);
                let derived = again.derive_state(SHARD).expect("readable");
                let kept = again.replica(SHARD).expect("readable");
                assert_eq!(kept.digest, derived.digest, "{what}");
                assert_eq!(kept, &derived, "{what}");
                assert_eq!(again.quarantined(), 0, "{what}");
            }
        }
    }
}
