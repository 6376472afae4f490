//! Three real nodes in one process, spoken to by the real client over QUIC.

use galvani_client::{Applied, Client, ErrorKind, NodeReport, Quorum};
use galvani_node::local::{LocalCluster, LocalSpec};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

fn start(lanes: usize) -> (TempDir, LocalCluster) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spec = LocalSpec { lanes, ..LocalSpec::default() };
    let cluster = LocalCluster::start(&spec, dir.path()).expect("a cluster");
    (dir, cluster)
}

/// A client of a cluster whose nodes all run, once each of them reaches all others.
async fn client(cluster: &LocalCluster, node: usize) -> Client {
    let client = client_that_reads(cluster, node, Quorum::All).await;
    let by = Instant::now() + DEADLINE;
    loop {
        let reports = client.status().await;
        let met = |report: &NodeReport| {
            report.status.as_ref().is_ok_and(|status| status.peers_up.len() == reports.len() - 1)
        };
        if reports.iter().all(met) {
            return client;
        }
        assert!(Instant::now() < by, "never connected: {reports:?}");
    }
}

/// A client, once a read that needs `r` replicas has been answered.
async fn client_that_reads(cluster: &LocalCluster, node: usize, r: Quorum) -> Client {
    let client = Client::builder()
        .seed(cluster.url(node))
        .identity_dir(cluster.client_identity())
        .connect()
        .await
        .expect("a node answers");
    let by = Instant::now() + DEADLINE;
    loop {
        match client.get("ready").r(r).await {
            Ok(_) => return client,
            outcome => assert!(Instant::now() < by, "never ready: {outcome:?}"),
        }
    }
}

/// Ends a client, so that no node waits for it when it stops.
async fn close(clients: &[&Client]) {
    for client in clients {
        client.close().await;
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

#[test]
fn a_value_written_through_one_node_is_read_through_another() {
    let (_dir, cluster) = start(1);
    block_on(async {
        let (one, two) = (client(&cluster, 0).await, client(&cluster, 1).await);
        let written = one.put("greeting", "hello").blind().w(2).send().await.expect("stored");
        assert!(written.acks >= 2);
        let read = two.get("greeting").r(2).await.expect("read");
        assert_eq!(read.one().expect("one value").as_deref(), Some(&b"hello"[..]));
        two.put("greeting", "bye").after(&read).w(3).send().await.expect("stored");
        let read = one.get("greeting").r(2).await.expect("read");
        assert_eq!(read.one().expect("one value").as_deref(), Some(&b"bye"[..]));
        one.delete("greeting").after(&read).w(2).send().await.expect("deleted");
        let read = two.get("greeting").r(2).await.expect("read");
        assert_eq!(read.one().expect("no conflict"), None);
        close(&[&one, &two]).await;
    });
}

#[test]
fn concurrent_writes_are_siblings_until_one_write_replaces_them() {
    let (_dir, cluster) = start(2);
    block_on(async {
        let db = client(&cluster, 0).await;
        let nothing = db.get("cart").r(2).await.expect("absent");
        db.put("cart", "milk").after(&nothing).w(3).send().await.expect("stored");
        db.put("cart", "eggs").after(&nothing).w(3).send().await.expect("stored");
        let both = db.get("cart").r(2).await.expect("read");
        assert_eq!(both.siblings.len(), 2);
        assert!(matches!(both.one().expect_err("siblings").kind(), ErrorKind::Conflict { .. }));
        let merged = db.put("cart", "milk,eggs").after(&both).w(3).send().await.expect("stored");
        assert_eq!(merged.siblings_now, 1);
        let one = db.get("cart").r(3).await.expect("read");
        assert_eq!(one.one().expect("one value").as_deref(), Some(&b"milk,eggs"[..]));
        close(&[&db]).await;
    });
}

#[test]
fn a_write_that_needs_a_stopped_node_is_refused_and_never_appears() {
    let (_dir, mut cluster) = start(1);
    // They have met: from then on any two of them answer reads.
    block_on(async { close(&[&client_that_reads(&cluster, 0, Quorum::All).await]).await });
    cluster.stop_node(2).expect("a clean stop");
    block_on(async {
        let db = client_that_reads(&cluster, 0, Quorum::Majority).await;
        let error = db.put("k", "v").blind().w(3).timeout(Duration::from_secs(2)).send().await;
        let error = error.expect_err("one of three is stopped");
        assert_eq!(error.applied(), Applied::No, "{error}");
        let read = db.get("k").r(2).await.expect("read");
        assert_eq!(read.one().expect("absent"), None);
        db.put("k", "v").blind().w(2).send().await.expect("two of three are enough");
        close(&[&db]).await;
    });
    cluster.start_node(2).expect("it starts again");
    block_on(async {
        let db = client(&cluster, 2).await;
        let read = db.get("k").r(3).await.expect("all three answer again");
        assert_eq!(read.one().expect("one value").as_deref(), Some(&b"v"[..]));
        close(&[&db]).await;
    });
}

#[test]
fn what_was_written_survives_a_stop_of_all_nodes() {
    let (_dir, mut cluster) = start(2);
    block_on(async {
        let db = client(&cluster, 0).await;
        for at in 0..50 {
            let (key, value) = (format!("key-{at}"), format!("value-{at}"));
            db.put(key, value).blind().w(2).send().await.expect("stored");
        }
        close(&[&db]).await;
    });
    for node in 0..3 {
        cluster.stop_node(node).expect("a clean stop");
    }
    for node in 0..3 {
        cluster.start_node(node).expect("it starts again");
    }
    block_on(async {
        let db = client(&cluster, 1).await;
        for at in 0..50 {
            let read = db.get(format!("key-{at}")).r(2).await.expect("read");
            let value = read.one().expect("one value").expect("it was acked");
            assert_eq!(value, format!("value-{at}").as_bytes());
        }
        close(&[&db]).await;
    });
}
