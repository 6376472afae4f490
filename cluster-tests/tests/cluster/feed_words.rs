//! What `galvani feed` says on stderr: whom it waits for, what it does not look at, and what to type next.
//!
//! It follows for ever, so these runs write their words to a file that the test reads meanwhile.

use galvani_cluster_tests::{Cluster, until};
use std::fs::File;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A feed under way. Dropping it kills it.
struct Following {
    child: Child,
    words: PathBuf,
}

impl Following {
    fn start(cluster: &Cluster, options: &[&str]) -> Following {
        let words = cluster.scratch().join("words");
        let file = File::create(&words).expect("a file can be made");
        let mut command = cluster.command();
        command.arg("feed").args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Following { child: command.spawn().expect("it starts"), words }
    }

    fn until_said(&mut self, part: &str) {
        until(&format!("{part:?} to be said"), || {
            let said = std::fs::read_to_string(&self.words).expect("it is there");
            let ended = self.child.try_wait().expect("our own child can be asked");
            if said.contains(part) { Ok(()) } else { Err((said, ended)) }
        });
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_is_waited_for_is_said_and_when_that_is_over() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v"]).expect(0);
    let mut feed = Following::start(&cluster, &["--from", "start"]);
    cluster.kill("n3");
    feed.until_said("no answer from n3");
    cluster.start_node("n3");
    feed.until_said("every owner answers again");
    for node in ["n1", "n2", "n3"] {
        cluster.kill(node);
    }
    feed.until_said("no owner can be reached of 256 shards");
    cluster.start_all();
    feed.until_said("every owner answers again\nnote   no owner");
}

#[test]
fn a_target_that_is_away_is_named_with_its_failure_and_said_to_be_back() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v"]).expect(0);
    // Nobody listens there, for UDP takes it.
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has an address").port();
    let target = format!("redis://127.0.0.1:{port}/s");
    let mut feed = Following::start(&cluster, &["--from", "start", "--to", &target]);
    feed.until_said(&format!("127.0.0.1:{port}/s does not take events ("));
    drop(feed);

    let script = "test -e there";
    let tries = ["--from", "start", "--tries", "1000", "--", "sh", "-c", script];
    let mut feed = Following::start(&cluster, &tries);
    feed.until_said("does not take events (");
    File::create(cluster.scratch().join("there")).expect("a file can be made");
    feed.until_said("it goes on");
}

#[test]
fn what_cannot_be_or_is_not_looked_at_is_said() {
    let cluster = Cluster::start();
    // The cluster's own probe at its start leaves no event of a key.
    let all = ["feed", "--from", "start", "--until", "now", "-o", "jsonl"];
    assert_eq!(cluster.run(&all).expect(0).text(), "");
    cluster.run(&["put", "k", "v"]).expect(0);

    let json = cluster.run(&["feed", "-o", "json"]).expect(2).is_three_part_error();
    json.says(&["-o json is one document", "try  galvani feed", "-o jsonl"]);
    let kept = ["feed", "--token", "at", "--from", "start", "--until", "now"];
    let first = cluster.run(&kept).expect(0);
    assert!(!first.stderr.contains("--from"), "{first}");
    cluster.run(&kept).expect(0).says(&["it goes on from at; --from is for a new position"]);

    let to = ["feed", "--from", "start", "--until", "now", "--to", "file:notes"];
    std::fs::write(cluster.scratch().join("notes"), "my notes\n").expect("written");
    cluster.run(&to).expect(5).says(&["its last line is no event", "--force"]);
    let notes = || std::fs::read_to_string(cluster.scratch().join("notes")).expect("there");
    assert_eq!(notes(), "my notes\n");
    cluster.run(&[&to[..], &["--force"]].concat()).expect(0);
    assert_eq!(notes().lines().count(), 2);
    // From now on its last line is one.
    cluster.run(&to).expect(0);
    assert_eq!(notes().lines().count(), 3);

    let group = ["feed", "k", "--group", "g", "--from", "start", "--limit", "1"];
    let first = cluster.run(&group).expect(0);
    assert!(!first.stderr.contains("--from"), "{first}");
    cluster.run(&["put", "k", "w"]).expect(0);
    cluster.run(&group).expect(0).says(&["group g goes on where it is; --from is for a new one"]);
}

#[test]
fn a_gap_ends_it_with_what_to_type_next() {
    let cluster = Cluster::start();
    cluster.reconfigure("feed_keep_ms = 86400000", "feed_keep_ms = 1000");
    cluster.run(&["feed", "--token", "at", "--from", "start", "--until", "now"]).expect(0);
    for time in 0..4 {
        cluster.run(&["put", "k", &time.to_string(), "-w", "3"]).expect(0);
    }
    let client = cluster.client();
    until("records to be trimmed", || {
        let trimmed = |node: &str| cluster.status_of(&client, node).counters.records_trimmed;
        let all = ["n1", "n2", "n3"].map(trimmed);
        if all.iter().all(|records| *records >= 3) { Ok(()) } else { Err(all) }
    });
    let feed = ["feed", "--token", "at", "--until", "now"];
    let gap = cluster.run(&feed).expect(5).is_three_part_error();
    let gap = gap.says(&["limits.feed_keep_ms", "--on-gap tell", "--on-gap restart"]);
    let line = gap.stderr.lines().find_map(|line| line.split_once("go on without them"));
    let typed = line.expect("it says what to type").1.trim();
    let words: Vec<&str> = typed.split(' ').skip(1).collect();
    let told = cluster.run(&words).expect(0);
    assert!(told.text().contains("put 3"), "{told}");
}
