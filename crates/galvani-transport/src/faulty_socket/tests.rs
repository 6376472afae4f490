//! The socket over one that writes everything down: batches, order, bounds.

use super::{FaultySocket, WAITING_BYTES_MAX, keep};
use crate::faults::{Faults, PeerFaults};
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

#[test]
fn kept_datagrams_of_a_batch_move_together() {
    let kept = |kept: &[bool]| {
        let mut buffer = *b"aaabbbccc__";
        let len = keep(&mut buffer, 8, 3, kept);
        buffer[..len].to_vec()
    };
    assert_eq!(kept(&[true, true, true]), b"aaabbbcc");
    assert_eq!(kept(&[false, true, true]), b"bbbcc");
    assert_eq!(kept(&[true, false, true]), b"aaacc");
    assert_eq!(kept(&[false, false, false]), b"");
}

/// Takes everything down that is sent.
#[derive(Debug, Default)]
struct Recorder {
    sent: Mutex<Vec<(Vec<u8>, Option<usize>)>>,
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Recorder {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sent.lock().push((transmit.contents.to_vec(), transmit.segment_size));
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(peer())
    }
}

struct Bench {
    socket: FaultySocket,
    recorder: Arc<Recorder>,
    faults: Faults,
}

fn bench() -> Bench {
    let (recorder, faults) = (Arc::new(Recorder::default()), Faults::new(5));
    let socket = FaultySocket::new(recorder.clone(), faults.clone(), &Handle::current());
    Bench { socket, recorder, faults }
}

impl Bench {
    fn set(&self, faults: PeerFaults) {
        self.faults.set([(peer(), faults)]);
    }

    fn send(&self, contents: &[u8], segment_size: Option<usize>) {
        let destination = peer();
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        self.socket.try_send(&transmit).expect("the recorder takes everything");
    }

    /// Waits until so many datagrams have left.
    async fn sent(&self, count: usize) -> Vec<(Vec<u8>, Option<usize>)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let sent = self.recorder.sent.lock().clone();
            if sent.len() >= count {
                return sent;
            }
            assert!(Instant::now() < deadline, "{} of {count} left", sent.len());
            // wait: until they have left, or the deadline asserted above
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn peer() -> SocketAddr {
    "127.0.0.1:1".parse().expect("an address")
}

#[tokio::test]
async fn batches_pass_whole_unless_some_of_them_is_lost() {
    let bench = bench();
    bench.send(b"aabbc", Some(2));
    bench.faults.set([(
        "127.0.0.1:2".parse().expect("an address"),
        PeerFaults { cut_out: true, ..PeerFaults::default() },
    )]);
    bench.send(b"aabbc", Some(2));
    let whole = (b"aabbc".to_vec(), Some(2));
    assert_eq!(*bench.recorder.sent.lock(), [whole.clone(), whole], "another is cut off");
    bench.set(PeerFaults { cut_out: true, ..PeerFaults::default() });
    bench.send(b"aabbc", Some(2));
    assert_eq!(bench.recorder.sent.lock().len(), 2);
    bench.set(PeerFaults { loss_ppm: 500_000, ..PeerFaults::default() });
    (0..20).for_each(|_| bench.send(b"aabbc", Some(2)));
    let sent = bench.recorder.sent.lock();
    let single =
        |(contents, size): &(Vec<u8>, Option<usize>)| size.is_none() && contents.len() <= 2;
    assert!((10..50).contains(&sent.iter().filter(|one| single(one)).count()), "{sent:?}");
}

#[tokio::test]
async fn what_is_late_keeps_its_order_in_spite_of_jitter() {
    let bench = bench();
    let (delay, jitter) = (Duration::from_millis(30), Duration::from_millis(30));
    bench.set(PeerFaults { delay, jitter, ..PeerFaults::default() });
    let all: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number]).collect();
    all.iter().for_each(|contents| bench.send(contents, None));
    assert_eq!(*bench.recorder.sent.lock(), [], "nothing leaves at once");
    let sent: Vec<_> = bench.sent(40).await.into_iter().map(|(contents, _)| contents).collect();
    assert_eq!(sent, all);
}

#[tokio::test]
async fn what_waits_is_bounded_and_room_comes_back() {
    const EACH: usize = 60_000;
    let bench = bench();
    let late = PeerFaults { delay: Duration::from_millis(20), ..PeerFaults::default() };
    bench.set(late);
    let room = WAITING_BYTES_MAX / EACH;
    (0..room + 50).for_each(|_| bench.send(&[7; EACH], None));
    bench.sent(room).await;
    bench.send(&[8; EACH], None);
    let sent = bench.sent(room + 1).await;
    assert_eq!((sent.len(), sent[room].0[0]), (room + 1, 8), "not one of those over the bound");
}
