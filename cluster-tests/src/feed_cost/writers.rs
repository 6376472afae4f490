//! The load: writers that each have keys of their own and wait for each ack, at full speed or by the clock.
//!
//! A write replaces what its writer wrote to that key before, so no bucket collects siblings, and a feed
//! that shows old values has one to show. Its value begins with its number, by which it is known again.

use super::Settings;
use crate::cluster::Cluster;
use galvani_client::{Client, Context};
use std::time::{Duration, Instant};

/// How fast is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// The next write when the one before is acked, for so long.
    Full(Duration),
    /// So many a second together, each when it is due, for so long.
    Rate(f64, Duration),
    /// Every key once.
    Once,
}

/// An acked write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// Which one.
    pub(super) number: u64,
    /// When its writer knew.
    pub(super) at: Instant,
}

/// The writers of a bucket, between two turns.
pub(super) struct Fleet {
    writers: Vec<Writer>,
}

impl Fleet {
    pub(super) fn new(client: &Client, bucket: &'static str, settings: &Settings) -> Fleet {
        let share = settings.keys.div_ceil(settings.writers).max(1);
        let writer = |index: usize| Writer {
            client: client.clone(),
            bucket,
            // Numbers of different writers never meet.
            next: (index as u64) << 40,
            contexts: vec![Context::default(); share],
            value: vec![b'v'; settings.value.max(8)],
        };
        Fleet { writers: (0..settings.writers).map(writer).collect() }
    }

    /// Writes every key once.
    pub(super) fn fill(&mut self, cluster: &Cluster) {
        self.write(cluster, Pace::Once);
    }

    /// Writes, and waits for all acks.
    pub(super) fn write(&mut self, cluster: &Cluster, pace: Pace) -> Vec<Acked> {
        let (began, all) = (Instant::now(), self.writers.len());
        let begin = |(index, writer): (usize, Writer)| {
            cluster.runtime().spawn(writer.run(pace, began, index, all))
        };
        let tasks: Vec<_> = self.writers.drain(..).enumerate().map(begin).collect();
        let mut acked = Vec::new();
        for task in tasks {
            let (writer, more) = cluster.block_on(task).expect("a writer does not panic");
            acked.extend(more);
            self.writers.push(writer);
        }
        acked
    }
}

struct Writer {
    client: Client,
    bucket: &'static str,
    next: u64,
    /// Of each of its keys, the context of its last write.
    contexts: Vec<Context>,
    value: Vec<u8>,
}

impl Writer {
    async fn run(
        mut self,
        pace: Pace,
        began: Instant,
        index: usize,
        writers: usize,
    ) -> (Writer, Vec<Acked>) {
        let first = self.next;
        let mut acked = Vec::new();
        loop {
            let written = self.next - first;
            let goes_on = match pace {
                Pace::Full(time) => began.elapsed() < time,
                Pace::Once => written < self.contexts.len() as u64,
                Pace::Rate(rate, time) => {
                    let turn = written * writers as u64 + index as u64;
                    let due = Duration::from_secs_f64(turn as f64 / rate.max(1.0));
                    if due < time {
                        tokio::time::sleep_until((began + due).into()).await;
                    }
                    due < time
                }
            };
            if !goes_on {
                return (self, acked);
            }
            acked.push(self.put(index).await);
        }
    }

    async fn put(&mut self, index: usize) -> Acked {
        let number = self.next;
        self.next += 1;
        let at = number as usize % self.contexts.len();
        self.value[..8].copy_from_slice(&number.to_le_bytes());
        let bucket = self.client.bucket(self.bucket);
        let put = bucket.put(format!("k{index:03}/{at:06}"), self.value.clone());
        let put = put.after(&self.contexts[at]).w(2).send().await;
        self.contexts[at] = put.expect("all nodes are up").context;
        Acked { number, at: Instant::now() }
    }
}
