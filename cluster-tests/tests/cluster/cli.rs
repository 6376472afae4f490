//! The command line as a whole: bulk data, JSON for scripts, help, and what the README says.

use galvani_cluster_tests::cluster::{command_in, temporary};
use galvani_cluster_tests::{Cluster, Ran, until};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const RECORDS: usize = 3000;

#[test]
fn an_import_with_a_node_killed_and_started_is_exported_byte_for_byte() {
    let cluster = Cluster::start();
    let lines = records(0xb0_1d, RECORDS);
    let path = cluster.scratch().join("all.jsonl");
    fs::write(&path, lines.join("\n")).expect("written");
    let import = cluster.begin(&["import", path.to_str().expect("plain"), "-w", "2", "-o", "json"]);
    let client = cluster.client();
    until("the import to be under way", || {
        let mut list = client.list("");
        match cluster.block_on(list.next_page()) {
            Ok(Some(page)) if !page.keys.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.kill("n2");
    let again = cluster.begin(&["put", "aside", "while n2 is away", "-w", "2"]).finish();
    again.expect(0);
    cluster.start_node("n2");
    let done = import.finish().expect(0).json("galvani.import/1");
    assert_eq!(done["failed"], 0, "{done}");
    cluster.run(&["del", "aside", "-w", "3"]).expect(0);

    let out = cluster.scratch().join("out.jsonl");
    cluster.run_at("n2", &["export", out.to_str().expect("plain"), "-r", "2", "-q"]).expect(0);
    let exported = fs::read_to_string(&out).expect("written");
    assert_eq!(by_key(exported.lines()), by_key(lines.iter().map(String::as_str)));

    let listed = cluster.run(&["ls", "--keys-only", "-o", "jsonl"]).expect(0);
    let listed: Vec<Value> =
        listed.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let keys: BTreeSet<String> = listed.iter().map(key_of).collect();
    assert_eq!(keys.len(), listed.len(), "a key was listed twice");
    let expected: BTreeSet<String> = by_key(lines.iter().map(String::as_str)).into_keys().collect();
    assert_eq!(keys, expected);
    // Again: nothing differs, nothing is written.
    let path = path.to_str().expect("plain");
    let again = cluster.run(&["import", path, "-w", "2", "-o", "json"]).expect(0);
    assert_eq!(again.json("galvani.import/1")["written"], 0, "{again}");
}

#[test]
fn listings_page_over_all_partitions_and_keep_to_prefixes() {
    let cluster = Cluster::start();
    let lines: Vec<String> = (0..600)
        .map(|n| {
            json!({"key": format!("{}/{n}", ["a", "b", "ab"][n % 3]), "value": "v"}).to_string()
        })
        .collect();
    cluster.run_with(&["import", "-", "-w", "3"], lines.join("\n").as_bytes()).expect(0);
    for (prefix, count) in [("", 600), ("a/", 200), ("b/", 200), ("a", 400), ("c", 0)] {
        for node in ["n1", "n3"] {
            let ran = cluster.run_at(node, &["ls", prefix, "--keys-only"]).expect(0);
            let keys: BTreeSet<&str> = ran.text().lines().collect();
            assert_eq!((keys.len(), ran.text().lines().count()), (count, count), "{prefix:?}");
            assert!(keys.iter().all(|key| key.starts_with(prefix)));
        }
    }
    let ran = cluster.run(&["ls", "--keys-only", "--limit", "7"]).expect(0);
    assert_eq!(ran.text().lines().count(), 7);
    cluster.run(&["put", "a/0", "beside", "--blind", "-w", "3"]).expect(0);
    let ran = cluster.run(&["ls", "--conflicts", "--keys-only", "-r", "all"]).expect(0);
    assert_eq!(ran.text(), "a/0\n");
    cluster.run(&["del", "--prefix", "b/", "--yes", "-w", "3"]).expect(0);
    assert_eq!(cluster.run(&["ls", "b/", "--keys-only"]).expect(0).text(), "");
    assert_eq!(cluster.run(&["ls", "--keys-only"]).expect(0).text().lines().count(), 400);
}

#[test]
fn json_carries_its_schema() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v", "--blind"]).expect(0);
    let out = cluster.scratch().join("out.jsonl");
    let out = out.to_str().expect("plain");
    let outputs: &[(&[&str], &str, i32)] = &[
        (&["put", "k", "w"], "galvani.put/1", 0),
        (&["get", "k"], "galvani.get/1", 0),
        (&["get", "absent"], "galvani.get/1", 3),
        (&["put", "k", "x", "--blind"], "galvani.put/1", 0),
        (&["get", "k"], "galvani.get/1", 4),
        (&["explain", "k"], "galvani.explain/1", 0),
        (&["status"], "galvani.status/1", 0),
        (&["repair"], "galvani.repair/1", 0),
        (&["dev", "status"], "galvani.dev/1", 0),
        (&["bucket", "create", "b"], "galvani.bucket/1", 0),
        (&["bucket", "show", "b"], "galvani.bucket/1", 0),
        (&["bucket", "list"], "galvani.buckets/1", 0),
        (&["quorum", "explain"], "galvani.quorum_explain/1", 0),
        (&["export", out], "galvani.export/1", 0),
        (&["import", out], "galvani.import/1", 0),
        (&["del", "k"], "galvani.del/1", 0),
        (&["version"], "galvani.version/1", 0),
        (&["put", "k", "v", "-w", "4"], "galvani.error/1", 5),
        (&["get", "k", "-r", "4"], "galvani.error/1", 5),
    ];
    for (words, schema, code) in outputs {
        let words = [*words, &["-o", "json"]].concat();
        cluster.run(&words).expect(*code).json(schema);
    }
    let error = cluster.run(&["put", "k", "v", "-w", "4", "-o", "json"]).expect(5);
    let error = error.json("galvani.error/1");
    assert_eq!((&error["exit"], &error["applied"]), (&json!(5), &json!("no")), "{error}");
    let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
}

#[test]
fn bytes_that_are_no_text_go_in_and_come_out_exact() {
    let cluster = Cluster::start();
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    cluster.run_with(&["put", "bytes", "-", "-w", "3"], &bytes).expect(0);
    assert_eq!(cluster.run(&["get", "bytes", "-o", "raw"]).expect(0).stdout, bytes);
    let said = cluster.run(&["get", "bytes", "-o", "json"]).expect(0).json("galvani.get/1");
    assert!(said["siblings"][0]["value_b64"].is_string(), "never guessed to be text");
    let file = cluster.scratch().join("value");
    fs::write(&file, &bytes[..300]).expect("written");
    let at = format!("@{}", file.display());
    cluster.run(&["put", "file", &at, "-w", "3"]).expect(0);
    assert_eq!(cluster.run(&["get", "file", "-o", "raw"]).expect(0).stdout, &bytes[..300]);
    cluster.run(&["put", "empty", "", "-w", "3"]).expect(0);
    assert_eq!(cluster.run(&["get", "empty", "-o", "raw"]).expect(0).stdout, b"");
}

#[test]
fn the_local_cluster_is_stopped_started_shown_and_destroyed() {
    let cluster = Cluster::start();
    let ports = |ran: Ran| {
        let said = ran.expect(0).json("galvani.dev/1");
        let nodes = said["nodes"].as_array().expect("nodes").clone();
        nodes.iter().map(|node| node["lanes"].clone()).collect::<Vec<_>>()
    };
    let before = ports(cluster.run(&["dev", "status", "-o", "json"]));
    cluster.run(&["put", "k", "v", "-w", "3"]).expect(0);
    cluster.pause("n2");
    let said = cluster.run(&["dev", "status"]).expect(0);
    assert!(said.text().contains("paused"), "{said}");
    cluster.resume("n2");
    cluster.kill("n3");
    let said = cluster.run(&["dev", "status"]).expect(0);
    assert!(said.text().lines().any(|line| line.contains("n3") && line.contains("down")), "{said}");
    cluster.run(&["dev", "pause", "n3"]).expect(5);
    cluster.stop_all();
    assert_eq!(cluster.pids(), [0_u32; 0]);
    // The same words again: it is there, so it is started, with its data and its ports.
    assert_eq!(ports(cluster.run(&["dev", "-d", "-o", "json"])), before);
    assert_eq!(cluster.run(&["get", "k", "-r", "all"]).expect(0).text(), "v\n");
    cluster.run(&["dev", "-d", "-n", "5"]).expect(5).is_three_part_error();
    let log = cluster.run(&["dev", "logs", "n1", "--tail", "500"]).expect(0);
    let events: Vec<Value> =
        log.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ready = events.iter().filter(|event| event["event"] == "ready").count();
    assert_eq!(ready, 2, "{log}");
    let asked = cluster.run(&["dev", "destroy"]).expect(2);
    assert!(asked.stderr.contains("say --yes"), "nobody can be asked: {asked}");
    assert!(cluster.dir().exists(), "so nothing is removed");
    cluster.run(&["dev", "destroy", "--yes"]).expect(0);
    assert_eq!(cluster.pids(), [0_u32; 0]);
    assert!(!cluster.dir().join("dev.json").exists());
    cluster.run(&["get", "k"]).expect(8);
}

#[test]
fn the_context_before_is_back_when_a_cluster_goes() {
    let cluster = Cluster::start();
    for (ends, options) in [("stop", &["--ephemeral"][..]), ("destroy", &[])] {
        let made = ["dev", "-d", "--name", "aside", "-n", "1", "--ports", "auto"];
        let made = cluster.run(&[&made, options].concat());
        let yes = if ends == "destroy" { &["--yes"][..] } else { &[] };
        let gone = cluster.run(&[&["dev", ends, "--name", "aside"], yes].concat());
        let made = made.expect(0);
        assert!(made.text().contains("galvani dev kill n1 --name aside"), "{made}");
        gone.expect(0).says(&["context dev is selected again"]);
        cluster.run(&["put", "k", ends]).expect(0);
    }
    cluster.pause("n3");
    let paused = cluster.run(&["dev", "start", "n3"]).expect(5);
    cluster.resume("n3");
    paused.is_three_part_error().says(&["go on  galvani dev resume n3"]);
    cluster.run(&["dev", "stop", "n3"]).expect(0).says(&["n3 stopped"]);
    cluster.run(&["dev", "stop", "n3"]).expect(0).says(&["n3 was down already"]);
}

#[test]
fn help_version_and_completions_need_no_cluster() {
    let nowhere = temporary();
    let run = |words: &[&str]| Ran::of(command_in(nowhere.path()).args(words), b"");
    assert!(run(&["version"]).expect(0).text().starts_with("galvani "));
    assert!(run(&["--version"]).expect(0).text().starts_with("galvani "));
    for words in
        [&["--help"][..], &["help", "quorums"], &["help", "exit-codes"], &["help", "errors"]]
    {
        assert!(run(words).expect(0).text().lines().count() > 8, "{words:?}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(&["completions", shell]).expect(0).text().contains("galvani"), "{shell}");
    }
    run(&["completions", "none"]).expect(2);
    let said = run(&["quorum", "explain", "-n", "5", "-r", "2", "-w", "3"]).expect(0);
    assert!(said.text().contains("NOT overlap"), "{said}");
    run(&["quorum", "explain", "-w", "4"]).expect(5).is_three_part_error();
}

#[test]
fn every_command_in_the_readme_exists() {
    let nowhere = temporary();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = fs::read_to_string(readme).expect("the repository has a README");
    let commands: BTreeSet<String> = readme.lines().filter_map(command_of).collect();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in &commands {
        let words: Vec<&str> = command.split(' ').collect();
        // Its help is found, and it names every long option the README uses with it.
        let ran = Ran::of(command_in(nowhere.path()).arg("help").args(&words), b"").expect(0);
        for option in options_with(&readme, command) {
            assert!(ran.text().contains(&option), "{command} has no {option}");
        }
    }
}

/// What follows `galvani` in a line of the README that is a command.
fn words_of(line: &str) -> Option<&str> {
    let starts = ["galvani ", "cargo run --release -- "];
    starts.iter().find_map(|start| line.strip_prefix(start))
}

/// `galvani put greeting hello` is `put`; `galvani dev kill n3` is `dev kill`.
fn command_of(line: &str) -> Option<String> {
    let rest = words_of(line)?;
    let mut words = rest.split_whitespace();
    let first = words.next()?;
    let nested = ["dev", "bucket", "quorum", "cluster", "ctx"].contains(&first);
    // A verb of bench, or the workload of a run.
    let verb = |word: &str| ["run", "show", "compare", "sweep", "chaos"].contains(&word);
    let second = |word: &&str| match first {
        "bench" => verb(word),
        _ => nested && word.chars().all(|c| c.is_ascii_lowercase()),
    };
    match words.next().filter(second) {
        Some(second) => Some(format!("{first} {second}")),
        None => Some(first.to_owned()),
    }
}

fn options_with(readme: &str, command: &str) -> BTreeSet<String> {
    let lines = readme.lines().filter(|line| command_of(line).as_deref() == Some(command));
    let code = lines.filter_map(words_of).filter_map(|words| words.split('#').next());
    code.flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(str::to_owned)
        .collect()
}

/// Lines of records of all shapes, in the form `export` writes.
fn records(seed: u64, count: usize) -> Vec<String> {
    println!("seed {seed:#x}");
    let mut rng = StdRng::seed_from_u64(seed);
    let record = |index: usize| {
        let length = rng.random_range(0..if index.is_multiple_of(100) { 20_000 } else { 400 });
        let text = !index.is_multiple_of(3);
        let value: String =
            (0..length / 2).map(|_| rng.random_range('\u{20}'..'\u{2fff}')).collect();
        let mut bytes = vec![0xff_u8; length.max(1)];
        rng.fill_bytes(&mut bytes[1..]);
        match text {
            true => json!({"key": format!("rec/{index} \u{fc}\"\\"), "value": value}).to_string(),
            false => {
                json!({"key": format!("rec/{index}"), "value_b64": base64(&bytes)}).to_string()
            }
        }
    };
    (0..count).map(record).collect()
}

/// Lines as documents by key; a key that is there twice is an error.
fn by_key<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let record: Value = serde_json::from_str(line).expect("a line of JSON");
        let key = key_of(&record);
        assert!(all.insert(key, record).is_none(), "twice: {line}");
    }
    all
}

fn key_of(record: &Value) -> String {
    record["key"].as_str().or(record["key_b64"].as_str()).expect("a key").to_owned()
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut three = [0_u8; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}
