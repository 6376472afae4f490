//! What is under way with the layout, and who applies to be a member, for `status` and `wait`.
//!
//! A change is over when no node goes by two layouts; what nodes hold beyond what they own is handed
//! over after that. Only words and documents here. Next to read: `cluster/change.rs`, which watches.

use crate::commands::cluster::change::phase_word;
use crate::connect::Session;
use crate::report::text::{Size, Span, count};
use galvani_client::{ClusterView, Copying, LayoutChange, Member, NodeReport, Phase};
use serde_json::{Value, json as value};
use std::time::Duration;

/// A node that is no member and says how it would be one, and how it is, if it says so.
#[derive(Clone, Debug)]
pub(super) struct Applicant {
    pub(super) member: Member,
    /// Shards that it holds from days when it was a member: to be handed over.
    pub(super) leaving: Option<u32>,
}

/// All that the members know of.
pub(super) async fn applicants(session: &Session, reports: &[NodeReport]) -> Vec<Applicant> {
    let mut all = Vec::new();
    for member in known(reports) {
        let report = session.client.status_of(&member).await;
        let leaving = report.status.ok().map(|status| status.shards_leaving);
        all.push(Applicant { member, leaving });
    }
    all
}

/// Nodes that apply, each once, in the order of their names.
pub(crate) fn known(reports: &[NodeReport]) -> Vec<Member> {
    let mut all: Vec<Member> = Vec::new();
    let answers = reports.iter().filter_map(|report| report.status.as_ref().ok());
    for member in answers.flat_map(|status| &status.applicants) {
        if !all.iter().any(|known| known.id() == member.id()) {
            all.push(member.clone());
        }
    }
    all.sort_by(|a, b| (a.name(), a.id()).cmp(&(b.name(), b.id())));
    all
}

/// What the layout is in the middle of; `None` if it is at rest.
pub(super) fn pending(view: &ClusterView, reports: &[NodeReport]) -> Option<String> {
    let mut words = Vec::new();
    if let Some(change) = &view.change {
        let (old, new) = (change.old.version(), change.new.version());
        words.push(format!("v{old} -> v{new}  {}", phase_word(change.phase)));
        words.extend(copied(change, reports));
    }
    for report in reports {
        let Ok(status) = &report.status else { continue };
        let mut say = |shards: u32, what: &str| {
            if shards > 0 {
                words.push(format!("{} {what} {}", report.name, count(shards.into(), "shard")));
            }
        };
        say(status.shards_copying, "has yet to fetch");
        say(status.shards_leaving, "has yet to hand over");
    }
    (!words.is_empty()).then(|| words.join("   "))
}

/// All nodes together.
fn copying(reports: &[NodeReport]) -> Copying {
    let mut all = Copying::default();
    let answers = reports.iter().filter_map(|report| report.status.as_ref().ok());
    answers.for_each(|status| all.add(&status.copying));
    all
}

/// Seconds until all is copied, if it goes on as it did lately.
fn seconds_left(all: &Copying) -> Option<u64> {
    all.bytes_left()?.checked_div(all.bytes_per_second)
}

/// How far the copying is, in words; `None` when nothing is to be copied any more.
pub(super) fn copied(change: &LayoutChange, reports: &[NodeReport]) -> Option<String> {
    let all = copying(reports);
    if change.phase != Phase::Copying || all.left == 0 {
        return None;
    }
    let done = all.shards - all.left;
    let mut words = format!("{done} of {} copied", count(all.shards.into(), "shard"));
    if all.bytes > 0 {
        words += &format!(", {}", Size(all.bytes));
    }
    if let Some(left) = all.bytes_left() {
        words += &format!(" of about {}", Size(all.bytes.saturating_add(left)));
    }
    if change.pace.paused {
        return Some(words + ", at rest: galvani cluster resume");
    }
    words += &format!(", {}/s", Size(all.bytes_per_second));
    if let Some(left) = seconds_left(&all) {
        words += &format!(", about {} left", Span(Duration::from_secs(left)));
    }
    if change.pace.bytes_per_second > 0 {
        words += &format!(" (at most {}/s a node)", Size(change.pace.bytes_per_second));
    }
    Some(words)
}

/// Lines of the page; none if there is nothing to say.
pub(super) fn lines(
    view: &ClusterView,
    reports: &[NodeReport],
    applicants: &[Applicant],
) -> String {
    let mut lines = String::new();
    if let Some(pending) = pending(view, reports) {
        lines += &format!("change       {pending}\n");
    }
    for Applicant { member, leaving } in applicants {
        let (name, zone) = (member.name(), member.zone());
        let what = match leaving {
            None => "does not answer".to_owned(),
            Some(0) => format!("take it in: galvani cluster plan add {name}"),
            Some(shards) => format!("has yet to hand over {}", count((*shards).into(), "shard")),
        };
        lines +=
            &format!("no member    {name} runs at {}  zone {zone}  {what}\n", member.lanes()[0]);
    }
    lines
}

/// The same for scripts: `null` while the layout stays.
pub(super) fn document(view: &ClusterView, reports: &[NodeReport]) -> Value {
    let Some(change) = &view.change else { return Value::Null };
    let all = copying(reports);
    value!({
        "from_version": change.old.version(),
        "to_version": change.new.version(),
        "to_layout": change.new.id().to_string(),
        "phase": phase_word(change.phase),
        "begun_epoch": change.begun,
        "paused": change.pace.paused,
        "max_bytes_per_second": change.pace.bytes_per_second,
        "shards": all.shards,
        "shards_left": all.left,
        "records": all.records,
        "records_left": all.records_left,
        "bytes": all.bytes,
        "bytes_left_estimate": all.bytes_left(),
        "bytes_per_second": all.bytes_per_second,
        "seconds_left_estimate": seconds_left(&all),
    })
}

/// Nodes that apply, for scripts.
pub(super) fn applicants_document(applicants: &[Applicant]) -> Value {
    let one = |Applicant { member, leaving }: &Applicant| {
        value!({
            "name": member.name(),
            "id": member.id().to_string(),
            "zone": member.zone(),
            "weight": member.weight(),
            "lanes": member.lanes(),
            "shards_leaving": leaving,
        })
    };
    applicants.iter().map(one).collect()
}
