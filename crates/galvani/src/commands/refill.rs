//! Nodes that lost their disk, in the status: what they have yet to get back, and from whom.
//!
//! Such a node answers no reads of what it lacks. Next to read: `status.rs`; the node's side is
//! `galvani-protocol/src/layout/refill.rs`.

use crate::names::Names;
use crate::report::text::count;
use galvani_client::{NodeReport, Refilling};
use serde_json::{Value, json};

/// A line for each of them; empty if there are none.
pub(super) fn words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    lines(names, reports).map(|line| format!("{line}\n")).collect()
}

/// The first of them, for whoever waits until there are none.
pub(super) fn left(names: &Names<'_>, reports: &[NodeReport]) -> Option<String> {
    lines(names, reports).next()
}

fn lines(names: &Names<'_>, reports: &[NodeReport]) -> impl Iterator<Item = String> {
    let lost = reports.iter().filter_map(|report| Some((report, report.status.as_ref().ok()?)));
    let lost = lost.filter(|(_, status)| status.refilling.left > 0);
    let waits = |it: &Refilling| it.waits.iter().map(|id| names.word(*id)).collect::<Vec<_>>();
    let lines: Vec<String> = lost
        .map(|(report, status)| line(&report.name, &status.refilling, &waits(&status.refilling)))
        .collect();
    lines.into_iter()
}

fn line(node: &str, it: &Refilling, waits: &[String]) -> String {
    let mut words = format!(
        "REFILLING    {node} lost its disk: it answers no reads of {} until it has them again",
        count(u64::from(it.left), "shard")
    );
    if it.records_left > 0 {
        words += &format!(", {} or more are missing", count(it.records_left, "record"));
    }
    if !waits.is_empty() {
        words += &format!(", from {}", waits.join(" and "));
    }
    words
}

/// The same as a document.
pub(super) fn document(names: &Names<'_>, it: &Refilling) -> Value {
    let waits: Vec<String> = it.waits.iter().map(|id| names.key(*id)).collect();
    json!({ "shards": it.left, "records_missing": it.records_left, "waits_for": waits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_lost_its_disk_is_named_with_what_it_waits_for() {
        let it = Refilling { left: 2, records_left: 1_500, waits: Vec::new() };
        let said = line("n1", &it, &["n2".to_owned(), "n3".to_owned()]);
        assert!(said.contains("n1 lost its disk") && said.contains("2 shards"), "{said}");
        assert!(said.contains("1 500 records") && said.contains("from n2 and n3"), "{said}");
        let said = line("n1", &Refilling { left: 1, ..Refilling::default() }, &[]);
        assert!(said.ends_with("until it has them again"), "{said}");
    }
}
