//! A node joins with a token: it makes its key itself, and asks for certificate and cluster file.
//!
//! The key of the cluster's root is where the operator keeps it, on no node. So whoever invites also
//! signs, for as long as the token is good: `invites.rs` keeps what was promised and answers, and
//! `arrive.rs` is what the new node does. `token.rs` is the string that goes from one to the other. No
//! node takes part, so a stranger who asks costs the cluster nothing. Why so: decision 0016.

pub mod arrive;
pub mod invites;
pub mod token;

use crate::cluster_file::ClusterFile;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Version of questions and answers; the connection's protocol name has the same.
const SCHEMA: &str = "galvani.join/1";

/// What a node that joins sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    schema: String,
    /// The token's secret, 32 hexadecimal digits.
    secret: String,
    /// Its public key, hexadecimal.
    public_key: String,
}

/// What it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Its certificate, and what it starts from.
    Welcome(Box<Welcome>),
    /// Nothing, and why.
    Refused(Refusal),
}

/// What a node starts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Its certificate, PEM.
    pub cert_pem: String,
    /// The cluster's root, PEM.
    pub ca_pem: String,
    /// The cluster file.
    pub cluster: ClusterFile,
    /// Its `galvani.toml`.
    pub config: String,
}

/// Why a node gets no certificate. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No invitation has this secret: the token is of another cluster or altered, or the invitation was
    /// removed.
    #[error("no invitation here has this token")]
    Unknown,
    /// Its time is over.
    #[error("the token expired {ago_s} s ago")]
    Expired {
        /// Since when, in seconds.
        ago_s: u64,
    },
    /// Another key was certified with it.
    #[error("the token was used {ago_s} s ago, by a node with another key")]
    Used {
        /// Since when, in seconds.
        ago_s: u64,
    },
    /// The question does not hold together.
    #[error("the question is none of {SCHEMA}: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// The one who invites cannot sign or write.
    #[error("whoever invites cannot sign: {what}")]
    Failed {
        /// Why.
        what: String,
    },
}

/// Seconds since 1970 by the wall clock.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits, if they are some.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}
