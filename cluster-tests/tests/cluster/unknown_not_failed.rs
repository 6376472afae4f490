//! Writes of which nobody can say what became of them (Q5): they are told as unknown and never as failed, and
//! what was told as never stored is never there.

use galvani_client::{Applied, Client, ErrorKind};
use galvani_cluster_tests::wait::at_most;
use galvani_cluster_tests::{Cluster, until};
use std::time::Duration;

/// What a write has whose acks do not come: less than it takes to be sure that a peer is away.
const SHORT: Duration = Duration::from_millis(800);
/// In which a write arrives that arrives at all.
const SOON: Duration = Duration::from_secs(5);

/// A client that asks this node or nobody, and once.
fn only(cluster: &Cluster, node: &str) -> Client {
    cluster.block_on(cluster.builder().only(node).retries(0).connect()).expect("it runs")
}

/// The values of a key that a read of `r` replicas through this client shows.
fn shown(cluster: &Cluster, client: &Client, key: &str, r: u8) -> Result<Vec<String>, String> {
    let get = client.get(key.to_owned()).r(r);
    let read = cluster.block_on(async { get.await }).map_err(|error| error.to_string())?;
    Ok(read.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect())
}

/// Waits until n1 reaches both others, and they it.
fn until_all_meet(cluster: &Cluster, client: &Client) {
    until("all nodes to reach each other", || {
        let up = ["n1", "n2", "n3"].map(|name| cluster.status_of(client, name).peers_up.len());
        if up == [2; 3] { Ok(()) } else { Err(up) }
    });
}

#[test]
fn unknown_not_failed_where_acks_cannot_come_back() {
    let cluster = Cluster::with(&["--lanes", "1"]);
    let (n1, n2) = (only(&cluster, "n1"), only(&cluster, "n2"));
    let client = cluster.client_at("n2");
    let (mut tries, mut refused) = (0, Vec::new());
    let doubtful = until("a write whose acks are lost on their way", || {
        tries += 1;
        let key = format!("doubtful/{tries}");
        until_all_meet(&cluster, &client);
        // The others hear n1, and it does not hear them.
        cluster.run(&["dev", "cut", "n2,n3|n1", "--one-way"]).expect(0);
        let put = n1.put(key.clone(), "v").blind().w(2).strict().timeout(SHORT).send();
        let error = cluster.block_on(put).expect_err("no ack can come");
        println!("{key}: {error}");
        match error.applied() {
            Applied::Maybe { acks } => {
                let unknown =
                    matches!(error.kind(), ErrorKind::Quorum { .. } | ErrorKind::Timeout { .. });
                assert!(unknown && acks < 2, "{error:?}");
                assert!(error.is_retryable(), "{error:?}");
                // It is stored where it arrived, although nobody could say so.
                let mut there = Err(String::new());
                at_most(SOON, || {
                    there = shown(&cluster, &n2, &key, 1);
                    there.as_ref().is_ok_and(|values| *values == ["v"])
                });
                cluster.run(&["dev", "heal"]).expect(0);
                match there {
                    Ok(values) if values == ["v"] => Ok(key),
                    // On a busy machine its time may have been over before it was sent on.
                    other => Err(format!("{other:?}")),
                }
            }
            // On a busy machine n1 may have noticed before it was asked.
            Applied::No => {
                assert!(error.is_retryable(), "{error:?}");
                cluster.run(&["dev", "heal"]).expect(0);
                refused.push(key);
                Err(error.to_string())
            }
        }
    });
    // Where it knows beforehand that too few are there, it says so, and that nothing was stored.
    cluster.run(&["dev", "cut", "n2,n3|n1", "--one-way"]).expect(0);
    let mut tries = 0;
    until("n1 to refuse for certain", || {
        // Another key each time: those before it are in doubt.
        tries += 1;
        let key = format!("refused/{tries}");
        let put = n1.put(key.clone(), "v").blind().w(2).strict().timeout(SHORT).send();
        let error = cluster.block_on(put).expect_err("no ack can come");
        match (error.applied(), error.kind()) {
            (Applied::No, ErrorKind::ReplicasDown { .. }) => {
                refused.push(key);
                Ok(())
            }
            _ => Err(error.to_string()),
        }
    });
    cluster.run(&["dev", "heal"]).expect(0);
    until_all_meet(&cluster, &client);
    let explained = cluster.until_equal(&client, &doubtful);
    for replica in &explained.replicas {
        assert_eq!(replica.versions.as_ref().map(Vec::len), Ok(1), "{replica:?}");
    }
    assert_eq!(shown(&cluster, &client, &doubtful, 3), Ok(vec!["v".to_owned()]));
    for key in refused {
        cluster.until_equal(&client, &key);
        assert_eq!(shown(&cluster, &client, &key, 3), Ok(Vec::new()), "{key} was refused");
    }
}

#[test]
fn unknown_not_failed_where_the_coordinator_stands_still_or_dies() {
    let cluster = Cluster::with(&["--lanes", "1"]);
    let n1 = only(&cluster, "n1");
    let client = cluster.client_at("n2");
    let doubted = |key: &'static str, away: fn(&Cluster, &str)| {
        // The link is there, so that the request is on its way and not just nowhere to be sent.
        until("n1 to take a write", || {
            cluster.block_on(n1.put("warm", "v").blind().w(3).send()).map(|_| ())
        });
        away(&cluster, "n1");
        let put = n1.put(key, "v").blind().w(3).strict().timeout(SHORT).send();
        let error = cluster.block_on(put).expect_err("n1 says nothing");
        assert!(matches!(error.applied(), Applied::Maybe { acks: 0 }), "{error:?}");
    };
    // It may have taken the request in, or not: then all have it, or none.
    let agreed = |key: &str| {
        let n2 = cluster.client_at("n2");
        let values = until(&format!("all to agree on {key}"), || {
            let explained = cluster.until_equal(&n2, key);
            let versions = explained.replicas[0].versions.as_ref().map_or(0, Vec::len);
            let values = shown(&cluster, &n2, key, 3)?;
            if values.len() == versions {
                Ok(values)
            } else {
                Err(format!("{versions} {values:?}"))
            }
        });
        println!("{key}: {values:?}");
        assert!(values.is_empty() || values == ["v"], "{key}: {values:?}");
    };
    doubted("paused", Cluster::pause);
    cluster.resume("n1");
    until_all_meet(&cluster, &client);
    agreed("paused");
    doubted("killed", Cluster::kill);
    cluster.start_node("n1");
    until_all_meet(&cluster, &client);
    agreed("killed");
}
