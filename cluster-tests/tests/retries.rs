//! One logical write through two coordinators that knew nothing of each other.

use bytes::Bytes;
use galvani_client::{Context, Quorum};
use galvani_cluster_tests::{Cluster, raw};
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::RequestId;
use galvani_model::key::Key;
use galvani_model::request::WriteOptions;
use galvani_model::version::Kind;
use galvani_transport::pki::Identity;
use galvani_wire::{Message, message};
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn a_retry_makes_no_sibling_and_brings_nothing_back() {
    let cluster = Cluster::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
    let issued = Hlc::default().tick(Hlc::default(), now.as_millis() as u64);
    cluster.kill("n2");
    cluster.kill("n3");
    let first = put(&cluster, "n1", 1, issued);
    cluster.kill("n1");
    cluster.start_node("n2");
    cluster.start_node("n3");
    // The retry: n1 alone has the write under one name, n2 and n3 under another.
    let retry = put(&cluster, "n2", 2, issued);
    assert_ne!(first.dot, retry.dot);
    cluster.start_node("n1");
    let client = cluster.client_at("n2");
    let seen = Context::from_bytes(&retry.context).expect("a context");
    let second = cluster.block_on(client.put("k", "second").after(&seen).w(3).send());
    second.expect("all are up");

    // n1 learns of the other name by the reads: none shows what was replaced.
    for node in ["n1", "n2", "n3"] {
        let client = cluster.client_at(node);
        let read = cluster.block_on(async { client.get("k").r(3).await }).expect("all are up");
        assert_eq!(read.siblings.len(), 1, "{:?}", read.siblings);
        assert_eq!(read.siblings[0].value.as_deref(), Some(&b"second"[..]));
    }
    let explained = cluster.until_equal(&client, "k");
    for replica in &explained.replicas {
        assert_eq!(replica.versions.as_ref().map(Vec::len), Ok(1), "{replica:?}");
    }
    assert_eq!(cluster.run_at("n1", &["get", "k", "-r", "1"]).expect(0).text(), "second\n");
}

/// A write whose request id and time are the same whatever node it is sent to.
fn put(cluster: &Cluster, node: &str, w: u8, issued: Hlc) -> message::PutDone {
    let put = Message::Put(message::Put {
        key: Key::new(BucketName::default_bucket(), "k").expect("a short key"),
        kind: Kind::Put,
        emits: Vec::new(),
        rid: RequestId(42),
        issued,
        context: None,
        options: WriteOptions { w: Some(Quorum::Exactly(w)), ..WriteOptions::default() },
        timeout_ms: 5000,
        value: Bytes::from_static(b"first"),
    });
    let admin = Identity::load(&cluster.identity()).expect("made by dev");
    let asked = raw::request(&admin, cluster.node(node).addr, &put);
    match cluster.block_on(asked) {
        Message::PutDone(done) => done,
        other => panic!("not stored: {other:?}"),
    }
}
