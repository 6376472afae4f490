//! The two tasks of one stream: the writer empties an outbox, the reader fills the inbox.
//!
//! A stream carries one class in both directions for the life of its link; each direction opens
//! with the class id and continues with frames (`frame.rs`). Both tasks work in batches: one write
//! for all frames of a tick, one push for all frames of a read. Neither decides what a frame
//! means, and neither ends a link except for what the peer did wrong.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::counters::add;
use crate::endpoint::Shared;
use crate::frame::FrameCutter;
use crate::link::Link;
use crate::outbox::Work;
use crate::windows::{FrameRoom, SMALL_FRAME_BYTES};
use crate::{Class, CloseCode, DownReason};

/// Writes the outbox of `class` to the stream until the link ends or is drained.
pub(crate) async fn run_writer(
    shared: Arc<Shared>,
    link: Arc<Link>,
    class: Class,
    mut send: SendStream,
    first: Option<u8>,
) {
    let outbox = link.outbox(class);
    match write_all(&shared, &link, class, &mut send, first).await {
        Err(WriteError::Stopped(_)) => {
            let reason = DownReason::violation("stream stopped");
            link.fail(reason, CloseCode::PROTOCOL_VIOLATION, b"stream stopped");
        }
        // A lost connection ends the link by itself.
        Ok(())
        | Err(
            WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected,
        ) => {}
    }
    outbox.writer_ended();
    shared.drained.notify_waiters();
}

async fn write_all(
    shared: &Shared,
    link: &Link,
    class: Class,
    send: &mut SendStream,
    first: Option<u8>,
) -> Result<(), WriteError> {
    if let Some(byte) = first {
        send.write_all(&[byte]).await?;
    }
    loop {
        match poll_fn(|cx| link.outbox(class).poll_work(cx)).await {
            Work::Write { bytes, frames } => {
                let len = bytes.len() as u64;
                match link.is_clients() {
                    // A copy: QUIC then holds what its window allows, not all of the buffer of which the
                    // last part is not acknowledged.
                    true => send.write_all(&bytes).await?,
                    false => send.write_chunk(bytes).await?,
                }
                add(&shared.counters.frames_out, frames);
                add(&shared.counters.bytes_out, len);
            }
            Work::Finish => {
                // Waits for the peer's acknowledgement of everything, which `shutdown` relies on.
                if send.finish().is_ok() {
                    let _ = send.stopped().await;
                }
                return Ok(());
            }
            Work::Stop => return Ok(()),
        }
    }
}

/// Reads frames of `class` into the inbox until the stream or the link ends.
pub(crate) async fn run_reader(
    shared: Arc<Shared>,
    link: Arc<Link>,
    class: Class,
    mut recv: RecvStream,
    expect_class: bool,
    frames: Option<Arc<FrameRoom>>,
) {
    let result = async {
        if expect_class && read_class(&mut recv).await? != class {
            return Err(DownReason::violation("answer of another class"));
        }
        read_frames(&shared, &link, class, &mut recv, frames.as_deref()).await
    };
    let Err(reason) = result.await else {
        return;
    };
    let (code, words): (CloseCode, &[u8]) = match &reason {
        DownReason::FrameTooLarge { .. } => (CloseCode::FRAME_TOO_LARGE, b"frame too large"),
        DownReason::SlowFrame => (CloseCode::SLOW_FRAME, b"slow frame"),
        // The link ended and knows why.
        DownReason::ClosedHere => return,
        DownReason::ConnectTimeout
        | DownReason::Unreachable { .. }
        | DownReason::Refused
        | DownReason::TlsFailed { .. }
        | DownReason::WrongAlpn
        | DownReason::BadIdentity
        | DownReason::WrongNode { .. }
        | DownReason::IdleTimeout
        | DownReason::ClosedByPeer { .. }
        | DownReason::Reset
        | DownReason::ClassRefused
        | DownReason::ProtocolViolation { .. } => {
            (CloseCode::PROTOCOL_VIOLATION, b"protocol violation")
        }
    };
    link.fail(reason, code, words);
}

/// `Err(ClosedHere)` stands for "the connection ended", which has its own reason.
async fn read_frames(
    shared: &Shared,
    link: &Link,
    class: Class,
    recv: &mut RecvStream,
    of_identity: Option<&FrameRoom>,
) -> Result<(), DownReason> {
    let max = shared.config.frame_bytes_max(class);
    let progress = link.progress(class);
    let mut cutter = FrameCutter::new(max);
    let mut frames = Vec::new();
    // For the large frame of a client of which a part has come.
    let mut room = None;
    loop {
        let read = match recv.read_buf(cutter.buffer()).await {
            Ok(0) if cutter.is_partial() => {
                return Err(DownReason::violation("stream ended inside a frame"));
            }
            // The peer drains its side: it sends no more, but may still read.
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) => return Err(of_read_error(&error)),
        };
        cutter.note_read(read);
        let cut = cutter.cut(&mut frames);
        progress.reads.fetch_add(1, Ordering::Relaxed);
        progress.partial.store(cutter.is_partial(), Ordering::Relaxed);
        add(&shared.counters.bytes_in, read as u64);
        let ended = !frames.is_empty();
        if ended {
            add(&shared.counters.frames_in, frames.len() as u64);
            if !shared.inbox.push_frames(link.id, class, &mut frames) {
                // While we do not read, an unfinished frame is not the peer's fault.
                progress.partial.store(false, Ordering::Relaxed);
                shared.inbox.space(class).await;
                progress.reads.fetch_add(1, Ordering::Relaxed);
                progress.partial.store(cutter.is_partial(), Ordering::Relaxed);
            }
        }
        cut.map_err(|oversized| DownReason::FrameTooLarge { bytes: oversized.bytes, max })?;
        if ended {
            room = None;
        }
        if room.as_ref().is_some_and(|(_, by)| Instant::now() > *by) {
            return Err(DownReason::SlowFrame);
        }
        let begun = cutter.announced_bytes();
        if let Some(of_identity) =
            of_identity.filter(|_| room.is_none() && begun > SMALL_FRAME_BYTES)
        {
            progress.partial.store(false, Ordering::Relaxed);
            let permits =
                async { (of_identity.take(begun).await, shared.frame_room.take(begun).await) };
            let permits = tokio::select! {
                permits = permits => permits,
                () = link.is_over() => return Err(DownReason::ClosedHere),
            };
            let time = shared.config.frame_gap_max + LARGE_FRAME_TIME * (begun >> 20) as u32;
            room = Some((permits, Instant::now() + time));
            progress.reads.fetch_add(1, Ordering::Relaxed);
            progress.partial.store(true, Ordering::Relaxed);
        }
    }
}

/// Reads the byte that opens each direction of a stream.
pub(crate) async fn read_class(recv: &mut RecvStream) -> Result<Class, DownReason> {
    let mut byte = [0];
    match recv.read_exact(&mut byte).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(_)) => {
            return Err(DownReason::violation("stream ended before its class"));
        }
        Err(ReadExactError::ReadError(error)) => return Err(of_quinn_read_error(&error)),
    }
    Class::from_wire_id(byte[0]).ok_or_else(|| DownReason::violation("unknown class"))
}

fn of_read_error(error: &io::Error) -> DownReason {
    match error.get_ref().and_then(|e| e.downcast_ref::<ReadError>()) {
        Some(error) => of_quinn_read_error(error),
        None => DownReason::violation("stream not readable"),
    }
}

fn of_quinn_read_error(error: &ReadError) -> DownReason {
    match error {
        ReadError::ConnectionLost(_) => DownReason::ClosedHere,
        ReadError::Reset(_) => DownReason::violation("stream reset"),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            DownReason::violation("stream not readable")
        }
    }
}

/// How much longer than the gap between two reads each MiB of a large frame of a client may take: it has
/// room that others wait for.
const LARGE_FRAME_TIME: Duration = Duration::from_secs(1);
