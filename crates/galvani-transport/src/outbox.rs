//! Frames that wait for one stream's writer.
//!
//! `send` appends to one buffer and wakes the writer only if it sleeps; the writer takes the whole
//! buffer at once. So all frames of a tick leave in one write, without a queue of frames, and the
//! lock is taken once a frame by the lane and once a write by the writer. Bounded in bytes,
//! counting what the writer took and QUIC has not taken yet; those of clients also by what all of
//! them hold together (`room.rs`).

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::SendError;
use crate::room::Room;

/// Bounds of one outbox, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxLimits {
    pub(crate) frame_max: usize,
    pub(crate) bytes_max: usize,
}

/// The outbox of one stream.
pub(crate) struct Outbox {
    state: Mutex<State>,
    limits: OutboxLimits,
    /// What it shares with others, if it does.
    room: Option<Arc<Room>>,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Write these bytes, which are whole frames; `frames` of them.
    Write { bytes: Bytes, frames: u64 },
    /// Nothing more will come: finish the stream.
    Finish,
    /// The link is down: stop.
    Stop,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Draining,
    Closed,
}

struct State {
    buffer: BytesMut,
    frames: u64,
    /// Bytes the writer holds.
    in_flight: usize,
    /// Bytes of this outbox that the shared room counts.
    counted: usize,
    phase: Phase,
    writer_runs: bool,
    waiting: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(limits: OutboxLimits, room: Option<Arc<Room>>) -> Self {
        Outbox {
            limits,
            room,
            state: Mutex::new(State {
                buffer: BytesMut::new(),
                frames: 0,
                in_flight: 0,
                counted: 0,
                phase: Phase::Open,
                writer_runs: false,
                waiting: None,
            }),
        }
    }

    /// Appends one frame made of `parts`.
    pub(crate) fn append(&self, parts: &[&[u8]]) -> Result<(), SendError> {
        let len = parts.iter().map(|part| part.len()).sum();
        self.check_length(len)?;
        let mut state = self.state.lock();
        self.check_room(&state, len)?;
        make_room(&mut state.buffer, PREFIX + len);
        // `check_length` bounds `len` by a limit that fits 32 bits.
        state.buffer.extend_from_slice(&(len as u32).to_le_bytes());
        for part in parts {
            state.buffer.extend_from_slice(part);
        }
        self.recount(&mut state);
        finish_append(state);
        Ok(())
    }

    /// Appends one frame that `write` appends to the buffer. Refused frames are taken back, and so is one
    /// of which `write` has appended nothing.
    pub(crate) fn append_with(&self, write: impl FnOnce(&mut BytesMut)) -> Result<(), SendError> {
        let mut state = self.state.lock();
        self.check_room(&state, 0)?;
        let start = state.buffer.len();
        make_room(&mut state.buffer, PREFIX);
        state.buffer.extend_from_slice(&[0; PREFIX]);
        write(&mut state.buffer);
        let end = state.buffer.len();
        assert!(end >= start + PREFIX, "a frame writer only appends");
        let len = end - start - PREFIX;
        if len == 0 {
            take_back(&mut state.buffer, start);
            return Ok(());
        }
        let fits = self.check_length(len).and_then(|()| {
            if start + state.in_flight > 0 && end + state.in_flight > self.limits.bytes_max {
                return Err(SendError::Full);
            }
            self.check_shared(&state, end + state.in_flight)
        });
        if let Err(refused) = fits {
            take_back(&mut state.buffer, start);
            return Err(refused);
        }
        state.buffer[start..start + PREFIX].copy_from_slice(&(len as u32).to_le_bytes());
        self.recount(&mut state);
        finish_append(state);
        Ok(())
    }

    /// What the writer does next; also says that what it took before has been written.
    pub(crate) fn poll_work(&self, cx: &mut Context<'_>) -> Poll<Work> {
        let mut state = self.state.lock();
        state.writer_runs = true;
        state.in_flight = 0;
        self.recount(&mut state);
        if state.phase == Phase::Closed {
            return Poll::Ready(Work::Stop);
        }
        if !state.buffer.is_empty() {
            // All of it stays counted until it is written.
            let bytes = state.buffer.split().freeze();
            state.in_flight = bytes.len();
            let frames = std::mem::take(&mut state.frames);
            return Poll::Ready(Work::Write { bytes, frames });
        }
        if state.phase == Phase::Draining {
            return Poll::Ready(Work::Finish);
        }
        if state.buffer.capacity() > IDLE_BYTES {
            state.buffer = BytesMut::new();
        }
        match &mut state.waiting {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Says that the writer ended, whether all was written or not.
    pub(crate) fn writer_ended(&self) {
        let mut state = self.state.lock();
        state.writer_runs = false;
        state.in_flight = 0;
        self.recount(&mut state);
    }

    /// Takes in nothing more; what is queued is still written, then the stream is finished.
    pub(crate) fn drain(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        wake(state);
    }

    /// Takes in nothing more and drops what is queued.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        state.buffer = BytesMut::new();
        state.frames = 0;
        self.recount(&mut state);
        wake(state);
    }

    /// Whether nothing is queued and no writer is at work.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.buffer.is_empty() && state.in_flight == 0 && !state.writer_runs
    }

    /// Bytes queued or held by the writer.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.buffer.len() + state.in_flight
    }

    fn check_length(&self, bytes: usize) -> Result<(), SendError> {
        let max = self.limits.frame_max;
        if bytes > max {
            return Err(SendError::TooLarge { bytes, max });
        }
        Ok(())
    }

    /// An empty outbox takes any one frame, so a bound below the largest frame never blocks it.
    fn check_room(&self, state: &State, len: usize) -> Result<(), SendError> {
        if state.phase != Phase::Open {
            return Err(SendError::Closed);
        }
        let used = state.buffer.len() + state.in_flight;
        if used > 0 && used + PREFIX + len > self.limits.bytes_max {
            return Err(SendError::Full);
        }
        self.check_shared(state, used + PREFIX + len)
    }

    /// Whether it may hold `bytes` beside what the others hold.
    fn check_shared(&self, state: &State, bytes: usize) -> Result<(), SendError> {
        match &self.room {
            Some(room) if !room.allows(bytes, state.counted) => Err(SendError::Full),
            Some(_) | None => Ok(()),
        }
    }

    /// Tells the shared room what it holds now.
    fn recount(&self, state: &mut State) {
        if let Some(room) = &self.room {
            let now = state.buffer.len() + state.in_flight;
            room.recount(state.counted, now);
            state.counted = now;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.recount(self.state.get_mut().counted, 0);
        }
    }
}

/// Takes a refused frame back, with the memory that it took: of thousands of links each might keep it.
fn take_back(buffer: &mut BytesMut, start: usize) {
    buffer.truncate(start);
    if start <= IDLE_BYTES && buffer.capacity() > 2 * IDLE_BYTES {
        *buffer = BytesMut::from(&buffer[..]);
    }
}

/// Grows in steps, so that a small frame does not cost a buffer of its own.
fn make_room(buffer: &mut BytesMut, bytes: usize) {
    if buffer.capacity() - buffer.len() < bytes {
        buffer.reserve(bytes.max(GROW_BYTES));
    }
}

fn finish_append(mut state: parking_lot::MutexGuard<'_, State>) {
    state.frames += 1;
    wake(state);
}

/// Wakes the writer, if it sleeps, after the lock is released.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waker = state.waiting.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Length prefix, bytes.
const PREFIX: usize = crate::frame::PREFIX_BYTES;

/// Step an outbox grows by. Small enough for thousands of links, several writes large.
const GROW_BYTES: usize = 16 << 10;

/// Capacity an idle outbox may keep.
const IDLE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::{Outbox, OutboxLimits, Work};
    use crate::SendError;
    use crate::room::Room;

    fn outbox() -> Outbox {
        Outbox::new(OutboxLimits { frame_max: 100, bytes_max: 64 }, None)
    }

    fn work(outbox: &Outbox) -> Poll<Work> {
        outbox.poll_work(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn frames_of_a_tick_leave_together() {
        let outbox = outbox();
        outbox.append(&[b"ab", b"c"]).expect("room");
        outbox.append_with(|b| b.extend_from_slice(b"de")).expect("room");
        let bytes = b"\x03\0\0\0abc\x02\0\0\0de".as_slice().into();
        assert_eq!(work(&outbox), Poll::Ready(Work::Write { bytes, frames: 2 }));
        assert_eq!(work(&outbox), Poll::Pending);
    }

    #[test]
    fn bytes_the_writer_holds_count_until_they_are_written() {
        let outbox = outbox();
        outbox.append(&[&[0; 40]]).expect("room");
        assert!(matches!(work(&outbox), Poll::Ready(Work::Write { .. })));
        assert_eq!(outbox.append(&[&[0; 40]]), Err(SendError::Full));
        let queued = outbox.bytes();
        outbox.append_with(|_| ()).expect("nothing to send");
        assert_eq!(outbox.bytes(), queued, "of which nothing was appended");
        let more = outbox.append_with(|b| b.extend_from_slice(&[0; 40]));
        assert_eq!(more, Err(SendError::Full));
        assert_eq!(outbox.bytes(), 44);
        assert_eq!(work(&outbox), Poll::Pending);
        outbox.append(&[&[0; 40]]).expect("room again");
    }

    #[test]
    fn a_frame_over_the_bound_passes_alone() {
        let outbox = outbox();
        outbox.append(&[&[0; 100]]).expect("empty outbox");
        assert_eq!(outbox.append(&[b""]), Err(SendError::Full));
        let too_large = SendError::TooLarge { bytes: 101, max: 100 };
        assert_eq!(outbox.append(&[&[0; 101]]), Err(too_large));
    }

    #[test]
    fn draining_writes_what_is_queued_and_then_finishes() {
        let outbox = outbox();
        outbox.append(&[b"a"]).expect("room");
        outbox.drain();
        assert_eq!(outbox.append(&[b"b"]), Err(SendError::Closed));
        assert!(matches!(work(&outbox), Poll::Ready(Work::Write { .. })));
        assert_eq!(work(&outbox), Poll::Ready(Work::Finish));
        assert!(!outbox.is_drained());
        outbox.writer_ended();
        assert!(outbox.is_drained());
    }

    #[test]
    fn what_all_hold_together_is_given_back_in_every_way_it_can_go() {
        let limits = OutboxLimits { frame_max: 1 << 20, bytes_max: 1 << 20 };
        let room = Arc::new(Room::new(400_000));
        let [first, second] = [(); 2].map(|()| Outbox::new(limits, Some(room.clone())));
        let frame = vec![0; 150_000];
        let append = |outbox: &Outbox| outbox.append_with(|out| out.extend_from_slice(&frame));
        append(&first).expect("room");
        // As much as it would hold has to stay free.
        assert_eq!(append(&first), Err(SendError::Full));
        assert_eq!(first.append(&[&frame]), Err(SendError::Full));
        assert_eq!(append(&second), Err(SendError::Full));
        second.append(&[b"small"]).expect("small answers pass");
        // Held by the writer it still counts.
        assert!(matches!(work(&first), Poll::Ready(Work::Write { .. })));
        assert_eq!(append(&second), Err(SendError::Full));
        assert_eq!(work(&first), Poll::Pending);
        append(&second).expect("written");
        second.close();
        append(&first).expect("closed");
        assert!(matches!(work(&first), Poll::Ready(Work::Write { .. })));
        first.writer_ended();
        append(&first).expect("its writer ended");
        drop(first);
        let third = Outbox::new(limits, Some(room));
        append(&third).expect("dropped");
    }
}
