//! Power cuts on a real file system (K6 `power_cut_one`, K7 `power_cut_all`): what was acked as durable is
//! there afterwards, and what may be gone is what the guarantees say.
//!
//! Each node's data directory is an ext4 of its own that is shut down without a flush, and its process is
//! killed; then it is mounted again. A file written just before must be gone, or nothing was tried.

use galvani_client::{Client, Quorum};
use galvani_cluster_tests::history::any_seed;
use galvani_cluster_tests::load::check_all;
use galvani_cluster_tests::power::{lose_power, on_power_disks};
use galvani_cluster_tests::{Cluster, History, Load, until};
use galvani_model::ids::Origin;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
fn settled(cluster: &Cluster) {
    cluster.run(&["wait", "--for", "settled", "--timeout", "60s"]).expect(0);
}

/// The name under which n1 counts its writes of a shard now.
fn origin_at_n1(cluster: &Cluster) -> Origin {
    let client = cluster.client_at("n1");
    let put = client.put("whose", "n1's").blind().w(1).send();
    cluster.block_on(put).expect("n1 runs").dot.expect("a value").origin
}

#[test]
fn power_cut_one_takes_a_new_incarnation_and_is_filled_by_the_others() {
    let Some((cluster, disks)) = on_power_disks(&["n1"], "os") else { return };
    let history = Arc::new(History::new(any_seed()));
    let mut origins = BTreeSet::new();
    for round in 1..=2 {
        origins.insert(origin_at_n1(&cluster));
        let load = Load::start(&cluster, &history, &ALL, 6, 2_u8);
        load.until_acked(300);
        lose_power(&cluster, &["n1"], &disks);
        load.until_acked(60);
        cluster.start_node("n1");
        load.until_acked(60);
        load.stop(&cluster);
        settled(&cluster);
        origins.insert(origin_at_n1(&cluster));
        assert_eq!(origins.len(), round + 1, "{origins:?}");
        check_all(&cluster, &cluster.client(), &history, Quorum::All);
    }
}

/// Writes key after key until it is told to stop, every second one durable at one owner; those acked.
async fn write_some(client: Client, name: String, stop: Arc<AtomicBool>) -> [Vec<String>; 2] {
    let mut acked = [Vec::new(), Vec::new()];
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, durable) = (format!("{name}/{number}"), number % 2);
        let put = client.put(key.clone(), key.clone()).blind().w(2);
        let put = if durable == 1 { put.dw(1) } else { put };
        match put.send().await {
            Ok(_) => acked[durable].push(key),
            // The power is gone, or about to be.
            Err(_) => tokio::task::yield_now().await,
        }
    }
    acked
}

#[test]
fn power_cut_all_in_mode_os_what_was_asked_to_be_durable_is_there() {
    let Some((cluster, disks)) = on_power_disks(&ALL, "os") else { return };
    let client = cluster.client();
    let stop = Arc::new(AtomicBool::new(false));
    let probe = cluster.client();
    let writers: Vec<_> = (0..4)
        .map(|number| write_some(client.clone(), format!("w{number}"), stop.clone()))
        .map(|writer| cluster.runtime().spawn(writer))
        .collect();
    until("a while of writes", || {
        let status = cluster.status_of(&probe, "n1");
        if status.counters.puts > 300 { Ok(()) } else { Err(status.counters.puts) }
    });
    lose_power(&cluster, &ALL, &disks);
    stop.store(true, Ordering::Relaxed);
    let mut acked = [Vec::new(), Vec::new()];
    for writer in writers {
        let [plain, durable] = cluster.block_on(writer).expect("a writer does not panic");
        acked[0].extend(plain);
        acked[1].extend(durable);
    }
    cluster.start_all();
    settled(&cluster);
    let client = cluster.client();
    let lost = acked.each_ref().map(|keys| {
        let is_lost = |key: &&String| {
            let read = cluster.block_on(async { client.get((*key).clone()).r(Quorum::All).await });
            let read = read.expect("all are up");
            assert!(read.values().all(|value| *value == key.as_bytes()), "{key}: {read:?}");
            read.values().next().is_none()
        };
        keys.iter().filter(is_lost).cloned().collect::<Vec<String>>()
    });
    println!("{} plain writes acked, {} lost", acked[0].len(), lost[0].len());
    println!("{} durable ones acked, {} lost", acked[1].len(), lost[1].len());
    assert!(!acked[1].is_empty());
    assert_eq!(lost[1], [] as [String; 0]);
}

#[test]
fn power_cut_all_every_write_acked_by_one_disk_is_there() {
    let Some((cluster, disks)) = on_power_disks(&ALL, "fsync") else { return };
    let history = Arc::new(History::new(any_seed()));
    for _ in 0..3 {
        // One ack, so that each write rests on one disk until the others have it, too.
        let load = Load::start(&cluster, &history, &ALL, 6, 1_u8);
        load.until_acked(150);
        lose_power(&cluster, &ALL, &disks);
        load.stop(&cluster);
        cluster.start_all();
        settled(&cluster);
        check_all(&cluster, &cluster.client(), &history, Quorum::All);
    }
}
