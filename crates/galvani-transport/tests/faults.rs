//! Faults between real endpoints: a cut ends a link, healing lets it be dialed again, loss and
//! delay let it live.

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, batch, bind, expect_down, expect_up, new_ca, node};
use galvani_transport::{
    Class, Config, DownReason, Event, Faults, LaneEndpoint, LinkId, PeerFaults, SendError,
};

/// Two nodes with a link; `faults` are those of `a`, where it dials.
struct Pair {
    a: LaneEndpoint,
    a_link: LinkId,
    b: LaneEndpoint,
    b_link: LinkId,
    faults: Faults,
}

async fn pair() -> Pair {
    let ca = new_ca();
    let faults = Faults::new(11);
    let config = Config {
        idle_timeout: Duration::from_millis(1_500),
        keep_alive: Duration::from_millis(300),
        ..Config::loopback()
    };
    let with_faults = Config { faults: Some(faults.clone()), ..config.clone() };
    let mut a = bind(&node(&ca, 1), with_faults);
    let mut b = bind(&node(&ca, 2), config);
    a.dial(b.local_addr(), None, 0);
    let (a_link, _) = expect_up(&mut a).await;
    let (b_link, _) = expect_up(&mut b).await;
    Pair { a, a_link, b, b_link, faults }
}

impl Pair {
    fn set(&self, faults: PeerFaults) {
        self.faults.set([(self.b.local_addr(), faults)]);
    }

    /// Sends `count` frames of `bytes` each way and waits until all have come, in order.
    async fn exchange(&mut self, count: u32, bytes: usize) {
        for number in 0..count {
            let frame = [&number.to_le_bytes()[..], &vec![7; bytes]].concat();
            self.a.send(self.a_link, Class::Client, &[&frame]).expect("room");
            self.b.send(self.b_link, Class::Client, &[&frame]).expect("room");
        }
        for end in [&mut self.a, &mut self.b] {
            let mut next = 0_u32;
            while next < count {
                for event in batch(end).await {
                    let Event::Frame { payload, .. } = event else { panic!("{event:?}") };
                    assert_eq!(payload[..4], next.to_le_bytes());
                    assert_eq!(payload.len(), bytes + 4);
                    next += 1;
                }
            }
        }
    }

    /// Dials until a link is up.
    async fn dial_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let dialed = self.a.dial(self.b.local_addr(), None, 0);
            match common::one(&mut self.a).await {
                Event::LinkUp { link, .. } if link == dialed => break self.a_link = link,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
        }
        // The other end may tell of the old link's end first.
        loop {
            match common::one(&mut self.b).await {
                Event::LinkUp { link, .. } => break self.b_link = link,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_cut_ends_the_link_by_silence_and_healing_lets_it_be_dialed_again() {
    let mut pair = pair().await;
    pair.exchange(3, 10).await;
    pair.set(PeerFaults { cut_out: true, cut_in: true, ..PeerFaults::default() });
    pair.a.send(pair.a_link, Class::Client, &[b"lost"]).expect("room");
    assert_eq!(expect_down(&mut pair.a).await, (pair.a_link, DownReason::IdleTimeout));
    assert_eq!(expect_down(&mut pair.b).await, (pair.b_link, DownReason::IdleTimeout));
    pair.a.dial(pair.b.local_addr(), None, 0);
    let (_, reason) = expect_down(&mut pair.a).await;
    assert!(matches!(reason, DownReason::IdleTimeout | DownReason::ConnectTimeout), "{reason:?}");
    pair.faults.set([]);
    pair.dial_again().await;
    pair.exchange(3, 10).await;
}

#[tokio::test]
async fn of_a_one_way_cut_only_one_direction_is_silent() {
    let mut pair = pair().await;
    pair.set(PeerFaults { cut_out: true, ..PeerFaults::default() });
    pair.b.send(pair.b_link, Class::Client, &[b"still heard"]).expect("room");
    let Event::Frame { payload, .. } = common::one(&mut pair.a).await else { panic!("a frame") };
    assert_eq!(&payload[..], b"still heard");
    pair.a.send(pair.a_link, Class::Client, &[b"never heard"]).expect("room");
    assert_eq!(expect_down(&mut pair.b).await, (pair.b_link, DownReason::IdleTimeout));
    let sent = pair.b.send(pair.b_link, Class::Client, &[b"x"]);
    assert_eq!(sent, Err(SendError::Closed));
}

#[tokio::test]
async fn what_comes_in_is_cut_where_it_arrives() {
    let mut pair = pair().await;
    pair.set(PeerFaults { cut_in: true, ..PeerFaults::default() });
    pair.a.send(pair.a_link, Class::Client, &[b"still heard"]).expect("room");
    let Event::Frame { payload, .. } = common::one(&mut pair.b).await else { panic!("a frame") };
    assert_eq!(&payload[..], b"still heard");
    pair.b.send(pair.b_link, Class::Client, &[b"never heard"]).expect("room");
    assert_eq!(expect_down(&mut pair.a).await, (pair.a_link, DownReason::IdleTimeout));
}

#[tokio::test]
async fn all_frames_come_through_loss_on_both_ways() {
    let mut pair = pair().await;
    pair.set(PeerFaults { loss_ppm: 100_000, ..PeerFaults::default() });
    pair.exchange(200, 4_000).await;
    let lost = pair.a.path(pair.a_link).expect("up").packets_lost;
    assert!(lost > 0, "nothing was lost");
}

#[tokio::test]
async fn a_delay_lengthens_the_round_trip_and_keeps_the_order() {
    const DELAY: Duration = Duration::from_millis(60);
    let mut pair = pair().await;
    pair.exchange(1, 10).await;
    pair.set(PeerFaults { delay: DELAY, jitter: DELAY / 3, ..PeerFaults::default() });
    let began = Instant::now();
    pair.exchange(1, 10).await;
    assert!(began.elapsed() >= DELAY * 2 / 3, "{:?}", began.elapsed());
    pair.exchange(100, 4_000).await;
    pair.faults.set([]);
    pair.exchange(3, 10).await;
}
