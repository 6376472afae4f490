//! Damage by name, in `status` and `repair`: rows that are not mended, files that cannot be read.
//!
//! A node names the first of its damaged rows and counts all. A file stays damaged when the rows in
//! it are mended: the way back is to let the node fill itself anew. Shards of which two owners hold
//! different objects of the same history are named as long as they do. Next to read: `repair.rs`.

use crate::names::Names;
use crate::report::text::{count, key};
use galvani_client::{Damage, NodeReport, Shard, UnequalShard};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A damaged row as people can look for it.
pub(super) fn row(row: &Damage) -> String {
    let (shard, what) = match row {
        Damage::Record(shard, dot) => (shard, format!("record {dot}")),
        Damage::Object(shard, name) => {
            (shard, format!("key {} of bucket {}", key(name.bytes()), name.bucket()))
        }
        Damage::Request(shard, write) => (shard, format!("what a retry of {write} is known by")),
    };
    format!("partition {} (n={}): {what}", shard.partition.0, shard.n)
}

/// The same for scripts.
pub(super) fn document(rows: &[Damage]) -> Value {
    let one = |row: &Damage| {
        let shard = row.shard();
        let mut map = serde_json::Map::new();
        map.insert("partition".to_owned(), shard.partition.0.into());
        map.insert("n".to_owned(), shard.n.into());
        match row {
            Damage::Record(_, dot) => {
                map.insert("record".to_owned(), dot.to_string().into());
            }
            Damage::Object(_, name) => {
                map.insert("bucket".to_owned(), name.bucket().as_str().into());
                crate::report::json::put_bytes(&mut map, "key", name.bytes());
            }
            Damage::Request(_, write) => {
                map.insert("request".to_owned(), write.to_string().into());
            }
        }
        Value::Object(map)
    };
    json!(rows.iter().map(one).collect::<Vec<Value>>())
}

/// What is unequal now, as far as it is named: the shard, and the two owners by name.
fn unequal(names: &Names<'_>, reports: &[NodeReport]) -> BTreeSet<(Shard, [String; 2])> {
    let mut found = BTreeSet::new();
    for report in reports {
        let Ok(status) = &report.status else { continue };
        for UnequalShard { shard, peer } in &status.unequal {
            let mut owners = [report.name.clone(), names.word(*peer)];
            owners.sort();
            found.insert((*shard, owners));
        }
    }
    found
}

/// The alarm in the line about repair; `met` is how often equal histories with unequal digests were
/// met since the nodes started.
pub(super) fn alarm(names: &Names<'_>, reports: &[NodeReport], met: u64) -> String {
    let shards: BTreeSet<Shard> = unequal(names, reports).into_iter().map(|(at, _)| at).collect();
    alarm_words(shards.len() as u64, met)
}

fn alarm_words(now: u64, met: u64) -> String {
    match (now, met) {
        (0, 0) => String::new(),
        (0, met) => format!("   {} met since the start, none now", count(met, "unequal digest")),
        (now, _) => format!("   DAMAGE: {} unequal", count(now, "shard")),
    }
}

fn unequal_line(shard: Shard, owners: &[String; 2]) -> String {
    let (partition, [one, other]) = (shard.partition.0, owners);
    format!(
        "unequal      partition {partition} (n={}): {one} and {other} have taken in the same and \
         hold different objects   mended by itself; at once: galvani repair --partition \
         {partition}\n",
        shard.n
    )
}

/// The same of one node for scripts.
pub(super) fn unequal_document(names: &Names<'_>, found: &[UnequalShard]) -> Value {
    let one = |UnequalShard { shard, peer }: &UnequalShard| json!({ "partition": shard.partition.0, "n": shard.n, "peer": names.key(*peer) });
    json!(found.iter().map(one).collect::<Vec<Value>>())
}

/// Lines of the status about damage; none if there is none.
pub(super) fn words(names: &Names<'_>, reports: &[NodeReport]) -> String {
    let found = unequal(names, reports);
    let mut lines: String = found.iter().map(|(at, owners)| unequal_line(*at, owners)).collect();
    for report in reports {
        let Ok(status) = &report.status else { continue };
        let unnamed = u64::from(status.unequal_all).saturating_sub(status.unequal.len() as u64);
        if unnamed > 0 {
            lines +=
                &format!("unequal      {} and {} more\n", report.name, count(unnamed, "shard"));
        }
        let all = status.counters.rows_damaged;
        for damaged in &status.damaged {
            lines += &format!("damaged      {} {}\n", report.name, row(damaged));
        }
        let unnamed = all.saturating_sub(status.damaged.len() as u64);
        if unnamed > 0 && !status.damaged.is_empty() {
            lines += &format!("damaged      {} and {} more\n", report.name, count(unnamed, "row"));
        }
        for file in &status.damaged_files {
            lines += &format!("files        DAMAGED: {} {file}\n", report.name);
        }
        if status.unreadable > 0 || !status.damaged_files.is_empty() {
            let name = &report.name;
            lines += &format!(
                "files        {name} met parts of data files that it cannot read   \
                 galvani repair --node {name} says what to do\n"
            );
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{alarm_words, document, row, unequal_line};
    use galvani_client::{BucketName, Damage, Partition, Shard};
    use galvani_model::key::Key;

    #[test]
    fn a_damaged_object_is_named_so_that_it_can_be_asked_for() {
        let bucket: BucketName = "shop".parse().expect("a name");
        let shard = Shard { partition: Partition(17), n: 3 };
        let damage = Damage::Object(shard, Key::new(bucket, "cart/42\n").expect("a key"));
        assert_eq!(row(&damage), "partition 17 (n=3): key cart/42\\n of bucket shop");
        let json = document(&[damage]).to_string();
        assert_eq!(json, r#"[{"bucket":"shop","key":"cart/42\n","n":3,"partition":17}]"#);
    }

    #[test]
    fn unequal_replicas_are_an_alarm_until_they_are_mended() {
        assert_eq!(alarm_words(0, 0), "");
        assert_eq!(alarm_words(2, 5), "   DAMAGE: 2 shards unequal");
        assert_eq!(alarm_words(0, 5), "   5 unequal digests met since the start, none now");
        let shard = Shard { partition: Partition(17), n: 3 };
        assert_eq!(
            unequal_line(shard, &["n1".to_owned(), "n2".to_owned()]),
            "unequal      partition 17 (n=3): n1 and n2 have taken in the same and hold different \
             objects   mended by itself; at once: galvani repair --partition 17\n"
        );
    }
}
