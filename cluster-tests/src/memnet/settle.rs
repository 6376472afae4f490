//! Waiting, in virtual time, until the cluster is as if nothing had happened, and judging.
//!
//! Every node must say that it reaches every other, holds no hints and no tombstones, and lacks nothing;
//! then all owners of every key must hold the same, and it must pass the rules; then reads that any
//! node coordinates must be answered at once, so that no link is left half open.

use crate::chaos::ledger::Shown;
use crate::chaos::settle::{explain_one, read_one};
use crate::chaos::workers::Field;
use crate::chaos::{Violation, What};
use crate::memnet::nodes::Nodes;
use galvani_client::{Client, NodeStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Waits until all is calm and `keys` are equal, and judges these.
pub async fn settle(
    nodes: &Nodes,
    client: &Client,
    field: &Arc<Field>,
    keys: Vec<String>,
) -> Result<(), Vec<Violation>> {
    let not_equal =
        |key: &str, detail: String| vec![Violation::new(What::NotEqual, key, None).detail(detail)];
    let end = Instant::now() + AGREE;
    let mut left = keys.clone();
    loop {
        if let Some(index) = nodes.ended() {
            let ended = format!("node {} ended by itself", index + 1);
            return Err(vec![Violation::new(What::NodeFailed, "", None).detail(ended)]);
        }
        let unrest: Vec<String> =
            nodes.status().iter().filter_map(|status| unrest(status, nodes.len())).collect();
        if unrest.is_empty() {
            let mut apart = Vec::new();
            for key in std::mem::take(&mut left) {
                apart.extend(explain_one(client.clone(), key).await);
            }
            if apart.is_empty() {
                break;
            }
            if Instant::now() >= end {
                let (key, why) = apart.swap_remove(0);
                return Err(not_equal(&key, format!("not equal after {AGREE:?}: {why}")));
            }
            left.extend(apart.into_iter().map(|(key, _)| key));
        } else if Instant::now() >= end {
            return Err(not_equal("", format!("not calm after {AGREE:?}: {}", unrest.join("; "))));
        }
        // wait: virtual time, until the nodes have done more of it
        tokio::time::sleep(POLL).await;
    }
    let mut wrong = Vec::new();
    for key in keys {
        let began = Instant::now();
        let read = read_one(client.clone(), key.clone()).await;
        let took = began.elapsed();
        let judged = read.map(|(key, shown)| judge(field, &key, shown));
        wrong.extend(judged.and_then(Result::err));
        if took > AT_ONCE {
            let detail = format!("a read of all owners took {took:?} although nothing is broken");
            wrong.push(Violation::new(What::Late, &key, None).detail(detail));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// What keeps a node from being calm.
fn unrest(status: &NodeStatus, nodes: usize) -> Option<String> {
    let NodeStatus { node, peers_up, peers_down, peers_suspect, peers_silent, .. } = status;
    let (up, hints, behind) = (peers_up.len(), status.hints.len(), status.shards_behind);
    let (lacking, tombstones) = (status.refilling.left, status.tombstones);
    let away = peers_down.len() + peers_suspect.len() + peers_silent.len();
    let left = hints as u64 + u64::from(behind) + u64::from(lacking) + tombstones;
    (up + 1 != nodes || away > 0 || left > 0).then(|| {
        format!(
            "node {node}: up {up}, down {}, suspect {}, silent {}, hints for {hints}, {behind} behind, \
             {lacking} to be filled, {tombstones} tombstones",
            peers_down.len(),
            peers_suspect.len(),
            peers_silent.len(),
        )
    })
}

fn judge(field: &Field, key: &str, shown: Result<Vec<Shown>, String>) -> Result<(), Violation> {
    match shown {
        Ok(shown) => field.ledger.check_settled(key, &shown),
        Err(why) => Err(Violation::new(What::NotEqual, key, None).detail(why)),
    }
}

/// Most virtual time until all owners agree once nothing is broken.
const AGREE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);
/// What a read may take on a fair network: some round trips of 2 ms.
const AT_ONCE: Duration = Duration::from_millis(100);
