//! Time and processor time per operation, as medians of rounds in which real thing and floor
//! take turns: whatever else the machine does then hits both.
//!
//! Nothing here asserts a time. Next to read: `table.rs`, which prints what was measured.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// What one stretch of work cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Elapsed nanoseconds per operation.
    pub wall_ns: f64,
    /// Processor nanoseconds per operation, all threads of this process.
    pub cpu_ns: f64,
    /// Median latency of an operation in nanoseconds; 0 where single ones were not timed.
    pub p50_ns: f64,
    /// 99th percentile of the latencies in nanoseconds; 0 where single ones were not timed.
    pub p99_ns: f64,
}

/// Processor time that all threads of this process have used so far.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// A stretch of work that began.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Stopwatch {
        Stopwatch { cpu: cpu_time(), began: Instant::now() }
    }

    /// What `operations` cost since the start.
    pub fn stop(&self, operations: u64) -> Cost {
        let (wall, cpu) = (self.began.elapsed(), cpu_time() - self.cpu);
        let per = |time: Duration| time.as_nanos() as f64 / operations.max(1) as f64;
        Cost { wall_ns: per(wall), cpu_ns: per(cpu), p50_ns: 0.0, p99_ns: 0.0 }
    }

    /// The same, with the latencies of the single operations in nanoseconds.
    pub fn stop_with(&self, latencies: &mut [u64]) -> Cost {
        let cost = self.stop(latencies.len() as u64);
        latencies.sort_unstable();
        Cost { p50_ns: quantile(latencies, 0.5), p99_ns: quantile(latencies, 0.99), ..cost }
    }
}

/// The value below which the share `q` of `sorted` lies; 0 of nothing.
fn quantile(sorted: &[u64], q: f64) -> f64 {
    let at = (sorted.len() as f64 * q) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(0.0, |&ns| ns as f64)
}

/// Field by field, the median of several rounds.
pub fn median(rounds: &[Cost]) -> Cost {
    let of = |field: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(field).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Cost {
        wall_ns: of(|cost| cost.wall_ns),
        cpu_ns: of(|cost| cost.cpu_ns),
        p50_ns: of(|cost| cost.p50_ns),
        p99_ns: of(|cost| cost.p99_ns),
    }
}

/// Runs `real` and `floor` in turns, `rounds` times each after one unmeasured turn, and returns
/// the medians of both.
pub fn in_turns(
    rounds: usize,
    mut real: impl FnMut() -> Cost,
    mut floor: impl FnMut() -> Cost,
) -> (Cost, Cost) {
    let (mut reals, mut floors) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (one, other) = (real(), floor());
        if round > 0 {
            reals.push(one);
            floors.push(other);
        }
    }
    (median(&reals), median(&floors))
}

/// Runs `op` `operations` times; single operations are not timed.
pub fn repeat(operations: u64, op: &mut dyn FnMut()) -> Cost {
    let watch = Stopwatch::start();
    for _ in 0..operations {
        op();
    }
    watch.stop(operations)
}

#[cfg(test)]
mod tests {
    use super::{Cost, Stopwatch, in_turns, median, quantile, repeat};

    fn wall(wall_ns: f64) -> Cost {
        Cost { wall_ns, ..Cost::default() }
    }

    #[test]
    fn the_median_is_taken_field_by_field() {
        let rounds = [
            Cost { wall_ns: 1.0, cpu_ns: 9.0, p50_ns: 5.0, p99_ns: 7.0 },
            Cost { wall_ns: 3.0, cpu_ns: 7.0, p50_ns: 4.0, p99_ns: 9.0 },
            Cost { wall_ns: 2.0, cpu_ns: 8.0, p50_ns: 6.0, p99_ns: 8.0 },
        ];
        let middle = Cost { wall_ns: 2.0, cpu_ns: 8.0, p50_ns: 5.0, p99_ns: 8.0 };
        assert_eq!(median(&rounds), middle);
        assert_eq!(median(&[]), Cost::default());
    }

    #[test]
    fn the_first_turn_is_not_counted() {
        let (mut a, mut b) = (0.0, 100.0);
        let real = || {
            a += 1.0;
            wall(a)
        };
        let floor = || {
            b += 1.0;
            wall(b)
        };
        assert_eq!(in_turns(3, real, floor), (wall(3.0), wall(103.0)));
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let sorted: Vec<u64> = (0..100).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99)), (50.0, 99.0));
        assert_eq!((quantile(&[7], 0.99), quantile(&[], 0.5)), (7.0, 0.0));
    }

    #[test]
    fn every_operation_is_run_and_costs_something() {
        let mut runs = 0_u64;
        let cost = repeat(1_000, &mut || runs = std::hint::black_box(runs + 1));
        assert_eq!(runs, 1_000);
        assert!(cost.wall_ns > 0.0);
        let mut latencies = [3, 1, 2];
        let cost = Stopwatch::start().stop_with(&mut latencies);
        assert_eq!((cost.p50_ns, cost.p99_ns), (2.0, 3.0));
    }
}
