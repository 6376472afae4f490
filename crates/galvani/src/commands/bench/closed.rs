//! A closed loop: so many workers, each with one request at a time.
//!
//! A worker sends its next request when the last one is answered, so a cluster that stalls is asked
//! less: tail latencies are optimistic, and the report says so.

use crate::commands::bench::driver::Driver;
use crate::commands::bench::outcome::Outcome;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Instant),
    Count(u64),
}

impl Until {
    /// Whether there is one more operation to do after so many.
    fn goes_on(self, begun: u64) -> bool {
        match self {
            Until::Time(end) => Instant::now() < end,
            Until::Count(count) => begun < count,
        }
    }
}

/// Runs all workers to the end.
pub(crate) async fn run(
    driver: &Driver<'_>,
    workers: u32,
    until: Until,
    timeout: Duration,
    out: &RefCell<Outcome>,
) {
    let worker = || async {
        while until.goes_on(out.borrow().offered) {
            out.borrow_mut().offered += 1;
            match driver.next(Instant::now()) {
                Some(todo) => {
                    let ended = driver.one(todo).await;
                    out.borrow_mut().note(ended, timeout);
                }
                // Every key is being written by another worker: one of them will be done.
                None => {
                    out.borrow_mut().shed += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let mut running: FuturesUnordered<_> = (0..workers).map(|_| worker()).collect();
    while running.next().await.is_some() {}
    let mut out = out.borrow_mut();
    out.took = out.began.elapsed();
    let end = Instant::now();
    out.gap_until(end);
}

#[cfg(test)]
mod tests {
    use super::Until;
    use std::time::{Duration, Instant};

    #[test]
    fn a_loop_ends_by_count_or_by_time() {
        assert!(Until::Count(3).goes_on(2) && !Until::Count(3).goes_on(3));
        assert!(!Until::Time(Instant::now()).goes_on(0));
        assert!(Until::Time(Instant::now() + Duration::from_secs(3600)).goes_on(u64::MAX));
    }
}
