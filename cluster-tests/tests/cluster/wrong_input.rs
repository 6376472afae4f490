//! Wrong input of every kind on the command line: the exit code, the cause, what to type next.

use galvani_cluster_tests::cluster::{command_in, temporary};
use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, Ran, until};
use galvani_storage::dir::FORMAT_VERSION;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;

#[test]
fn keys_values_buckets_and_quorums_that_cannot_be() {
    let cluster = Cluster::start();
    let usage: &[&[&str]] = &[
        &["put", "k"],
        &["put", "", "v"],
        &["get", ""],
        &["get", &"k".repeat(1025)],
        &["put", "k", "v", "-w", "0"],
        &["put", "k", "v", "-w", "8"],
        &["put", "k", "v", "-w", "most"],
        &["put", "k", "v", "-w", "-1"],
        &["put", "k", "v", "-n", "0"],
        &["get", "k", "-r", "two"],
        &["get", "k", "-w", "2"],
        &["get", "k", "--timeout", "never"],
        &["get", "k", "--timeout", "1h"],
        &["put", "k", "v", "--blind", "--context", "AQID"],
        &["get", "k", "-b", "No Such Name"],
        &["get", "k", "-o", "xml"],
        &["bucket", "create", "b", "-n", "9"],
        &["bucket", "create", "UPPER"],
        &["dev", "kill"],
        &["dev", "kill", "n9"],
        &["dev", "kill", "n1", "--name", "No/Name"],
        &["nothing"],
        &["put", "k", "@/no/such/file"],
        &["import", "/no/such/file"],
    ];
    for words in usage {
        let ran = cluster.run(words).expect(2);
        assert!(ran.stderr.contains("error"), "{ran}");
        assert!(ran.stdout.is_empty(), "{ran}");
    }
    // Scripts that ask for JSON get it, wherever they say so.
    for words in usage.iter().filter(|words| !words.contains(&"-o")) {
        let ran = cluster.run(&[&["-o", "json"], *words].concat()).expect(2);
        let json = ran.json("galvani.error/1");
        assert_eq!(json["exit"], 2, "{ran}");
        assert!(json["error"].as_str().is_some_and(|what| !what.is_empty()), "{ran}");
        assert!(ran.stderr.contains("error"), "{ran}");
    }
    let said = cluster.run(&["put", "k", "-o", "json"]).expect(2).json("galvani.error/1");
    assert_eq!((&said["command"], &said["next"][0]), (&"put".into(), &"galvani help put".into()));
    cluster.run(&["get", "k", "-b", "absent"]).expect(5).is_three_part_error();
    let ran = cluster.run(&["put", "k", "v", "-b", "absent", "--blind"]).expect(5);
    ran.is_three_part_error().says(&["no bucket \"absent\"", "galvani bucket create absent"]);
    cluster.run(&["bucket", "show", "absent"]).expect(3).says(&["galvani bucket list"]);
    cluster.run(&["bucket", "create", "five", "-n", "5"]).expect(5);
    cluster.run(&["bucket", "create", "two", "-n", "2"]).expect(0);
    cluster.run(&["bucket", "create", "two", "-n", "2"]).expect(0);
    let ran = cluster.run(&["bucket", "create", "two", "-n", "3"]).expect(5);
    ran.says(&["galvani bucket show two"]);
    cluster.run(&["get", "k", "-r", "all"]).expect(3);
    // The longest key there may be is a key.
    let long = "k".repeat(1024);
    cluster.run(&["put", &long, ""]).expect(0);
    assert_eq!(cluster.run(&["get", &long, "-o", "raw"]).expect(0).stdout, b"");
}

#[test]
fn values_over_a_limit_are_refused_and_nothing_is_written() {
    let cluster = Cluster::start();
    let put = |key: &str, bytes: usize, bucket: &str| {
        let words = ["put", key, "-", "--blind", "-w", "3", "-b", bucket];
        cluster.run_with(&words, &vec![b'x'; bytes])
    };
    put("fits", 1 << 20, "default").expect(0);
    assert_eq!(cluster.run(&["get", "fits", "-o", "raw"]).expect(0).stdout.len(), 1 << 20);
    let ran = put("over", (1 << 20) + 1, "default").expect(5).is_three_part_error();
    ran.says(&["limit", "NOTHING WAS WRITTEN", "galvani bucket create"]);
    put("over", (16 << 20) + 1, "default").expect(5).is_three_part_error();
    cluster.run(&["get", "over", "-r", "all"]).expect(3);
    cluster.run(&["bucket", "create", "small", "--max-value", "4KiB"]).expect(0);
    put("over", 4097, "small").expect(5).is_three_part_error();
    put("fits", 4096, "small").expect(0);
    cluster.run(&["bucket", "create", "large", "--max-value", "16MiB"]).expect(0);
    put("whole", 16 << 20, "large").expect(0);
    let ran = cluster.run(&["get", "whole", "-b", "large", "-o", "raw"]).expect(0);
    assert_eq!(ran.stdout.len(), 16 << 20);
    cluster.run(&["bucket", "create", "huge", "--max-value", "17MiB"]).expect(5);
}

#[test]
fn foreign_context_and_made_up_ones_are_refused() {
    let cluster = Cluster::start();
    let other = Cluster::start();
    cluster.run(&["bucket", "create", "shop"]).expect(0);
    for (cluster, key, bucket) in [
        (&cluster, "k", "default"),
        (&cluster, "else", "default"),
        (&cluster, "k", "shop"),
        (&other, "k", "default"),
    ] {
        cluster.run(&["put", key, "first", "-b", bucket, "-w", "3"]).expect(0);
    }
    let context = |cluster: &Cluster, key: &str, bucket: &str| {
        let said = cluster.run(&["get", key, "-b", bucket, "-o", "json"]).expect(0);
        said.json("galvani.get/1")["context"].as_str().expect("a context").to_owned()
    };
    let good = context(&cluster, "k", "default");
    let mut bent = good.clone().into_bytes();
    let middle = bent.len() / 2;
    bent[middle] = if bent[middle] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).expect("still digits");
    let wrong = [
        context(&cluster, "else", "default"),
        context(&cluster, "k", "shop"),
        context(&other, "k", "default"),
        bent,
        good[..good.len() - 4].to_owned(),
        "AQID".to_owned(),
        "?".to_owned(),
        "/no/such/file".to_owned(),
        "A".repeat(90_000),
    ];
    for context in &wrong {
        for words in [["put", "k", "second"].as_slice(), &["del", "k"]] {
            let words = [words, &["--context", context]].concat();
            let ran = cluster.run(&words).expect(5).is_three_part_error();
            ran.says(&["NOTHING WAS WRITTEN", "read again"]);
        }
    }
    assert_eq!(cluster.run(&["get", "k", "-r", "all"]).expect(0).text(), "first\n");
    cluster.run(&["put", "k", "second", "--context", &good, "-w", "3"]).expect(0);
    assert_eq!(cluster.run(&["get", "k", "-r", "all"]).expect(0).text(), "second\n");
}

#[test]
fn no_server_and_no_trust() {
    let cluster = Cluster::with(&["-n", "1"]);
    let other = Cluster::with(&["-n", "1"]);
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let nobody = free.local_addr().expect("bound").to_string();
    let ran = cluster.run(&["get", "k", "--server", &nobody]).expect(8);
    ran.says(&[&nobody, "no answer in", "galvani ctx ls"]);
    let address = other.nodes()[0].addr.to_string();
    let ran = cluster.run(&["get", "k", "--server", &address]).expect(9);
    ran.is_three_part_error();
    let ran = cluster.run(&["put", "k", "v", "--identity", "/no/such/dir"]).expect(9);
    ran.is_three_part_error().says(&["/no/such/dir"]);
    // Certificates that no server of this cluster takes: of another one, and no good at all.
    let theirs = other.identity();
    let theirs = theirs.to_str().expect("a plain path");
    let said = cluster.run(&["get", "k", "--identity", theirs, "-o", "json"]).expect(9);
    assert_eq!(said.json("galvani.error/1")["exit"], 9);
    let broken = cluster.scratch().join("broken");
    fs::create_dir(&broken).expect("made");
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(cluster.identity().join(name), broken.join(name)).expect("copied");
    }
    let broken_path = broken.to_str().expect("a plain path");
    cluster.run(&["get", "k", "-r", "1", "--identity", broken_path]).expect(3);
    fs::copy(other.identity().join("key.pem"), broken.join("key.pem")).expect("copied");
    cluster.run(&["get", "k", "--identity", broken_path]).expect(9).is_three_part_error();
    fs::write(broken.join("cert.pem"), "no certificate").expect("written");
    cluster.run(&["put", "k", "v", "--identity", broken_path]).expect(9).is_three_part_error();
    fs::write(broken.join("cert.pem"), "").expect("written");
    cluster.run(&["put", "k", "v", "--identity", broken_path]).expect(9).is_three_part_error();
    cluster.run(&["get", "k", "--ctx", "unknown"]).says(&["error", "dev"]);
    other.run(&["get", "k", "-r", "1"]).expect(3);

    cluster.kill("n1");
    let ran = cluster.run(&["get", "k"]).expect(8).is_three_part_error();
    ran.says(&["its cluster is stopped", "galvani dev start"]);
    let nowhere = temporary();
    let none = Ran::of(command_in(nowhere.path()).args(["get", "k"]), b"").expect(8);
    none.says(&["galvani dev -d"]);
    let none = Ran::of(command_in(nowhere.path()).args(["dev", "status"]), b"").expect(8);
    none.says(&["galvani dev -d"]);
}

#[test]
fn a_typo_in_a_configuration_names_its_place_and_the_nearest_key() {
    let cluster = Cluster::with(&["-n", "1"]);
    let path = cluster.home("n1").join("galvani.toml");
    let good = fs::read_to_string(&path).expect("made by dev");
    let check = |text: &str| {
        fs::write(&path, text).expect("writable");
        let path = path.to_str().expect("a plain path");
        cluster.run(&["server", "--config", path, "--check-config"])
    };
    check(&good).expect(0);
    let line = good.lines().position(|line| line.starts_with("cache_mib")).expect("a key") + 1;
    let ran = check(&good.replace("cache_mib", "cash_mib")).expect(2).is_three_part_error();
    ran.says(&[
        &format!("galvani.toml:{line}:1"),
        "\"cash_mib\"",
        "\"cache_mib\"",
        "--check-config",
    ]);
    check(&good.replace("cache_mib = ", "cache_mib = -")).expect(2).is_three_part_error();
    check(&good.replace("[node]", "[node")).expect(2).is_three_part_error();
    check(&good.replace("name = \"n1\"", "")).expect(2).says(&["name"]);
    check("").expect(2).is_three_part_error();
    check("\0\u{1b}[2J").expect(2);
    let ran = cluster.run(&["server", "--config", "/no/such/file"]).expect(2);
    ran.is_three_part_error().says(&["/no/such/file"]);
    let config = path.to_str().expect("a plain path");
    fs::write(&path, good.replace("name = \"n1\"", "name = \"n7\"")).expect("writable");
    let ran = cluster.run(&["server", "--config", config]).expect(2);
    ran.says(&["\"n7\"", "n1"]);
    fs::write(&path, good).expect("writable");
}

#[test]
fn second_process_refused_its_data_directory() {
    let cluster = Cluster::with(&["-n", "1"]);
    let home = cluster.home("n1");
    let pid = cluster.pid("n1");
    let config = home.join("galvani.toml");
    let config = config.to_str().expect("a plain path");
    let ran = cluster.run(&["server", "--config", config]).expect(5).is_three_part_error();
    ran.says(&[&format!("in use by process {pid}")]);
    cluster.run(&["put", "k", "v"]).expect(0);

    // Its data is free once it is gone, and its port is not if somebody else has it.
    cluster.kill("n1");
    let taken = UdpSocket::bind(cluster.nodes()[0].addr).expect("free now");
    let ran = cluster.run(&["server", "--config", config]).expect(5).is_three_part_error();
    ran.says(&["ss -ulpn"]);
    let ran = cluster.run(&["dev", "start"]).expect(5).is_three_part_error();
    let port = cluster.nodes()[0].addr.port();
    ran.says(&[&format!("udp {port} is used by pid {}", std::process::id())]);
    drop(taken);
    cluster.start_all();
    assert_eq!(cluster.run(&["get", "k"]).expect(0).text(), "v\n");
}

#[test]
fn a_data_directory_of_another_node_or_format_is_refused_unchanged() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v", "-w", "3"]).expect(0);
    cluster.stop("n3");
    let (home, data) = (cluster.home("n3"), cluster.home("n3").join("data"));
    let aside = cluster.scratch().join("aside");
    fs::rename(&data, &aside).expect("n3 is down");
    cluster.stop("n2");
    fs::rename(cluster.home("n2").join("data"), &data).expect("n2 is down");
    let identity = data.join("galvani.json");
    let before = fs::read(&identity).expect("there");
    refused(&cluster, &home, &["belongs to node"]);
    assert_eq!(fs::read(&identity).expect("there"), before);
    fs::rename(&data, cluster.home("n2").join("data")).expect("moved back");
    fs::rename(&aside, &data).expect("moved back");

    // A newer format: the number raised, the checksum right.
    let good = fs::read_to_string(&identity).expect("text");
    let line = good.lines().next().expect("a line");
    let number = |format: u32| format!("\"format\":{format}");
    let newer = line.replacen(&number(FORMAT_VERSION), &number(FORMAT_VERSION + 1), 1);
    assert_ne!(line, newer, "the format is not where the test thinks");
    fs::write(&identity, format!("{newer}\n{:08x}\n", crc32c(newer.as_bytes()))).expect("written");
    let numbers = format!("data format {} is newer than {FORMAT_VERSION}", FORMAT_VERSION + 1);
    refused(&cluster, &home, &[&numbers]);
    fs::write(&identity, good.replacen('a', "b", 1)).expect("written");
    refused(&cluster, &home, &["damaged"]);
    fs::write(&identity, &good).expect("written");
    cluster.start_all();
    assert_eq!(cluster.run(&["get", "k", "-r", "all"]).expect(0).text(), "v\n");
}

#[test]
fn a_node_with_the_certificate_of_another_does_not_start() {
    let cluster = Cluster::with(&["-n", "2"]);
    cluster.stop_all();
    let (mine, theirs) = (cluster.home("n1").join("identity"), cluster.home("n2").join("identity"));
    for name in ["cert.pem", "key.pem"] {
        fs::copy(theirs.join(name), mine.join(name)).expect("copied");
    }
    let config = cluster.home("n1").join("galvani.toml");
    let ran = cluster.run(&["server", "--config", config.to_str().expect("plain")]).expect(9);
    ran.says(&["is not the one of node n1"]);
}

#[test]
fn lines_that_are_no_records_are_told_and_the_others_are_imported() {
    let cluster = Cluster::start();
    let lines = "{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n{\"key\":\"\",\"value\":\"x\"}\n\
                 {\"key\":\"b\",\"value_b64\":\"?\"}\n{\"key\":\"c\",\"value\":\"3\"}\n";
    let failed = cluster.scratch().join("failed.jsonl");
    let failed_path = failed.to_str().expect("plain");
    let words = ["import", "-", "-w", "2", "--failed", failed_path];
    let ran = cluster.run_with(&words, lines.as_bytes());
    assert!(ran.code.is_some_and(|code| code != 0), "{ran}");
    let ran = ran.says(&["2", "3", "4"]);
    let kept = fs::read_to_string(&failed).expect("written");
    assert_eq!(kept.lines().count(), 3, "{ran}");
    assert_eq!(cluster.run(&["get", "a"]).expect(0).text(), "1\n");
    assert_eq!(cluster.run(&["get", "c"]).expect(0).text(), "3\n");
    cluster.run(&["get", "b"]).expect(3);
}

fn refused(cluster: &Cluster, home: &Path, parts: &[&str]) {
    let config = home.join("galvani.toml");
    let words = ["server", "--config", config.to_str().expect("a plain path")];
    let mut running: Running = cluster.begin(&words);
    until("the server to refuse its data directory", || match running.has_ended() {
        true => Ok(()),
        false => Err(running.pid()),
    });
    running.finish().expect(5).is_three_part_error().says(parts);
}

/// CRC-32C, bit by bit: the checksum of the identity file, worked out apart from the product.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
