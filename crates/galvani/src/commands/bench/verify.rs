//! The check: what a load wrote is read again, all replicas of it.
//!
//! Nothing is measured here, so a key that cannot be read now is tried again as long as any key
//! gets done; once none was for so long, no further one is asked. The judgement is the ledger's
//! (`crates/galvani-load/src/ledger.rs`).

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
    let hope = &Hope { last: Cell::new(Instant::now()), gone: Cell::new(false) };
    let bucket = &bucket;
    let mut reads = stream::iter(written)
        .map(|key| async move {
            let ask = async || bucket.get(name(key, ledger.maker(key))).r(Quorum::All).await;
            let read = hope.read(ask).await?;
            let found: Vec<_> = read.values().map(|value| Name::of(value)).collect();
            Some(ledger.judge(key, &found))
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

/// That a key that cannot be read now can be later.
struct Hope {
    /// When a key was done last.
    last: Cell<Instant>,
    /// Given up: none of those left is asked.
    gone: Cell<bool>,
}

impl Hope {
    /// What `ask` gives, asked as long as there is hope; `None`: there is none.
    async fn read<T, E>(&self, ask: impl AsyncFn() -> Result<T, E>) -> Option<T> {
        while !self.gone.get() {
            if let Ok(read) = ask().await {
                self.last.set(Instant::now());
                return Some(read);
            }
            match self.last.get().elapsed() < IN_VAIN_MOST {
                true => tokio::time::sleep(PAUSE).await,
                false => self.gone.set(true),
            }
        }
        None
    }
}

const AT_ONCE: usize = 64;
/// Keys that cannot be read are given up when none could be for so long.
const IN_VAIN_MOST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::{Hope, IN_VAIN_MOST};
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    #[test]
    fn once_given_up_no_further_key_is_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let ago = |ago: Duration| Instant::now().checked_sub(ago).expect("it runs for longer");
            let hope = Hope { last: Cell::new(ago(IN_VAIN_MOST)), gone: Cell::new(false) };
            let asked = Cell::new(0);
            let ask = |good_from: u32| {
                let asked = &asked;
                async move || {
                    asked.set(asked.get() + 1);
                    (asked.get() >= good_from).then_some(asked.get()).ok_or(())
                }
            };
            assert_eq!(hope.read(ask(1)).await, Some(1), "each is asked before it is given up");
            assert_eq!(hope.read(ask(3)).await, Some(3), "and again: the one before was read");
            hope.last.set(ago(IN_VAIN_MOST));
            assert_eq!(hope.read(ask(9)).await, None);
            assert_eq!((hope.read(ask(0)).await, asked.get()), (None, 4), "not even asked");
        });
    }
}
