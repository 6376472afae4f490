//! What the benches share: sample keys, records and a cluster inside the process.
//!
//! `benches/values.rs` measures algebra and codec, `benches/storage.rs` a tick's batch beside the
//! bare engine, `benches/cluster.rs` whole puts and gets. Run them with `cargo bench -p galvani-benches`.

use bytes::Bytes;
use galvani_client::{Client, Quorum};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{Dot, DotSet, Kind, Record, RecordHead, value_hash};
use galvani_node::local::{LocalCluster, LocalSpec};
use tempfile::TempDir;

/// The key number `number` of bucket `default`.
pub fn key(number: u64) -> Key {
    let bucket = "default".parse().expect("a bucket name");
    Key::new(bucket, format!("user/{number:012}")).expect("a short key")
}

/// A record of `origin`'s write `counter` of key `number`, with a value of `bytes` bytes.
pub fn record(origin: u128, counter: u64, number: u64, bytes: usize) -> Record {
    let value = Bytes::from(vec![b'x'; bytes]);
    let head = RecordHead {
        dot: Dot::new(Origin(origin), counter),
        key: key(number),
        past: DotSet::new(),
        hlc: Hlc(counter),
        rid: RequestId(u128::from(counter)),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: bytes as u32,
        value_hash: value_hash(Kind::Put, &value),
        expires_ms: 0,
    };
    Record { head, value }
}

/// Three nodes in this process and a client that a quorum of them has answered.
pub async fn cluster(spec: &LocalSpec) -> (TempDir, LocalCluster, Client) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = LocalCluster::start(spec, dir.path()).expect("a cluster");
    let client = Client::builder()
        .seed(cluster.url(0))
        .identity_dir(cluster.client_identity())
        .connect()
        .await
        .expect("a node answers");
    while client.get("ready").r(Quorum::All).await.is_err() {}
    (dir, cluster, client)
}
