//! Frames between real endpoints on loopback: order, coalescing, bounds, shutdown.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{batch, client, expect_down, new_ca, node, nodes, pair_of};
use galvani_transport::{Class, CloseCode, Config, DownReason, Event, SendError};

fn payloads(events: Vec<Event>) -> Vec<(Class, Vec<u8>)> {
    let of = |event| match event {
        Event::Frame { class, payload, .. } => Some((class, payload.to_vec())),
        _ => None,
    };
    events.into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn frames_of_every_class_arrive_both_ways() {
    let mut pair = nodes(Config::loopback()).await;
    for class in Class::ALL {
        let there: &[&[u8]] = &[b"to ", b"b"];
        pair.a.send(pair.a_link, class, there).expect("room");
        let got = payloads(batch(&mut pair.b).await);
        assert_eq!(got, vec![(class, b"to b".to_vec())]);
        pair.b.send_with(pair.b_link, class, |b| b.extend_from_slice(b"to a")).expect("room");
        let got = payloads(batch(&mut pair.a).await);
        assert_eq!(got, vec![(class, b"to a".to_vec())]);
    }
}

#[tokio::test]
async fn datagrams_arrive_both_ways_between_nodes() {
    let mut pair = nodes(Config::loopback()).await;
    pair.a.send_datagram(pair.a_link, Bytes::from_static(b"to b"));
    let (link, payload) = (pair.b_link, Bytes::from_static(b"to b"));
    assert_eq!(batch(&mut pair.b).await, vec![Event::Datagram { link, payload }]);
    pair.b.send_datagram(pair.b_link, Bytes::from_static(b"to a"));
    let (link, payload) = (pair.a_link, Bytes::from_static(b"to a"));
    assert_eq!(batch(&mut pair.a).await, vec![Event::Datagram { link, payload }]);
    pair.a.send_datagram(pair.a_link, Bytes::from(vec![0; 100_000]));
    assert_eq!((pair.a.counters().datagrams_out, pair.a.counters().datagrams_dropped), (1, 1));
}

#[tokio::test]
async fn a_client_sends_no_datagrams_and_gets_none() {
    let ca = new_ca();
    let pair = pair_of(&client(&ca), &node(&ca, 2), Config::default()).await;
    pair.a.send_datagram(pair.a_link, Bytes::from_static(b"x"));
    pair.b.send_datagram(pair.b_link, Bytes::from_static(b"x"));
    for endpoint in [&pair.a, &pair.b] {
        let counters = endpoint.counters();
        assert_eq!((counters.datagrams_out, counters.datagrams_dropped), (0, 1));
    }
}

#[tokio::test]
async fn a_client_speaks_on_its_class_only() {
    let ca = new_ca();
    let mut pair = pair_of(&client(&ca), &node(&ca, 2), Config::default()).await;
    let refused = pair.a.send(pair.a_link, Class::Replication, &[b"x"]);
    assert_eq!(refused, Err(SendError::ClassNotOpen));
    let refused = pair.b.send(pair.b_link, Class::Background, &[b"x"]);
    assert_eq!(refused, Err(SendError::ClassNotOpen));
    pair.a.send(pair.a_link, Class::Client, &[b"x"]).expect("room");
    assert_eq!(payloads(batch(&mut pair.b).await).len(), 1);
}

#[tokio::test]
async fn many_frames_stay_in_order_and_leave_in_few_packets() {
    const FRAMES: u32 = 20_000;
    let mut pair = nodes(Config::loopback()).await;
    for n in 0..FRAMES {
        let sent = pair.a.send(pair.a_link, Class::Replication, &[&n.to_le_bytes()]);
        sent.expect("fits the outbox");
    }
    let (mut next, mut batches) = (0, 0);
    while next < FRAMES {
        for (_, payload) in payloads(batch(&mut pair.b).await) {
            assert_eq!(payload, next.to_le_bytes());
            next += 1;
        }
        batches += 1;
    }
    // 160 kB are some 130 of the smallest datagrams; a packet per frame would be 20,000.
    let packets = pair.a.path(pair.a_link).expect("connected").packets_sent;
    assert!(packets < u64::from(FRAMES) / 50, "{packets} packets");
    assert!(batches < FRAMES / 50, "{batches} batches");
    assert_eq!(pair.b.counters().frames_in, u64::from(FRAMES));
    assert_eq!(pair.a.counters().frames_out, u64::from(FRAMES));
}

#[tokio::test]
async fn large_frames_arrive_whole_and_larger_ones_are_not_sent() {
    let mut pair = nodes(Config::default()).await;
    let max = Config::default().frame_bytes_max(Class::Background);
    let large: Vec<u8> = (0..max).map(|n| (n % 251) as u8).collect();
    pair.a.send(pair.a_link, Class::Background, &[&large]).expect("largest");
    let got = payloads(batch(&mut pair.b).await);
    assert!(got == vec![(Class::Background, large.clone())]);
    let refused = pair.a.send(pair.a_link, Class::Background, &[&large, b"!"]);
    let bytes = max + 1;
    assert_eq!(refused, Err(SendError::TooLarge { bytes, max }));
}

#[tokio::test]
async fn frames_sent_before_the_link_is_up_are_delivered() {
    let ca = new_ca();
    let a = common::bind(&client(&ca), Config::default());
    let mut b = common::bind(&node(&ca, 2), Config::default());
    let link = a.dial(b.local_addr(), None, 9);
    a.send(link, Class::Client, &[b"early"]).expect("queued");
    let mut got = Vec::new();
    while got.is_empty() {
        got = payloads(batch(&mut b).await);
    }
    assert_eq!(got, vec![(Class::Client, b"early".to_vec())]);
}

#[tokio::test]
async fn a_receiver_that_does_not_read_fills_the_sender_and_nothing_else() {
    let config = Config {
        outbox_bytes_max: 256 << 10,
        inbox_bytes_max: 256 << 10,
        stream_window: 256 << 10,
        ..Config::loopback()
    };
    let mut pair = nodes(config.clone()).await;
    let frame = vec![1; 10_000];
    let mut sent = 0_u64;
    let mut refusals = 0;
    // Full for a whole second in a row: every buffer on the way is at its bound.
    while refusals < 100 {
        match pair.a.send(pair.a_link, Class::Client, &[&frame]) {
            Ok(()) => (sent, refusals) = (sent + 1, 0),
            Err(SendError::Full) => {
                refusals += 1;
                // wait: until it was full a hundred times in a row
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // Outbox, inbox, one read over it, and the stream window on its way: about 1 MiB.
    assert!(sent * 10_000 < 1_500_000, "{sent} frames were taken");
    assert!(pair.b.inbox_bytes(Class::Client) < 2 * config.inbox_bytes_max);
    assert!(pair.a.counters().sends_full >= 100);
    // Another class still passes, and nothing was lost once the receiver reads.
    pair.a.send(pair.a_link, Class::Replication, &[b"past"]).expect("room");
    let (mut client, mut replication) = (0, 0);
    while client < sent || replication == 0 {
        for (class, _) in payloads(batch(&mut pair.b).await) {
            match class {
                Class::Client => client += 1,
                Class::Replication => replication += 1,
                Class::Background => panic!("nothing sent"),
            }
        }
    }
    assert_eq!((client, replication), (sent, 1));
}

#[tokio::test]
async fn shutdown_delivers_what_was_queued() {
    const FRAMES: usize = 300;
    let mut pair = nodes(Config::loopback()).await;
    for _ in 0..FRAMES {
        let sent = pair.a.send(pair.a_link, Class::Background, &[&[7; 20_000]]);
        sent.expect("fits the outbox");
    }
    let reader = async {
        let (mut frames, mut down) = (0, None);
        while down.is_none() {
            for event in batch(&mut pair.b).await {
                match event {
                    Event::Frame { .. } => frames += 1,
                    Event::LinkDown { reason, .. } => down = Some(reason),
                    Event::LinkUp { .. } | Event::Datagram { .. } => panic!("one link"),
                }
            }
        }
        (frames, down)
    };
    let (delivered, (frames, down)) =
        tokio::join!(pair.a.shutdown(Duration::from_secs(10)), reader);
    assert!(delivered);
    assert_eq!(frames, FRAMES);
    let code = CloseCode::SHUTDOWN;
    assert_eq!(down, Some(DownReason::ClosedByPeer { code }));
    let (_, reason) = expect_down(&mut pair.a).await;
    assert_eq!(reason, DownReason::ClosedHere);
    assert_eq!(batch(&mut pair.a).await, Vec::new());
    let late = pair.a.send(pair.a_link, Class::Client, &[b"late"]);
    assert_eq!(late, Err(SendError::Closed));
}

#[tokio::test]
async fn closing_tells_both_sides_once() {
    let mut pair = nodes(Config::default()).await;
    let code = CloseCode::application(3);
    pair.a.close(pair.a_link, code, "enough");
    pair.a.close(pair.a_link, CloseCode::NORMAL, "again");
    let down = expect_down(&mut pair.a).await;
    assert_eq!(down, (pair.a_link, DownReason::ClosedHere));
    let down = expect_down(&mut pair.b).await;
    assert_eq!(down, (pair.b_link, DownReason::ClosedByPeer { code }));
    let refused = pair.a.send(pair.a_link, Class::Client, &[b"x"]);
    assert_eq!(refused, Err(SendError::Closed));
    assert_eq!((pair.a.link_count(), pair.b.link_count()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_on_a_multi_threaded_runtime() {
    const FRAMES: u32 = 5_000;
    let mut pair = nodes(Config::default()).await;
    let transport = pair.a.transport();
    let link = pair.a_link;
    let sender = tokio::spawn(async move {
        for n in 0..FRAMES {
            transport.send(link, Class::Client, &[&n.to_le_bytes()]).expect("fits the outbox");
        }
    });
    let mut next = 0_u32;
    while next < FRAMES {
        for (_, payload) in payloads(batch(&mut pair.b).await) {
            assert_eq!(payload, next.to_le_bytes());
            next += 1;
        }
    }
    sender.await.expect("sender");
}

#[tokio::test]
async fn discovery_finds_large_datagrams_on_loopback() {
    let deadline = std::time::Instant::now() + common::PATIENCE;
    let pair = nodes(Config::loopback()).await;
    let mtu = || pair.a.path(pair.a_link).expect("connected").mtu;
    while mtu() < 15_000 {
        assert!(std::time::Instant::now() < deadline, "settled on {}", mtu());
        // Traffic gives discovery packets to learn from.
        let sent = pair.a.send(pair.a_link, Class::Client, &[&[0; 1_000]]);
        sent.expect("room");
        // wait: until discovery settled, or the deadline asserted above
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(mtu() <= galvani_transport::MTU_LOOPBACK.bytes());
}
