//! Connecting: seeds, trust, settings.

mod support;

use galvani_client::{Client, ErrorKind};
use galvani_transport::Role;
use galvani_transport::pki::ClusterCa;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use support::{Cluster, SECOND, found};

/// A loopback port where nobody listens: bound and let go by this test.
fn dead_address() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_of_several_is_enough() {
    let cluster = Cluster::start(3, |_| found(&[])).await;
    let url = format!("galvani://{},{}", dead_address(), cluster.address(1));
    let began = Instant::now();
    let db = Client::builder().seed(url).identity(cluster.identity()).connect().await;
    let db = db.expect("the second seed answers");
    assert!(began.elapsed() < 5 * SECOND);
    assert_eq!(db.cluster().layout.members().len(), 3);
    assert!(db.get("k").await.expect("answered").one().expect("no conflict").is_none());
}

#[tokio::test]
async fn no_seed_reachable_lists_each_and_why() {
    let ca = ClusterCa::create("c0ffee").expect("made");
    let identity = ca.issue_client("test", Role::ReadWrite).expect("issued");
    let (one, two) = (dead_address(), dead_address());
    let error = Client::builder()
        .seed(format!("galvani://{one}"))
        .seed(format!("galvani://{two}"))
        .identity(identity)
        .connect_timeout(Duration::from_millis(1_500))
        .connect()
        .await
        .expect_err("nobody is there");
    assert!(matches!(error.kind(), ErrorKind::Unreachable { .. }), "{error}");
    let line = error.to_string();
    for seed in [&one, &two] {
        assert!(line.contains(&format!("{seed} (udp, no answer in 1 s)")), "{line}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_not_trusted() {
    let cluster = Cluster::start(1, |_| found(&[])).await;
    let other = ClusterCa::create("beef").expect("made");
    let identity = other.issue_client("test", Role::Admin).expect("issued");
    let seed = format!("galvani://{}", cluster.address(0));
    let error = Client::builder().seed(seed).identity(identity).connect().await;
    let error = error.expect_err("not trusted");
    assert!(matches!(error.kind(), ErrorKind::Tls { .. }), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn settings_that_cannot_be_are_told_before_anything_is_sent() {
    let ca = ClusterCa::create("c0ffee").expect("made");
    let builder = || {
        let identity = ca.issue_client("test", Role::Admin).expect("issued");
        Client::builder().seed("galvani://127.0.0.1:1").identity(identity)
    };
    for (builder, expected) in [
        (Client::builder().identity_dir("x"), "no seed"),
        (builder().timeout(Duration::ZERO), "timeout"),
        (builder().timeout(61 * SECOND), "timeout"),
        (builder().retries(11), "retries"),
        (builder().seed("http://n1"), "http://n1"),
    ] {
        let error = builder.connect().await.expect_err("refused");
        assert!(matches!(error.kind(), ErrorKind::Setting { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_identity_that_proves_nothing_is_told_before_anything_is_sent() {
    let ca = ClusterCa::create("c0ffee").expect("made");
    let dirs = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    let [none, garbage, crossed] = &dirs;
    for dir in [garbage, crossed] {
        ca.issue_client("test", Role::Admin).expect("issued").save(dir.path()).expect("saved");
    }
    std::fs::write(garbage.path().join("cert.pem"), "no certificate").expect("written");
    let other = tempfile::tempdir().expect("a directory");
    ca.issue_client("else", Role::Admin).expect("issued").save(other.path()).expect("saved");
    let key = other.path().join("key.pem");
    std::fs::copy(key, crossed.path().join("key.pem")).expect("copied");
    for dir in [none, garbage, crossed] {
        let builder = Client::builder().seed("galvani://127.0.0.1:1");
        let error = builder.identity_dir(dir.path()).connect().await.expect_err("refused");
        assert!(matches!(error.kind(), ErrorKind::Identity { .. }), "{error}");
        assert!(error.to_string().contains("identity: "), "{error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn connecting_ends_with_its_time() {
    let ca = ClusterCa::create("c0ffee").expect("made");
    let identity = ca.issue_client("test", Role::Admin).expect("issued");
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let seed = format!("galvani://{}", silent.local_addr().expect("bound"));
    let time = Duration::from_millis(300);
    let began = Instant::now();
    let builder = Client::builder().seed(seed).identity(identity);
    let error = builder.connect_timeout(time).connect().await.expect_err("nobody answers");
    assert!(matches!(error.kind(), ErrorKind::Unreachable { .. }), "{error}");
    // Closing what was begun is part of the time, and used to come on top of it.
    assert!(began.elapsed() < time + Duration::from_millis(150), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_url_may_name_the_identity() {
    let cluster = Cluster::start(1, |_| found(&[])).await;
    let dir = tempfile::tempdir().expect("a directory");
    cluster.identity().save(dir.path()).expect("saved");
    let url = format!("galvani://{}?identity={}", cluster.address(0), dir.path().display());
    let db = Client::connect(url).await.expect("connected");
    db.close().await;
    let error = db.get("k").await.expect_err("closed");
    assert!(!error.to_string().is_empty());
}

/// Compiles only if every future may move between threads; nothing is run.
#[test]
fn futures_and_handles_are_send() {
    fn send<T: Send>(_: T) {}
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Client>();
    shared::<galvani_client::Bucket>();
    shared::<galvani_client::Error>();
    shared::<galvani_client::View<String>>();
    let _never = |db: Client, view: galvani_client::View<String>| {
        send(Client::connect("galvani://n1"));
        send(db.get("k").into_future());
        send(db.put("k", "v").blind().send());
        send(db.update("k", |_| galvani_client::Merge::Keep).into_future());
        send(view.get("k"));
        send(view.update("k", |now| now.unwrap_or_default()));
        send(db.status());
        send(db.buckets());
        send(db.explain("k"));
        send(db.create_bucket("b", galvani_client::BucketProps::with_copies(1)));
        send(async move { db.list("").next_page().await });
    };
}
