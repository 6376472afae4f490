//! Cutting a stream's bytes into frames: `u32` little-endian length, then that many bytes.
//!
//! A value: it reads nothing itself. The length is checked against the class's limit before
//! anything is reserved for it, and what is reserved follows what has arrived, so a lying prefix
//! costs nothing. Frames that lie whole in the buffer are handed out without a copy.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length prefix.
pub(crate) const PREFIX_BYTES: usize = 4;

/// A length prefix over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oversized {
    pub(crate) bytes: u32,
}

/// The unfinished end of one stream.
pub(crate) struct FrameCutter {
    buffer: BytesMut,
    frame_max: usize,
    /// Room made for the next read; follows how much the last ones brought.
    step: usize,
}

impl FrameCutter {
    pub(crate) fn new(frame_max: usize) -> Self {
        FrameCutter { buffer: BytesMut::new(), frame_max, step: STEP_MIN }
    }

    /// The buffer to read into, with room.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        let room = self.buffer.capacity() - self.buffer.len();
        let missing = self.missing();
        if missing > room {
            // Doubling, not the whole announced length: memory follows what the peer really sent.
            let grow = self.buffer.len().max(LARGE_STEP);
            self.buffer.reserve(missing.min(grow).max(self.step));
        } else if room < self.step / 4 {
            self.buffer.reserve(self.step);
        }
        &mut self.buffer
    }

    /// Moves the whole frames in the buffer to the end of `out`.
    pub(crate) fn cut(&mut self, out: &mut Vec<Bytes>) -> Result<(), Oversized> {
        while let Some(bytes) = self.announced() {
            let len = bytes as usize;
            if len > self.frame_max {
                return Err(Oversized { bytes });
            }
            if self.buffer.len() - PREFIX_BYTES < len {
                break;
            }
            self.buffer.advance(PREFIX_BYTES);
            out.push(self.buffer.split_to(len).freeze());
        }
        Ok(())
    }

    /// Tells how much one read brought.
    pub(crate) fn note_read(&mut self, bytes: usize) {
        if bytes >= self.step / 2 {
            self.step = (self.step * 2).min(STEP_MAX);
        }
    }

    /// Whether a frame has begun and is not whole.
    pub(crate) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The length of the frame that has begun, 0 if it is not known yet. Called after `cut`, so it is
    /// allowed.
    pub(crate) fn announced_bytes(&self) -> usize {
        self.announced().map_or(0, |bytes| bytes as usize)
    }

    fn announced(&self) -> Option<u32> {
        self.buffer.first_chunk::<PREFIX_BYTES>().map(|prefix| u32::from_le_bytes(*prefix))
    }

    /// Bytes the frame that has begun still lacks. Called after `cut`, so its length is allowed.
    fn missing(&self) -> usize {
        match self.announced() {
            Some(len) => (PREFIX_BYTES + len as usize).saturating_sub(self.buffer.len()),
            None => 0,
        }
    }
}

/// Room for a read on a quiet stream: thousands of links stay cheap.
const STEP_MIN: usize = 4 << 10;

/// Room for a read on a busy stream.
const STEP_MAX: usize = 64 << 10;

/// Room made at once for a large frame, before it has shown that it really comes.
const LARGE_STEP: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{FrameCutter, LARGE_STEP, Oversized};

    fn feed(cutter: &mut FrameCutter, bytes: &[u8], out: &mut Vec<Bytes>) -> Result<(), Oversized> {
        cutter.buffer().extend_from_slice(bytes);
        cutter.note_read(bytes.len());
        cutter.cut(out)
    }

    #[test]
    fn any_way_of_splitting_the_stream_gives_the_same_frames() {
        let payloads: Vec<Vec<u8>> = (0..40_usize).map(|n| vec![n as u8; n * 7 % 50]).collect();
        let mut stream = Vec::new();
        for payload in &payloads {
            stream.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            stream.extend_from_slice(payload);
        }
        for step in 1..=stream.len() {
            let mut cutter = FrameCutter::new(50);
            let mut out = Vec::new();
            for piece in stream.chunks(step) {
                feed(&mut cutter, piece, &mut out).expect("within the limit");
            }
            assert_eq!(out, payloads, "step {step}");
            assert!(!cutter.is_partial());
        }
    }

    #[test]
    fn an_oversized_prefix_is_refused_before_anything_is_reserved() {
        let mut cutter = FrameCutter::new(1_000);
        let mut out = Vec::new();
        let before = cutter.buffer().capacity();
        let refused = feed(&mut cutter, &u32::MAX.to_le_bytes(), &mut out);
        assert_eq!(refused, Err(Oversized { bytes: u32::MAX }));
        assert_eq!(cutter.buffer.capacity(), before);
    }

    #[test]
    fn room_for_a_large_frame_follows_what_arrived() {
        let mut cutter = FrameCutter::new(100 << 20);
        let mut out = Vec::new();
        let announced: u32 = 100 << 20;
        feed(&mut cutter, &announced.to_le_bytes(), &mut out).expect("allowed");
        assert!(cutter.buffer().capacity() <= 2 * LARGE_STEP);
        assert!(cutter.is_partial());
    }
}
