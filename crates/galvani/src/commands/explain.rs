//! `explain KEY`: where a key lives and what each owner holds of it.
//!
//! For each owner what it has and what it lacks; the hints that others hold for it; who answers a
//! read at r=1. Shows nodes that did not answer as such; changes nothing.

use crate::args::line::Line;
use crate::args::see::Explain;
use crate::commands::{Done, options};
use crate::connect::App;
use crate::exit::Exit;
use crate::names::Names;
use crate::report::text::{Age, Size, count};
use crate::report::{client, json};
use galvani_client::{ClusterView, Dot, Explanation, HolderState, ReplicaState, Version};
use galvani_model::version::Kind;
use serde_json::{Map, Value, json as value};
use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

/// Explains the key.
pub(crate) async fn run(app: &App, args: Explain) -> Done {
    let session = app.connect().await?;
    let line = Line::new("explain").place(&args.key).in_bucket(&args.bucket.bucket);
    let retype = options::retype(app, "explain", &args.bucket.bucket, &args.key, line);
    let asked = session.bucket(&args.bucket).explain(args.key.clone()).await;
    let explanation = asked.map_err(|error| client::report(&error, &retype))?;
    let view = session.client.cluster();
    let names = app.names(&view);
    if app.out.is_json() {
        let mut map = document(&names, &explanation);
        json::put_bytes(&mut map, "key", &args.key);
        map.insert("bucket".to_owned(), args.bucket.bucket.as_str().into());
        app.out.json(map)?;
    } else {
        app.out.line(&page(&view, &names, &explanation))?;
    }
    Ok(Exit::Done)
}

fn page(view: &ClusterView, names: &Names<'_>, explanation: &Explanation) -> String {
    let name = |node: &String| with_zone(view, node);
    let owners: Vec<String> = explanation.owners.iter().map(name).collect();
    let fallbacks: Vec<String> = explanation.fallbacks.iter().map(name).collect();
    let fallbacks = match fallbacks.is_empty() {
        true => "none".to_owned(),
        false => fallbacks.join(" "),
    };
    let mut page = format!(
        "hash {:016x}  partition {}  owners {}  fallbacks {fallbacks}  seen by {}",
        explanation.hash,
        explanation.shard.partition.0,
        owners.join(" "),
        explanation.coordinator
    );
    let all = all_dots(explanation);
    for replica in &explanation.replicas {
        page.push_str("\n  ");
        page.push_str(&replica_line(names, replica, &all, clock_ms(explanation)));
    }
    page.push_str("\n  hints   ");
    page.push_str(&hint_words(names, explanation));
    page.push_str("\n  r=1     ");
    page.push_str(&first_words(explanation, &all));
    page
}

/// Who holds hints of the key for whom.
fn hint_words(names: &Names<'_>, explanation: &Explanation) -> String {
    let mut words = Vec::new();
    for holder in &explanation.holders {
        let hints = match &holder.hints {
            Ok(hints) => hints,
            Err(answer) => {
                words.push(format!("what {} holds is not known: {answer}", holder.node));
                continue;
            }
        };
        let owners: BTreeSet<&String> = hints.iter().map(|(owner, _)| owner).collect();
        for owner in owners {
            let dots = hints.iter().filter(|(whom, _)| whom == owner);
            let dots: Vec<String> = dots.map(|(_, dot)| short(*dot)).collect();
            let owner = names.told(owner);
            words.push(format!("{} holds {} for {owner}", holder.node, dots.join(" ")));
        }
        if holder.more {
            words.push(format!("{} may hold more", holder.node));
        }
    }
    match (words.is_empty(), explanation.holders.is_empty()) {
        (true, true) => "nobody stands in: there are no more nodes than copies".to_owned(),
        (true, false) => "none for this key".to_owned(),
        (false, _) => words.join("; "),
    }
}

/// Who would answer a read at r=1, and what that one lacks.
fn first_words(explanation: &Explanation, all: &BTreeSet<Dot>) -> String {
    let node = &explanation.coordinator;
    let own = explanation.replicas.iter().find(|replica| replica.node == *node);
    let lacks = own.and_then(|own| Some(missing(own, own.versions.as_ref().ok()?, all)));
    let silent = explanation.replicas.iter().filter(|replica| replica.versions.is_err());
    let silent: Vec<&str> = silent.map(|replica| replica.node.as_str()).collect();
    answer_words(node, lacks.as_deref(), &silent)
}

/// What is known is what those say who answered: the others may have more.
fn answer_words(node: &str, lacks: Option<&[String]>, silent: &[&str]) -> String {
    let answer = match (lacks, silent) {
        (Some([]), []) => format!("{node} would answer, with all that is known"),
        (Some([]), _) => format!("{node} would answer, with all that those have who answered"),
        (Some(lacks), _) => format!("{node} would answer, without {}", lacks.join(" ")),
        (None, _) => format!("{node} is asked, and must ask another owner"),
    };
    match silent {
        [] => answer,
        silent => format!("{answer}; {} did not answer and may have more", silent.join(" ")),
    }
}

fn replica_line(
    names: &Names<'_>,
    replica: &ReplicaState,
    all: &BTreeSet<Dot>,
    now_ms: u64,
) -> String {
    let node = &replica.node;
    let versions = match &replica.versions {
        Ok(versions) => versions,
        Err(answer) => return answer.to_string(),
    };
    let values = versions.iter().filter(|version| is_value(version, now_ms)).count();
    let expired = versions.iter().filter(|version| is_expired(version, now_ms)).count();
    let mut line = match (values, versions.len()) {
        (0, 0) => format!("{node}  absent"),
        (0, all) if all == expired => format!("{node}  expired ({})", count(all as u64, "value")),
        (0, tombstones) => format!("{node}  deleted ({})", count(tombstones as u64, "tombstone")),
        (values, _) if expired > 0 => {
            format!("{node}  {}, {expired} expired", count(values as u64, "value"))
        }
        (values, _) => format!("{node}  {}", count(values as u64, "value")),
    };
    for version in versions.iter().filter(|version| version.kind == Kind::Put) {
        let author = names.word(version.author);
        let (dot, size) = (first_dot(version), Size(u64::from(version.value_len)));
        let ends = end_words(version.expires_ms, now_ms);
        line.push_str(&format!("  [{dot} by {author}, {size}{ends}]"));
    }
    let missing = missing(replica, versions, all);
    if !missing.is_empty() {
        line.push_str(&format!("  LACKS {}", missing.join(" ")));
    }
    line
}

/// When a value expires, or that it has.
fn end_words(expires_ms: u64, now_ms: u64) -> String {
    match expires_ms {
        0 => String::new(),
        at if at <= now_ms => format!(", expired {} ago", Age((now_ms - at) / 1000)),
        at => format!(", expires in {}", Age((at - now_ms) / 1000)),
    }
}

/// Dots of live versions elsewhere that this replica has not seen.
fn missing(replica: &ReplicaState, versions: &[Version], all: &BTreeSet<Dot>) -> Vec<String> {
    let mine: BTreeSet<Dot> = versions.iter().flat_map(|one| one.dots.iter().copied()).collect();
    all.iter()
        .filter(|dot| !mine.contains(dot) && !replica.seen.contains(**dot))
        .map(|dot| short(*dot))
        .collect()
}

fn all_dots(explanation: &Explanation) -> BTreeSet<Dot> {
    let versions = explanation.replicas.iter().filter_map(|replica| replica.versions.as_ref().ok());
    versions.flatten().filter_map(|version| version.dots.first().copied()).collect()
}

fn is_value(version: &Version, now_ms: u64) -> bool {
    version.is_value_at(now_ms)
}

/// Whether it was a value, and is none any more because time has passed.
fn is_expired(version: &Version, now_ms: u64) -> bool {
    version.kind == Kind::Put && !version.is_value_at(now_ms)
}

/// The clock of the owner that asked, by which values have expired.
fn clock_ms(explanation: &Explanation) -> u64 {
    explanation.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn first_dot(version: &Version) -> String {
    version.dots.first().map_or_else(|| "?".to_owned(), |dot| short(*dot))
}

/// Enough of a dot for people: the start of its origin, and its counter.
fn short(dot: Dot) -> String {
    format!("{}:{}", &dot.origin.short()[..6], dot.counter)
}

fn with_zone(view: &ClusterView, node: &String) -> String {
    match view.layout.member_named(node) {
        Some(member) => format!("{node}({})", member.zone()),
        None => node.clone(),
    }
}

fn document(names: &Names<'_>, explanation: &Explanation) -> Map<String, Value> {
    let (all, now_ms) = (all_dots(explanation), clock_ms(explanation));
    let mut map = json::object("galvani.explain/1");
    map.insert("hash".to_owned(), format!("{:016x}", explanation.hash).into());
    map.insert("partition".to_owned(), explanation.shard.partition.0.into());
    map.insert("n".to_owned(), explanation.shard.n.into());
    map.insert("owners".to_owned(), explanation.owners.clone().into());
    map.insert("fallbacks".to_owned(), explanation.fallbacks.clone().into());
    let replica = |replica: &ReplicaState| match &replica.versions {
        Err(answer) => value!({ "node": replica.node, "error": answer.to_string() }),
        Ok(versions) => value!({
            "node": replica.node,
            "values": versions.iter().filter(|version| is_value(version, now_ms)).count(),
            "versions":
                versions.iter().map(|one| version_json(names, one, now_ms)).collect::<Vec<_>>(),
            "missing": missing(replica, versions, &all),
        }),
    };
    map.insert("replicas".to_owned(), explanation.replicas.iter().map(replica).collect());
    map.insert("r1_answers".to_owned(), explanation.coordinator.as_str().into());
    let holder = |holder: &HolderState| match &holder.hints {
        Err(answer) => value!({ "node": holder.node, "error": answer.to_string() }),
        Ok(hints) => value!({
            "node": holder.node,
            "hints": hints.iter().map(|(owner, dot)| value!({
                "for": owner,
                "dot": format!("{}:{}", dot.origin, dot.counter),
            })).collect::<Vec<_>>(),
            "more": holder.more,
        }),
    };
    map.insert("holders".to_owned(), explanation.holders.iter().map(holder).collect());
    map
}

fn version_json(names: &Names<'_>, version: &Version, now_ms: u64) -> Value {
    let dots: Vec<String> =
        version.dots.iter().map(|dot| format!("{}:{}", dot.origin, dot.counter)).collect();
    value!({
        "dots": dots,
        "deleted": version.kind == Kind::Delete,
        "expired": is_expired(version, now_ms),
        "expires_ms": version.expires_ms,
        "node": names.key(version.author),
        "bytes": version.value_len,
        "value_hash": format!("{:016x}", version.value_hash),
    })
}

#[cfg(test)]
mod tests {
    use super::{answer_words, end_words};

    #[test]
    fn all_that_is_known_is_said_only_if_all_have_answered() {
        let words = answer_words("n1", Some(&[]), &[]);
        assert_eq!(words, "n1 would answer, with all that is known");
        assert_eq!(
            answer_words("n1", Some(&[]), &["n3"]),
            "n1 would answer, with all that those have who answered; \
             n3 did not answer and may have more"
        );
        let lacks = ["a1b2c3:4".to_owned()];
        let words = answer_words("n1", Some(&lacks), &[]);
        assert_eq!(words, "n1 would answer, without a1b2c3:4");
        assert!(answer_words("n1", None, &["n1"]).contains("n1 did not answer"));
    }

    #[test]
    fn an_end_is_ahead_or_past() {
        assert_eq!(end_words(0, 5_000), "");
        assert_eq!(end_words(9_000, 5_000), ", expires in 4 s");
        assert_eq!(end_words(5_000, 5_000), ", expired 0 s ago");
        assert_eq!(end_words(5_000, 9_999), ", expired 4 s ago");
    }
}
