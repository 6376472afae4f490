//! What the transport's tests share: a cluster's certificates, endpoints on loopback, and waits
//! for a condition with a deadline.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{
    Config, DownReason, Event, LaneEndpoint, LinkId, PeerIdentity, Role, TransportKeys,
};
use tokio::time::timeout;

/// The longest any wait may take before the test is red.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn new_ca() -> ClusterCa {
    ClusterCa::create("abcd").expect("certificate authority")
}

pub(crate) fn node_id(number: u128) -> [u8; 16] {
    number.to_be_bytes()
}

pub(crate) fn node(ca: &ClusterCa, number: u128) -> Identity {
    ca.issue_node(&format!("{number:032x}"), &[]).expect("node identity")
}

pub(crate) fn client(ca: &ClusterCa) -> Identity {
    ca.issue_client("tester", Role::ReadWrite).expect("client identity")
}

pub(crate) fn bind(identity: &Identity, config: Config) -> LaneEndpoint {
    let keys = TransportKeys::generate().expect("keys");
    LaneEndpoint::bind(ANY_PORT, identity, &keys, config).expect("endpoint")
}

/// One batch, within the test's patience.
pub(crate) async fn batch(endpoint: &mut LaneEndpoint) -> Vec<Event> {
    let mut out = Vec::new();
    timeout(PATIENCE, endpoint.recv_batch(&mut out)).await.expect("an event in time");
    out
}

/// The next event of an endpoint that is expected to bring exactly one.
pub(crate) async fn one(endpoint: &mut LaneEndpoint) -> Event {
    let mut events = batch(endpoint).await;
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

pub(crate) async fn expect_up(endpoint: &mut LaneEndpoint) -> (LinkId, PeerIdentity) {
    match one(endpoint).await {
        Event::LinkUp { link, peer, .. } => (link, peer),
        other @ (Event::Frame { .. } | Event::Datagram { .. } | Event::LinkDown { .. }) => {
            panic!("{other:?}")
        }
    }
}

pub(crate) async fn expect_down(endpoint: &mut LaneEndpoint) -> (LinkId, DownReason) {
    match one(endpoint).await {
        Event::LinkDown { link, reason, .. } => (link, reason),
        other @ (Event::Frame { .. } | Event::Datagram { .. } | Event::LinkUp { .. }) => {
            panic!("{other:?}")
        }
    }
}

/// Two endpoints with a link between them: (dialer, its link, acceptor, its link).
pub(crate) struct Pair {
    pub(crate) a: LaneEndpoint,
    pub(crate) a_link: LinkId,
    pub(crate) b: LaneEndpoint,
    pub(crate) b_link: LinkId,
}

pub(crate) async fn pair_of(a: &Identity, b: &Identity, config: Config) -> Pair {
    let mut a = bind(a, config.clone());
    let mut b = bind(b, config);
    a.dial(b.local_addr(), None, 0);
    let (a_link, _) = expect_up(&mut a).await;
    let (b_link, _) = expect_up(&mut b).await;
    Pair { a, a_link, b, b_link }
}

/// Two nodes with a link between them.
pub(crate) async fn nodes(config: Config) -> Pair {
    let ca = new_ca();
    pair_of(&node(&ca, 1), &node(&ca, 2), config).await
}
