//! What an endpoint refuses, with which reason, and that it is counted.

mod common;
mod large;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use common::{
    ANY_PORT, PATIENCE, batch, bind, client, expect_down, expect_up, new_ca, node, node_id, nodes,
};
use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{
    ALPN, Class, CloseCode, Config, Counters, DownReason, Event, LaneEndpoint, NODE_SERVER_NAME,
    Role,
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};

mod raw;

/// Waits until a counter of the endpoint shows what the test expects.
async fn counted(endpoint: &LaneEndpoint, expected: impl Fn(&Counters) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !expected(&endpoint.counters()) {
        assert!(Instant::now() < deadline, "{:?}", endpoint.counters());
        // wait: until the counter shows it, or the deadline asserted above
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Dials `server` and gives the reason the dial failed with.
async fn refusal(mut dialer: LaneEndpoint, server: &LaneEndpoint) -> DownReason {
    dialer.dial(server.local_addr(), None, 0);
    expect_down(&mut dialer).await.1
}

#[tokio::test]
async fn another_protocol_version_is_refused_both_ways() {
    let ca = new_ca();
    let server = bind(&node(&ca, 1), Config::default());
    let refused = raw::try_connect(&node(&ca, 2), server.local_addr(), b"galvani/999").await;
    assert!(refused.is_err());
    counted(&server, |c| c.refused_alpn == 1 && c.links_up == 0).await;
    let newer = raw::serve_as(&node(&ca, 3), b"galvani/999");
    let mut dialer = bind(&node(&ca, 4), Config::default());
    dialer.dial(newer.local_addr().expect("bound"), None, 0);
    let (_, reason) = expect_down(&mut dialer).await;
    assert_eq!(reason, DownReason::WrongAlpn);
    assert!(reason.to_string().contains(galvani_transport::protocol()), "{reason}");
}

#[tokio::test]
async fn a_peer_that_stops_reading_a_stream_for_good_is_closed() {
    let ca = new_ca();
    let mut server = bind(&node(&ca, 1), Config::default());
    let connection = raw::connect(&client(&ca), server.local_addr()).await;
    let (mut send, mut recv) = connection.open_bi().await.expect("stream");
    send.write_all(&[Class::Client.wire_id()]).await.expect("sent");
    let (link, _) = expect_up(&mut server).await;
    recv.stop(0_u32.into()).expect("open");
    let mut events = Vec::new();
    while events.is_empty() {
        // The stop is noticed by a write, whenever it has arrived.
        let _ = server.send(link, Class::Client, &[b"x"]);
        let batch = server.recv_batch(&mut events);
        let _ = tokio::time::timeout(Duration::from_millis(10), batch).await;
    }
    let [Event::LinkDown { reason, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    let violation = DownReason::ProtocolViolation { detail: "stream stopped".to_owned() };
    assert_eq!(*reason, violation);
}

#[tokio::test]
async fn untrusted_cert_is_refused_by_the_server_and_never_comes_up() {
    let (ours, theirs) = (new_ca(), new_ca());
    let server = bind(&node(&ours, 1), Config::default());
    // Trusts our root, so that its own check passes, but proves itself with the other one's.
    let stranger = Identity { ca_pem: ours.cert_pem.clone(), ..node(&theirs, 2) };
    let reason = refusal(bind(&stranger, Config::default()), &server).await;
    assert!(matches!(reason, DownReason::TlsFailed { .. }), "{reason:?}");
    counted(&server, |c| c.refused_tls == 1 && c.links_up == 0).await;
}

/// A node's identity by the root's own key that was good until the year named.
fn good_until(ca: &ClusterCa, year: i32) -> Identity {
    let name = |name: String| SanType::DnsName(name.try_into().expect("plain letters"));
    let mut root = CertificateParams::default();
    let cluster = ca.cluster_id_hex().expect("made here");
    root.distinguished_name.push(DnType::CommonName, format!("galvani cluster {cluster}"));
    let issuer = Issuer::new(root, KeyPair::from_pem(&ca.key_pem).expect("made here"));
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        vec![name(NODE_SERVER_NAME.to_owned()), name(format!("{:032x}.{NODE_SERVER_NAME}", 2))];
    let key = KeyPair::generate().expect("randomness");
    let cert_pem = params.signed_by(&key, &issuer).expect("signed").pem();
    Identity { ca_pem: ca.cert_pem.clone(), cert_pem, key_pem: key.serialize_pem() }
}

#[tokio::test]
async fn expired_cert_is_refused_by_both_sides() {
    let ca = new_ca();
    // The same with a later end is let in: it is the date alone that is refused.
    let mut server = bind(&node(&ca, 1), Config::default());
    let mut good = bind(&good_until(&ca, 2999), Config::default());
    good.dial(server.local_addr(), None, 0);
    expect_up(&mut good).await;
    expect_up(&mut server).await;

    let expired = good_until(&ca, 2021);
    let server = bind(&node(&ca, 3), Config::default());
    let reason = refusal(bind(&expired, Config::default()), &server).await;
    assert!(matches!(reason, DownReason::TlsFailed { .. }), "{reason:?}");
    counted(&server, |c| c.refused_tls == 1 && c.links_up == 0).await;
    let stale = raw::serve_as(&expired, ALPN);
    let mut dialer = bind(&node(&ca, 4), Config::default());
    dialer.dial(stale.local_addr().expect("bound"), None, 0);
    let (_, reason) = expect_down(&mut dialer).await;
    assert!(matches!(reason, DownReason::TlsFailed { .. }), "{reason:?}");
}

/// X7: what is sent before the handshake is confirmed could be sent again by anybody who heard it.
#[tokio::test]
async fn zero_rtt_replay_nothing_is_sent_before_the_handshake_is_confirmed() {
    let ca = new_ca();
    let mut server = bind(&node(&ca, 1), Config::default());
    let (endpoint, config) = raw::resuming(&client(&ca));
    let mut connections = Vec::new();
    for round in 0..3 {
        let dialed = endpoint.connect_with(config.clone(), server.local_addr(), NODE_SERVER_NAME);
        let connection = match dialed.expect("a valid address").into_0rtt() {
            Ok(_) => panic!("round {round}: a session was kept that lets data go at once"),
            Err(connecting) => connecting.await.expect("a good certificate"),
        };
        // An answer is here: whatever else the server sends at the handshake's end is, too.
        let (mut send, mut recv) = connection.open_bi().await.expect("stream");
        send.write_all(&[Class::Client.wire_id()]).await.expect("sent");
        let (link, _) = expect_up(&mut server).await;
        server.send(link, Class::Client, &[b"x"]).expect("there is room");
        let mut byte = [0_u8; 1];
        let heard = tokio::time::timeout(PATIENCE, recv.read_exact(&mut byte)).await;
        heard.expect("in time").expect("open");
        connections.push((connection, send, recv));
    }
}

#[tokio::test]
async fn wrong_cluster_id_is_refused_by_the_dialer() {
    let (ours, theirs) = (new_ca(), new_ca());
    let server = bind(&node(&theirs, 1), Config::default());
    let reason = refusal(bind(&node(&ours, 2), Config::default()), &server).await;
    assert!(matches!(reason, DownReason::TlsFailed { .. }), "{reason:?}");
    counted(&server, |c| c.refused_tls == 1).await;
}

#[tokio::test]
async fn wrong_role_cert_of_a_client_cannot_serve_as_a_node() {
    let ca = new_ca();
    let server = raw::serve_as(&client(&ca), ALPN);
    let mut dialer = bind(&node(&ca, 2), Config::default());
    dialer.dial(server.local_addr().expect("bound"), None, 0);
    let (_, reason) = expect_down(&mut dialer).await;
    assert!(matches!(reason, DownReason::TlsFailed { .. }), "{reason:?}");
}

#[tokio::test]
async fn a_client_that_opens_replication_is_refused() {
    let ca = new_ca();
    let mut server = bind(&node(&ca, 1), Config::default());
    let connection = raw::connect(&client(&ca), server.local_addr()).await;
    let _first = raw::open(&connection, &[Class::Client.wire_id()]).await;
    expect_up(&mut server).await;
    let _second = raw::open(&connection, &[Class::Replication.wire_id()]).await;
    let (_, reason) = expect_down(&mut server).await;
    assert_eq!(reason, DownReason::ClassRefused);
    assert_eq!(raw::close_code(&connection).await, CloseCode::CLASS_REFUSED);
    assert_eq!(server.counters().classes_refused, 1);
}

#[tokio::test]
async fn a_client_that_opens_replication_first_never_comes_up() {
    let ca = new_ca();
    let server = bind(&node(&ca, 1), Config::default());
    let connection = raw::connect(&client(&ca), server.local_addr()).await;
    let _stream = raw::open(&connection, &[Class::Replication.wire_id()]).await;
    assert_eq!(raw::close_code(&connection).await, CloseCode::CLASS_REFUSED);
    counted(&server, |c| c.classes_refused == 1 && c.links_up == 0).await;
}

#[tokio::test]
async fn length_prefix_4gib_is_refused() {
    let ca = new_ca();
    let max = Config::default().frame_bytes_max(Class::Client);
    for bytes in [u32::MAX, max as u32 + 1] {
        let mut server = bind(&node(&ca, 1), Config::default());
        let connection = raw::connect(&client(&ca), server.local_addr()).await;
        let mut stream = raw::open(&connection, &[Class::Client.wire_id()]).await;
        expect_up(&mut server).await;
        stream.write_all(&bytes.to_le_bytes()).await.expect("sent");
        let (_, reason) = expect_down(&mut server).await;
        assert_eq!(reason, DownReason::FrameTooLarge { bytes, max });
        let code = raw::close_code(&connection).await;
        assert_eq!(code, CloseCode::FRAME_TOO_LARGE);
        assert_eq!(server.counters().frames_oversized, 1);
        assert_eq!(server.inbox_bytes(Class::Client), 0);
    }
}

#[tokio::test]
async fn slowloris_stream_an_unfinished_frame_is_not_waited_for_for_ever() {
    let ca = new_ca();
    let config = Config { frame_gap_max: Duration::from_millis(200), ..Config::default() };
    let mut server = bind(&node(&ca, 1), config);
    let connection = raw::connect(&client(&ca), server.local_addr()).await;
    let mut stream = raw::open(&connection, &[Class::Client.wire_id()]).await;
    expect_up(&mut server).await;
    stream.write_all(&[100, 0, 0, 0, 1, 2, 3]).await.expect("sent");
    let (_, reason) = expect_down(&mut server).await;
    assert_eq!(reason, DownReason::SlowFrame);
    assert_eq!(raw::close_code(&connection).await, CloseCode::SLOW_FRAME);
    assert_eq!(server.counters().frames_slow, 1);
}

#[tokio::test]
async fn a_peer_that_opens_no_stream_is_given_up() {
    let ca = new_ca();
    let config = Config { handshake_timeout: Duration::from_millis(200), ..Config::default() };
    let server = bind(&node(&ca, 1), config);
    let connection = raw::connect(&client(&ca), server.local_addr()).await;
    counted(&server, |c| c.refused_slow == 1 && c.links_up == 0).await;
    connection.closed().await;
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_refused() {
    let ca = new_ca();
    let server = bind(&node(&ca, 1), Config::default());
    let mut dialer = bind(&node(&ca, 2), Config::default());
    dialer.dial(server.local_addr(), Some(node_id(7)), 5);
    let event = common::one(&mut dialer).await;
    let Event::LinkDown { tag: 5, reason, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!(reason, DownReason::WrongNode { found: node_id(1) });
    assert_eq!(dialer.counters().wrong_nodes, 1);
    counted(&server, |c| c.refused_other == 1 && c.links_up == 0).await;
    dialer.dial(server.local_addr(), Some(node_id(1)), 6);
    expect_up(&mut dialer).await;
}

#[tokio::test]
async fn nobody_at_the_address_is_a_connect_timeout() {
    let ca = new_ca();
    let silent = UdpSocket::bind(ANY_PORT).expect("socket");
    let config = Config { connect_timeout: Duration::from_millis(150), ..Config::default() };
    let mut dialer = bind(&client(&ca), config);
    dialer.dial(silent.local_addr().expect("bound"), None, 0);
    let (_, reason) = expect_down(&mut dialer).await;
    assert_eq!(reason, DownReason::ConnectTimeout);
    assert_eq!(dialer.counters().dials_failed, 1);
}

#[tokio::test]
async fn links_beyond_the_bound_are_refused() {
    let ca = new_ca();
    let config = Config { links_max: 1, ..Config::default() };
    let mut server = bind(&node(&ca, 1), config);
    let mut first = bind(&client(&ca), Config::default());
    first.dial(server.local_addr(), None, 0);
    expect_up(&mut first).await;
    expect_up(&mut server).await;
    let reason = refusal(bind(&client(&ca), Config::default()), &server).await;
    assert_eq!(reason, DownReason::Refused);
    counted(&server, |c| c.refused_full == 1).await;
}

#[tokio::test]
async fn one_identity_cannot_take_all_links_and_nodes_always_find_room() {
    let ca = new_ca();
    let server = bind(&node(&ca, 1), Config { links_max: 8, ..Config::default() });
    let full = DownReason::ClosedByPeer { code: CloseCode::OVERLOADED };
    let mut clients = Vec::new();
    for name in ["a", "b", "c"] {
        let identity = ca.issue_client(name, Role::ReadWrite).expect("client identity");
        let mut greedy = bind(&identity, Config::default());
        for _ in 0..2 {
            greedy.dial(server.local_addr(), None, 0);
            expect_up(&mut greedy).await;
        }
        greedy.dial(server.local_addr(), None, 0);
        assert_eq!(expect_down(&mut greedy).await.1, full, "{name} has its quarter");
        clients.push(greedy);
    }
    let other = ca.issue_client("d", Role::ReadWrite).expect("client identity");
    assert_eq!(refusal(bind(&other, Config::default()), &server).await, full);
    counted(&server, |c| c.refused_share == 4 && c.refused_full == 0).await;
    for number in 2..=3 {
        let mut peer = bind(&node(&ca, number), Config::default());
        peer.dial(server.local_addr(), None, 0);
        expect_up(&mut peer).await;
    }
    // A seat comes back with the end of its link.
    let mut leaver = clients.remove(0);
    leaver.shutdown(PATIENCE).await;
    counted(&server, |c| c.links_down >= 2).await;
    let mut late = bind(&other, Config::default());
    late.dial(server.local_addr(), None, 0);
    expect_up(&mut late).await;
}

#[tokio::test]
async fn handshake_flood_above_the_mark_addresses_are_proved_first() {
    let ca = new_ca();
    let config = Config { retry_above: 0, ..Config::default() };
    let mut server = bind(&node(&ca, 1), config);
    let mut dialer = bind(&client(&ca), Config::default());
    dialer.dial(server.local_addr(), None, 0);
    expect_up(&mut dialer).await;
    expect_up(&mut server).await;
    assert_eq!(server.counters().retries, 1);
}

#[tokio::test]
async fn garbage_datagrams_do_not_disturb_a_live_link() {
    let mut pair = nodes(Config::default()).await;
    let noise = UdpSocket::bind(ANY_PORT).expect("socket");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200_u32 {
        for _ in 0..20 {
            let mut bytes = [0_u8; 1_300];
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = state as u8;
            }
            let len = 1 + state as usize % 1_299;
            noise.send_to(&bytes[..len], pair.b.local_addr()).expect("sent");
        }
        let payload = round.to_le_bytes();
        pair.a.send(pair.a_link, Class::Client, &[&payload]).expect("room");
        let got = batch(&mut pair.b).await;
        let [Event::Frame { payload: got, .. }] = got.as_slice() else {
            panic!("{got:?}");
        };
        assert_eq!(*got, payload.as_slice());
    }
    assert_eq!(pair.b.link_count(), 1);
}
