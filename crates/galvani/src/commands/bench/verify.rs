//! The check: what a load wrote is read again, all replicas of it.
//!
//! Nothing is measured here, so a key that cannot be read now is tried again as long as any key
//! gets done. The judgement is the ledger's (`crates/galvani-load/src/ledger.rs`).

use crate::args::bench::Run;
use crate::commands::bench::driver::name;
use crate::connect::{App, Session};
use futures_util::stream::{self, StreamExt};
use galvani_client::{ConflictPolicy, Context, Quorum};
use galvani_load::ledger::{Ledger, Name};
use galvani_load::run::Check;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Why there is nothing to be checked; `None`: there is.
pub(crate) fn cannot(session: &Session, args: &Run) -> Option<String> {
    if args.no_check {
        return Some("--no-check".to_owned());
    }
    if args.value_bytes() < Name::BYTES as u64 {
        let least = Name::BYTES;
        return Some(format!("a value under {least} bytes has no room for its name"));
    }
    let view = session.client.cluster();
    let bucket = view.buckets.get(&args.bucket.bucket)?;
    match (bucket.ttl_ms, bucket.policy) {
        (1.., _) => Some(format!("values of bucket {} expire", args.bucket.bucket)),
        (0, ConflictPolicy::Lww) => {
            Some(format!("bucket {} keeps one of concurrent values", args.bucket.bucket))
        }
        (0, ConflictPolicy::Siblings) => None,
    }
}

/// Reads every key that was written at r=all.
pub(crate) async fn run(
    app: &App,
    session: &Session,
    args: &Run,
    ledger: &Ledger<Context>,
) -> Check {
    let bucket = session.bucket(&args.bucket);
    let written: Vec<usize> = (0..ledger.len()).filter(|key| ledger.is_written(*key)).collect();
    let keys = written.len() as u64;
    let bar = crate::commands::progress::bar(&app.out, Some(keys), "check");
    // When a key was done last.
    let last = &Cell::new(Instant::now());
    let bucket = &bucket;
    let mut reads = stream::iter(written)
        .map(|key| async move {
            loop {
                match bucket.get(name(key, ledger.maker(key))).r(Quorum::All).await {
                    Ok(read) => {
                        last.set(Instant::now());
                        let found: Vec<_> = read.values().map(|value| Name::of(value)).collect();
                        return Some(ledger.judge(key, &found));
                    }
                    Err(_) if last.get().elapsed() < IN_VAIN_MOST => {}
                    Err(_) => return None,
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut check = Check { acked: ledger.acked, keys, ..Check::default() };
    while let Some(judgement) = reads.next().await {
        bar.inc(1);
        match judgement {
            Some(judgement) => {
                check.lost += judgement.lost;
                check.resurrected += judgement.resurrected;
                check.foreign += judgement.foreign;
                check.unjudged += judgement.unjudged;
            }
            None => check.unread += 1,
        }
    }
    bar.finish_and_clear();
    check
}

const AT_ONCE: usize = 64;
/// Keys that cannot be read are given up when none could be for so long.
const IN_VAIN_MOST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
