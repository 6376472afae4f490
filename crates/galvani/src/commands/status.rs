//! `status`: how the nodes are, and what the cluster can still lose.
//!
//! Every node has a second to answer; one that does not is listed as such. What can be lost is
//! counted in `safety.rs`.

use crate::args::see::Status;
use crate::commands::consumers::{self, Groups};
use crate::commands::safety::{self, Safety};
use crate::commands::{Done, certificates, changes, damage, graves, refill};
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::names::Names;
use crate::report::text::{Age, Size, count, grouped};
use crate::report::{Report, faults, json};
use galvani_client::{ClusterView, Counters, HintFigures, NodeId, NodeReport};
use serde_json::{Map, Value, json as value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Shows it, once or again and again.
pub(crate) async fn run(app: &App, args: Status) -> Done {
    let session = app.connect().await?;
    loop {
        show(app, &session, args.watch).await?;
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(args.every).await;
    }
}

async fn show(app: &App, session: &Session, again: bool) -> Result<(), Report> {
    if again {
        // One that does not answer is listed as such; then the last view is shown.
        let _ = session.client.look().await;
    }
    let reports = session.client.status().await;
    let view = session.client.cluster();
    let names = app.names(&view);
    let safety = Safety::of(&view, &reports);
    let applicants = changes::applicants(session, &reports).await;
    let groups = consumers::all(session, &view).await;
    if app.out.is_json() {
        let mut map = document(&view, &names, &reports, &safety);
        map.insert("groups".to_owned(), consumers::document(&groups, consumers::keep(&reports)));
        map.insert("change".to_owned(), changes::document(&view, &reports));
        map.insert("applicants".to_owned(), changes::applicants_document(&applicants));
        return app.out.json(map);
    }
    if again && io::stdout().is_terminal() {
        app.out.bytes(b"\x1b[H\x1b[2J")?;
    }
    let change = changes::lines(&view, &reports, &applicants);
    app.out.line(&page(&view, &names, &reports, &safety, &groups, &change))
}

fn page(
    view: &ClusterView,
    names: &Names<'_>,
    reports: &[NodeReport],
    safety: &Safety,
    groups: &Groups,
    change: &str,
) -> String {
    let zones: BTreeSet<&str> = reports.iter().map(|report| report.zone.as_str()).collect();
    let Safety { n, whole, degraded, lost, .. } = *safety;
    let partitions = view.layout.partitions();
    let mut table = crate::output::table(&[
        "node",
        "zone",
        "state",
        "owns",
        "puts",
        "gets",
        "errors",
        "in flight",
        "disk",
        "memory",
        "peers down",
        "version",
    ]);
    for report in reports {
        table.add_row(row(view, names, report, n));
    }
    format!(
        "cluster {}  {}  {}  n={n}  {partitions} partitions  layout v{}\n{change}\
         can lose     {}\n\
         partitions   {partitions}: {whole} all owners up   {degraded} degraded   {lost} quorum \
         lost\n{}{}repair       {}\n{}hints        {}\ntombstones   {}\nlog          {}\n{}{}{}{}{}",
        view.name,
        count(reports.len() as u64, "node"),
        count(zones.len() as u64, "zone"),
        view.layout.version(),
        safety.words(),
        twice_words(names, reports),
        refill::words(names, reports),
        repair_words(names, reports),
        damage::words(names, reports),
        hint_words(names, reports),
        graves::words(names, reports),
        graves::log_words(names, reports),
        consumers::words(groups, consumers::keep(reports)),
        sight_words(names, reports),
        certificates::words(reports),
        fault_words(names, reports),
        crate::output::trimmed(&table),
    )
}

/// What anti-entropy has yet to bring, and whether it found replicas that ought to be equal.
fn repair_words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let behind: Vec<String> = reports
        .iter()
        .filter_map(|report| {
            let shards = report.status.as_ref().map_or(0, |status| status.shards_behind);
            let words = count(u64::from(shards), "shard");
            (shards > 0).then(|| format!("{} lacks something of {words}", report.name))
        })
        .collect();
    let pulled: u64 = counted(reports, |counters| counters.records_pulled);
    let unequal: u64 = counted(reports, |counters| counters.digests_unequal);
    let held = reports.iter().filter_map(|report| report.status.as_ref().ok());
    let held = held.flat_map(|status| status.hints.values()).map(|held| held.count).sum();
    let behind = lacking(&behind, &safety::away(reports), held);
    let alarm = damage::alarm(names, reports, unequal);
    let damaged: u64 = counted(reports, |counters| counters.rows_damaged);
    let lost: u64 = counted(reports, |counters| counters.readopted);
    let mended: u64 = counted(reports, |counters| counters.rows_mended) + lost;
    let mended = match mended {
        0 => String::new(),
        rows => format!("   {} mended", count(rows, "damaged or lost row")),
    };
    let damaged = match damaged {
        0 => String::new(),
        rows => format!("   DAMAGE: {} not mended yet", count(rows, "row")),
    };
    let brought = count(pulled, "record");
    format!("{behind}   {brought} brought by anti-entropy{mended}{damaged}{alarm}")
}

/// What is known to be lacking, and what is not known yet.
fn lacking(behind: &[String], away: &[String], hints: u64) -> String {
    let mut words = behind.to_vec();
    match hints {
        0 => {}
        1 => words.push("1 hint waits".to_owned()),
        hints => words.push(format!("{} wait", count(hints, "hint"))),
    }
    match away {
        [] => {}
        [one] => words.push(format!("{one} is away: what it misses is found when it is back")),
        all => words.push(format!(
            "{} are away: what they miss is found when they are back",
            all.join(" ")
        )),
    }
    match words.is_empty() {
        true => "no replica is known to lack anything".to_owned(),
        false => words.join(", "),
    }
}

/// Who cannot reach whom, in the words of each node that answered: a client may reach them all while
/// they are cut off from each other. No line if everybody sees everybody.
fn sight_words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let mut words = Vec::new();
    for report in reports {
        let Ok(status) = &report.status else { continue };
        let mut say = |verb: &str, peers: &[NodeId]| {
            if !peers.is_empty() {
                let peers: Vec<String> = peers.iter().map(|&peer| names.word(peer)).collect();
                words.push(format!("{} {verb} {}", report.name, peers.join(", ")));
            }
        };
        say("cannot reach", &status.peers_down);
        say("suspects", &status.peers_suspect);
        let unnamed = |peer: &&NodeId| !status.peers_down.contains(peer);
        let silent: Vec<NodeId> = status.peers_silent.iter().filter(unnamed).copied().collect();
        say("gets no answers from", &silent);
    }
    if words.is_empty() { String::new() } else { format!("sight        {}\n", words.join("   ")) }
}

/// Nodes of which several processes run; no line if there are none.
fn twice_words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let mut twice: BTreeMap<NodeId, BTreeSet<SocketAddr>> = BTreeMap::new();
    for status in reports.iter().filter_map(|report| report.status.as_ref().ok()) {
        for (&node, places) in &status.runs_twice {
            twice.entry(node).or_default().extend(places);
        }
    }
    let words = |(node, places): (NodeId, BTreeSet<SocketAddr>)| {
        let places: Vec<String> = places.iter().map(SocketAddr::to_string).collect();
        let (node, places) = (names.word(node), places.join(", "));
        format!("twice        ONE TOO MANY: {node} runs at {places}   stop the copy\n")
    };
    twice.into_iter().map(words).collect()
}

/// Faults that somebody has set on purpose, so that nobody forgets them; no line if there are none.
fn fault_words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let words = reports.iter().filter_map(|report| {
        let status = report.status.as_ref().ok()?;
        faults::words(&report.name, names, &status.faults)
    });
    let words: Vec<String> = words.collect();
    match words.is_empty() {
        true => String::new(),
        false => {
            format!("faults       SET ON PURPOSE: {}   undo: galvani dev heal\n", words.join("   "))
        }
    }
}

/// What stand-ins hold for owners that were away.
fn hint_words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let mut held: BTreeMap<NodeId, HintFigures> = BTreeMap::new();
    for status in reports.iter().filter_map(|report| report.status.as_ref().ok()) {
        for (&owner, figures) in &status.hints {
            held.entry(owner).or_default().add(figures);
        }
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let words = held.into_iter().map(|(owner, HintFigures { count: held, bytes, since_ms })| {
        let age_s = (now_ms as u64).saturating_sub(since_ms) / 1000;
        let since = match since_ms {
            0 => "damaged".to_owned(),
            _ => format!("oldest {}", Age(age_s)),
        };
        format!("{} for {}, {}, {since}", count(held, "hint"), names.word(owner), Size(bytes))
    });
    let mut words: Vec<String> = words.collect();
    if words.is_empty() {
        words.push("none held".to_owned());
    }
    words.extend(no_room(counted(reports, |counters| counters.hints_refused)));
    words.join("   ")
}

/// That hints were refused since the nodes started, if any were.
fn no_room(refused: u64) -> Option<String> {
    let refused = Some(refused).filter(|refused| *refused > 0)?;
    let refused = count(refused, "hint");
    Some(format!("NO ROOM for {refused} since the start: see limits.hint_bytes"))
}

fn counted(reports: &[NodeReport], figure: impl Fn(&Counters) -> u64) -> u64 {
    reports
        .iter()
        .filter_map(|report| report.status.as_ref().ok())
        .map(|s| figure(&s.counters))
        .sum()
}

fn row(view: &ClusterView, names: &Names<'_>, report: &NodeReport, n: u8) -> Vec<String> {
    let owned = view.layout.owned(report.id, n).count() as f64;
    let all = f64::from(view.layout.partitions()) * f64::from(n);
    let mut cells = vec![report.name.clone(), report.zone.clone()];
    let owns = format!("{:.1} %", owned * 100.0 / all.max(1.0));
    match &report.status {
        Ok(status) => {
            let counters = &status.counters;
            let down: Vec<String> = status.peers_down.iter().map(|id| names.word(*id)).collect();
            cells.extend([
                format!("up {}", Age(status.uptime_s)),
                owns,
                grouped(counters.puts),
                grouped(counters.gets),
                grouped(counters.quorum_failures),
                status.inflight.to_string(),
                Size(status.disk_bytes).to_string(),
                Size(status.memory_bytes).to_string(),
                if down.is_empty() { "-".to_owned() } else { down.join(" ") },
                status.version.clone(),
            ]);
        }
        Err(_) => {
            cells.extend(["NO ANSWER".to_owned(), owns]);
            cells.extend(std::iter::repeat_n("-".to_owned(), 8));
        }
    }
    cells
}

fn document(
    view: &ClusterView,
    names: &Names<'_>,
    reports: &[NodeReport],
    safety: &Safety,
) -> Map<String, Value> {
    let mut map = json::object("galvani.status/1");
    map.insert("cluster".to_owned(), view.name.as_str().into());
    map.insert("cluster_id".to_owned(), view.cluster.to_string().into());
    map.insert("layout_version".to_owned(), view.layout.version().into());
    let Safety { n, r, w, whole, degraded, lost, .. } = *safety;
    map.insert("quorum".to_owned(), value!({ "n": n, "r": r, "w": w }));
    map.insert("can_lose_nodes".to_owned(), safety.nodes().into());
    map.insert("not_counted_as_copies".to_owned(), safety.flawed().collect::<Vec<_>>().into());
    let partitions = value!({
        "all": view.layout.partitions(),
        "all_owners_up": whole,
        "degraded": degraded,
        "quorum_lost": lost,
    });
    map.insert("partitions".to_owned(), partitions);
    map.insert("nodes".to_owned(), reports.iter().map(|report| node_json(names, report)).collect());
    map
}

fn node_json(names: &Names<'_>, report: &NodeReport) -> Value {
    let mut node = value!({
        "name": report.name,
        "id": report.id.to_string(),
        "zone": report.zone,
        "up": report.status.is_ok(),
        "certificate_expires_s": report.certificate_expires_s,
    });
    let more = match &report.status {
        Err(error) => value!({ "error": error.to_string() }),
        Ok(status) => {
            let keys =
                |ids: &[NodeId]| -> Vec<String> { ids.iter().map(|id| names.key(*id)).collect() };
            value!({
                "version": status.version,
                "pid": status.pid,
                "uptime_s": status.uptime_s,
                "lanes": status.lanes,
                "durability": status.durability,
                "disk_bytes": status.disk_bytes,
                "memory_bytes": status.memory_bytes,
                "cpu_micros": status.cpu_micros,
                "bytes_in": status.bytes_in,
                "bytes_out": status.bytes_out,
                "inflight": status.inflight,
                "shards_behind": status.shards_behind,
                "layout_epoch": status.layout_epoch,
                "shards_copying": status.shards_copying,
                "refilling": refill::document(names, &status.refilling),
                "shards_leaving": status.shards_leaving,
                "tombstones": status.tombstones,
                "expiring": status.expiring,
                "collection_waits": graves::document(names, &status.collection_waits),
                "trim_waits": keys(&status.trim_waits),
                "hints": status.hints.iter().map(|(owner, held)| value!({
                    "for": names.key(*owner),
                    "count": held.count,
                    "bytes": held.bytes,
                    "since_ms": held.since_ms,
                })).collect::<Vec<Value>>(),
                "peers_up": keys(&status.peers_up),
                "peers_down": keys(&status.peers_down),
                "peers_suspect": keys(&status.peers_suspect),
                "peers_silent": keys(&status.peers_silent),
                "faults": faults::document(names, &status.faults),
                "damaged": damage::document(&status.damaged),
                "unequal": damage::unequal_document(names, &status.unequal),
                "unequal_all": status.unequal_all,
                "unreadable": status.unreadable,
                "damaged_files": status.damaged_files,
                "feed_keep_ms": status.feed_keep_ms,
                "runs_twice": status.runs_twice.iter().map(|(node, places)| value!({
                    "node": names.key(*node),
                    "at": places,
                })).collect::<Vec<Value>>(),
                "counters": counters_json(&status.counters),
            })
        }
    };
    if let (Value::Object(node), Value::Object(more)) = (&mut node, more) {
        node.extend(more);
    }
    node
}

fn counters_json(counters: &Counters) -> Value {
    value!({
        "puts": counters.puts,
        "gets": counters.gets,
        "replicated": counters.replicated,
        "duplicates": counters.duplicates,
        "quorum_failures": counters.quorum_failures,
        "refused": counters.refused,
        "repairs_sent": counters.repairs_sent,
        "repairs_skipped": counters.repairs_skipped,
        "retries_recognised": counters.retries_recognised,
        "lww_discarded": counters.lww_discarded,
        "incarnations": counters.incarnations,
        "turned_away": counters.turned_away,
        "rate_limited": counters.rate_limited,
        "expired": counters.expired,
        "quarantined": counters.quarantined,
        "shards_compared": counters.shards_compared,
        "shards_differing": counters.shards_differing,
        "records_pulled": counters.records_pulled,
        "bytes_pulled": counters.bytes_pulled,
        "digests_unequal": counters.digests_unequal,
        "members_lost": counters.members_lost,
        "breakers_opened": counters.breakers_opened,
        "datagrams_dropped": counters.datagrams_dropped,
        "feed_pages": counters.feed_pages,
        "feed_events": counters.feed_events,
        "tombstones_collected": counters.tombstones_collected,
        "expired_collected": counters.expired_collected,
        "records_trimmed": counters.records_trimmed,
        "bytes_trimmed": counters.bytes_trimmed,
        "digests_corrected": counters.digests_corrected,
        "readopted": counters.readopted,
        "rows_verified": counters.rows_verified,
        "rows_mended": counters.rows_mended,
        "rows_damaged": counters.rows_damaged,
        "hints_held": counters.hints_held,
        "hints_refused": counters.hints_refused,
        "hints_delivered": counters.hints_delivered,
        "hints_received": counters.hints_received,
    })
}

#[cfg(test)]
mod tests {
    use super::{lacking, no_room};

    #[test]
    fn a_full_hint_store_is_told() {
        assert_eq!(no_room(0), None);
        let words = "NO ROOM for 4 100 hints since the start: see limits.hint_bytes";
        assert_eq!(no_room(4_100).as_deref(), Some(words));
    }

    #[test]
    fn nothing_lacks_only_while_all_are_there_and_no_hint_waits() {
        let (none, away): (Vec<String>, _) = (Vec::new(), vec!["n4".to_owned()]);
        let behind = vec!["n2 lacks something of 3 shards".to_owned()];
        assert_eq!(lacking(&none, &none, 0), "no replica is known to lack anything");
        assert_eq!(
            lacking(&none, &away, 29),
            "29 hints wait, n4 is away: what it misses is found when it is back"
        );
        assert_eq!(lacking(&behind, &none, 1), "n2 lacks something of 3 shards, 1 hint waits");
        let two = vec!["n3".to_owned(), "n4".to_owned()];
        let words = "n3 n4 are away: what they miss is found when they are back";
        assert_eq!(lacking(&none, &two, 0), words);
    }
}
