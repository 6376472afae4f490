//! Tombstones, expired values and the log in the status: what is gone, what waits, and for whom.
//!
//! A tombstone is collected when every owner of its key has taken in all that it replaced. One that
//! cannot be reached holds collection back and is named here. Next to read: `status.rs`.

use crate::names::Names;
use crate::report::text::{Age, Size, count, grouped};
use galvani_client::{NodeId, NodeReport};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// What waits on all nodes, and for whom.
pub(super) fn words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let (mut waiting, mut collected, mut expiring, mut expired) = (0, 0, 0, 0);
    let mut waits: BTreeMap<NodeId, u64> = BTreeMap::new();
    for status in reports.iter().filter_map(|report| report.status.as_ref().ok()) {
        waiting += status.tombstones;
        collected += status.counters.tombstones_collected;
        expiring += status.expiring;
        expired += status.counters.expired_collected;
        for (&owner, &since_ms) in &status.collection_waits {
            // Whoever has heard of it at all knows better since when it is away.
            let known = waits.entry(owner).or_default();
            *known = match (*known, since_ms) {
                (0, since) | (since, 0) => since,
                (one, other) => one.min(other),
            };
        }
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let held: Vec<String> = waits
        .into_iter()
        .map(|(owner, since_ms)| {
            let since = match since_ms {
                0 => "not heard of since a restart".to_owned(),
                _ => format!("away {}", Age((now_ms as u64).saturating_sub(since_ms) / 1000)),
            };
            format!("collection waits for {}: {since}", names.word(owner))
        })
        .collect();
    let mut words = vec![format!("{} kept, {} collected", grouped(waiting), grouped(collected))];
    if expiring + expired > 0 {
        let (expiring, expired) = (grouped(expiring), grouped(expired));
        words.push(format!("values that expire: {expiring} kept, {expired} collected"));
    }
    words.extend(held);
    words.join("   ")
}

/// What was trimmed from the logs of all nodes, and for whom that waits.
pub(super) fn log_words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let (mut records, mut bytes) = (0, 0);
    let mut waits: BTreeSet<NodeId> = BTreeSet::new();
    for status in reports.iter().filter_map(|report| report.status.as_ref().ok()) {
        records += status.counters.records_trimmed;
        bytes += status.counters.bytes_trimmed;
        waits.extend(&status.trim_waits);
    }
    let mut words = vec![match records {
        0 => "nothing trimmed".to_owned(),
        _ => format!("{} trimmed, with {} of values", count(records, "record"), Size(bytes)),
    }];
    let waits: Vec<String> = waits.into_iter().map(|owner| names.word(owner)).collect();
    if !waits.is_empty() {
        words.push(format!("trimming waits for {}", waits.join(" ")));
    }
    words.join("   ")
}

/// Whom a node's collection waits for.
pub(super) fn document(names: &Names<'_>, waits: &BTreeMap<NodeId, u64>) -> Value {
    let one = |(&owner, &since_ms): (&NodeId, &u64)| json!({ "for": names.key(owner), "since_ms": since_ms });
    waits.iter().map(one).collect()
}
