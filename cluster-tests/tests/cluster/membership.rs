//! Which nodes there are changes while the cluster serves, with real processes: nodes join and leave
//! under load, two operators apply two plans at once, a killed node is replaced by an empty one, and
//! hints find whoever owns their keys then.

use galvani_client::{Client, Event, Feed, Start};
use galvani_cluster_tests::history::History;
use galvani_cluster_tests::load::{Load, check_all};
use galvani_cluster_tests::reads::Reads;
use galvani_cluster_tests::{Cluster, until};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a feed showed each write; what it said was gone.
#[derive(Debug, Default)]
struct Shown {
    writes: BTreeMap<(String, String), u32>,
    gaps: u32,
}

impl Shown {
    /// Takes what comes within a while.
    async fn take_some(&mut self, feed: &mut Feed) {
        let all = async {
            loop {
                let event = feed.next().await.expect("a feed goes on");
                self.take(event.expect("a feed goes on"));
            }
        };
        let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(200), all).await;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Changed(change) => {
                let key = String::from_utf8(change.source.key.to_vec()).expect("keys are text");
                *self.writes.entry((key, format!("{:?}", change.source.dot))).or_default() += 1;
            }
            Event::Gap(_) => self.gaps += 1,
            _ => {}
        }
    }

    fn keys(&self) -> BTreeSet<&str> {
        self.writes.keys().map(|(key, _)| key.as_str()).collect()
    }
}

/// Follows a feed until it is told to stop; at some time it is opened anew, from its position.
async fn follow(client: Client, reopen: Arc<AtomicBool>, stop: Arc<AtomicBool>) -> (Shown, Feed) {
    let mut shown = Shown::default();
    let mut feed = client.feed().from(Start::Beginning).subscribe().await.expect("opened");
    while !stop.load(Ordering::Relaxed) {
        if reopen.swap(false, Ordering::Relaxed) {
            let token = feed.token().clone();
            drop(feed);
            feed = client.feed().from(Start::Token(token)).subscribe().await.expect("opened anew");
        }
        shown.take_some(&mut feed).await;
    }
    (shown, feed)
}

#[test]
fn join_under_load_and_leave_under_load_nobody_notices() {
    let cluster = Cluster::start();
    let history = Arc::new(History::new(0x6a01));
    let load = Load::start(&cluster, &history, &["n1", "n2", "n3"], 4, 2);
    let (stop, reopen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let feed = cluster.runtime().spawn(follow(cluster.client(), reopen.clone(), stop.clone()));
    let reads = Reads::start(&cluster, &history, [cluster.client()], 2);
    load.until_acked(200);
    let mut steps = Vec::new();
    for words in [&["dev", "add", "-n", "2"][..], &["dev", "rm", "n2"], &["dev", "rm", "n4"]] {
        steps.push(cluster.run(words).expect(0));
        reopen.store(true, Ordering::Relaxed);
        load.until_acked(200);
    }
    assert!(!cluster.home("n2").exists() && !cluster.home("n4").exists());
    let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
    assert_eq!(status["layout_version"], 4);
    assert!(status["change"].is_null(), "{status}");
    until("nobody to take those that left for nodes that apply", || {
        let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
        let left = status["applicants"].as_array().map_or(0, Vec::len);
        if left == 0 { Ok(()) } else { Err(left) }
    });
    let fewer = cluster.run(&["dev", "rm", "n5"]).expect(5).is_three_part_error();
    fewer.says(&["n=3 copies need 3 nodes", "nothing was changed"]);
    let tally = load.stop(&cluster);
    stop.store(true, Ordering::Relaxed);
    let read = reads.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes", tally.acked);
    assert_eq!(read.failures, [] as [String; 0], "of {} reads", read.reads);
    check_all(&cluster, &cluster.client(), &history, 2);

    let (mut shown, mut feed) = cluster.block_on(feed).expect("a feed goes on");
    let all: BTreeSet<String> = history.keys().into_iter().collect();
    until("the feed to show every key", || {
        let missing = all
            .iter()
            .filter(|key| !shown.keys().contains(key.as_str()))
            .take(3)
            .collect::<Vec<_>>();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = format!("{missing:?}");
        cluster.block_on(shown.take_some(&mut feed));
        Err(missing)
    });
    assert_eq!(shown.gaps, 0, "nothing was trimmed");
    let twice: Vec<_> = shown.writes.iter().filter(|(_, times)| **times > 1).take(3).collect();
    assert!(twice.is_empty(), "shown twice: {twice:?}");
}

#[test]
fn two_changes_at_once_one_wins_and_the_other_is_told_why() {
    let cluster = Cluster::with(&["-n", "4"]);
    let plan = |node: &str| {
        let plan = cluster.run(&["cluster", "plan", "remove", node, "-o", "json"]).expect(0);
        plan.json("galvani.plan/1")["id"].as_str().expect("an id").to_owned()
    };
    let (one, other) = (plan("n1"), plan("n4"));
    assert_eq!(plan("n1"), one, "the same request on the same layout is the same plan");
    let [first, second] = [(&one, "n2"), (&other, "n3")].map(|(id, at)| {
        let server = cluster.node(at).addr.to_string();
        let identity = cluster.identity().display().to_string();
        let at = ["--server", &server, "--identity", &identity];
        cluster.begin(&[&["cluster", "apply", id, "--wait"], &at[..]].concat())
    });
    let ended = [first.finish(), second.finish()];
    let codes: BTreeSet<_> = ended.iter().map(|ran| ran.code).collect();
    assert_eq!(codes, BTreeSet::from([Some(0), Some(10)]), "{} {}", ended[0], ended[1]);
    let winner = usize::from(ended[1].code == Some(0));
    let loser = ended[1 - winner].clone().is_three_part_error();
    assert!(loser.stderr.contains("plan again"), "{loser}");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
    let nodes: Vec<_> = status["nodes"].as_array().expect("nodes").iter().collect();
    let gone = ["n1", "n4"][winner];
    assert_eq!(nodes.len(), 3, "{status}");
    assert!(nodes.iter().all(|node| node["name"] != gone), "{status}");
    // Asked again, the winner's plan is there, and the other one is out of date.
    let ids = [&one, &other];
    let again = cluster.run(&["cluster", "apply", ids[winner]]).expect(0);
    assert!(again.text().contains("is there already"), "{again}");
    let late = cluster.run(&["cluster", "apply", ids[1 - winner]]).expect(10);
    late.is_three_part_error().says(&["made on layout v1, the cluster is at v2", "plan again"]);
}

#[test]
fn replace_dead_by_an_empty_node() {
    let cluster = Cluster::start();
    let history = Arc::new(History::new(0x6a02));
    let load = Load::start(&cluster, &history, &["n1", "n2"], 2, 2);
    load.until_acked(200);
    cluster.kill("n3");
    load.until_acked(100);
    // A node that is down can hand nothing over.
    let refused = cluster.run(&["dev", "rm", "n3"]).expect(5);
    refused.is_three_part_error().says(&["n3 is down", "NOTHING WAS CHANGED", "node forget n3"]);
    let replaced = cluster.run(&["dev", "add", "--replace", "n3", "-o", "json"]).expect(0);
    let replaced = replaced.json("galvani.dev_add/1");
    let [whole, all] = ["whole_after_ms", "ms"].map(|name| replaced[name].as_f64());
    assert!(whole.is_some() && whole <= all, "{replaced}");
    load.until_acked(100);
    let tally = load.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes: n1 and n2 own all of it", tally.acked);
    cluster.run(&["dev", "rm", "n3", "--yes"]).expect(0);
    assert!(!cluster.home("n3").exists());
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
    let names = status["nodes"].as_array().expect("nodes").iter().map(|node| &node["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["n1", "n2", "n4"]);
    assert_eq!(status["partitions"]["all_owners_up"], status["partitions"]["all"], "{status}");
    // The new one has all of it: with either of the others away, it is one of the two that answer.
    cluster.kill("n1");
    check_all(&cluster, &cluster.client(), &history, 2);
    // All of it comes back after a stop, with the nodes there are now.
    cluster.run(&["dev", "stop"]).expect(0);
    cluster.run(&["dev", "start"]).expect(0);
    check_all(&cluster, &cluster.client(), &history, 2);
}

#[test]
fn a_change_goes_on_over_the_death_of_every_node() {
    let cluster = Cluster::with(&["-n", "4"]);
    let history = Arc::new(History::new(0x6a03));
    let load = Load::start(&cluster, &history, &["n1", "n2", "n3", "n4"], 4, 2);
    load.until_acked(500);
    let plan = cluster.run(&["cluster", "plan", "remove", "n4", "-o", "json"]).expect(0);
    let id = plan.json("galvani.plan/1")["id"].as_str().expect("an id").to_owned();
    cluster.run(&["cluster", "apply", &id]).expect(0);
    // Whoever sees to it dies, and so does whoever takes that over, and those that copy.
    for name in ["n1", "n2", "n3", "n4"] {
        cluster.kill(name);
        load.until_acked(20);
        cluster.start_node(name);
    }
    cluster.run(&["cluster", "apply", &id, "--wait", "--wait-timeout", "50s"]).expect(0);
    let tally = load.stop(&cluster);
    println!("{:?}", tally.failures.iter().take(3).collect::<Vec<_>>());
    check_all(&cluster, &cluster.client(), &history, 2);
    cluster.run(&["dev", "rm", "n4"]).expect(0);
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    check_all(&cluster, &cluster.client(), &history, 2);
    cluster.kill("n2");
    check_all(&cluster, &cluster.client(), &history, 2);
}

/// Hints that nodes hold for `target`, or for anybody.
fn hints_held(cluster: &Cluster, target: Option<&str>) -> u64 {
    let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
    let nodes = status["nodes"].as_array().expect("nodes");
    let held = nodes.iter().flat_map(|node| node["hints"].as_array().into_iter().flatten());
    let held = held.filter(|held| target.is_none_or(|target| held["for"] == target));
    held.map(|held| held["count"].as_u64().expect("a count")).sum()
}

#[test]
fn hints_go_to_the_owners_there_are_when_their_target_or_holder_leaves() {
    let cluster = Cluster::with(&["-n", "5"]);
    let history = Arc::new(History::new(0x6a04));
    let load = Load::start(&cluster, &history, &["n1", "n2"], 4, 2);
    let until_held = |target: &str| {
        cluster.kill(target);
        until(&format!("hints for {target}"), || match hints_held(&cluster, Some(target)) {
            few if few < 50 => Err(few),
            _ => Ok(()),
        });
    };
    // Beside writers some shard is always behind for a moment: nothing settles, but hints go.
    let delivered = || drop(cluster.run(&["wait", "--for", "hints=0"]).expect(0));
    // H3: an empty node takes the place of the one that they are for.
    until_held("n5");
    cluster.run(&["dev", "add", "--replace", "n5"]).expect(0);
    cluster.run(&["dev", "rm", "n5", "--yes"]).expect(0);
    delivered();
    // H4: it comes back to them, and is told to leave at once.
    until_held("n4");
    cluster.start_node("n4");
    cluster.run(&["dev", "rm", "n4"]).expect(0);
    delivered();
    // H5: one that holds them leaves, another node in its place, while their target is away.
    until_held("n2");
    cluster.run(&["dev", "add", "--replace", "n3"]).expect(0);
    cluster.start_node("n2");
    load.until_acked(50);
    let tally = load.stop(&cluster);
    assert_eq!(tally.failures, [], "of {} writes: one node at a time is away", tally.acked);
    cluster.run(&["dev", "rm", "n3"]).expect(0);
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    assert_eq!(hints_held(&cluster, None), 0);
    check_all(&cluster, &cluster.client(), &history, 2);
    cluster.kill("n1");
    check_all(&cluster, &cluster.client(), &history, 2);
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").port()
}

/// A plan begins so slowly that it can be told to rest, which it does whatever is started anew.
fn rests_and_goes_on(cluster: &Cluster, id: &str) {
    let idle = cluster.run(&["cluster", "pause"]).expect(5);
    idle.is_three_part_error().says(&["nothing is copying", "no change"]);
    cluster.run(&["cluster", "apply", id, "--max-rate", "10kB/s"]).expect(0);
    cluster.run(&["cluster", "pause", id]).expect(0);
    let change = || {
        let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
        status["change"].clone()
    };
    until("the page to say so", || {
        let page = cluster.run(&["status"]).expect(0).text().to_owned();
        if page.contains("at rest: galvani cluster resume") { Ok(()) } else { Err(page) }
    });
    for node in ["n1", "n2", "n3"] {
        cluster.kill(node);
        cluster.start_node(node);
    }
    let resting = change();
    assert_eq!(resting["paused"], true, "{resting}");
    assert_eq!(resting["max_bytes_per_second"], 10_000, "{resting}");
    assert!(resting["shards_left"].as_u64() > Some(0), "{resting}");
    cluster.run(&["cluster", "resume"]).expect(0);
    until("some of it to be copied", || {
        let change = change();
        match change["bytes"].as_u64() > Some(0) && change["paused"] == false {
            true => Ok(()),
            false => Err(change.to_string()),
        }
    });
}

#[test]
fn a_node_of_another_host_is_invited_and_drained_and_a_stranger_is_told_why() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let path = |name: &str| cluster.scratch().join(name).display().to_string();
    let [ca, file] = ["dev/ca", "dev/cluster.json"].map(path);
    let invite = |name: &str, ca: &str| {
        let node = format!("{name}=127.0.0.1:{},zone=z", free_port());
        let words = ["cluster", "invite", "--ca", ca, "--cluster", &file, "--node", &node];
        cluster.run(&[&words[..], &["--out", &path(name)]].concat())
    };
    let config = |name: &str| format!("{}/galvani.toml", path(name));
    invite("m1", &ca).expect(0);
    invite("m1", &ca).expect(5).is_three_part_error().says(&["exists already"]);
    // Another cluster's root signs nothing for this one, and its certificates are of no use here.
    let other = path("other");
    let node = format!("x1=127.0.0.1:{}", free_port());
    let create = ["cluster", "create", "--name", "other", "--dir", &other, "--node", &node];
    cluster.run(&[&create[..], &["--no-context"]].concat()).expect(0);
    let stranger = invite("m2", &format!("{other}/ca")).expect(9);
    stranger.is_three_part_error().says(&["is of cluster"]);
    invite("m2", &ca).expect(0);
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let from = format!("{other}/x1/identity/{name}");
        std::fs::copy(from, format!("{}/identity/{name}", path("m2"))).expect("copied");
    }
    let stranger = cluster.run(&["server", "--config", &config("m2")]).expect(9);
    stranger.is_three_part_error().says(&["are of cluster", "cluster invite"]);
    // Nor is the data of another node.
    invite("m3", &ca).expect(0);
    cluster.stop("n3");
    std::fs::rename(cluster.home("n3").join("data"), format!("{}/data", path("m3")))
        .expect("moved");
    let old = cluster.run(&["server", "--config", &config("m3")]).expect(5);
    old.is_three_part_error().says(&["belongs to"]);
    std::fs::rename(format!("{}/data", path("m3")), cluster.home("n3").join("data"))
        .expect("moved back");
    cluster.start_node("n3");

    // One that does not run would hold up the change for ever.
    let nobody = format!("m9@a=00000000000000000000000000000009@127.0.0.1:{}", free_port());
    let plan = cluster.run(&["cluster", "plan", "add", &nobody, "-o", "json"]).expect(0);
    let id = plan.json("galvani.plan/1")["id"].as_str().expect("an id").to_owned();
    let refused = cluster.run(&["cluster", "apply", &id]).expect(5);
    refused.is_three_part_error().says(&["m9 cannot be reached", "nothing was changed"]);
    assert!(cluster.run(&["status"]).expect(0).text().contains("layout v1"), "as before");

    let server = cluster.begin(&["server", "--config", &config("m1")]);
    let id = until("m1 to apply, and its plan", || {
        let plan = cluster.run(&["cluster", "plan", "add", "m1", "-o", "json"]);
        match plan.code {
            Some(0) => Ok(plan.json("galvani.plan/1")["id"].as_str().expect("an id").to_owned()),
            _ => Err(plan.stderr),
        }
    });
    cluster.block_on(async {
        for number in 0..200 {
            let put = client.put(format!("k/{number}"), "v".repeat(10_000)).blind().w(2);
            put.send().await.expect("stored");
        }
    });
    rests_and_goes_on(&cluster, &id);
    let fast = ["cluster", "apply", &id, "--wait", "--max-rate", "900MB/s", "-o", "json"];
    let applied = cluster.run(&fast).expect(0);
    assert_eq!(applied.json("galvani.apply/1")["done"], true);
    cluster.block_on(client.look()).expect("a server answers");
    let status = cluster.status_of(&client, "m1");
    assert!(status.counters.records_pulled > 0, "{:?}", status.counters);
    let up = cluster.run(&["node", "forget", "m1", "--yes"]).expect(5);
    up.is_three_part_error().says(&["m1 is up", "node drain m1"]);
    let drained = cluster.run(&["node", "drain", "m1"]).expect(0);
    assert!(drained.text().contains("holds nothing more"), "{drained}");
    drop(server);
    cluster.block_on(async {
        for number in 0..200 {
            let read = client.get(format!("k/{number}")).r(2).await.expect("read");
            assert_eq!(read.siblings.len(), 1, "k/{number}");
        }
    });
}
