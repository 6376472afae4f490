//! Large frames of clients that wait for room: no identity keeps another's waiting, and nobody waits on a
//! link that is gone.

use std::time::Duration;

use crate::common::{bind, expect_down, expect_up, new_ca, node, one};
use crate::raw;
use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{Class, Config, DownReason, Event, Role};

const LARGE: usize = 512 << 10;

/// Room for four such frames in all, and for one of each identity.
fn config() -> Config {
    let frame_gap_max = Duration::from_secs(60);
    Config { client_frames_bytes_max: 4 * LARGE, frame_gap_max, ..Config::default() }
}

fn named(ca: &ClusterCa, name: &str) -> Identity {
    ca.issue_client(name, Role::ReadWrite).expect("issued")
}

/// The length of a large frame, and its first byte.
fn begun() -> Vec<u8> {
    [&(LARGE as u32).to_le_bytes()[..], &[7]].concat()
}

#[tokio::test]
async fn frames_that_stand_still_hold_up_no_other_identity() {
    let ca = new_ca();
    let mut server = bind(&node(&ca, 1), config());
    let mut kept = Vec::new();
    // As many as there is room for in all.
    for _ in 0..4 {
        let connection = raw::connect(&named(&ca, "stands-still"), server.local_addr()).await;
        let mut stream = raw::open(&connection, &[Class::Client.wire_id()]).await;
        expect_up(&mut server).await;
        stream.write_all(&begun()).await.expect("sent");
        kept.push((connection, stream));
    }
    let honest = raw::connect(&named(&ca, "honest"), server.local_addr()).await;
    let mut stream = raw::open(&honest, &[Class::Client.wire_id()]).await;
    expect_up(&mut server).await;
    stream.write_all(&begun()).await.expect("sent");
    stream.write_all(&vec![7; LARGE - 1]).await.expect("sent");
    let event = one(&mut server).await;
    assert!(matches!(&event, Event::Frame { payload, .. } if payload.len() == LARGE), "{event:?}");
}

#[tokio::test]
async fn a_link_that_is_gone_waits_for_no_room() {
    let ca = new_ca();
    let mut server = bind(&node(&ca, 1), config());
    let mut links = Vec::new();
    for _ in 0..2 {
        let connection = raw::connect(&named(&ca, "one"), server.local_addr()).await;
        let mut stream = raw::open(&connection, &[Class::Client.wire_id()]).await;
        let (link, _) = expect_up(&mut server).await;
        stream.write_all(&begun()).await.expect("sent");
        links.push((link, connection, stream));
    }
    // One of the two has the room, whichever frame came first; both go, the one that waits first.
    for at in [1, 0] {
        links[at].1.close(0_u32.into(), b"gone");
        let (down, reason) = expect_down(&mut server).await;
        assert_eq!(down, links[at].0);
        assert!(matches!(reason, DownReason::ClosedByPeer { .. }), "{reason:?}");
    }
}

#[tokio::test]
async fn a_large_frame_that_comes_byte_by_byte_ends_its_link() {
    let ca = new_ca();
    let frame_gap_max = Duration::from_millis(300);
    let mut server = bind(&node(&ca, 1), Config { frame_gap_max, ..Config::default() });
    let connection = raw::connect(&named(&ca, "one"), server.local_addr()).await;
    let mut stream = raw::open(&connection, &[Class::Client.wire_id()]).await;
    expect_up(&mut server).await;
    stream.write_all(&begun()).await.expect("sent");
    let drips = async {
        let mut drip = tokio::time::interval(Duration::from_millis(50));
        while stream.write_all(&[7]).await.is_ok() {
            drip.tick().await;
        }
    };
    let (down, ()) = tokio::join!(expect_down(&mut server), drips);
    assert_eq!(down.1, DownReason::SlowFrame);
}
