//! Blocks of what goes wrong without, or before, an answer of a server: the likely mistakes.
//!
//! One function a mistake; each says what, why and what to type next. What servers refuse is
//! worded in `client.rs`.

use crate::args::data::ReadQuorum;
use crate::args::line::Line;
use crate::args::retype::Options;
use crate::exit::Exit;
use crate::report::client::{About, Retype};
use crate::report::text::{clock, count, key, quoted};
use crate::report::{Report, json};
use galvani_client::{Read, Sibling};
use galvani_model::limits::SIBLINGS_MAX;
use serde_json::{Map, Value};
use std::path::Path;

/// Whether a context's local cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalCluster {
    /// It is not one, or nothing is known of it.
    Unknown,
    /// No process of it runs.
    Stopped,
    /// Some of its processes run.
    Running,
}

/// Nothing says which cluster is meant; contexts there are.
pub(crate) fn no_cluster_selected(known: &[String]) -> Report {
    let report = Report::new(Exit::NoServer, "no galvani server is known: no context is selected");
    let report = match known.is_empty() {
        true => report.why("a context says where a cluster is; `galvani dev` makes one"),
        false => report.why(format!("contexts there are: {}", known.join(", "))),
    };
    let report = report.why("or name a server, and who asks: --server HOST:PORT --identity DIR");
    match known {
        [] => report.next("try", "galvani dev -d"),
        [first, ..] => report.next("try", Line::new("ctx use").place(first.as_str()).to_string()),
    }
}

/// No context has this name.
pub(crate) fn no_such_context(name: &str, known: &[String]) -> Report {
    let known = match known.is_empty() {
        true => "there is none".to_owned(),
        false => format!("known: {}", known.join(", ")),
    };
    Report::new(Exit::Usage, format!("no context {name:?}"))
        .why(known)
        .next("see", "galvani ctx ls")
}

/// No seed answered.
pub(crate) fn no_server(
    detail: &str,
    context: Option<&str>,
    local: LocalCluster,
    cluster: &Options,
) -> Report {
    let command = |command| Line::new(command).with_all(cluster).to_string();
    let report = Report::new(Exit::NoServer, format!("no galvani server at {detail}"))
        .field("kind", "unreachable");
    let report = match (context, local) {
        (None, _) => report,
        (Some(name), LocalCluster::Stopped) => {
            report.why(format!("context {name}, its cluster is stopped"))
        }
        (Some(name), LocalCluster::Running) => {
            report.why(format!("context {name}, its processes run but do not answer"))
        }
        (Some(name), LocalCluster::Unknown) => report.why(format!("context {name}")),
    };
    match local {
        LocalCluster::Stopped => report.next("try", command("dev start")),
        LocalCluster::Running => report.next("see", command("dev status")),
        LocalCluster::Unknown => report.next("see", "galvani ctx ls"),
    }
}

/// There is no identity to show to a server.
pub(crate) fn no_identity(dir: Option<&Path>) -> Report {
    let what = match dir {
        Some(dir) => format!("no identity in {}: cert.pem is not there", dir.display()),
        None => "no identity: servers ask every client for a certificate".to_owned(),
    };
    Report::new(Exit::NotTrusted, what)
        .why("`galvani cluster create` and `galvani dev` make one, in DIR/client: --identity DIR")
        .next("see", "galvani ctx ls")
}

/// A key has several values and nothing says which to take. The ways out read as `get` did, so that
/// they number the same values.
pub(crate) fn siblings(read: &Read, get: &Retype, asked: &ReadQuorum) -> Report {
    let all: Vec<&Sibling> = read.siblings.iter().filter(|one| one.value.is_some()).collect();
    siblings_block(&all, get, asked)
}

pub(crate) fn siblings_block(all: &[&Sibling], get: &Retype, asked: &ReadQuorum) -> Report {
    let head =
        format!("{} has {} siblings (concurrent writes); printed none", get.subject, all.len());
    let mut report =
        Report::new(Exit::Siblings, head).field("kind", "conflict").field("siblings", all.len());
    let line = |(index, one): (usize, &&Sibling)| {
        let value = one.value.as_deref().unwrap_or_default();
        format!("#{}  {}  by {}  {}", index + 1, quoted(value), one.node, clock(one.written_at))
    };
    for text in all.iter().enumerate().map(line).take(SIBLINGS_SHOWN) {
        report = report.why(text);
    }
    if all.len() > SIBLINGS_SHOWN {
        report = report.why(format!("and {} more", all.len() - SIBLINGS_SHOWN));
    }
    let see = get.line.clone().without("-o").with("--siblings", "json");
    let pick = get.about.on_key("put").with("--take", all.len()).reading(asked);
    let merge = get.about.on_key("update").tail(UNION);
    let report = report.next_line(vec![("see", see.to_string()), ("pick", pick.to_string())]);
    match get.about.key.as_ref().is_some_and(|key| key.starts_with(b"-")) {
        // `update` takes what stands behind `--` for its command: it has no place for such a key.
        true => report,
        false => report.next("merge", merge.to_string()),
    }
}

/// One sibling for scripts.
pub(crate) fn sibling_json(one: &Sibling) -> Value {
    let mut map = Map::new();
    if let Some(value) = &one.value {
        json::put_bytes(&mut map, "value", value);
    }
    map.insert("node".to_owned(), one.node.as_str().into());
    map.insert("written_at".to_owned(), json::time(one.written_at).into());
    if let Some(at) = one.expires_at {
        map.insert("expires_at".to_owned(), json::time(at).into());
    }
    Value::Object(map)
}

/// `--take` names a sibling that is not there.
pub(crate) fn no_such_sibling(take: usize, there: usize, about: &About) -> Report {
    let there = count(there as u64, "value");
    Report::new(Exit::Refused, format!("put: there is no sibling #{take}: {there}"))
        .why("NOTHING WAS WRITTEN")
        .field("applied", "no")
        .next("see", in_a_table(about))
}

/// `--context` is neither a context nor a file that holds one.
pub(crate) fn no_context(about: &About) -> Report {
    Report::new(Exit::Refused, "--context is neither a context nor a file that holds one")
        .why("NOTHING WAS WRITTEN")
        .field("kind", "context_malformed")
        .field("applied", "no")
        .next("read again", about.on_key("get").with("--context-out", "new.context").to_string())
}

/// The command that numbers a key's siblings.
fn in_a_table(about: &About) -> String {
    about.on_key("get").with("--siblings", "table").to_string()
}

/// r replicas agree that there is no value.
pub(crate) fn not_found(bytes: &[u8]) -> Report {
    Report::new(Exit::NotFound, format!("{} not found", key(bytes))).field("kind", "not_found")
}

/// r + w does not overlap; a remark, no error.
pub(crate) fn overlap_note(r: u8, w: u8, n: u8) -> String {
    let half = n / 2 + 1;
    format!(
        "r={r} w={w} n={n}: a read may miss your last write; r+w>n (e.g. {half}+{}) avoids it",
        n + 1 - half
    )
}

/// A write under an old context was kept beside others; a remark, no error.
pub(crate) fn kept_as_sibling(now: u32, about: &About) -> String {
    format!(
        "others wrote since that context was read; your value was kept as a sibling ({now} now)\n  \
         see  {}",
        in_a_table(about)
    )
}

/// Others wrote between the read and the write of a put; a remark, no error.
pub(crate) fn written_meanwhile(now: u32, about: &About) -> String {
    let now = count(u64::from(now), "value");
    format!("others wrote at the same time: {now} now\n  see  {}", in_a_table(about))
}

/// A key is on its way to the limit of siblings.
pub(crate) fn many_siblings(now: u32, about: &About) -> String {
    format!(
        "it has {now} siblings; at {SIBLINGS_MAX} writes that add one are refused\n  see  {}",
        in_a_table(about)
    )
}

/// A UDP port of the local cluster is taken. Only a new cluster may still choose others: `auto`.
pub(crate) fn port_taken(port: u16, owner: Option<(u32, String)>, auto: Option<&Line>) -> Report {
    let pid = owner.as_ref().map(|(pid, _)| *pid);
    let what = match owner {
        Some((pid, command)) => format!("udp {port} is used by pid {pid} ({command})"),
        None => format!("udp {port} is used by another process"),
    };
    let report = Report::new(Exit::Refused, what).why("nothing was started");
    match (auto, pid) {
        (Some(auto), _) => report.next("try", auto.to_string()),
        (None, Some(pid)) => report
            .why("a cluster keeps the ports it was made with")
            .next("free it", format!("kill {pid}")),
        (None, None) => report
            .why("a cluster keeps the ports it was made with")
            .next("see", format!("ss -ulpn 'sport = {port}'")),
    }
}

/// A value file or stdin is larger than any bucket allows.
pub(crate) fn input_too_large(from: &str, limit: u64) -> Report {
    let limit = crate::report::text::Size(limit);
    Report::new(Exit::Refused, format!("put: {from} is over {limit}, the most a value may have"))
        .why("NOTHING WAS WRITTEN")
        .field("applied", "no")
        .next("see", "galvani help bucket create")
}

/// A file named on the command line cannot be used.
pub(crate) fn file(path: &Path, error: &std::io::Error) -> Report {
    Report::new(Exit::Usage, format!("{}: {error}", path.display()))
}

/// Merges lists with commas: the union of all values.
const UNION: [&str; 3] = ["jq", "-rs", "[.[].value|split(\",\")[]]|unique|join(\",\")"];
const SIBLINGS_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use galvani_model::ids::Origin;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn siblings_name_three_ways_out() {
        let sibling = |value: &'static str, node: &str, second: u64| Sibling {
            value: Some(value.into()),
            expires_at: None,
            written_at: UNIX_EPOCH + Duration::from_secs(19_867 + second),
            node: node.to_owned(),
            dot: galvani_client::Dot::new(Origin(1), 1),
        };
        let (milk, tea) = (sibling("milk,eggs", "n1", 0), sibling("milk,tea", "n3", 2));
        let get = retype(None, "cart/42");
        let report = siblings_block(&[&milk, &tea], &get, &ReadQuorum::default());
        assert_eq!(report.exit.code(), 4);
        assert_eq!(
            report.to_string(),
            "error  cart/42 has 2 siblings (concurrent writes); printed none\n       \
             #1  \"milk,eggs\"  by n1  05:31:07Z\n       \
             #2  \"milk,tea\"  by n3  05:31:09Z\n  \
             see    galvani get cart/42 -r 2 --siblings json      pick  galvani put cart/42 --take 2\n  \
             merge  galvani update cart/42 -- jq -rs \
             '[.[].value|split(\",\")[]]|unique|join(\",\")'"
        );
    }

    #[test]
    fn no_cluster_says_how_to_get_one() {
        let stopped = no_server(
            "127.0.0.1:7070 (udp, no answer in 1 s)",
            Some("dev"),
            LocalCluster::Stopped,
            &Options::new(),
        );
        assert_eq!(stopped.exit.code(), 8);
        assert_eq!(
            stopped.to_string(),
            "error  no galvani server at 127.0.0.1:7070 (udp, no answer in 1 s)\n       \
             context dev, its cluster is stopped\n  \
             try  galvani dev start"
        );
        assert_eq!(no_cluster_selected(&[]).exit.code(), 8);
        let known = no_cluster_selected(&["dev".to_owned(), "prod".to_owned()]).to_string();
        assert!(known.ends_with("try  galvani ctx use dev"), "{known}");
        assert_eq!(no_identity(None).exit.code(), 9);
    }

    #[test]
    fn a_taken_port_names_its_owner() {
        let owner = Some((3112, "galvani server, cluster old".to_owned()));
        let report = port_taken(7070, owner, Some(&Line::new("dev").with("--ports", "auto")));
        assert_eq!(
            report.to_string(),
            "error  udp 7070 is used by pid 3112 (galvani server, cluster old)\n       \
             nothing was started\n  \
             try  galvani dev --ports auto"
        );
    }

    #[test]
    fn remarks_name_numbers_that_overlap() {
        assert_eq!(
            overlap_note(1, 1, 3),
            "r=1 w=1 n=3: a read may miss your last write; r+w>n (e.g. 2+2) avoids it"
        );
        assert!(overlap_note(2, 2, 4).contains("(e.g. 3+2)"));
        let about = retype(Some("shop"), "it's").about;
        let text = kept_as_sibling(2, &about);
        assert!(text.contains("kept as a sibling (2 now)"), "{text}");
        assert!(text.ends_with(r"galvani get 'it'\''s' -b shop --siblings table"), "{text}");
    }

    fn retype(bucket: Option<&str>, key: &'static str) -> Retype {
        let bucket = bucket.map(|name| name.parse().expect("a name"));
        let about = About { bucket, key: Some(key.into()), ..About::default() };
        let line = about.on_key("get").with("-r", 2);
        Retype { command: "get", subject: key.to_owned(), line, about }
    }
}
