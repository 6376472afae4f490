//! Blocks of what goes wrong without, or before, an answer of a server: the likely mistakes.
//!
//! One function a mistake; each says what, why and what to type next. What servers refuse is
//! worded in `client.rs`.

use crate::exit::Exit;
use crate::report::text::{clock, count, key, quoted, shell};
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

/// Nothing says which cluster is meant.
pub(crate) fn no_cluster_selected() -> Report {
    Report::new(Exit::NoServer, "no galvani server is known: no context is selected")
        .why("a context says where a cluster is; `galvani dev` makes one")
        .next_line(vec![
            ("try", "galvani dev -d".to_owned()),
            ("or", "galvani --server HOST:PORT --identity DIR ..".to_owned()),
        ])
}

/// No context has this name.
pub(crate) fn no_such_context(name: &str, known: &[String]) -> Report {
    let known = match known.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there are {}", known.join(", ")),
    };
    Report::new(Exit::Usage, format!("no context {name:?}"))
        .why(known)
        .next("see", "galvani ctx ls")
}

/// No seed answered.
pub(crate) fn no_server(detail: &str, context: Option<&str>, local: LocalCluster) -> Report {
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
        LocalCluster::Stopped => report.next("try", "galvani dev start"),
        LocalCluster::Running => report.next_line(vec![
            ("see", "galvani dev status".to_owned()),
            ("or", "galvani dev logs NODE".to_owned()),
        ]),
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
        .why("`galvani cluster create` and `galvani dev` make one, in DIR/client")
        .next("say", "--identity DIR")
}

/// A key has several values and nothing says which to take. `place` is the key, with its bucket
/// option where it needs one, as one types it.
pub(crate) fn siblings(read: &Read, shown: &str, place: &str) -> Report {
    let all: Vec<&Sibling> = read.siblings.iter().filter(|one| one.value.is_some()).collect();
    siblings_block(&all, shown, place)
}

fn siblings_block(all: &[&Sibling], shown: &str, place: &str) -> Report {
    let head = format!("{shown} has {} siblings (concurrent writes); printed none", all.len());
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
    report
        .next_line(vec![
            ("see", format!("galvani get {place} --siblings json")),
            ("pick", format!("galvani put {place} --take {}", all.len())),
        ])
        .next(
            "merge",
            format!(
                "galvani update {place} -- jq -rs \
                 '[.[].value|split(\",\")[]]|unique|join(\",\")'"
            ),
        )
}

/// One sibling for scripts.
pub(crate) fn sibling_json(one: &Sibling) -> Value {
    let mut map = Map::new();
    if let Some(value) = &one.value {
        json::put_bytes(&mut map, "value", value);
    }
    map.insert("node".to_owned(), one.node.as_str().into());
    map.insert("written_at".to_owned(), json::time(one.written_at).into());
    Value::Object(map)
}

/// `--take` names a sibling that is not there.
pub(crate) fn no_such_sibling(take: usize, there: usize, place: &str) -> Report {
    let there = count(there as u64, "value");
    Report::new(Exit::Refused, format!("put: there is no sibling #{take}: {there}"))
        .why("NOTHING WAS WRITTEN")
        .field("applied", "no")
        .next("see", format!("galvani get {place} --siblings table"))
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
pub(crate) fn kept_as_sibling(now: u32, place: &str) -> String {
    format!(
        "others wrote since that context was read; your value was kept as a sibling ({now} now)\n  \
         merge  galvani update {place} -- CMD"
    )
}

/// A key is on its way to the limit of siblings.
pub(crate) fn many_siblings(now: u32, place: &str) -> String {
    format!(
        "warn  {place} has {now} siblings; at {SIBLINGS_MAX} writes that add one are refused\n  \
         merge  galvani update {place} -- CMD"
    )
}

/// A UDP port of the local cluster is taken. Only a `new` cluster may still choose others.
pub(crate) fn port_taken(port: u16, owner: Option<(u32, String)>, new: bool) -> Report {
    let pid = owner.as_ref().map(|(pid, _)| *pid);
    let what = match owner {
        Some((pid, command)) => format!("udp {port} is used by pid {pid} ({command})"),
        None => format!("udp {port} is used by another process"),
    };
    let report = Report::new(Exit::Refused, what).why("nothing was started");
    match (new, pid) {
        (true, _) => report.next("try", "galvani dev --ports auto"),
        (false, Some(pid)) => report
            .why("a cluster keeps the ports it was made with")
            .next("free it", format!("kill {pid}")),
        (false, None) => report
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
        .next("see", "galvani bucket create --help")
}

/// A file named on the command line cannot be used.
pub(crate) fn file(path: &Path, error: &std::io::Error) -> Report {
    Report::new(Exit::Usage, format!("{}: {error}", path.display()))
}

/// The key as one types it, with its bucket if that is not `default`.
pub(crate) fn place(bucket: &str, key: &[u8]) -> String {
    match bucket {
        "default" => shell(key).into_owned(),
        bucket => format!("{} -b {bucket}", shell(key)),
    }
}

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
            written_at: UNIX_EPOCH + Duration::from_secs(19_867 + second),
            node: node.to_owned(),
            dot: galvani_client::Dot::new(Origin(1), 1),
        };
        let (milk, tea) = (sibling("milk,eggs", "n1", 0), sibling("milk,tea", "n3", 2));
        let report = siblings_block(&[&milk, &tea], "cart/42", "cart/42");
        assert_eq!(report.exit.code(), 4);
        assert_eq!(
            report.to_string(),
            "error  cart/42 has 2 siblings (concurrent writes); printed none\n       \
             #1  \"milk,eggs\"  by n1  05:31:07Z\n       \
             #2  \"milk,tea\"  by n3  05:31:09Z\n  \
             see    galvani get cart/42 --siblings json      pick  galvani put cart/42 --take 2\n  \
             merge  galvani update cart/42 -- jq -rs \
             '[.[].value|split(\",\")[]]|unique|join(\",\")'"
        );
    }

    #[test]
    fn no_cluster_says_how_to_get_one() {
        let stopped =
            no_server("127.0.0.1:7070 (udp, no answer in 1 s)", Some("dev"), LocalCluster::Stopped);
        assert_eq!(stopped.exit.code(), 8);
        assert_eq!(
            stopped.to_string(),
            "error  no galvani server at 127.0.0.1:7070 (udp, no answer in 1 s)\n       \
             context dev, its cluster is stopped\n  \
             try  galvani dev start"
        );
        assert_eq!(no_cluster_selected().exit.code(), 8);
        assert_eq!(no_identity(None).exit.code(), 9);
    }

    #[test]
    fn a_taken_port_names_its_owner() {
        let owner = Some((3112, "galvani server, cluster old".to_owned()));
        let report = port_taken(7070, owner, true);
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
        assert!(kept_as_sibling(2, "cart/42").contains("kept as a sibling (2 now)"));
    }

    #[test]
    fn keys_are_typed_with_their_bucket() {
        assert_eq!(place("default", b"a b"), "'a b'");
        assert_eq!(place("shop", b"cart/42"), "cart/42 -b shop");
    }
}
