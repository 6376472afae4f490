//! Data directories that earlier builds left: opened with all that is in them, or refused with both
//! numbers and left as they are.
//!
//! A format that this build cannot open any more leaves `OPENED`, and its file goes, with the decision
//! or the line of the changelog that says so. Both tests use one address, so they run one after the
//! other.

use galvani_cluster_tests::Ran;
use galvani_cluster_tests::golden::{Golden, path_of};
use galvani_storage::dir::FORMAT_VERSION;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// Formats whose directories this build opens.
const OPENED: &[u32] = &[6];

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed while it held it has said so.
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[test]
fn golden_directories_of_earlier_builds_open_with_all_that_is_in_them() {
    let _alone = alone();
    let latest = OPENED.last().copied();
    assert_eq!(latest, Some(FORMAT_VERSION), "pack one: --bin golden (docs/decisions)");
    for format in OPENED {
        let bytes = fs::metadata(path_of(*format)).expect("it is in the repository").len();
        assert!(bytes < 200_000, "{bytes} bytes");
        let golden = Golden::unpack(*format);
        let server = golden.start();
        holds(&golden);
        // What it had seen is replaced by what is written now, and stays so over a restart.
        golden.run(&["put", "plain", "newest"]).expect(0);
        golden.run(&["put", "cart", "--take", "1"]).expect(0);
        Golden::stop(server);
        let server = golden.start();
        assert_eq!(golden.run(&["get", "plain"]).expect(0).text(), "newest\n");
        let cart = golden.run(&["get", "cart"]).expect(0);
        assert!(["milk\n", "tea\n"].contains(&cart.text()), "{cart}");
        Golden::stop(server);
    }
}

/// All of `golden::WRITES` is there.
fn holds(golden: &Golden) {
    for (words, value) in [
        (&["get", "plain"][..], "newer\n"),
        (&["get", "long"], "kept\n"),
        (&["get", "order/7"], "paid\n"),
        (&["get", "line", "--bucket", "logs"], "two\n"),
    ] {
        assert_eq!(golden.run(words).expect(0).text(), value);
    }
    let listed = golden.run(&["ls", "--keys-only"]).expect(0);
    let keys: BTreeSet<&str> = listed.text().lines().collect();
    assert_eq!(keys, BTreeSet::from(["cart", "long", "order/7", "plain"]));
    golden.run(&["get", "gone"]).expect(3);
    let both = golden.run(&["get", "cart", "--siblings", "json"]).expect(0);
    assert!(["milk", "tea"].iter().all(|value| both.text().contains(value)), "{both}");
    let topic = ["feed", "--topic", "orders", "--from", "start", "--until", "now", "-o", "jsonl"];
    let events = golden.run(&topic).expect(0);
    assert!(events.text().contains("order/7"), "{events}");
    let feed = golden.run(&["feed", "--from", "start", "--until", "now", "-o", "jsonl"]).expect(0);
    for key in ["plain", "cart", "gone", "long"] {
        assert!(feed.text().contains(&format!("{key:?}")), "no {key}: {feed}");
    }
    // Every row is whole, and the digest is that of what is there.
    let repaired = golden.run(&["repair", "-o", "json"]).expect(0);
    assert!(repaired.text().contains("galvani.repair/1"), "{repaired}");
}

#[test]
fn directories_of_other_formats_are_refused_and_left_as_they_are() {
    let _alone = alone();
    for (format, word) in [(FORMAT_VERSION + 1, "newer"), (FORMAT_VERSION - 1, "older")] {
        let golden = Golden::unpack(FORMAT_VERSION);
        let data = golden.home().join("data");
        rewrite_format(&data.join("galvani.json"), format);
        let before = files(&data);
        let refused: Ran = golden.begin().finish().expect(5).is_three_part_error();
        let numbers = format!("data format {format} is {word} than {FORMAT_VERSION}");
        refused.says(&[&numbers, "nothing was changed"]);
        assert!(files(&data) == before, "format {format}: files were changed");
    }
}

/// Gives the identity file another format number, under a checksum that fits.
fn rewrite_format(path: &Path, format: u32) {
    let text = fs::read_to_string(path).expect("an identity file");
    let line = text.lines().next().expect("one line of JSON");
    let (now, then) = (format!("\"format\":{FORMAT_VERSION},"), format!("\"format\":{format},"));
    assert!(line.contains(&now), "{line}");
    let line = line.replace(&now, &then);
    let sum = crc32c(line.as_bytes());
    fs::write(path, format!("{line}\n{sum:08x}\n")).expect("written");
}

/// CRC-32C, bit by bit: the checksum that `docs/formats.md` names.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    let of_byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, of_byte)
}

/// All files but the lock, which says who looked last.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            let below = files(&path).into_iter();
            all.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else if name != "lock" {
            all.insert(name, fs::read(&path).expect("a file"));
        }
    }
    all
}
