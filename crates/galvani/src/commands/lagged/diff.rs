//! `lagged diff`: each key as it was beside the key as it is.
//!
//! Keys that are the same are only counted. A key that the cluster seems to have lost a write of is read
//! again before that is said. Next to read: `galvani-lagged/src/compare.rs`.

use super::Asker;
use super::keys::{Keys, read_all, unix_ms, view};
use crate::args::lagged::Diff;
use crate::commands::Done;
use crate::connect::RETRIES;
use crate::exit::Exit;
use crate::report::Report;
use crate::report::json;
use crate::report::text::{count, key as shown_key};
use bytes::Bytes;
use galvani_client::{Bucket, BucketName};
use galvani_lagged::compare::{Difference, difference};
use galvani_lagged::{Blob, Moment, Selection, Selector};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Compares.
pub(super) async fn run(asker: &mut Asker<'_>, args: Diff) -> Done {
    let app = asker.app;
    let session = app.connect_with(app.timeout(), RETRIES).await?;
    let (_, moment, without) = asker.moment(&args.moment)?;
    let name = args.bucket.bucket.clone();
    let selection = Selection::Prefix { bucket: name.clone(), prefix: Blob(args.prefix) };
    let mut keys = Keys::of(&selection, moment, without.clone(), true);
    let bucket = session.bucket(&args.bucket);
    let (mut classes, mut unread) = (BTreeMap::<&'static str, u64>::new(), 0u64);
    let asked = Asked { bucket: &bucket, name: &name, moment, without };
    loop {
        let chunk = keys.chunk(asker)?;
        if chunk.is_empty() {
            break;
        }
        for (key, found) in asked.compare(asker, &chunk).await? {
            let Some(found) = found else {
                unread += 1;
                continue;
            };
            *classes.entry(word(&found)).or_default() += 1;
            if found != Difference::Equal {
                line(asker, &key, &found)?;
            }
        }
    }
    sum_up(asker, &classes, unread)
}

struct Asked<'a> {
    bucket: &'a Bucket,
    name: &'a BucketName,
    moment: Moment,
    without: Option<Selector>,
}

impl Asked<'_> {
    /// How each of these keys differs; `None`: it could not be read.
    async fn compare(
        &self,
        asker: &mut Asker<'_>,
        keys: &[Bytes],
    ) -> Result<Vec<(Bytes, Option<Difference>)>, Report> {
        let mut found = Vec::new();
        for (key, read) in keys.iter().zip(read_all(self.bucket, keys).await) {
            let mut differs = None;
            if let Ok(read) = read {
                differs = Some(self.judge(asker, key, &read)?);
            }
            if matches!(differs, Some(Difference::LiveLacks(_) | Difference::Unclear(_))) {
                // It may have been on its way.
                let again = read_all(self.bucket, std::slice::from_ref(key)).await.remove(0);
                differs = match again {
                    Ok(read) => Some(self.judge(asker, key, &read)?),
                    Err(_) => None,
                };
            }
            found.push((key.clone(), differs));
        }
        Ok(found)
    }

    fn judge(
        &self,
        asker: &mut Asker<'_>,
        key: &Bytes,
        read: &galvani_client::Read,
    ) -> Result<Difference, Report> {
        let view = view(asker, self.name, key, read, self.moment, self.without.clone())?;
        Ok(difference(&view, unix_ms(SystemTime::now())))
    }
}

fn word(difference: &Difference) -> &'static str {
    match difference {
        Difference::Blurred => "blurred",
        Difference::Equal => "equal",
        Difference::OnlyLive => "only_live",
        Difference::OnlyThen => "only_then",
        Difference::LiveReplaces => "replaced",
        Difference::Concurrent => "siblings_added",
        Difference::LiveLacks(_) => "LOST",
        Difference::Unclear(_) => "unclear",
    }
}

fn line(asker: &Asker<'_>, key: &[u8], found: &Difference) -> Result<(), Report> {
    let out = &asker.app.out;
    if out.is_table() {
        return out.line(&format!("{:<14}  {}", word(found), shown_key(key)));
    }
    let mut map = serde_json::Map::new();
    json::put_bytes(&mut map, "key", key);
    map.insert("differs".to_owned(), word(found).to_lowercase().into());
    out.json(map)
}

fn sum_up(asker: &Asker<'_>, classes: &BTreeMap<&'static str, u64>, unread: u64) -> Done {
    let out = &asker.app.out;
    if out.is_table() {
        let words = classes.iter().map(|(class, keys)| format!("{class} {keys}"));
        out.say(&words.collect::<Vec<_>>().join("   "));
    } else {
        let mut map = json::object("galvani.lagged.diff/1");
        let counts: serde_json::Map<String, Value> =
            classes.iter().map(|(class, &keys)| (class.to_lowercase(), keys.into())).collect();
        map.insert("keys".to_owned(), counts.into());
        map.insert("unread".to_owned(), unread.into());
        out.json(map)?;
    }
    if unread > 0 {
        out.note(&format!("{} could not be read", count(unread, "key")));
    }
    match classes.get("LOST") {
        None => Ok(Exit::Done),
        Some(&lost) => {
            let what =
                format!("lagged: the cluster does not show writes of {}", count(lost, "key"));
            Err(Report::new(Exit::TimedOut, what)
                .why("they came to the replica, and nothing that is known replaces them")
                .next("see", "galvani explain KEY    galvani repair"))
        }
    }
}
