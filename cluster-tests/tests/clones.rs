//! A data directory that was copied to a second machine, with original and copy running at once.

use galvani_client::{Client, Dot};
use galvani_cluster_tests::cluster::command_in;
use galvani_cluster_tests::command::Running;
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

fn client_of_clone(cluster: &Cluster, port: u16) -> Client {
    let builder = Client::builder()
        .seed(format!("galvani://127.0.0.1:{port}"))
        .identity_dir(cluster.identity())
        .only("n3")
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

fn server(copy: &Path) -> Command {
    let mut command = command_in(copy);
    command.arg("server").arg("--config").arg(copy.join("galvani.toml"));
    command
}

#[test]
fn original_and_clone_never_give_one_name_to_two_writes() {
    let cluster = Cluster::start();
    let original = cluster.builder().only("n3");
    let original = cluster.block_on(original.connect()).expect("the cluster runs");
    let before = write(&cluster, &original, "before");
    cluster.stop("n3");
    let (copy, port) = clone_of(&cluster, "n3");
    cluster.start_node("n3");
    let running = Running::start(&mut server(&copy), &[]);
    let clone = client_of_clone(&cluster, port);

    let by_original = write(&cluster, &original, "by the original");
    let by_clone = write(&cluster, &clone, "by the clone");
    let again = write(&cluster, &original, "by the original again");
    assert!(!origins(&before).is_disjoint(&origins(&by_original)), "a clean stop keeps origins");
    assert!(origins(&by_clone).is_disjoint(&origins(&before)), "what was copied is not its own");
    assert!(origins(&by_clone).is_disjoint(&origins(&by_original)));
    assert!(origins(&by_clone).is_disjoint(&origins(&again)));

    // What either acked is there, as siblings, when the clone is gone again.
    drop(running);
    let client = cluster.client_at("n1");
    for number in 0..KEYS {
        until(&format!("all values of key {number}"), || {
            let read = cluster.block_on(async { client.get(format!("clone/{number}")).r(3).await });
            let read = read.map_err(|error| error.to_string())?;
            let values: BTreeSet<Vec<u8>> = read.values().map(|value| value.to_vec()).collect();
            if values.len() == 4 { Ok(()) } else { Err(format!("{values:?}")) }
        });
    }
}
