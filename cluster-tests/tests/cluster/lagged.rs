//! A lagged replica with real processes: an accident is paused, looked at as it was before, and nothing
//! that came is lost when the replica is killed.

use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, Ran, until};
use jiff::Timestamp;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYS: usize = 40;

struct Replica<'a> {
    cluster: &'a Cluster,
    dir: String,
    running: Option<Running>,
}

impl<'a> Replica<'a> {
    /// Starts one beside the cluster, an hour behind.
    fn start(cluster: &'a Cluster) -> Replica<'a> {
        let dir = cluster.scratch().join("lagged").display().to_string();
        let mut replica = Replica { cluster, dir, running: None };
        replica.again();
        replica
    }

    fn again(&mut self) {
        self.running = None;
        self.running = Some(self.cluster.begin(&["lagged", "--lag", "1h", "--dir", &self.dir]));
        until("the replica answers", || {
            let ran = self.ask(&["status"]);
            if ran.code == Some(0) { Ok(()) } else { Err(ran.to_string()) }
        });
    }

    fn ask(&self, words: &[&str]) -> Ran {
        let words =
            ["lagged"].iter().chain(words).copied().chain(["--dir", &self.dir, "-o", "json"]);
        self.cluster.run(&words.collect::<Vec<_>>())
    }

    fn status(&self) -> Value {
        self.ask(&["status"]).expect(0).json("galvani.lagged/1")
    }

    fn until_it(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        until(what, || {
            let status = self.status();
            if holds(&status) { Ok(()) } else { Err(status) }
        });
    }

    /// Waits until at least so many writes came: one that was retried counts for each of its names.
    fn until_has(&self, records: usize) {
        self.until_it("all writes came", |status| {
            let came = status["journal_records"].as_u64().unwrap_or(0) as usize;
            came >= records && !status["protected_since_ms"].is_null()
        });
    }

    /// Waits until all that came makes these keys.
    fn until_keys(&self, keys: &[&str]) {
        until("the keys are these", || {
            let found = self.keys(&[]);
            if found == keys { Ok(()) } else { Err(found) }
        });
    }

    /// The keys at a moment, sorted.
    fn keys(&self, words: &[&str]) -> Vec<String> {
        let words = ["ls", "cart/"].iter().chain(words).copied().collect::<Vec<_>>();
        let listed = self.ask(&words).expect(0).json("galvani.lagged.ls/1");
        assert_eq!(listed["complete"], true);
        assert_eq!(listed["blurred"], Value::Array(Vec::new()));
        let keys = listed["keys"].as_array().expect("keys").iter();
        let mut keys: Vec<String> =
            keys.map(|key| key["key"].as_str().expect("text").to_owned()).collect();
        keys.sort();
        keys
    }
}

#[test]
fn a_prefix_that_was_deleted_is_there_as_of_before_also_after_a_kill() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let names: Vec<String> = (0..KEYS).map(|number| format!("cart/{number:03}")).collect();
    cluster.block_on(async {
        for name in &names {
            client.put(name.clone(), format!("of {name}")).blind().w(3).send().await.expect("ok");
        }
    });
    let mut replica = Replica::start(&cluster);
    replica.until_has(KEYS);
    // From here on moments can be shown.
    replica.until_it("what was written is complete", |status| {
        status["complete_through_ms"].as_u64() > status["protected_since_ms"].as_u64()
    });
    let good = Timestamp::now().to_string();

    cluster.run(&["del", "--prefix", "cart/", "--yes"]).expect(0);
    replica.until_keys(&[]);
    let held = replica.status()["journal_records"].clone();
    let status = replica.ask(&["pause"]).expect(0).json("galvani.lagged/1");
    assert!(!status["paused_since_ms"].is_null());
    for _ in 0..2 {
        assert_eq!(replica.keys(&["--at", &good]), names);
        assert_eq!(replica.keys(&[]), [""; 0], "all that came: they are deleted");
        assert_eq!(replica.keys(&["--without-deletes"]), names, "as if nobody had deleted");
        let was = replica.ask(&["get", "cart/007", "--at", &good]).expect(0);
        let was = was.json("galvani.lagged.get/1");
        assert_eq!(was["siblings"][0]["value"], "of cart/007");
        replica.ask(&["get", "cart/007"]).expect(3);
        // Killed: dropping it sends SIGKILL.
        replica.again();
        let status = replica.status();
        assert_eq!(status["journal_records"], held, "nothing lost, nothing doubled");
        assert!(!status["paused_since_ms"].is_null(), "the pause stands");
    }
    // And the feed goes on, also for a bucket that is made now and has shards of its own.
    let id = galvani_client::RequestId(7);
    let written = cluster.block_on(async {
        client.put("cart/new", "x").blind().request_id(id).send().await.expect("stored")
    });
    assert_eq!(written.request_id, Some(id));
    replica.until_keys(&["cart/new"]);
    let before = replica.ask(&["get", "cart/new", "--before-request", &id.to_string()]);
    before.expect(3);
    cluster.run(&["bucket", "create", "single", "-n", "1", "-r", "1", "-w", "1"]).expect(0);
    cluster.run(&["put", "k", "v", "-b", "single"]).expect(0);
    until("the new bucket is followed", || {
        let ran = replica.ask(&["get", "k", "-b", "single"]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran.to_string()) }
    });

    // It cannot be taken back, so it asks, and there is nobody here to be asked.
    // What came before it had caught up is in no window: only the deletions take moments away.
    let changes = [
        (&["advance", "--to", &good][..], "writes go to the base"),
        (&["set-lag", "0s"], "cannot be shown any more"),
    ];
    for (change, says) in changes {
        replica.ask(change).expect(2).says(&["--yes", "NOTHING WAS CHANGED", says]);
    }
    assert_eq!(replica.status()["applied"], 0);
    replica.ask(&["set-lag", "2h"]).expect(0);
    let advance = replica.ask(&["advance", "--to", &good, "--yes"]).expect(0);
    let records = advance.json("galvani.lagged.advance/1")["records"].clone();
    assert!(records.as_u64() >= Some(KEYS as u64), "{records}");
    replica.until_it("they are applied", |status| status["applied"] == records);
    assert_eq!(replica.keys(&["--at", &good]), names, "from the base");
    // It is started with --lag 1h again, which is shorter: no restart throws moments away.
    replica.again();
    assert_eq!(replica.status()["lag_target_ms"], 7_200_000);
    let early = replica.ask(&["ls", "--at", "1h"]).expect(5);
    assert!(early.stderr.contains("shows moments from 2"), "a time, not a number: {early}");
    replica
        .ask(&["ls", "--at", "2999-01-01T00:00:00Z"])
        .expect(5)
        .says(&["in the future", "now is 2"]);
    let report = cluster.scratch().join("none.jsonl").display().to_string();
    let words = ["restore", "--key", "k", "--at", &good, "-b", "nowhere", "--yes", "--report"];
    let words: Vec<&str> = words.iter().copied().chain([report.as_str()]).collect();
    replica.ask(&words).expect(5).says(&["no bucket \"nowhere\""]);
    assert!(!Path::new(&report).exists(), "nothing was begun");
    for about_nothing in
        [&["ls"][..], &["get", "k"], &["diff"], &["restore", "--all", "--at", &good]]
    {
        let words: Vec<&str> = about_nothing.iter().copied().chain(["-b", "nowhere"]).collect();
        replica.ask(&words).expect(5).says(&["no bucket \"nowhere\"", "single"]);
    }
}

#[test]
fn all_is_compared_by_itself_and_when_asked_and_what_one_side_lacks_is_named() {
    let cluster = Cluster::start();
    let client = cluster.client();
    cluster.block_on(async {
        for number in 0..KEYS {
            let put = client.put(format!("cart/{number:03}"), "v").blind().w(3);
            put.send().await.expect("stored");
        }
    });
    let replica = Replica::start(&cluster);
    replica.until_has(KEYS);
    replica.until_it("it was compared by itself", |status| !status["verified_at_ms"].is_null());
    let status = replica.status();
    assert_eq!(status["verified"]["lost"], 0, "{status}");
    // Nothing more than a day may pass until the nodes drop something: they were asked for no other.
    let left = status["seconds_to_truncation"].as_u64().expect("it has caught up");
    assert!((1..=24 * 3600).contains(&left), "{status}");
    let found = replica.ask(&["verify"]).expect(0).json("galvani.lagged.verify/1");
    assert!(found["well"] == true && found["keys"].as_u64() >= Some(KEYS as u64), "{found}");
    let at = replica.status()["verified_at_ms"].clone();
    assert!(at.as_u64() > status["verified_at_ms"].as_u64() && at == found["ended_ms"]);

    // All nodes are put back to before a write that the replica has.
    cluster.stop_all();
    let data = |name: &str| cluster.home(name).join("data");
    let kept = |name: &str| cluster.scratch().join(name);
    ["n1", "n2", "n3"].iter().for_each(|name| copy(&data(name), &kept(name)));
    cluster.start_all();
    cluster.run(&["put", "cart/late", "v", "-w", "3"]).expect(0);
    replica.until_it("it came", |_| replica.ask(&["get", "cart/late"]).code == Some(0));
    cluster.stop_all();
    for name in ["n1", "n2", "n3"] {
        std::fs::remove_dir_all(data(name)).expect("removed");
        copy(&kept(name), &data(name));
    }
    cluster.start_all();
    let found = replica.ask(&["verify"]).expect(7).json("galvani.lagged.verify/1");
    assert_eq!((&found["lost"], &found["missing"]), (&1.into(), &0.into()), "{found}");
    assert_eq!(found["named"][0], "LOST in the cluster  default/cart/late", "{found}");
    let words = ["lagged", "status", "--dir", &replica.dir];
    let status = cluster.run(&words).expect(0);
    assert!(status.text().contains("the cluster does not show: 1"), "{status}");
}

#[test]
fn a_byte_that_flips_in_its_base_is_found_and_the_file_named() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let mut replica = Replica::start(&cluster);
    replica.ask(&["set-lag", "0s", "--yes"]).expect(0);
    let base = Path::new(&replica.dir).join("base");
    let mut number = 0;
    let mut write = |replica: &Replica| {
        cluster.block_on(async {
            for _ in 0..8 {
                number += 1;
                let value = format!("{number:04}").repeat(VALUE_BYTES / 4);
                let put = client.put(format!("cart/{number:04}"), value).blind().w(3);
                put.send().await.expect("stored");
            }
        });
        replica.until_it("all is applied", |status| status["applied"].as_u64() >= Some(number));
        let files = values_in(&base);
        if files.is_empty() { Err(format!("{number} values")) } else { Ok(()) }
    };
    until("the base has written values to files", || write(&replica));
    // A file that it was still writing when it was killed is none of its files: then it is tried again.
    let (found, files) = until("a file of the base is damaged", || {
        replica.running = None;
        let files = values_in(&base);
        for path in &files {
            let mut bytes = std::fs::read(path).expect("reads");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x5a;
            std::fs::write(path, bytes).expect("writes");
        }
        replica.again();
        let ran = replica.ask(&["verify"]);
        if ran.code == Some(7) {
            return Ok((ran.json("galvani.lagged.verify/1"), files));
        }
        let _ = write(&replica);
        Err(ran)
    });
    let named = found["damaged_files"].as_array().expect("files").clone();
    assert!(!named.is_empty(), "{found}");
    for file in named {
        assert!(files.iter().any(|path| path.to_str() == file.as_str()), "{file}: {files:?}");
    }
    assert!(found["damaged"].as_u64() >= Some(1), "a value in it cannot be read: {found}");
    assert_eq!((&found["lost"], &found["unread"]), (&0.into(), &0.into()), "{found}");
    let words = ["lagged", "status", "--dir", &replica.dir];
    let status = cluster.run(&words).expect(0);
    assert!(status.text().contains("WARN  damaged files here"), "{status}");
}

const VALUE_BYTES: usize = 256 << 10;

/// The files below a directory in which an engine keeps values.
fn values_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("there") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            found.extend(values_in(&path));
        } else if path.parent().is_some_and(|it| it.ends_with("blobs"))
            && path.metadata().is_ok_and(|facts| facts.len() > 0)
        {
            found.push(path);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp runs").success());
}

#[test]
fn the_one_beside_a_local_cluster_is_found_and_stops_and_starts_with_it() {
    let cluster = Cluster::start();
    let lagged = |words: &[&str]| {
        let words: Vec<&str> = ["lagged"].iter().chain(words).copied().collect();
        cluster.run(&words)
    };
    lagged(&["status"]).expect(2).says(&["galvani dev -d --lagged 10m"]).is_three_part_error();
    let made = cluster.run(&["dev", "-d", "--lagged", "10m", "-o", "json"]).expect(0);
    let dir = cluster.dir().join("lagged").display().to_string();
    assert_eq!(made.json("galvani.dev/1")["lagged"]["dir"], dir);
    let status = || lagged(&["status", "-o", "json"]).expect(0).json("galvani.lagged/1");
    assert_eq!(status()["lag_target_ms"], 600_000);
    cluster.run(&["put", "k", "v", "-w", "3"]).expect(0);
    let follows = || {
        until("it has come", || {
            let ran = lagged(&["get", "k"]);
            if ran.code == Some(0) { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    follows();
    let log = cluster.run(&["dev", "logs", "lagged"]).expect(0);
    assert!(log.text().contains("10m behind"), "{log}");
    let state = || {
        let shown = cluster.run(&["dev", "status", "-o", "json"]).expect(0).json("galvani.dev/1");
        shown["lagged"]["state"].as_str().expect("a word").to_owned()
    };
    assert_eq!(state(), "up");

    cluster.run(&["dev", "stop", "lagged"]).expect(0);
    assert_eq!(state(), "down");
    let away = lagged(&["status"]).expect(8).says(&["galvani dev start", "lagged"]);
    assert!(away.stderr.contains("it does not run"), "{away}");
    cluster.run(&["get", "k"]).expect(0);
    cluster.run(&["dev", "start", "lagged"]).expect(0).says(&["lagged is up"]);
    cluster.run(&["dev", "kill", "lagged"]).expect(0).says(&["SIGKILL"]);
    assert_eq!(state(), "down");
    cluster.run(&["dev", "start"]).expect(0);
    assert_eq!(state(), "up");

    // Its lag is its own, whatever it was made with.
    lagged(&["set-lag", "20m"]).expect(0);
    cluster.stop_all();
    assert_eq!(state(), "down");
    let again = cluster.run(&["dev", "-d", "--lagged", "1m"]).expect(0);
    again.says(&["galvani lagged set-lag"]);
    assert_eq!((status()["lag_target_ms"].as_u64(), state().as_str()), (Some(1_200_000), "up"));
    follows();
    cluster.run(&["dev", "destroy", "--yes"]).expect(0);
    assert!(!cluster.dir().exists(), "nothing is left, nobody holds it");
}

#[test]
fn one_that_was_away_too_long_keeps_its_old_window_and_says_what_it_does_not_know() {
    let cluster = Cluster::start();
    cluster.reconfigure("feed_keep_ms = 86400000", "feed_keep_ms = 2000");
    let put = |value: &str| {
        for number in 0..5 {
            cluster.run(&["put", &format!("cart/{number}"), value, "-w", "3"]).expect(0);
        }
    };
    put("old");
    let mut replica = Replica::start(&cluster);
    replica.until_has(5);
    let good = Timestamp::now();
    replica.until_it("all until then is here", |status| {
        status["complete_through_ms"].as_u64() > u64::try_from(good.as_millisecond()).ok()
    });
    // What is noted in memory is written down with it; then it is killed.
    replica.ask(&["pause"]).expect(0);
    replica.ask(&["resume"]).expect(0);
    replica.running = None;
    (1..=6).for_each(|time| put(&format!("{time}")));
    let client = cluster.client();
    for node in ["n1", "n2", "n3"] {
        until(&format!("{node} to trim"), || {
            let trimmed = cluster.status_of(&client, node).counters.records_trimmed;
            if trimmed >= 10 { Ok(()) } else { Err(trimmed) }
        });
    }
    replica.again();
    replica.until_it("the gap is known, and what came after it is here", |status| {
        let until = status["holes"][0]["until_ms"].as_u64();
        until.is_some() && status["complete_through_ms"].as_u64() > until
    });
    let at = |at: &str, key: &str| replica.ask(&["get", key, "--at", at]);
    let value =
        |ran: Ran| ran.expect(0).json("galvani.lagged.get/1")["siblings"][0]["value"].clone();
    assert_eq!(replica.keys(&["--at", &good.to_string()]).len(), 5);
    for number in 0..5 {
        let key = format!("cart/{number}");
        assert_eq!(value(at(&good.to_string(), &key)), "old");
        assert_eq!(value(at("0s", &key)), "6");
    }
    let hole = replica.status()["holes"][0].clone();
    let ms = |name: &str| hole[name].as_i64().expect("a moment");
    let inside = Timestamp::from_millisecond((ms("from_ms") + ms("until_ms")) / 2).expect("a time");
    at(&inside.to_string(), "cart/1").expect(5).says(&["not known", "before or after"]);
    // What is gone was replaced everywhere: nothing is missing.
    let found = replica.ask(&["verify"]).expect(0).json("galvani.lagged.verify/1");
    assert_eq!(found["well"], true, "{found}");
}

#[test]
fn a_second_process_and_a_second_cluster_are_refused_their_directory() {
    let cluster = Cluster::start();
    let replica = Replica::start(&cluster);
    let second = cluster.run(&["lagged", "--dir", &replica.dir]).expect(5);
    assert!(second.stderr.contains("in use by process"), "{second}");
    let other = Cluster::start();
    let dir = replica.dir.clone();
    drop(replica);
    let refused = other.run(&["lagged", "--dir", &dir]).expect(5);
    assert!(refused.stderr.contains("follows cluster"), "{refused}");
    let nobody = other.run(&["lagged", "status", "--dir", &dir]).expect(8);
    assert!(nobody.stderr.contains("galvani lagged --dir"), "{nobody}");
}

#[test]
fn lagged_restore_loses_no_user_write() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let names: Vec<String> = (0..KEYS).map(|number| format!("cart/{number:03}")).collect();
    let put = |key: String, value: &str| {
        let put = client.put(key, value.to_owned()).blind().w(3);
        cluster.block_on(put.send()).expect("stored");
    };
    names.iter().for_each(|name| put(name.clone(), "old"));
    put("other".to_owned(), "old");
    let replica = Replica::start(&cluster);
    replica.until_has(KEYS + 1);
    replica.until_it("what was written is complete", |status| {
        status["complete_through_ms"].as_u64() > status["protected_since_ms"].as_u64()
    });
    let good = Timestamp::now().to_string();
    cluster.run(&["del", "--prefix", "cart/", "--yes"]).expect(0);
    // Somebody goes on with one of them, and with something else.
    put("cart/005".to_owned(), "user");
    put("other".to_owned(), "user");
    replica.until_keys(&["cart/005"]);
    replica.ask(&["pause"]).expect(0);

    let differs = replica.ask(&["diff", "cart/", "--at", &good]).expect(0);
    let last = differs.text().lines().last().expect("a summary").to_owned();
    let counts = serde_json::from_str::<Value>(&last).expect("JSON");
    let expected = serde_json::json!({ "only_then": KEYS - 1, "replaced": 1 });
    assert_eq!(counts["keys"], expected, "{differs}");

    let report = cluster.scratch().join("report.jsonl").display().to_string();
    let job = ["restore", "--prefix", "cart/", "--at", &good, "--report", &report];
    let restored = |words: &[&str]| {
        let words: Vec<&str> = job.iter().chain(words).copied().collect();
        replica.ask(&words).expect(4).json("galvani.lagged.restore/1")
    };
    let would = restored(&[]);
    assert_eq!((&would["written"], &would["conflicts"]), (&(KEYS - 1).into(), &1.into()));
    cluster.run(&["get", "cart/007"]).expect(3);
    let did = restored(&["--yes"]);
    assert_eq!((&did["written"], &did["failed"]), (&(KEYS - 1).into(), &0.into()), "{did}");
    let check = |cart: Option<&str>| {
        for name in &names {
            let read = cluster.block_on(async { client.get(name.clone()).r(3).await });
            let value = read.expect("read").one().expect("no siblings");
            let expected = if name == "cart/005" { Some("user") } else { cart };
            assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{name}");
        }
        cluster.run(&["get", "other", "-r", "3"]).expect(4);
    };
    check(Some("old"));

    // Gone on with, nothing is left to do; done anew, all is as it was.
    let resume = ["restore", "--resume", &report, "--yes"];
    let again = replica.ask(&resume).expect(4).json("galvani.lagged.restore/1");
    assert_eq!((&again["done_before"], &again["written"]), (&(KEYS - 1).into(), &0.into()));
    let other = cluster.scratch().join("other.jsonl").display().to_string();
    let anew = ["restore", "--prefix", "cart/", "--at", &good, "--report", &other, "--yes"];
    let anew = replica.ask(&anew).expect(4).json("galvani.lagged.restore/1");
    assert_eq!((&anew["same"], &anew["written"]), (&(KEYS - 1).into(), &0.into()));

    take_back(&cluster, &replica, &report);
    check(None);
}

/// Takes the restore back; a key that somebody wrote since is left alone.
fn take_back(cluster: &Cluster, replica: &Replica<'_>, report: &str) {
    let would = replica.ask(&["undo", report]).expect(0).json("galvani.lagged.restore/1");
    assert_eq!(would["deleted"], KEYS - 1);
    cluster.run(&["get", "cart/007"]).expect(0);
    let did = replica.ask(&["undo", report, "--yes"]).expect(0).json("galvani.lagged.restore/1");
    assert_eq!((&did["deleted"], &did["failed"]), (&(KEYS - 1).into(), &0.into()));
    let again = replica.ask(&["undo", report, "--yes"]).expect(0);
    let again = again.json("galvani.lagged.restore/1");
    assert_eq!((&again["back_already"], &again["deleted"]), (&(KEYS - 1).into(), &0.into()));
    let words = ["lagged", "undo", report, "--yes", "--dir", &replica.dir];
    cluster.run(&words).expect(0).says(&["taken back already"]);
}
