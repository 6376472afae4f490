//! A node's configuration file, `galvani.toml`: who it is, where its files are, its bounds.
//!
//! Few knobs, each with its unit, bound and default. Unknown keys are errors that name the nearest
//! known one, with line and column. What all nodes must agree on is in the cluster file instead.
//! Next to read: `cluster_file.rs`.

use galvani_model::ids::NodeId;
use galvani_model::limits::Limits;
use galvani_model::placement::{Member, MemberError, WEIGHT_NORMAL};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// When a write counts as stored by a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityMode {
    /// When the operating system has it: survives SIGKILL of the process; after power loss the last
    /// moments of that one node may be gone, and it takes a new incarnation.
    #[default]
    Os,
    /// When the disk has it: every tick is fsynced before its acks.
    Fsync,
}

impl core::fmt::Display for DurabilityMode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DurabilityMode::Os => "os",
            DurabilityMode::Fsync => "fsync",
        })
    }
}

/// `[node]`: who this node is and where its files are. Relative paths start at the file's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// Its name in the layout.
    pub name: String,
    /// The cluster file. Default `cluster.json`.
    #[serde(default = "default_cluster")]
    pub cluster: PathBuf,
    /// Its data directory. Default `data`.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// Its identity: `ca.pem`, `cert.pem`, `key.pem`. Default `identity`.
    #[serde(default = "default_identity")]
    pub identity: PathBuf,
    /// `os` (default) or `fsync`.
    #[serde(default)]
    pub durability: DurabilityMode,
}

/// `[storage]`: bounds of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// Mebibytes of blocks and values kept in memory, at least 1. Default 32.
    pub cache_mib: u64,
    /// Mebibytes of disk that writes leave free; below it they are refused. Default 64; 0: no reserve.
    pub reserve_mib: u64,
    /// Mebibytes of new rows kept in memory before they go to tables, at least 8. Default 32.
    pub memtable_mib: u64,
}

impl Default for StorageSection {
    fn default() -> StorageSection {
        StorageSection { cache_mib: 32, reserve_mib: 64, memtable_mib: 32 }
    }
}

/// `[transport]`: bounds of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportSection {
    /// Largest UDP payload path discovery may settle on, in bytes, 1200..=65507. Default 1452.
    pub mtu_max: u16,
    /// Whether an administrator may break the node's links on purpose (`galvani dev cut`, `slow`,
    /// `lossy`). Default false.
    pub faults: bool,
}

impl Default for TransportSection {
    fn default() -> TransportSection {
        TransportSection { mtu_max: 1452, faults: false }
    }
}

/// `[join]`: how a node would be a member that the cluster file does not name. Once it is one, the
/// cluster's layout says so, and this is not looked at any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSection {
    /// Its zone.
    pub zone: String,
    /// Its share relative to others. Default 100.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Where each of its lanes listens and is reached.
    pub lanes: Vec<SocketAddr>,
}

impl JoinSection {
    /// The member that the node would be.
    pub fn member(&self, id: NodeId, name: &str) -> Result<Member, MemberError> {
        Member::new(id, name, self.zone.as_str(), self.weight, self.lanes.clone())
    }
}

/// A whole `galvani.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Who this node is and where its files are.
    pub node: NodeSection,
    /// How it would be a member, if the cluster file does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinSection>,
    /// Bounds of its lanes.
    #[serde(default)]
    pub limits: Limits,
    /// Bounds of its engine.
    #[serde(default)]
    pub storage: StorageSection,
    /// Bounds of its endpoints.
    #[serde(default)]
    pub transport: TransportSection,
}

/// Why a configuration cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("{path}:{line}:{column} {why}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// A value is out of its bounds.
    #[error("{path}: {key} = {value} is not {allowed}")]
    OutOfBounds {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// What it may say.
        allowed: &'static str,
    },
}

impl NodeConfig {
    /// Reads and checks a file; relative paths in it become absolute ones.
    pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
        let io = |source| ConfigError::Io { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(io)?;
        let mut config = NodeConfig::parse(path, &text)?;
        let absolute = std::path::absolute(path).map_err(io)?;
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        for relative in [&mut config.node.cluster, &mut config.node.data, &mut config.node.identity]
        {
            *relative = folder.join(&*relative);
        }
        Ok(config)
    }

    fn parse(path: &Path, text: &str) -> Result<NodeConfig, ConfigError> {
        let config: NodeConfig = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let before = &text.as_bytes()[..at];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
            let why = with_nearest(error.message());
            ConfigError::Malformed { path: path.to_owned(), line, column, why }
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let bounds = [
            ("limits.inflight", self.limits.inflight as u64, 1, 1 << 20, "1..=1048576"),
            ("limits.held_bytes", self.limits.held_bytes as u64, 1 << 20, 1 << 40, "1 MiB..=1 TiB"),
            ("limits.siblings_max", self.limits.siblings_max as u64, 1, 1000, "1..=1000"),
            (
                "limits.anti_entropy_ms",
                u64::from(self.limits.anti_entropy_ms),
                0,
                3_600_000,
                "0..=3600000",
            ),
            ("limits.verify_hours", u64::from(self.limits.verify_hours), 0, 8_760, "0..=8760"),
            ("limits.hint_bytes", self.limits.hint_bytes, 0, 1 << 40, "0..=1099511627776"),
            (
                "limits.hint_bytes_per_owner",
                self.limits.hint_bytes_per_owner,
                0,
                1 << 40,
                "0..=1099511627776",
            ),
            (
                "limits.read_repairs_per_second",
                u64::from(self.limits.read_repairs_per_second),
                0,
                1_000_000,
                "0..=1000000",
            ),
            (
                "limits.client_requests_per_second",
                u64::from(self.limits.client_requests_per_second),
                0,
                1_000_000,
                "0..=1000000",
            ),
            (
                "limits.client_requests_burst",
                u64::from(self.limits.client_requests_burst),
                0,
                1_000_000,
                "0..=1000000",
            ),
            (
                "limits.expiry_margin_ms",
                u64::from(self.limits.expiry_margin_ms),
                0,
                86_400_000,
                "0..=86400000",
            ),
            ("limits.feed_keep_ms", self.limits.feed_keep_ms, 0, 31_536_000_000, "0..=31536000000"),
            ("limits.feed_bytes", self.limits.feed_bytes, 0, 1 << 50, "0..=1125899906842624"),
            ("storage.cache_mib", self.storage.cache_mib, 1, 1 << 20, "1..=1048576"),
            ("storage.memtable_mib", self.storage.memtable_mib, 8, 1 << 16, "8..=65536"),
            ("storage.reserve_mib", self.storage.reserve_mib, 0, 1 << 30, "0..=1073741824"),
            ("transport.mtu_max", u64::from(self.transport.mtu_max), 1200, 65507, "1200..=65507"),
        ];
        for (key, value, low, high, allowed) in bounds {
            if !(low..=high).contains(&value) {
                let path = path.to_owned();
                return Err(ConfigError::OutOfBounds { path, key, value, allowed });
            }
        }
        Ok(())
    }
}

/// Adds "did you mean" to serde's word on an unknown field.
fn with_nearest(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((unknown, known)) if message.starts_with("unknown field") => {
            let nearest = known.iter().min_by_key(|name| distance(unknown, name));
            match nearest {
                Some(nearest) => format!("unknown key {unknown:?}: did you mean {nearest:?}?"),
                None => format!("unknown key {unknown:?}"),
            }
        }
        Some(_) | None => message.replace('\n', " "),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

fn default_weight() -> u32 {
    WEIGHT_NORMAL
}

fn default_cluster() -> PathBuf {
    "cluster.json".into()
}

fn default_data() -> PathBuf {
    "data".into()
}

fn default_identity() -> PathBuf {
    "identity".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
        NodeConfig::parse(Path::new("galvani.toml"), text)
    }

    #[test]
    fn a_name_is_enough() {
        let config = parse("[node]\nname = \"n1\"\n").expect("valid");
        assert_eq!(config.node.durability, DurabilityMode::Os);
        assert_eq!(config.limits, Limits::default());
        assert!(!config.transport.faults, "nobody breaks a server that did not ask for it");
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_one() {
        let error = parse("[node]\nname = \"n1\"\n[storage]\ncash_mib = 3\n").expect_err("typo");
        assert_eq!(
            error.to_string(),
            "galvani.toml:4:1 unknown key \"cash_mib\": did you mean \"cache_mib\"?"
        );
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let error = parse("[node]\nname=\"a\"\n[transport]\nmtu_max = 100\n").expect_err("small");
        assert_eq!(error.to_string(), "galvani.toml: transport.mtu_max = 100 is not 1200..=65507");
    }
}
