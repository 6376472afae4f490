//! A node's whole directory that was copied to a second machine: original and copy are started, one
//! after the other and both at once.

use galvani_client::{Client, Dot};
use galvani_cluster_tests::cluster::command_in;
use galvani_cluster_tests::command::{Ran, Running};
use galvani_cluster_tests::{Cluster, until};
use galvani_model::ids::Origin;
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const KEYS: usize = 40;

/// Copies all that a node has, and gives the copy an address of its own.
fn clone_of(cluster: &Cluster, name: &str) -> (PathBuf, u16) {
    let copy = cluster.scratch().join("clone");
    let copied = Command::new("cp").arg("-a").arg(cluster.home(name)).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = free.expect("a free port").port();
    let path = copy.join("cluster.json");
    let text = std::fs::read_to_string(&path).expect("copied");
    let moved = text.replace(&cluster.node(name).addr.to_string(), &format!("127.0.0.1:{port}"));
    assert_ne!(text, moved, "its address is in the cluster file");
    std::fs::write(&path, moved).expect("writable");
    (copy, port)
}

fn client_of_clone(cluster: &Cluster, name: &str, port: u16) -> Client {
    let builder = Client::builder()
        .seed(format!("galvani://127.0.0.1:{port}"))
        .identity_dir(cluster.identity())
        .only(name)
        .connect_timeout(Duration::from_secs(20));
    cluster.block_on(builder.connect()).expect("the clone runs")
}

/// Writes every key with all owners up, and gives the names of the writes.
fn write(cluster: &Cluster, client: &Client, value: &'static str) -> Vec<Dot> {
    let put = |number: usize| async move {
        let put = client.put(format!("clone/{number}"), value).blind().w(2).send().await;
        put.unwrap_or_else(|error| panic!("{value} {number}: {error}")).dot.expect("stored")
    };
    cluster.block_on(async {
        let mut dots = Vec::new();
        for number in 0..KEYS {
            dots.push(put(number).await);
        }
        dots
    })
}

fn origins(dots: &[Dot]) -> BTreeSet<Origin> {
    dots.iter().map(|dot| dot.origin).collect()
}

/// The server of a directory, as somebody starts it who knows nothing of other copies.
fn server(home: &Path) -> Command {
    let mut command = command_in(home);
    command.arg("server").arg("--config").arg(home.join("galvani.toml"));
    command
}

/// Starts a second process of n2 while one runs at `at`: it ends by itself, and says why.
fn is_refused(home: &Path, at: &str) -> Ran {
    let ran = Running::start(&mut server(home), &[]).finish().expect(5);
    let already = format!("node n2 runs already: at {at}");
    ran.is_three_part_error().says(&[&already, "copy of its data", "galvani status"])
}

/// Waits until a peer of n2 has a line about two processes of it in its log. Whichever both greet first
/// tells them, and one may end before it has greeted the other peer.
fn until_named(cluster: &Cluster, addresses: [&str; 2]) {
    until("a peer to name both", || {
        let named = |line: &&str| {
            line.contains("node_runs_twice") && addresses.iter().all(|at| line.contains(at))
        };
        let names = |peer: &str| {
            let log = std::fs::read_to_string(cluster.home(peer).join("node.log")).expect("a log");
            log.lines().any(|line| named(&line))
        };
        if names("n1") || names("n3") { Ok(()) } else { Err("not yet".to_owned()) }
    });
}

#[test]
fn cloned_data_dir_second_node_refused_and_the_original_goes_on() {
    let cluster = Cluster::start();
    let original = cluster.block_on(cluster.builder().only("n2").connect()).expect("it runs");
    write(&cluster, &original, "before");
    cluster.stop("n2");
    let (copy, port) = clone_of(&cluster, "n2");
    cluster.start_node("n2");
    let (pid, at) = (cluster.pid("n2"), cluster.node("n2").addr.to_string());
    write(&cluster, &original, "beside");
    is_refused(&copy, &at);
    until_named(&cluster, [&at, &format!("127.0.0.1:{port}")]);
    // As often as it is tried.
    is_refused(&copy, &at);
    write(&cluster, &original, "after");
    assert_eq!(cluster.pid("n2"), pid);
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    until_all(&cluster, 3);
}

#[test]
fn a_copy_may_take_the_place_of_a_node_that_was_killed_and_the_original_waits_then() {
    let cluster = Cluster::start();
    let original = cluster.block_on(cluster.builder().only("n2").connect()).expect("it runs");
    write(&cluster, &original, "before");
    cluster.stop("n2");
    let (copy, port) = clone_of(&cluster, "n2");
    cluster.start_node("n2");
    // Its links are not known to be dead yet: nobody may take them for a process.
    cluster.kill("n2");
    let mut running = Running::start(&mut server(&copy), &[]);
    let clone = client_of_clone(&cluster, "n2", port);
    let reach = until("the copy to have met all", || {
        let reports = cluster.block_on(clone.status());
        let report = reports.into_iter().find(|report| report.name == "n2").ok_or("not listed")?;
        let status = report.status.map_err(|error| error.to_string())?;
        if status.peers_up.len() == 2 { Ok(status) } else { Err(format!("{status:?}")) }
    });
    write(&cluster, &clone, "by the copy");
    // Now the original is the one that comes second.
    is_refused(&cluster.home("n2"), &format!("127.0.0.1:{port}"));
    assert!(!running.has_ended(), "{reach:?}");
    drop(running);
    cluster.start_node("n2");
    write(&cluster, &original, "by the original");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    until_all(&cluster, 3);
}

#[test]
fn of_two_that_have_served_for_long_the_later_ends_and_the_other_is_filled_again() {
    let cluster = Cluster::start();
    // Nothing but being filled brings records to who lacks them.
    cluster.reconfigure("anti_entropy_ms = 1000", "anti_entropy_ms = 0");
    cluster.stop("n2");
    let (copy, port) = clone_of(&cluster, "n2");
    cluster.start_node("n2");
    // Nobody can know that it will go on.
    cluster.pause("n2");
    let running = Running::start(&mut server(&copy), &[]);
    let clone = client_of_clone(&cluster, "n2", port);
    until("the copy to be no newcomer any more", || {
        match cluster.status_of(&clone, "n2").uptime_s {
            16.. => Ok(()),
            up => Err(up),
        }
    });
    write(&cluster, &clone, "by the copy");
    let pid = cluster.pid("n2");
    cluster.resume("n2");
    let at = cluster.node("n2").addr.to_string();
    let ran = running.finish().expect(5);
    ran.is_three_part_error().says(&[&format!("node n2 runs already: at {at}")]);
    until_named(&cluster, [&at, &format!("127.0.0.1:{port}")]);
    assert_eq!(cluster.pid("n2"), pid, "the original goes on");
    // It has nothing of what the copy acked: it is read from when it has.
    let log = std::fs::read_to_string(cluster.home("n2").join("node.log")).expect("a log");
    assert!(log.contains("twin_runs"), "{log}");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let original = cluster.block_on(cluster.builder().only("n2").connect()).expect("it runs");
    for number in 0..KEYS {
        let read = cluster.block_on(async { original.get(format!("clone/{number}")).r(1).await });
        let values = read.expect("it is filled").values().count();
        assert_eq!(values, 1, "key {number}");
    }
    write(&cluster, &original, "by the original");
    until_all(&cluster, 2);
    until("the status to name one", || {
        let told = cluster.run(&["status"]).expect(0);
        if told.text().contains("n2 runs at") { Err(told.to_string()) } else { Ok(()) }
    });
    // The copy knows that the original went on without its disk: alone it vouches for nothing.
    cluster.stop_all();
    let running = Running::start(&mut server(&copy), &[]);
    let clone = client_of_clone(&cluster, "n2", port);
    let read = cluster.block_on(async { clone.get("clone/0").r(1).strict().await });
    let refusal = read.expect_err("it may lack what the original acked").to_string();
    assert!(refusal.contains("lost its disk"), "{refusal}");
    drop(running);
}

#[test]
fn a_node_that_was_killed_starts_again_at_once_without_complaint() {
    let cluster = Cluster::start();
    for _ in 0..3 {
        cluster.kill("n2");
        cluster.start_node("n2");
    }
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    for name in ["n1", "n2", "n3"] {
        let log = std::fs::read_to_string(cluster.home(name).join("node.log")).expect("a log");
        assert!(!log.contains("twice") && !log.contains("twin_runs"), "{name}: {log}");
    }
}

#[test]
fn original_and_clone_never_give_one_name_to_two_writes() {
    let cluster = Cluster::start();
    let original = cluster.builder().only("n3");
    let original = cluster.block_on(original.connect()).expect("the cluster runs");
    let before = write(&cluster, &original, "before");
    cluster.stop("n3");
    let (copy, port) = clone_of(&cluster, "n3");
    let running = Running::start(&mut server(&copy), &[]);
    let clone = client_of_clone(&cluster, "n3", port);
    let by_clone = write(&cluster, &clone, "by the clone");
    drop(running);
    cluster.start_node("n3");
    let by_original = write(&cluster, &original, "by the original");
    assert!(origins(&by_clone).is_disjoint(&origins(&before)), "what was copied is not its own");
    assert!(origins(&by_clone).is_disjoint(&origins(&by_original)));
    assert!(!origins(&before).is_disjoint(&origins(&by_original)), "a clean stop keeps origins");
    until_all(&cluster, 3);
}

/// What either acked is there, as siblings, when the copy is gone again: `values` of each key.
fn until_all(cluster: &Cluster, values: usize) {
    let client = cluster.client_at("n1");
    for number in 0..KEYS {
        until(&format!("all values of key {number}"), || {
            let read = cluster.block_on(async { client.get(format!("clone/{number}")).r(3).await });
            let read = read.map_err(|error| error.to_string())?;
            let found: BTreeSet<Vec<u8>> = read.values().map(|value| value.to_vec()).collect();
            if found.len() == values { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}
