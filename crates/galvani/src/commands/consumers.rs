//! Consumer groups in `status`: a line for each, and all of it in JSON.
//!
//! What groups keep is ordinary data, so it is read as such, within a second; what cannot be read then is
//! said to be so, for `status` must answer most of all when not much else does. Next to read: `group.rs`.

use crate::commands::group;
use crate::connect::Session;
use crate::report::text::{Age, Span, count, grouped};
use galvani_client::{ClusterView, GroupStatus, NodeReport};
use serde_json::Value;
use std::time::Duration;

/// The groups, by name; why not, where they cannot be read.
pub(super) type Groups = Result<Vec<GroupStatus>, String>;

/// All groups of the cluster.
pub(super) async fn all(session: &Session, view: &ClusterView) -> Groups {
    if !view.buckets.keys().any(|bucket| bucket.as_str() == GROUPS) {
        return Ok(Vec::new());
    }
    let read = async {
        let names = session.client.groups().await?;
        let mut groups = Vec::new();
        for name in names {
            match session.client.group_status(&name).await {
                Ok(status) => groups.push(status),
                // It went meanwhile.
                Err(error)
                    if matches!(error.kind(), galvani_client::ErrorKind::UnknownGroup { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(groups)
    };
    match tokio::time::timeout(TIME, read).await {
        Ok(Ok(groups)) => Ok(groups),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {}: galvani group list waits longer", Span(TIME))),
    }
}

/// A line for each group; none if there is none.
pub(super) fn words(groups: &Groups, keep: Option<Duration>) -> String {
    match groups {
        Ok(groups) => groups.iter().map(|status| line(status, keep)).collect(),
        Err(why) => format!("groups       not read: {why}\n"),
    }
}

fn line(status: &GroupStatus, keep: Option<Duration>) -> String {
    let mut words = vec![match status.behind {
        Some(0) => "all done with".to_owned(),
        Some(behind) => format!("{} behind", grouped(behind)),
        None => "behind by what owners do not say".to_owned(),
    }];
    let lag = status.members.iter().map(|member| member.lag).max().unwrap_or_default();
    if !lag.is_zero() {
        words.push(format!("oldest {} ago", Span(lag)));
    }
    if let Some(left) =
        group::until_gone(status, keep).filter(|left| *left < keep.unwrap_or_default() / 2)
    {
        words.push(format!("GONE IN {}", Age(left.as_secs())));
    }
    let halted = status.shards.iter().filter(|shard| shard.halted).count() as u64;
    if halted > 0 {
        words.push(format!("{} HALTED", count(halted, "shard")));
    }
    if status.parked_keys > 0 {
        words.push(format!("{} parked", count(status.parked_keys, "key")));
    }
    if status.dead_letters > 0 {
        words.push(count(status.dead_letters, "dead letter"));
    }
    words.push(match status.members.len() as u64 {
        0 => "NO MEMBERS".to_owned(),
        members => count(members, "member"),
    });
    format!("group        {}: {}\n", status.name, words.join(", "))
}

/// All groups with their shards; `null` where they cannot be read.
pub(super) fn document(groups: &Groups, keep: Option<Duration>) -> Value {
    match groups {
        Ok(groups) => groups.iter().map(|status| group::document(status, keep)).collect(),
        Err(_) => Value::Null,
    }
}

/// How long the nodes keep what was replaced: the shortest that one of them says. `None`: for ever, or nobody
/// answers.
pub(super) fn keep(reports: &[NodeReport]) -> Option<Duration> {
    let kept = reports.iter().filter_map(|report| report.status.as_ref().ok());
    let kept = kept.map(|status| status.feed_keep_ms).filter(|ms| *ms > 0);
    kept.min().map(Duration::from_millis)
}

/// Where groups keep what they keep.
const GROUPS: &str = "feed.groups";
/// What reading them may take.
const TIME: Duration = Duration::from_secs(1);
