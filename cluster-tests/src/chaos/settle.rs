//! Waiting until all owners agree, and judging what they agree on.
//!
//! No request is under way and nothing is broken. First the nodes must say that they reach each
//! other, hold no hints and lack nothing they know of; then, whatever they say, every key named
//! must be the same on all its owners, and pass the rules.

use crate::chaos::judge::{Violation, What};
use crate::chaos::ledger::Shown;
use crate::chaos::workers::Field;
use crate::cluster::Cluster;
use crate::processes;
use crate::wait::at_most;
use galvani_client::{Client, Explanation, NodeReport, ReplicaState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits until the owners of every key of `keys` agree, and judges each; how long that took.
pub fn settle(
    cluster: &Cluster,
    client: &Client,
    field: &Arc<Field>,
    keys: Vec<String>,
) -> Result<Duration, Vec<Violation>> {
    let began = Instant::now();
    let mut why = String::new();
    at_most(AGREE, || match calm(cluster, client) {
        Ok(()) => {
            why.clear();
            true
        }
        Err(not) => {
            why = not;
            false
        }
    });
    if !why.is_empty() {
        let violation = Violation::new(What::NotEqual, "", None);
        return Err(vec![violation.detail(format!("not calm after {AGREE:?}: {why}"))]);
    }
    sound(cluster, client)?;
    let mut left = keys.clone();
    let mut apart = Vec::new();
    at_most(AGREE, || {
        let asked = std::mem::take(&mut left);
        apart = cluster.block_on(each(asked, client, explain_one));
        left = apart.iter().map(|(key, _)| key.clone()).collect();
        left.is_empty()
    });
    if !apart.is_empty() {
        let violation = |(key, why): (String, String)| {
            let detail = format!("not equal after {AGREE:?}: {why}");
            Violation::new(What::NotEqual, &key, None).detail(detail)
        };
        return Err(apart.into_iter().take(SHOWN).map(violation).collect());
    }
    let took = began.elapsed();
    let read = cluster.block_on(each(keys, client, read_one));
    let judge = |(key, shown): (String, Result<Vec<Shown>, String>)| match shown {
        Ok(shown) => field.ledger.check_settled(&key, &shown).err(),
        Err(why) => Some(Violation::new(What::NotEqual, &key, None).detail(why)),
    };
    let wrong: Vec<Violation> = read.into_iter().filter_map(judge).take(SHOWN).collect();
    if wrong.is_empty() { Ok(took) } else { Err(wrong) }
}

/// Waits until no node keeps a tombstone: all owners have every delete.
pub fn collected(cluster: &Cluster, client: &Client) -> Result<(), Violation> {
    let left = || {
        let statuses = cluster.block_on(client.status()).into_iter();
        let left = statuses.map(|report| match report.status {
            Ok(status) if status.tombstones == 0 => None,
            Ok(status) => Some(format!("{}: {} tombstones", report.name, status.tombstones)),
            Err(error) => Some(format!("{}: {error}", report.name)),
        });
        left.flatten().collect::<Vec<_>>().join(", ")
    };
    at_most(AGREE, || left().is_empty());
    match left() {
        none if none.is_empty() => Ok(()),
        left => {
            Err(Violation::new(What::NotEqual, "", None).detail(format!("after {AGREE:?} {left}")))
        }
    }
}

/// Whether every node reaches every other, holds no hints and knows of nothing it lacks.
fn calm(cluster: &Cluster, client: &Client) -> Result<(), String> {
    for node in cluster.nodes() {
        if processes::of_node(&cluster.home(&node.name)).is_empty() {
            return Err(format!("{} does not run", node.name));
        }
    }
    let reports = cluster.block_on(client.status());
    let name_of = |id| {
        let known = reports.iter().find(|report| report.id == id);
        known.map_or_else(|| format!("{id}"), |report| report.name.clone())
    };
    let not_calm = |report: &NodeReport| {
        let name = &report.name;
        let status = match &report.status {
            Ok(status) => status,
            Err(error) => return Some(format!("{name}: {error}")),
        };
        let held = status.hints.iter();
        let hints: Vec<String> =
            held.map(|(&to, held)| format!(", {} hints for {}", held.count, name_of(to))).collect();
        let (down, behind) = (status.peers_down.len(), status.shards_behind);
        let lacking = status.refilling.left;
        let calm = down == 0 && hints.is_empty() && behind == 0 && lacking == 0;
        (!calm).then(|| {
            let hints = hints.concat();
            format!(
                "{name}: {down} peers away, {behind} shards behind, {lacking} to be filled{hints}"
            )
        })
    };
    match reports.iter().filter_map(not_calm).collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    }
}

/// Whether no node has met damage.
fn sound(cluster: &Cluster, client: &Client) -> Result<(), Vec<Violation>> {
    let mut wrong = Vec::new();
    for report in cluster.block_on(client.status()) {
        let Ok(status) = report.status else { continue };
        let (digests, rows) = (status.counters.digests_unequal, status.counters.quarantined);
        if digests + rows > 0 {
            let detail = format!("{}: {digests} digests unequal, {rows} rows damaged", report.name);
            wrong.push(Violation::new(What::NodeFailed, "", None).detail(detail));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Asks about many keys, some at once; what was answered.
async fn each<T, F>(keys: Vec<String>, client: &Client, ask: fn(Client, String) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let mut answers = Vec::new();
    for batch in keys.chunks(AT_ONCE) {
        let asked: Vec<_> =
            batch.iter().map(|key| tokio::spawn(ask(client.clone(), key.clone()))).collect();
        for answer in asked {
            answers.extend(answer.await.expect("asking does not panic"));
        }
    }
    answers
}

/// The key and why its owners do not agree, if they do not.
pub(crate) async fn explain_one(client: Client, key: String) -> Option<(String, String)> {
    let why = match client.explain(key.clone()).await {
        Ok(explanation) => differs(&explanation)?,
        Err(error) => error.to_string(),
    };
    Some((key, why))
}

fn differs(explanation: &Explanation) -> Option<String> {
    let dots = |replica: &ReplicaState| {
        let versions = replica.versions.as_ref().map_err(ToString::to_string)?;
        let mut dots: Vec<_> = versions.iter().map(|version| version.dots.clone()).collect();
        dots.sort();
        Ok::<_, String>(dots)
    };
    let all: Vec<_> = explanation.replicas.iter().map(dots).collect();
    let same = all.iter().all(|one| one.is_ok() && *one == all[0]);
    let missing = all.len() < explanation.owners.len();
    (!same || missing).then(|| {
        let names = explanation.replicas.iter().map(|replica| &replica.node);
        let each = names.zip(&all).map(|(name, dots)| format!("{name} {dots:?}"));
        each.collect::<Vec<_>>().join("; ")
    })
}

/// The key, and what a read of all its owners shows.
pub(crate) async fn read_one(
    client: Client,
    key: String,
) -> Option<(String, Result<Vec<Shown>, String>)> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match client.get(key.clone()).r(galvani_client::Quorum::All).await {
            Ok(read) => {
                return Some((key, Ok(read.siblings.iter().map(Shown::from).collect())));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Some((key, Err(last)))
}

/// Most time owners may take to agree once nothing is broken.
const AGREE: Duration = Duration::from_secs(120);
const AT_ONCE: usize = 64;
const TRIES: usize = 10;
/// Violations of one moment that are told.
const SHOWN: usize = 5;
