//! Damage by name, in `status` and `repair`: rows that are not mended, files that cannot be read.
//!
//! A node names the first of its damaged rows and counts all. A file stays damaged when the rows in
//! it are mended: the way back is to let the node fill itself anew. Next to read: `repair.rs`.

use crate::report::text::{count, key};
use galvani_client::{Damage, NodeReport};
use serde_json::{Value, json};

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

/// Lines of the status about damage; none if there is none.
pub(super) fn words(reports: &[NodeReport]) -> String {
    let mut lines = String::new();
    for report in reports {
        let Ok(status) = &report.status else { continue };
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
    use super::{document, row};
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
}
