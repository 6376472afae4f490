//! Waiting for a condition with a deadline: the only way tests wait.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Most time any single condition may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again until it has an answer; panics with what it last said after
/// [`PATIENCE`]. `what` names the condition.
pub fn until<T, E: Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    until_within(PATIENCE, what, probe)
}

/// As [`until`], for a condition that takes much longer on a busy machine: panics after `most`.
pub fn until_within<T, E: Debug>(
    most: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(answer) => return answer,
            Err(why) if began.elapsed() >= most => panic!("waited {most:?} for {what}: {why:?}"),
            Err(_) => {}
        }
        // wait: until the probe has an answer, or its time is over
        std::thread::sleep(POLL);
    }
}

/// Lets work that goes on in other threads go on until `done` says so, or for `most`.
pub fn at_most(most: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < most && !done() {
        // wait: until `done`, at most so long
        std::thread::sleep(POLL.min(most));
    }
}

const POLL: Duration = Duration::from_millis(20);
