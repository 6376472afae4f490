//! Processor time of processes, read from the kernel.

use crate::error::PeerError;
use std::time::Duration;

/// Processor time that these processes have used so far, all threads of all of them.
pub(crate) fn cpu_of(pids: &[u32]) -> Result<Duration, PeerError> {
    let mut sum = Duration::ZERO;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let what = || PeerError::Malformed { protocol: "/proc/PID/stat", what: text.clone() };
        sum += cpu_in(&text).ok_or_else(what)?;
    }
    Ok(sum)
}

fn cpu_in(stat: &str) -> Option<Duration> {
    // The name is in brackets and may hold anything, brackets too.
    let fields = stat.rsplit(')').next()?;
    let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
    // utime and stime, the 14th and 15th field, in units of 10 ms on every Linux.
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

#[cfg(test)]
mod tests {
    use super::{cpu_in, cpu_of};
    use std::time::Duration;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 25 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_in(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(cpu_in("7 (a) S 1"), None);
        assert!(cpu_of(&[std::process::id()]).is_ok());
    }
}
