//! A node of another host joins with a token: it makes its key itself, is certified once, applies, and
//! takes its share. Whoever comes with a token that is used, expired or of another cluster is told why.

use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, Ran, until};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

/// An address that nobody has now.
fn free() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound")
}

/// An invitation that is served, and its token, once it is there.
struct Invited {
    running: Running,
    token: String,
}

fn invite(cluster: &Cluster, node: &str, serve: SocketAddr, more: &[&str]) -> Invited {
    let path = |name: &str| cluster.dir().join(name).display().to_string();
    let [ca, file] = ["ca", "cluster.json"].map(path);
    let (node, serve) = (format!("{node}={},zone=z", free()), serve.to_string());
    let kept = cluster.scratch().join(format!("token-{serve}"));
    let words = ["cluster", "invite", "--ca", &ca, "--cluster", &file, "--node", &node];
    let words = [&words[..], &["--serve", &serve], more].concat();
    // Its stdout goes to a file: it is read while the command runs.
    let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!("exec \"$0\" {} > '{}'", line.join(" "), kept.display());
    let program = cluster.command().get_program().to_owned();
    let mut command = cluster.command_by("sh");
    command.arg("-c").arg(script).arg(program);
    let mut running = Running::start(&mut command, b"");
    let token = until("a token", || {
        assert!(!running.has_ended(), "it ended at once");
        let text = std::fs::read_to_string(&kept).unwrap_or_default();
        if text.ends_with('\n') { Ok(text.trim().to_owned()) } else { Err(text) }
    });
    Invited { running, token }
}

fn join(cluster: &Cluster, token: &str, home: &Path) -> Running {
    cluster.begin(&["server", "--join", token, "--dir", &home.display().to_string()])
}

/// How `server --join` ends that does not start.
fn refused(cluster: &Cluster, token: &str, home: &Path, code: i32) -> Ran {
    join(cluster, token, home).finish().expect(code).is_three_part_error()
}

#[test]
fn a_node_joins_with_a_token_once_and_others_are_told_why_not() {
    let cluster = Cluster::start();
    let at = free();
    let home = |name: &str| cluster.scratch().join(name);
    let invited = invite(&cluster, "m1", at, &[]);
    // An old data directory is not taken along, and the token is as good as before.
    std::fs::create_dir_all(home("old").join("data/engine")).expect("made");
    let old = refused(&cluster, &invited.token, &home("old"), 5);
    old.says(&["holds data of an earlier node", "nothing was changed"]);
    let cut = &invited.token[..invited.token.len() - 1];
    refused(&cluster, cut, &home("m1"), 2).says(&["not whole"]);

    let server = join(&cluster, &invited.token, &home("m1"));
    let told = invited.running.finish().expect(0);
    assert!(told.stderr.contains("m1 has its certificate"), "{told}");
    let id = until("m1 to apply, and its plan", || {
        let plan = cluster.run(&["cluster", "plan", "add", "m1", "-o", "json"]);
        match plan.code {
            Some(0) => Ok(plan.json("galvani.plan/1")["id"].as_str().expect("an id").to_owned()),
            _ => Err(plan.stderr),
        }
    });
    let key = std::fs::metadata(home("m1").join("identity/key.pem")).expect("made there");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    cluster.run(&["cluster", "apply", &id, "--wait"]).expect(0);
    cluster.run(&["wait", "--for", "node=m1:up", "--for", "settled"]).expect(0);

    // Nobody answers any more; and then somebody does, who remembers.
    refused(&cluster, &invited.token, &home("late"), 8).says(&["nobody who invites answers"]);
    let next = invite(&cluster, "m2", at, &["--ttl", "1h"]);
    let used = refused(&cluster, &invited.token, &home("late"), 9);
    used.says(&["was used", "good for one node"]);
    // A second process of the node that is a member: the copy of its directory ends.
    drop(server);
    let again = join(&cluster, &invited.token, &home("m1"));
    cluster.run(&["wait", "--for", "node=m1:up"]).expect(0);
    let copy = cluster.scratch().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(home("m1")).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    let twice = refused(&cluster, &invited.token, &copy, 5);
    assert!(twice.stderr.contains("another process has the port"), "{twice}");
    drop((again, next));
}

#[test]
fn tokens_of_another_cluster_and_expired_ones_let_nobody_in() {
    let cluster = Cluster::start();
    let other = Cluster::start();
    let at = free();
    let home = cluster.scratch().join("m1");
    let theirs = invite(&other, "m1", at, &[]);
    drop(theirs.running);
    let mine = invite(&cluster, "m1", at, &["--ttl", "2s"]);
    // At the same address sits another cluster's invitation now.
    let stranger = refused(&cluster, &theirs.token, &home, 9);
    stranger.says(&["is not of the token's cluster", "nothing was sent"]);
    let ended = mine.running.finish().expect(7).is_three_part_error();
    ended.says(&["did not come", "has expired"]);
    refused(&cluster, &mine.token, &home, 9).says(&["expired", "nobody was asked"]);
    assert!(!home.join("galvani.toml").exists() && !home.join("data").exists());
}
