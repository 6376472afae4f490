//! What the change feed costs whoever writes, and how soon a consumer is shown what was acked.
//!
//! One cluster holds a bucket for each way in which a feed can show writes. The same writers put the
//! same load on each of them in turn, round after round, so that what else the machine does falls on all
//! alike; the nodes' CPU is taken before and after. Then writers keep to half of what was reached, with a
//! consumer attached, and the time from each ack to its event is noted. A measurement, no test: what
//! it prints means something from a release build only. Next to read: `feed_cost/writers.rs`.

mod writers;

use crate::cluster::Cluster;
use crate::wait::until;
use galvani_client::{BucketProps, Change, Client, Event, FeedMode, Start, Visibility};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use writers::{Acked, Pace};

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Times that each way has its turn.
    pub rounds: usize,
    /// How long a turn is.
    pub turn: Duration,
    /// Writers at once, each of which waits for its acks.
    pub writers: usize,
    /// Keys of a bucket, of which each writer has its own share.
    pub keys: usize,
    /// Bytes of a value, at least 8.
    pub value: usize,
    /// How long the lag is measured, for each visibility.
    pub lag: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rounds: 5,
            turn: Duration::from_secs(4),
            writers: 32,
            keys: 10_000,
            value: 100,
            lag: Duration::from_secs(8),
        }
    }
}

/// A way in which writes are shown, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The bucket's feed shows nothing.
    Off,
    /// It shows that a key was written.
    Keys,
    /// It shows values.
    New,
    /// It shows the replaced values, too.
    NewAndOld,
    /// It shows values, and somebody looks.
    Followed,
}

impl Way {
    /// All, the one first that the others are compared with.
    pub const ALL: [Way; 5] = [Way::Off, Way::Keys, Way::New, Way::NewAndOld, Way::Followed];

    fn bucket(self) -> &'static str {
        match self {
            Way::Off => "off",
            Way::Keys => "keys",
            Way::New => "new",
            Way::NewAndOld => "both",
            Way::Followed => "followed",
        }
    }

    fn mode(self) -> FeedMode {
        match self {
            Way::Off => FeedMode::Off,
            Way::Keys => FeedMode::Keys,
            Way::New | Way::Followed => FeedMode::New,
            Way::NewAndOld => FeedMode::NewAndOld,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Off => "off",
            Way::Keys => "keys",
            Way::New => "new",
            Way::NewAndOld => "new_and_old",
            Way::Followed => "new, one consumer",
        })
    }
}

/// One turn of a way.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Acked writes a second.
    pub puts: f64,
    /// Microseconds of CPU that all nodes spent, for each of them.
    pub cpu: f64,
}

/// The time from ack to event, of one visibility.
#[derive(Clone, Debug)]
pub struct Lag {
    /// When events are shown.
    pub visibility: Visibility,
    /// Acked writes a second while it was measured.
    pub puts: f64,
    /// Events that came before the ack had reached the writer; their lag counts as none.
    pub before: usize,
    /// All lags, the shortest first.
    pub sorted: Vec<Duration>,
}

impl Lag {
    /// The lag that this share of the events, in hundredths, did not exceed.
    pub fn percentile(&self, hundredths: usize) -> Duration {
        let at = (self.sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
        self.sorted.get(at).copied().unwrap_or_default()
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The turns of each way, in the order in which they were had.
    pub turns: BTreeMap<Way, Vec<Turn>>,
    /// Acked writes of the followed bucket, and how many of them the consumer was shown.
    pub followed: (u64, u64),
    /// The lags at half load.
    pub lags: Vec<Lag>,
}

/// Measures all of it on a cluster of its own.
pub fn measure(settings: &Settings) -> Cost {
    let cluster = Cluster::with(&["-n", "3"]);
    let client = cluster.client();
    for way in Way::ALL {
        let props = BucketProps { feed: way.mode(), ..BucketProps::with_copies(3) };
        cluster.block_on(client.create_bucket(way.bucket(), props)).expect("a new name");
    }
    let mut fleets: BTreeMap<Way, writers::Fleet> = BTreeMap::new();
    for way in Way::ALL {
        let mut fleet = writers::Fleet::new(&client, way.bucket(), settings);
        // Each key once, so that every write that is measured replaces one.
        fleet.fill(&cluster);
        fleets.insert(way, fleet);
    }
    let mut turns: BTreeMap<Way, Vec<Turn>> = BTreeMap::new();
    let mut followed = (0, 0);
    for round in 0..settings.rounds {
        for at in 0..Way::ALL.len() {
            // No way always comes after the same other one.
            let way = Way::ALL[(at + round) % Way::ALL.len()];
            let fleet = fleets.get_mut(&way).expect("made above");
            let (turn, seen) = turn(&cluster, &client, fleet, way, settings);
            followed.0 += seen.0;
            followed.1 += seen.1;
            turns.entry(way).or_default().push(turn);
        }
    }
    let reached = median(turns[&Way::Followed].iter().map(|turn| turn.puts));
    let fleet = fleets.get_mut(&Way::Followed).expect("made above");
    let visibilities = [Visibility::Any, Visibility::Quorum];
    let lags = visibilities.map(|it| lag(&cluster, &client, fleet, it, reached / 2.0, settings));
    Cost { turns, followed, lags: lags.into() }
}

/// Writes for one turn. Also how many writes a consumer had to be shown, and was.
fn turn(
    cluster: &Cluster,
    client: &Client,
    fleet: &mut writers::Fleet,
    way: Way,
    settings: &Settings,
) -> (Turn, (u64, u64)) {
    let consumer =
        (way == Way::Followed).then(|| Consumer::attach(cluster, client, Visibility::Any));
    let before = cpu_micros(cluster, client);
    let began = Instant::now();
    let acked = fleet.write(cluster, Pace::Full(settings.turn));
    let took = began.elapsed();
    let count = acked.len() as u64;
    let shown = consumer.map_or((0, 0), |consumer| (count, consumer.until_shown(count)));
    let spent = cpu_micros(cluster, client) - before;
    let turn =
        Turn { puts: count as f64 / took.as_secs_f64(), cpu: spent as f64 / count.max(1) as f64 };
    (turn, shown)
}

/// Writes at half of what can be done, and notes how long after its ack each write was shown.
fn lag(
    cluster: &Cluster,
    client: &Client,
    fleet: &mut writers::Fleet,
    visibility: Visibility,
    rate: f64,
    settings: &Settings,
) -> Lag {
    let consumer = Consumer::attach(cluster, client, visibility);
    let began = Instant::now();
    let acked = fleet.write(cluster, Pace::Rate(rate, settings.lag));
    let puts = acked.len() as f64 / began.elapsed().as_secs_f64();
    consumer.until_shown(acked.len() as u64);
    let shown = consumer.end(cluster);
    let (mut before, mut sorted) = (0, Vec::with_capacity(acked.len()));
    for Acked { number, at } in acked {
        let Some(shown) = shown.get(&number) else { continue };
        before += usize::from(*shown < at);
        sorted.push(shown.saturating_duration_since(at));
    }
    sorted.sort_unstable();
    Lag { visibility, puts, before, sorted }
}

/// Somebody who follows the followed bucket.
struct Consumer {
    shown: Arc<Mutex<BTreeMap<u64, Instant>>>,
    count: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Shows what is written once this has returned.
    fn attach(cluster: &Cluster, client: &Client, visibility: Visibility) -> Consumer {
        let feed = client.feed().bucket(Way::Followed.bucket());
        let feed = feed.from(Start::Now).visibility(visibility).subscribe();
        let mut feed = cluster.block_on(feed).expect("all nodes are up");
        let (shown, count) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicU64::new(0)));
        let (times, counted) = (shown.clone(), count.clone());
        let task = cluster.runtime().spawn(async move {
            while let Some(event) = feed.next().await {
                let Event::Changed(change) = event.expect("nothing is broken") else { continue };
                let Some(number) = number_of(&change) else { continue };
                let mut times = times.lock().expect("no holder panics");
                times.entry(number).or_insert_with(Instant::now);
                counted.store(times.len() as u64, Ordering::Relaxed);
            }
        });
        Consumer { shown, count, task }
    }

    /// Waits until so many writes have been shown.
    fn until_shown(&self, all: u64) -> u64 {
        until("the consumer to be shown all that was acked", || {
            match self.count.load(Ordering::Relaxed) {
                count if count >= all => Ok(count),
                count => Err(format!("{count} of {all}")),
            }
        })
    }

    /// When each write was shown.
    fn end(self, cluster: &Cluster) -> BTreeMap<u64, Instant> {
        self.task.abort();
        // It was told to end.
        drop(cluster.block_on(self.task));
        std::mem::take(&mut self.shown.lock().expect("no holder panics"))
    }
}

/// The number that the writer gave this write.
fn number_of(change: &Change) -> Option<u64> {
    let value = change.value.as_ref()?;
    Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?))
}

/// CPU that all nodes have spent so far, in microseconds.
fn cpu_micros(cluster: &Cluster, client: &Client) -> u64 {
    let nodes = cluster.nodes().iter();
    nodes.map(|node| cluster.status_of(client, &node.name).cpu_micros).sum()
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |way: Way, what: fn(&Turn) -> f64| {
            let values = || self.turns.get(&way).into_iter().flatten().map(what);
            let least = values().fold(f64::INFINITY, f64::min);
            (median(values()), least, values().fold(0.0, f64::max))
        };
        let base = (of(Way::Off, |it| it.puts).0, of(Way::Off, |it| it.cpu).0);
        writeln!(f, "| feed | puts/s (lowest to highest) | to `off` | CPU µs a put | to `off` |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for way in Way::ALL {
            let (puts, least, most) = of(way, |it| it.puts);
            let (cpu, cpu_least, cpu_most) = of(way, |it| it.cpu);
            writeln!(
                f,
                "| {way} | {puts:.0} ({least:.0} to {most:.0}) | {:.2} | {cpu:.0} ({cpu_least:.0} \
                 to {cpu_most:.0}) | {:.2} |",
                puts / base.0,
                cpu / base.1,
            )?;
        }
        let (acked, shown) = self.followed;
        writeln!(f, "\n{acked} writes acked while a consumer followed, {shown} shown to it\n")?;
        writeln!(f, "| visibility | puts/s | events | before their ack | p50 | p99 | longest |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for lag in &self.lags {
            let ms = |hundredths| lag.percentile(hundredths).as_secs_f64() * 1e3;
            let name = match lag.visibility {
                Visibility::Any => "any",
                Visibility::Quorum => "quorum",
            };
            writeln!(
                f,
                "| {name} | {:.0} | {} | {} | {:.1} ms | {:.1} ms | {:.1} ms |",
                lag.puts,
                lag.sorted.len(),
                lag.before,
                ms(50),
                ms(99),
                ms(100),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Lag, median};
    use galvani_client::Visibility;
    use std::time::Duration;

    #[test]
    fn percentiles_are_of_those_that_were_measured() {
        let of = |count: u64| Lag {
            visibility: Visibility::Any,
            puts: 0.0,
            before: 0,
            sorted: (1..=count).map(Duration::from_millis).collect(),
        };
        let ms = |lag: &Lag, at| lag.percentile(at).as_millis();
        assert_eq!((ms(&of(200), 50), ms(&of(200), 99), ms(&of(200), 100)), (100, 198, 200));
        assert_eq!((ms(&of(1), 50), ms(&of(1), 99)), (1, 1));
        assert_eq!(ms(&of(0), 99), 0);
        assert!(median([3.0, 1.0, 2.0].into_iter()).eq(&2.0));
    }
}
