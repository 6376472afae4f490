//! A flood of hints (H7): one node is down under full load for a chosen time, with a small bound for hints.
//!
//! Four nodes, three copies, so that the fourth stands in. Writers at w=2 go on all the time and must not
//! notice; a prober at w=3 needs the stand-in, and is told when its hints are full. Sampled meanwhile: hints
//! and bytes against the bound. At the end no hint is left, all replicas are equal and nothing acked is
//! lost. A measurement for `bin/hint-flood.rs`, and in short an ordinary test. Next to read: `writers.rs`.

mod report;
mod writers;

pub use report::{Moment, PhaseFigures, Probes, Report};

use crate::chaos::settle::explain_one;
use crate::cluster::Cluster;
use crate::wait::at_most;
use galvani_client::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};
use writers::{Field, Phase};

/// What is done to the cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long the node is down; longer where the bound for hints is not reached by then.
    pub down: Duration,
    /// How long the load runs before that, and after all hints are delivered.
    pub around: Duration,
    /// Writers at once, each waiting for its answer.
    pub writers: usize,
    /// Bytes of each value.
    pub value: usize,
    /// Bytes of hints that a node may hold, for one owner and in all.
    pub cap: u64,
    /// How often hints are looked at.
    pub sample: Duration,
}

/// Runs it from the beginning to the end.
pub fn run(settings: &Settings) -> Report {
    let cluster = bounded_cluster(settings.cap);
    let field = Field::new(settings.writers, settings.value);
    let load = writers::start(&cluster, &field);
    let watcher = cluster.client_at("n1");
    let began = Instant::now();
    let mut moments = Vec::new();
    let mut look = |for_how_long: Duration, done: &mut dyn FnMut(&Moment) -> bool| {
        let until = Instant::now() + for_how_long;
        loop {
            let moment = moment(&cluster, &watcher, &field, began);
            let over = done(&moment) || Instant::now() >= until;
            moments.push(moment);
            if over {
                return Instant::now() < until;
            }
            // wait: until the next sample is due, at most `for_how_long` in all
            std::thread::sleep(settings.sample);
        }
    };
    look(settings.around, &mut |_| false);
    cluster.kill("n4");
    field.enter(Phase::Down);
    look(settings.down, &mut |_| false);
    let full = |moment: &Moment| moment.bytes > settings.cap / 10 * 9 && moment.refused > 0;
    look(FULL_MAX, &mut |moment| full(moment));
    field.enter(Phase::Drain);
    let held = held_now(&cluster, &watcher);
    let back = Instant::now();
    cluster.start_node("n4");
    let drained = look(DRAIN_MAX, &mut |moment| moment.hints == 0);
    let drained_in = drained.then(|| back.elapsed());
    field.enter(Phase::After);
    look(settings.around, &mut |_| false);
    load.stop(&cluster);
    let phases = field.figures();
    let unequal = until_equal(&cluster, &watcher, &field);
    Report {
        settings: settings.clone(),
        moments,
        phases,
        probes: field.probes(),
        drained: held,
        drained_in,
        hints_left: held_now(&cluster, &watcher).0,
        unequal,
        lost: cluster.block_on(writers::check(&watcher, &field)),
    }
}

/// Four nodes whose hints are bounded.
fn bounded_cluster(cap: u64) -> Cluster {
    let cluster = Cluster::with(&["-n", "4", "--lanes", "1"]);
    cluster.stop_all();
    for node in cluster.nodes() {
        let path = cluster.home(&node.name).join("galvani.toml");
        let text = std::fs::read_to_string(&path).expect("there");
        let bounded: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((name @ ("hint_bytes" | "hint_bytes_per_owner"), _)) => {
                    format!("{name} = {cap}")
                }
                Some(_) | None => line.to_owned(),
            })
            .collect();
        let bounded = bounded.join("\n");
        assert!(bounded.contains(&format!("hint_bytes = {cap}")), "{text}");
        std::fs::write(&path, bounded).expect("written");
    }
    cluster.start_all();
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    cluster
}

/// Hints that all nodes hold, and the most bytes that one of them holds.
fn held_now(cluster: &Cluster, client: &Client) -> (u64, u64) {
    let mut held = (0, 0);
    for report in cluster.block_on(client.status()) {
        let Ok(status) = report.status else { continue };
        held.0 += status.hints.values().map(|of| of.count).sum::<u64>();
        held.1 = held.1.max(status.hints.values().map(|of| of.bytes).sum());
    }
    held
}

fn moment(cluster: &Cluster, client: &Client, field: &Field, began: Instant) -> Moment {
    let (hints, bytes) = held_now(cluster, client);
    Moment {
        phase: field.phase().name(),
        at: began.elapsed(),
        hints,
        bytes,
        acked: field.acked(),
        refused: field.probes().refused,
    }
}

/// Waits until all is settled and every owner of every key holds the same; those that do not.
fn until_equal(cluster: &Cluster, client: &Client, field: &Arc<Field>) -> Vec<String> {
    // What hints had no room for comes by anti-entropy: after a long flood that takes a while.
    let mut why = String::new();
    at_most(SETTLE_MAX, || {
        let ran = cluster.run(&["wait", "--for", "settled", "--timeout", "30s"]);
        why = ran.stderr;
        ran.code == Some(0)
    });
    if !why.is_empty() {
        println!("settled at last, or not: {}", why.lines().last().unwrap_or_default());
    }
    let mut left: Vec<String> = field.keys();
    let mut apart = Vec::new();
    at_most(AGREE_MAX, || {
        apart.clear();
        for batch in left.chunks(AT_ONCE) {
            let explained = batch.iter().map(|key| explain_one(client.clone(), key.clone()));
            let explained: Vec<_> = explained.map(|one| cluster.runtime().spawn(one)).collect();
            for one in explained {
                apart.extend(cluster.block_on(one).expect("asking does not panic"));
            }
        }
        left = apart.iter().map(|(key, _)| key.clone()).collect();
        left.is_empty()
    });
    apart.into_iter().map(|(key, why)| format!("{key}: {why}")).collect()
}

/// Most time until hints come to their bound, once the node was down for as long as is asked.
const FULL_MAX: Duration = Duration::from_secs(60);
/// Most time hints may take to be delivered.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// Most time that what was missed may take to be caught up with, by hints and without.
const SETTLE_MAX: Duration = Duration::from_secs(900);
/// Most time owners may take to agree once nothing is broken.
const AGREE_MAX: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 64;
