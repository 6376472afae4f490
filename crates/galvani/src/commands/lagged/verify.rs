//! Comparing everything with the cluster: once a day, and when asked.
//!
//! It runs beside the loop that owns the replica and asks it like anybody else. Every key of the replica
//! is read in the cluster and judged as `lagged diff` does; every key that the cluster lists is looked
//! for in the replica; all files of the replica are read. What seems wrong is looked at once more, after
//! the feed has brought all that was there at the first look, and counts if it is the same then.
//! Next to read: `galvani-lagged/src/verify.rs`, what the result says.

use super::keys::{SIDE_BY_SIDE, live, read_all, unix_ms};
use super::restore::Pace;
use super::socket::Asked;
use crate::report::text::key as shown_key;
use bytes::Bytes;
use galvani_client::{BucketName, Client, Dot};
use galvani_lagged::compare::{Difference, View, difference};
use galvani_lagged::config::PAGE_KEYS_MAX;
use galvani_lagged::control::{Answer, Ask};
use galvani_lagged::{Blob, Files, Lagged, Moment, Verified};
use galvani_storage::engine::FjallEngine;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long after a comparison the next one begins, in milliseconds.
const EVERY_MS: u64 = 24 * 3_600_000;

/// The same after one that could not read the whole cluster, or came to no end.
const AGAIN_MS: u64 = 3_600_000;

/// Keys that are looked at a second time; of more it is only said that they are unclear.
const DOUBTS_MAX: usize = 10_000;

/// How long the second look waits for the feed to be there, and how often it asks.
const WAIT: Duration = Duration::from_secs(120);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The comparison that runs, if one does, and who waits for it.
pub(super) struct Verifying {
    client: Client,
    inside: mpsc::Sender<Asked>,
    task: Option<JoinHandle<Result<Verified, String>>>,
    waiting: Vec<oneshot::Sender<Answer>>,
    /// When one came to no end, in milliseconds since 1970.
    failed_ms: u64,
}

impl Verifying {
    /// None runs yet. It asks the replica by way of `inside`.
    pub(super) fn new(client: Client, inside: mpsc::Sender<Asked>) -> Verifying {
        Verifying { client, inside, task: None, waiting: Vec::new(), failed_ms: 0 }
    }

    /// Whether the daily one is due: a replica that has not caught up yet has nothing to compare.
    pub(super) fn is_due(&self, replica: &Lagged<FjallEngine>, now_ms: u64) -> bool {
        let next_ms = match replica.verified() {
            None => 0,
            Some(last) if last.unread > 0 => last.ended_ms + AGAIN_MS,
            Some(last) => last.ended_ms + EVERY_MS,
        };
        let tried_ms = if self.failed_ms > 0 { self.failed_ms + AGAIN_MS } else { 0 };
        self.task.is_none() && replica.earliest_ms().is_some() && now_ms >= next_ms.max(tried_ms)
    }

    /// Begins one, at most so fast.
    pub(super) fn start(&mut self, replica: &Lagged<FjallEngine>, pace: Pace) {
        let comparison = Comparison {
            client: self.client.clone(),
            inside: self.inside.clone(),
            pace,
            found: Verified::default(),
            doubts: Vec::new(),
        };
        self.task = Some(tokio::spawn(comparison.run(replica.files())));
    }

    /// Answers `to` when the one that runs is through; begins one if none does.
    pub(super) fn join(&mut self, to: oneshot::Sender<Answer>, replica: &Lagged<FjallEngine>) {
        self.waiting.push(to);
        if self.task.is_none() {
            self.start(replica, Pace::of(u64::MAX));
        }
    }

    /// Waits for the end of the one that runs. Dropped, nothing is lost.
    pub(super) async fn done(&mut self) -> Result<Verified, String> {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        let found = ended.map_err(|error| error.to_string()).and_then(|found| found);
        self.failed_ms = if found.is_err() { unix_ms(SystemTime::now()) } else { 0 };
        found
    }

    /// Tells those who wait what was found.
    pub(super) fn tell(&mut self, found: &Result<Verified, String>) {
        for to in self.waiting.drain(..) {
            // Whoever asked may have gone.
            let _ = to.send(match found {
                Ok(found) => Answer::Verified(found.clone()),
                Err(why) => Answer::Refused { why: why.clone() },
            });
        }
    }
}

/// One comparison on its way.
struct Comparison {
    client: Client,
    inside: mpsc::Sender<Asked>,
    pace: Pace,
    found: Verified,
    doubts: Vec<Doubt>,
}

/// A key that seems wrong.
struct Doubt {
    bucket: BucketName,
    key: Bytes,
    wrong: Wrong,
}

/// What seems wrong with a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// Writes that the cluster does not show.
    lost: Vec<Dot>,
    /// Writes that did not come here.
    missing: Vec<Dot>,
    /// Writes of which it cannot be told.
    unclear: bool,
}

impl Comparison {
    async fn run(mut self, files: Files<FjallEngine>) -> Result<Verified, String> {
        self.found.began_ms = unix_ms(SystemTime::now());
        let reading = tokio::task::spawn_blocking(move || files.damaged(&|| true));
        let complete_ms = self.complete_ms().await?;
        let buckets: Vec<BucketName> = self.client.cluster().buckets.keys().cloned().collect();
        for bucket in &buckets {
            self.of_replica(bucket, complete_ms).await?;
            self.of_cluster(bucket, complete_ms).await?;
        }
        self.look_again().await?;
        let damaged = reading.await.map_err(|error| error.to_string())?;
        self.found.damaged_files = damaged.map_err(|error| error.to_string())?;
        self.found.ended_ms = unix_ms(SystemTime::now());
        Ok(self.found)
    }

    /// Every key of the replica, beside the cluster.
    async fn of_replica(&mut self, bucket: &BucketName, complete_ms: u64) -> Result<(), String> {
        let (mut from, mut queue) = (None, VecDeque::new());
        loop {
            let moment = Moment { below: None, at_ms: unix_ms(SystemTime::now()) };
            let (bucket_name, prefix) = (bucket.clone(), Blob::default());
            let (limit, without) = (PAGE_KEYS_MAX, None);
            let ask = Ask::Scan { bucket: bucket_name, prefix, from, limit, moment, without };
            let next = match self.ask(ask).await? {
                Answer::Keys { keys, next, .. } => {
                    queue.extend(keys.into_iter().map(|key| key.0));
                    next
                }
                other => {
                    self.damaged(|| format!("{bucket}: its keys"), other)?;
                    None
                }
            };
            while queue.len() >= SIDE_BY_SIDE || (next.is_none() && !queue.is_empty()) {
                let count = queue.len().min(SIDE_BY_SIDE);
                let chunk: Vec<Bytes> = queue.drain(..count).collect();
                self.first_look(bucket, &chunk, complete_ms).await?;
            }
            match next {
                None => return Ok(()),
                next => from = next,
            }
        }
    }

    /// Every key that the cluster lists and the replica has no value of.
    async fn of_cluster(&mut self, bucket: &BucketName, complete_ms: u64) -> Result<(), String> {
        let mut list = self.client.bucket(bucket.as_str()).list("");
        loop {
            let page = match list.next_page().await {
                Ok(None) => return Ok(()),
                Ok(Some(page)) => page,
                Err(error) => {
                    self.found.unread += 1;
                    self.found.name(|| format!("{bucket}: not listed by the cluster: {error}"));
                    return Ok(());
                }
            };
            let keys: Vec<Blob> = page.keys.into_iter().map(|listed| Blob(listed.key)).collect();
            let ask = Ask::Lacking { bucket: bucket.clone(), keys };
            let lacking = match self.ask(ask).await? {
                Answer::Keys { keys, .. } => keys,
                other => {
                    self.damaged(|| format!("{bucket}: some of its keys"), other)?;
                    continue;
                }
            };
            let lacking: Vec<Bytes> = lacking.into_iter().map(|key| key.0).collect();
            for chunk in lacking.chunks(SIDE_BY_SIDE) {
                self.first_look(bucket, chunk, complete_ms).await?;
            }
        }
    }

    async fn first_look(
        &mut self,
        bucket: &BucketName,
        keys: &[Bytes],
        complete_ms: u64,
    ) -> Result<(), String> {
        self.found.keys += keys.len() as u64;
        for (key, wrong) in self.judged(bucket, keys, complete_ms).await? {
            match wrong == Wrong::default() {
                true => {}
                false if self.doubts.len() == DOUBTS_MAX => self.found.unclear += 1,
                false => self.doubts.push(Doubt { bucket: bucket.clone(), key, wrong }),
            }
        }
        self.pace.after(keys.len()).await;
        Ok(())
    }

    /// Looks at all that seems wrong once more, when what was there at the first look must have come.
    async fn look_again(&mut self) -> Result<(), String> {
        let looked_ms = unix_ms(SystemTime::now());
        let doubts = std::mem::take(&mut self.doubts);
        if doubts.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + WAIT;
        while self.complete_ms().await? <= looked_ms {
            if Instant::now() >= until {
                self.found.unclear += doubts.len() as u64;
                return Ok(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        for Doubt { bucket, key, wrong } in doubts {
            let again = self.judged(&bucket, std::slice::from_ref(&key), looked_ms).await?;
            for (_, again) in again {
                self.count(&bucket, &key, &wrong, &again);
            }
        }
        Ok(())
    }

    /// Counts what was wrong at both looks.
    fn count(&mut self, bucket: &BucketName, key: &Bytes, first: &Wrong, again: &Wrong) {
        let (counter, what) = match verdict(first, again) {
            None => return,
            Some(Verdict::Lost) => (&mut self.found.lost, "LOST in the cluster"),
            Some(Verdict::Missing) => (&mut self.found.missing, "MISSING here"),
            Some(Verdict::Unclear) => {
                self.found.unclear += 1;
                return;
            }
        };
        *counter += 1;
        self.found.name(|| format!("{what}  {bucket}/{}", shown_key(key)));
    }

    /// Reads keys in the cluster and judges them. Those that cannot be read on one side are counted.
    async fn judged(
        &mut self,
        bucket: &BucketName,
        keys: &[Bytes],
        complete_ms: u64,
    ) -> Result<Vec<(Bytes, Wrong)>, String> {
        let mut judged = Vec::new();
        let reads = read_all(&self.client.bucket(bucket.as_str()), keys).await;
        for (key, read) in keys.iter().zip(reads) {
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    self.found.unread += 1;
                    self.found.name(|| format!("not read  {bucket}/{}: {error}", shown_key(key)));
                    continue;
                }
            };
            let now_ms = unix_ms(SystemTime::now());
            let moment = Moment { below: None, at_ms: now_ms };
            let (bucket_name, live, without) = (bucket.clone(), live(&read), None);
            let bytes = Blob(key.clone());
            let ask = Ask::View { bucket: bucket_name, key: bytes, live, moment, without };
            match self.ask(ask).await? {
                Answer::View(view) => judged.push((key.clone(), wrong(&view, complete_ms, now_ms))),
                other => self.damaged(|| format!("{bucket}/{}", shown_key(key)), other)?,
            }
        }
        Ok(judged)
    }

    /// The replica could not read what was asked for.
    fn damaged(&mut self, what: impl FnOnce() -> String, answer: Answer) -> Result<(), String> {
        let Answer::Refused { why } = answer else {
            return Err("the answer does not fit the question".to_owned());
        };
        self.found.damaged += 1;
        self.found.name(|| format!("not readable here  {}: {why}", what()));
        Ok(())
    }

    /// Up to when the replica has every write that was acknowledged; 0: not known.
    async fn complete_ms(&self) -> Result<u64, String> {
        match self.ask(Ask::Status).await? {
            Answer::Status(status) => Ok(status.complete_through_ms.unwrap_or(0)),
            Answer::Refused { why } => Err(why),
            _ => Err("the answer does not fit the question".to_owned()),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, String> {
        let (to, answer) = oneshot::channel();
        let stopped = "the replica stopped";
        self.inside.send(Asked { ask, to }).await.map_err(|_| stopped)?;
        Ok(answer.await.map_err(|_| stopped)?)
    }
}

/// What seems wrong with a key. What was written before `complete_ms` should have come.
fn wrong(view: &View, complete_ms: u64, now_ms: u64) -> Wrong {
    let mut wrong = Wrong::default();
    match difference(view, now_ms) {
        Difference::LiveLacks(dots) => wrong.lost = dots,
        Difference::Unclear(_) => wrong.unclear = true,
        Difference::Blurred
        | Difference::Equal
        | Difference::OnlyLive
        | Difference::OnlyThen
        | Difference::LiveReplaces
        | Difference::Concurrent => {}
    }
    let unknown = view.live.iter().filter(|seen| seen.head.is_none()).map(|seen| &seen.version);
    let old = unknown.filter(|version| version.written_ms < complete_ms);
    wrong.missing = old.map(|version| version.dot).collect();
    wrong
}

/// What two looks at a key come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Lost,
    Missing,
    Unclear,
}

/// A finding is what was wrong with the same write at both looks: a key that is written all the while
/// may seem wrong each time, with another write.
fn verdict(first: &Wrong, again: &Wrong) -> Option<Verdict> {
    let both = |first: &[Dot], again: &[Dot]| first.iter().any(|dot| again.contains(dot));
    match again {
        again if *again == Wrong::default() => None,
        again if both(&first.lost, &again.lost) => Some(Verdict::Lost),
        again if both(&first.missing, &again.missing) => Some(Verdict::Missing),
        _ => Some(Verdict::Unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, Wrong, verdict, wrong};
    use galvani_client::Dot;
    use galvani_lagged::compare::{LiveVersion, Seen, View};
    use galvani_lagged::{Blob, Moment};
    use galvani_model::bucket::BucketName;
    use galvani_model::ids::Origin;
    use galvani_model::key::Key;

    fn dots(counters: &[u64]) -> Vec<Dot> {
        counters.iter().map(|&counter| Dot::new(Origin(1), counter)).collect()
    }

    #[test]
    fn what_the_cluster_shows_and_did_not_come_is_missing_if_it_should_have() {
        let version = LiveVersion {
            dot: Dot::new(Origin(1), 7),
            value: Some(Blob::default()),
            written_ms: 500,
            expires_ms: 0,
        };
        let view = View {
            key: Key::new(BucketName::default_bucket(), "k").expect("short"),
            moment: Moment { below: None, at_ms: 1_000 },
            then: Vec::new(),
            kept: Vec::new(),
            blurred: false,
            latest: Vec::new(),
            live: vec![Seen { version, head: None }],
        };
        assert_eq!(wrong(&view, 501, 1_000).missing, dots(&[7]));
        assert_eq!(wrong(&view, 500, 1_000), Wrong::default(), "it may be on its way");
    }

    #[test]
    fn only_the_same_write_at_both_looks_is_a_finding() {
        let lost = |counters: &[u64]| Wrong { lost: dots(counters), ..Wrong::default() };
        let missing = |counters: &[u64]| Wrong { missing: dots(counters), ..Wrong::default() };
        let unclear = Wrong { unclear: true, ..Wrong::default() };
        for (first, again, expected) in [
            (lost(&[1]), Wrong::default(), None),
            (lost(&[1, 2]), lost(&[2, 3]), Some(Verdict::Lost)),
            (lost(&[1]), lost(&[2]), Some(Verdict::Unclear)),
            (missing(&[1]), missing(&[1]), Some(Verdict::Missing)),
            (missing(&[1]), missing(&[2]), Some(Verdict::Unclear)),
            (missing(&[1]), lost(&[1]), Some(Verdict::Unclear)),
            (unclear.clone(), unclear, Some(Verdict::Unclear)),
        ] {
            assert_eq!(verdict(&first, &again), expected, "{first:?}, {again:?}");
        }
    }
}
