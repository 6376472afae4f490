//! How a key at a moment differs from the live cluster, and whether the cluster has lost something.
//!
//! [`View`] is all that is known of one key: what was there, all that came here, and what a read of the
//! cluster showed. [`difference`] looks at nothing else. Read the cluster first and make the view
//! after it: then a write that came in between is known here. Next to read: `restore/plan.rs`.

use crate::as_of::Moment;
use crate::error::LaggedError;
use crate::replica::Lagged;
use crate::select::Selector;
use crate::text::Blob;
use galvani_model::hash::{key_hash, partition_of};
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::version::{Dot, RecordHead, Version};
use galvani_storage::engine::Engine;
use serde::{Deserialize, Serialize};

/// One version of a key, as a read of the cluster showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveVersion {
    /// A dot of it.
    pub dot: Dot,
    /// Its value; `None`: a tombstone, or a value that has expired.
    pub value: Option<Blob>,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// When it expires, in milliseconds since 1970; 0: never.
    pub expires_ms: u64,
}

/// A live version, and its record if that came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What the read showed.
    pub version: LiveVersion,
    /// Its record, as far as it is known here.
    pub head: Option<RecordHead>,
}

/// A version that was there at the moment, with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Then {
    /// The version; may be a tombstone.
    pub version: Version,
    /// Its value.
    pub value: Blob,
}

/// A version of all that came, with its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// The version; may be a tombstone.
    pub version: Version,
    /// Its record.
    pub head: RecordHead,
}

/// All that is known of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The key.
    pub key: Key,
    /// The moment.
    pub moment: Moment,
    /// Its versions then, without the writes that were to be left out.
    pub then: Vec<Then>,
    /// Of those, what was to be left out and is in the base already.
    pub kept: Vec<Dot>,
    /// Whether it was written after the moment and that is applied already: then `then` is empty,
    /// because what was there is not known.
    pub blurred: bool,
    /// Its versions by all that came here.
    pub latest: Vec<Latest>,
    /// Its versions in the cluster.
    pub live: Vec<Seen>,
}

impl View {
    /// The values at the moment.
    pub fn values_then(&self) -> impl Iterator<Item = &Then> {
        self.then.iter().filter(|then| then.version.is_value_at(self.moment.at_ms))
    }

    /// Whether a live version has one of these dots.
    pub fn is_live(&self, dots: &[Dot]) -> bool {
        self.live.iter().any(|seen| dots.contains(&seen.version.dot))
    }

    /// Whether a live version, as far as those are known here, replaces one with these dots.
    pub fn is_replaced_live(&self, dots: &[Dot]) -> bool {
        let replaces = |head: &RecordHead| dots.iter().any(|&dot| head.past.contains(dot));
        self.live.iter().filter_map(|seen| seen.head.as_ref()).any(replaces)
    }
}

/// How a key differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// What was there is not known: see [`View::blurred`].
    Blurred,
    /// The same values.
    Equal,
    /// There was none, and is one now.
    OnlyLive,
    /// There was one, and is none now: deleted since, or expired.
    OnlyThen,
    /// What was there was replaced since, at least in part.
    LiveReplaces,
    /// What was there is there, with values beside it.
    Concurrent,
    /// An alarm: these came here, nothing that is known replaces them, and the cluster does not
    /// show them. One read may be too few, or too early: it is true if it is so twice.
    LiveLacks(Vec<Dot>),
    /// The cluster shows writes that have not come here yet, which may or may not replace these.
    Unclear(Vec<Dot>),
}

/// How a key at a moment differs from the cluster. `now_ms`, milliseconds since 1970, says what has
/// expired since.
pub fn difference(view: &View, now_ms: u64) -> Difference {
    let is_unknown = view.live.iter().any(|seen| seen.head.is_none());
    let missing: Vec<Dot> = view
        .latest
        .iter()
        .map(|latest| &latest.version)
        .filter(|it| it.is_value_at(now_ms))
        .filter(|it| !view.is_live(&it.dots) && !view.is_replaced_live(&it.dots))
        .filter_map(|it| it.dots.first().copied())
        .collect();
    match (missing.is_empty(), is_unknown) {
        (false, true) => return Difference::Unclear(missing),
        (false, false) => return Difference::LiveLacks(missing),
        (true, _) if view.blurred => return Difference::Blurred,
        (true, _) => {}
    }
    let values = || view.live.iter().filter(|seen| seen.version.value.is_some());
    let was = |dot: Dot| view.values_then().any(|then| then.version.dots.contains(&dot));
    let added = values().any(|seen| !was(seen.version.dot));
    let gone = view.values_then().any(|then| !view.is_live(&then.version.dots));
    match (view.values_then().next().is_some(), values().next().is_some()) {
        (false, false) => Difference::Equal,
        (false, true) => Difference::OnlyLive,
        (true, false) => Difference::OnlyThen,
        (true, true) if gone => Difference::LiveReplaces,
        (true, true) if added => Difference::Concurrent,
        (true, true) => Difference::Equal,
    }
}

impl<E: Engine> Lagged<E> {
    /// All that is known of one key, of which a read of the cluster has just shown `live`.
    pub fn view(
        &mut self,
        key: &Key,
        live: Vec<LiveVersion>,
        moment: &Moment,
        without: Option<&Selector>,
        now_ms: u64,
    ) -> Result<View, LaggedError> {
        let (mut then, mut kept) = (Vec::new(), Vec::new());
        let (found, blurred) = match self.read_at(key, moment, without) {
            Err(LaggedError::Blurred { .. }) => (None, true),
            read => (read?, false),
        };
        if let Some(found) = found {
            kept = found.kept;
            for version in found.versions {
                let value = Blob(self.value(found.shard, &version)?);
                then.push(Then { version, value });
            }
        }
        let mut latest = Vec::new();
        let all = Moment { below: None, at_ms: now_ms };
        if let Some(found) = self.read_at(key, &all, None)? {
            for version in found.versions {
                let dot = *version.dots.first().expect("a version has a dot");
                if let Some(head) = self.head(found.shard, dot)? {
                    latest.push(Latest { version, head });
                }
            }
        }
        let partition = partition_of(key_hash(key), self.partitions);
        let shards: Vec<Shard> =
            self.journal.shards().keys().filter(|it| it.partition == partition).copied().collect();
        let mut seen = Vec::new();
        for version in live {
            let mut head = None;
            for &shard in &shards {
                head = match head {
                    None => self.head(shard, version.dot)?,
                    known => known,
                };
            }
            seen.push(Seen { version, head });
        }
        Ok(View { key: key.clone(), moment: *moment, then, kept, blurred, latest, live: seen })
    }
}
