//! What QUIC may hold of each client's link: bytes sent and not acknowledged, and bytes received and not
//! read.
//!
//! A few clients get the windows that nodes have; of many each gets its part of what there is for all, so
//! that thousands who do not read, or whose frames find no room, hold little together. What a link has been
//! allowed already is not taken back, so all of them may hold a few times the budget, and no more:
//! the n-th gets an n-th of it. A frame that is larger than a little waits for room before its rest is read.
//! Next to read: `room.rs`, for what waits before QUIC takes it; `stream.rs`.

use quinn::{Connection, VarInt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Config;

/// The windows of one link, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    send: u64,
    receive: u32,
}

impl Windows {
    /// Of a node's link.
    pub(crate) fn of_node(config: &Config) -> Windows {
        Windows { send: config.send_window, receive: config.receive_window() }
    }

    /// Of a client's link, beside which there are others: `clients` in all.
    pub(crate) fn of_client(config: &Config, clients: usize) -> Windows {
        let part = config.client_windows_bytes / clients.max(1);
        let part = u32::try_from(part).unwrap_or(u32::MAX).max(WINDOW_MIN);
        Windows {
            send: u64::from(part).min(config.send_window),
            receive: part.min(config.receive_window()),
        }
    }

    /// The same, but never less to receive than before: what was allowed is allowed, and would be allowed
    /// anew each time that it grows.
    pub(crate) fn after(self, before: Windows) -> Windows {
        Windows { receive: self.receive.max(before.receive), ..self }
    }

    /// Has them hold for `connection` from now on.
    pub(crate) fn set(self, connection: &Connection) {
        connection.set_send_window(self.send);
        connection.set_receive_window(VarInt::from_u32(self.receive));
    }
}

/// Room for the frames of clients of which a part has come.
#[derive(Debug)]
pub(crate) struct FrameRoom {
    kib: Semaphore,
    kib_max: u32,
}

impl FrameRoom {
    pub(crate) fn of(bytes_max: usize) -> FrameRoom {
        let kib_max = u32::try_from(bytes_max >> 10).unwrap_or(u32::MAX);
        FrameRoom { kib: Semaphore::new(kib_max as usize), kib_max }
    }

    /// Waits for room for a whole frame, so that whoever begins to read one can end it; for all of the room
    /// if the frame is larger.
    pub(crate) async fn take(&self, bytes: usize) -> SemaphorePermit<'_> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.kib_max);
        self.kib.acquire_many(kib).await.expect("nobody closes it")
    }
}

/// A link's window, however many there are.
pub(crate) const WINDOW_MIN: u32 = 64 << 10;
/// Frames up to this wait for no room.
pub(crate) const SMALL_FRAME_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::{FrameRoom, WINDOW_MIN, Windows};
    use crate::Config;

    #[test]
    fn few_clients_have_what_nodes_have_and_many_hold_little_together() {
        let config = Config::default();
        assert_eq!(Windows::of_client(&config, 1).send, config.send_window);
        assert_eq!(Windows::of_client(&config, 100_000).send, u64::from(WINDOW_MIN));
        // What may be received is not taken back, and not allowed anew when it grows again.
        let (few, many) = (Windows::of_client(&config, 1), Windows::of_client(&config, 1_000));
        assert_eq!((many.after(few).receive, many.after(few).send), (few.receive, many.send));
        assert_eq!(few.after(many.after(few)).receive, few.receive);
        // Each gets its windows when it comes, and keeps them although it reads nothing.
        let clients = config.links_max - config.links_max / 4;
        let all = (1..=clients).map(|nth| Windows::of_client(&config, nth).send).sum::<u64>();
        assert!(all <= 8 * config.client_windows_bytes as u64, "{} MiB", all >> 20);
    }

    #[tokio::test]
    async fn frames_wait_until_there_is_room_for_all_of_them() {
        let room = FrameRoom::of(1 << 20);
        let half = room.take(512 << 10).await;
        let other = room.take(512 << 10).await;
        let mut third = Box::pin(room.take(100 << 10));
        let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(third.as_mut().poll(cx)));
        assert!(waits.await.is_pending());
        drop(half);
        drop((third.await, other));
    }
}
