//! The keys that a comparison or a restore goes through, and their versions in the cluster.
//!
//! Keys come from the replica, page by page: those of the moment, and where that is asked for those of
//! all that came as well, each once. Next to read: `restore.rs`.

use super::Asker;
use crate::report::Report;
use bytes::Bytes;
use futures_util::future::join_all;
use galvani_client::{Bucket, BucketName, Quorum, Read, Sibling};
use galvani_lagged::compare::{LiveVersion, View};
use galvani_lagged::config::PAGE_KEYS_MAX;
use galvani_lagged::control::{Answer, Ask};
use galvani_lagged::{Blob, Moment, Place, Selection, Selector};
use std::collections::{BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

/// Keys that are read and written side by side.
pub(super) const SIDE_BY_SIDE: usize = 64;

/// Goes through keys.
pub(super) struct Keys {
    bucket: BucketName,
    prefix: Blob,
    queue: VecDeque<Bytes>,
    /// What is still to be scanned, the next one last.
    scans: Vec<(Moment, Option<Selector>)>,
    from: Option<Place>,
    /// Keys that came, where a second scan may bring them again.
    seen: Option<BTreeSet<Bytes>>,
}

impl Keys {
    /// The keys of a selection at a moment; with `latest`, also those of all that came, which takes
    /// memory for each key.
    pub(super) fn of(
        selection: &Selection,
        moment: Moment,
        without: Option<Selector>,
        latest: bool,
    ) -> Keys {
        let all = Moment { below: None, at_ms: unix_ms(SystemTime::now()) };
        let mut scans = vec![(moment, without)];
        if latest {
            scans.insert(0, (all, None));
        }
        let seen = latest.then(BTreeSet::new);
        let (queue, from) = (VecDeque::new(), None);
        match selection.clone() {
            Selection::Key { bucket, key } => {
                let queue = VecDeque::from([key.0]);
                let (prefix, scans) = (Blob::default(), Vec::new());
                Keys { bucket, prefix, queue, scans, from, seen }
            }
            Selection::Prefix { bucket, prefix } => {
                Keys { bucket, prefix, queue, scans, from, seen }
            }
        }
    }

    /// The next few keys; none: that was all.
    pub(super) fn chunk(&mut self, asker: &mut Asker<'_>) -> Result<Vec<Bytes>, Report> {
        while self.queue.len() < SIDE_BY_SIDE
            && let Some((moment, without)) = self.scans.last()
        {
            let ask = Ask::Scan {
                bucket: self.bucket.clone(),
                prefix: self.prefix.clone(),
                from: self.from.take(),
                limit: PAGE_KEYS_MAX,
                moment: *moment,
                without: without.clone(),
            };
            let Answer::Keys { keys, blurred, next } = asker.ask(&ask)? else {
                return Err(Report::unexpected("lagged: the answer does not fit the question"));
            };
            for key in keys.into_iter().chain(blurred) {
                let is_new = self.seen.as_mut().is_none_or(|seen| seen.insert(key.0.clone()));
                if is_new {
                    self.queue.push_back(key.0);
                }
            }
            self.from = next;
            if self.from.is_none() {
                self.scans.pop();
            }
        }
        let count = self.queue.len().min(SIDE_BY_SIDE);
        Ok(self.queue.drain(..count).collect())
    }
}

/// Reads keys side by side, each from most of its owners.
pub(super) async fn read_all(
    bucket: &Bucket,
    keys: &[Bytes],
) -> Vec<Result<Read, galvani_client::Error>> {
    let reads = keys.iter().map(|key| bucket.get(key.clone()).r(Quorum::Majority));
    join_all(reads.map(IntoFuture::into_future)).await
}

/// What a read showed.
pub(super) fn live(read: &Read) -> Vec<LiveVersion> {
    let version = |sibling: &Sibling| LiveVersion {
        dot: sibling.dot,
        value: sibling.value.clone().map(Blob),
        written_ms: unix_ms(sibling.written_at),
        expires_ms: sibling.expires_at.map_or(0, unix_ms),
    };
    read.siblings.iter().map(version).collect()
}

/// All that is known of a key that was just read.
pub(super) fn view(
    asker: &mut Asker<'_>,
    bucket: &BucketName,
    key: &Bytes,
    read: &Read,
    moment: Moment,
    without: Option<Selector>,
) -> Result<View, Report> {
    let (bucket, key, live) = (bucket.clone(), Blob(key.clone()), live(read));
    match asker.ask(&Ask::View { bucket, key, live, moment, without })? {
        Answer::View(view) => Ok(*view),
        _ => Err(Report::unexpected("lagged: the answer does not fit the question")),
    }
}

/// In milliseconds since 1970.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
