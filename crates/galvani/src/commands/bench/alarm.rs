//! Waking up on time: the runtime's own timer counts in milliseconds, a schedule of ten thousand
//! requests a second does not.
//!
//! A timer of the kernel behind a file descriptor that the runtime waits for. Where there is none
//! the runtime's timer must do; the schedule lag then says so.

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::cell::Cell;
use std::io;
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// One timer, used by one task.
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: Option<AsyncFd<OwnedFd>>,
    set: Cell<Option<Instant>>,
}

impl Alarm {
    /// Needs the runtime it is to be waited for in.
    // `AsyncFd::register` is unsafe for types that may swap their descriptor: an `OwnedFd` cannot.
    #[allow(deprecated)]
    pub(crate) fn new() -> Alarm {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags).ok();
        Alarm { fd: fd.and_then(|fd| AsyncFd::new(fd).ok()), set: Cell::new(None) }
    }

    /// Waits until `at`; may be dropped and called again.
    pub(crate) async fn until(&self, at: Instant) {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let waited = match &self.fd {
            Some(fd) => self.kernel(fd, at).await,
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        if waited.is_err() {
            tokio::time::sleep_until(at.into()).await;
        }
    }

    async fn kernel(&self, fd: &AsyncFd<OwnedFd>, at: Instant) -> io::Result<()> {
        // Set already if the wait before this one was dropped: a system call less.
        if self.set.get() != Some(at) {
            let left = at.saturating_duration_since(Instant::now());
            let it_value = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                // Zero would switch it off.
                tv_nsec: left.subsec_nanos().max(1).into(),
            };
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = Itimerspec { it_interval, it_value };
            timerfd_settime(fd.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
            self.set.set(Some(at));
        }
        loop {
            let mut ready = fd.readable().await?;
            let read = ready.try_io(|fd| {
                rustix::io::read(fd.get_ref(), &mut [0_u8; 8]).map_err(io::Error::from)
            });
            if let Ok(read) = read {
                self.set.set(None);
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Alarm;
    use std::time::{Duration, Instant};

    #[test]
    fn it_rings_after_its_time_and_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let alarm = Alarm::new();
            for micros in [0, 300, 2_000] {
                let at = Instant::now() + Duration::from_micros(micros);
                // Dropped before its time, and called again.
                tokio::select! {
                    biased;
                    () = alarm.until(at + Duration::from_secs(3_600)) => panic!("too early"),
                    () = std::future::ready(()) => {}
                }
                alarm.until(at).await;
                assert!(Instant::now() >= at);
            }
        });
    }
}
