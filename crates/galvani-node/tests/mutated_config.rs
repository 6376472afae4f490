//! Configuration files that are not what was written (V7 and the fuzz targets of the list of cases, with the
//! stable toolchain): each is refused by its name, or says what is within its bounds and can be written and
//! read again. Nothing panics.

use galvani_model::bucket::BucketProps;
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::placement::{Layout, Member};
use galvani_model::version::ContextKey;
use galvani_node::cluster_file::ClusterFile;
use galvani_node::config::NodeConfig;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

const CONFIG: &str = r#"
[node]
name = "n1"
cluster = "cluster.json"
data = "data"
identity = "identity"
durability = "fsync"

[join]
zone = "a"
weight = 100
lanes = ["127.0.0.1:7101", "[::1]:7102"]

[limits]
inflight = 4096
held_bytes = 268435456
siblings_max = 100
anti_entropy_ms = 1000
verify_hours = 168
hint_bytes = 1073741824
expiry_margin_ms = 1200000

[storage]
cache_mib = 32
reserve_mib = 64
memtable_mib = 32

[transport]
mtu_max = 1452
faults = true
"#;

/// Every run bends the same files.
const SEED: u64 = 0x6265_6e74;
const ROUNDS: usize = 3_000;
/// What such files are made of, and what breaks them.
const PIECES: [&str; 20] = [
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "-",
    "#",
    "\n",
    "\0",
    "\\",
    "9",
    "e9",
    "nan",
    "true",
    "18446744073709551616",
    "\u{fe0f}",
];

/// A text that was bent in some places.
fn bent(text: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        let (bit, count): (u32, usize) = (rng.random_range(0..8), rng.random_range(1..12));
        let end = (at + count).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << bit,
            1 => bytes[at] = rng.random_range(b'0'..=b'9'),
            2 => {
                let piece = PIECES[rng.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            3 => {
                bytes.drain(at..end);
            }
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let moved: Vec<u8> = bytes.drain(at..end).collect();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, moved);
            }
        }
    }
    bytes
}

#[test]
fn foreign_config_is_refused_or_within_its_bounds() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("galvani.toml");
    fs::write(&path, CONFIG).expect("written");
    NodeConfig::load(&path).expect("what is bent was good");
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = bent(CONFIG, &mut rng);
        fs::write(&path, &bytes).expect("written");
        let text = String::from_utf8_lossy(&bytes);
        match NodeConfig::load(&path) {
            Ok(config) => {
                taken += 1;
                let (limits, storage) = (&config.limits, &config.storage);
                let bounded = (1..=1 << 20).contains(&limits.inflight)
                    && (1..=1_000).contains(&limits.siblings_max)
                    && limits.verify_hours <= 8_760
                    && limits.hint_bytes <= 1 << 40
                    && (8..=1 << 16).contains(&storage.memtable_mib)
                    && (1_200..=65_507).contains(&config.transport.mtu_max);
                assert!(bounded, "round {round}: {config:?} of {text}");
                let again = toml::to_string(&config).expect("what was read can be written");
                fs::write(&path, &again).expect("written");
                let read = NodeConfig::load(&path);
                let read = read.unwrap_or_else(|error| panic!("round {round}: {error} in {again}"));
                assert_eq!(read, config, "round {round}: {text}");
            }
            Err(error) => {
                refused += 1;
                let said = error.to_string();
                assert!(said.contains("galvani.toml") && !said.contains('\n'), "{said} of {text}");
            }
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > ROUNDS / 50 && refused > ROUNDS / 4, "{taken} taken, {refused} refused");
}

#[test]
fn foreign_cluster_file_is_refused_or_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("cluster.json");
    cluster_file().save(&path).expect("written");
    let good = fs::read_to_string(&path).expect("written");
    assert_eq!(ClusterFile::load(&path).expect("what is bent was good"), cluster_file());
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = bent(&good, &mut rng);
        fs::write(&path, &bytes).expect("written");
        let text = String::from_utf8_lossy(&bytes);
        match ClusterFile::load(&path) {
            Ok(file) => {
                taken += 1;
                assert_eq!(file.buckets().len(), 1, "round {round}: {text}");
                let secret: String =
                    file.context_key().0.iter().map(|byte| format!("{byte:02x}")).collect();
                assert!(text.to_lowercase().contains(&secret), "round {round}: {text}");
                file.save(&path).expect("what was read can be written");
                let read = ClusterFile::load(&path);
                let read = read.unwrap_or_else(|error| panic!("round {round}: {error} of {text}"));
                assert_eq!(read, file, "round {round}: {text}");
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("cluster.json"), "{error} of {text}");
            }
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(refused > ROUNDS / 4, "{taken} taken, {refused} refused");
}

/// Three nodes, three copies.
fn cluster_file() -> ClusterFile {
    let member = |index: u8| {
        let lane = SocketAddr::from(([127, 0, 0, 1], 7_100 + u16::from(index)));
        let (name, zone) = (format!("n{index}"), format!("z{index}"));
        Member::new(NodeId(index.into()), name, zone, 100, vec![lane]).expect("a good member")
    };
    let members = (1..=3).map(member).collect();
    let layout = Layout::compute(ClusterId(7), 1, 16, 3, members).expect("a zone for each copy");
    let default = BucketProps::with_copies(3);
    ClusterFile::new("local", default, &ContextKey([7; 16]), Arc::new(layout))
}
