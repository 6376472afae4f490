//! `anti-entropy-cost`: what it takes to find and mend a given number of differing keys.
//!
//! Fills a three-node cluster, cuts n3 off, writes some keys, heals the cut, and sums what all three
//! nodes spend from the heal until n3 has every record and all is compared: bytes of frames, CPU, and
//! time. The first row differs in nothing. Beside it, what a record is: its value, and what the
//! writes themselves cost. A measurement, no test: run it with `--release` on an idle machine.

use galvani_client::Client;
use galvani_cluster_tests::{Cluster, until};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bytes of each value.
const VALUE: usize = 100;
/// Writes at once.
const WRITERS: usize = 64;
/// How long n3 is cut off before anything is written.
const CUT: Duration = Duration::from_secs(13);
/// How long the quiet before all is looked at: the sweep of all shards that there is each minute is in it.
const QUIET: Duration = Duration::from_secs(60);
/// How long what is mended is looked at afterwards: until nobody says anything of it any more.
const AFTER: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Some((keys, differing)) = parse(std::env::args().skip(1)) else {
        eprintln!("error  options of anti-entropy-cost: --keys N, --differing A,B,..");
        return ExitCode::from(2);
    };
    let cluster = Cluster::with(&["-n", "3"]);
    let client = cluster.client_at("n1");
    let began = Instant::now();
    fill(&cluster, &client, "all", keys);
    println!("{keys} keys of {VALUE} bytes written in {:.1} s", began.elapsed().as_secs_f64());
    settle(&cluster);
    let rest = spent_in(&cluster, &client, || {
        std::thread::sleep(QUIET); // wait: the time that is measured
    });
    println!("at rest, per second   {}", rest.over(QUIET));
    println!("more than at rest:");
    println!("differing   pulled      bytes   bytes/key   cpu ms   us/key   seconds");
    for (round, &count) in differing.iter().enumerate() {
        let row = mend(&cluster, &client, &format!("round{round}"), count, rest);
        println!("{row}");
    }
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<(usize, Vec<usize>)> {
    let (mut keys, mut differing) = (1_000_000, vec![0, 1, 100, 10_000]);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--keys" => keys = value.parse().ok()?,
            "--differing" => {
                differing = value.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
            }
            _ => return None,
        }
    }
    Some((keys, differing))
}

/// What the nodes spent together.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    bytes: u64,
    cpu_micros: u64,
    pulled: u64,
}

impl Spent {
    fn over(self, time: Duration) -> String {
        let per_second = |total: u64| total as f64 / time.as_secs_f64();
        let cpu_ms = per_second(self.cpu_micros) / 1000.0;
        format!("{:.0} bytes, {cpu_ms:.1} ms of CPU", per_second(self.bytes))
    }

    fn less(self, before: Spent) -> Spent {
        Spent {
            bytes: self.bytes.saturating_sub(before.bytes),
            cpu_micros: self.cpu_micros.saturating_sub(before.cpu_micros),
            pulled: self.pulled - before.pulled,
        }
    }

    /// What was spent in [`QUIET`], for another time.
    fn during(self, time: Duration) -> Spent {
        let share = |total: u64| (total as f64 * time.as_secs_f64() / QUIET.as_secs_f64()) as u64;
        Spent { bytes: share(self.bytes), cpu_micros: share(self.cpu_micros), pulled: 0 }
    }
}

fn spent(cluster: &Cluster, client: &Client) -> Spent {
    let mut all = Spent::default();
    for name in ["n1", "n2", "n3"] {
        let status = cluster.status_of(client, name);
        all.bytes += status.bytes_out;
        all.cpu_micros += status.cpu_micros;
        all.pulled += status.counters.records_pulled;
    }
    all
}

fn spent_in(cluster: &Cluster, client: &Client, work: impl FnOnce()) -> Spent {
    let before = spent(cluster, client);
    work();
    // Lanes publish their figures a few times a second.
    std::thread::sleep(Duration::from_millis(400)); // wait: until they have
    spent(cluster, client).less(before)
}

fn mend(cluster: &Cluster, client: &Client, name: &str, count: usize, rest: Spent) -> String {
    cluster.run(&["dev", "cut", "n1,n2|n3"]).expect(0);
    // Links that hear nothing end after ten seconds; over one that lives, QUIC would send again.
    std::thread::sleep(CUT); // wait: until they have
    fill(cluster, client, name, count);
    let pulled = spent(cluster, client).pulled + count as u64;
    let (mut took, began) = (Duration::ZERO, Instant::now());
    let spent = spent_in(cluster, client, || {
        cluster.run(&["dev", "heal"]).expect(0);
        until("n3 to have caught up", || {
            let status = cluster.status_of(client, "n1");
            let now = spent(cluster, client).pulled;
            if now >= pulled && status.peers_down.is_empty() { Ok(()) } else { Err(now) }
        });
        took = began.elapsed();
        std::thread::sleep(AFTER); // wait: the time that is measured
    });
    let spent = spent.less(rest.during(began.elapsed()));
    let per_key = |total: u64| if count == 0 { 0.0 } else { total as f64 / count as f64 };
    format!(
        "{count:>9} {:>8} {:>10} {:>11.0} {:>8.1} {:>8.1} {:>9.2}",
        spent.pulled,
        spent.bytes,
        per_key(spent.bytes),
        spent.cpu_micros as f64 / 1000.0,
        per_key(spent.cpu_micros),
        took.as_secs_f64(),
    )
}

/// Waits until all nodes reach each other and nobody is known to lack anything.
fn settle(cluster: &Cluster) {
    cluster.run(&["wait", "--for", "settled", "--timeout", "60s"]).expect(0);
}

fn fill(cluster: &Cluster, client: &Client, name: &str, count: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    let share = count.div_ceil(WRITERS).max(1);
    let writers: Vec<_> = numbers
        .chunks(share)
        .map(|chunk| {
            let (client, name, chunk) = (client.clone(), name.to_owned(), chunk.to_vec());
            cluster.runtime().spawn(async move {
                for number in chunk {
                    let put = client.put(format!("{name}/{number:07}"), vec![b'v'; VALUE]);
                    put.blind().w(2).send().await.expect("two nodes are up");
                }
            })
        })
        .collect();
    cluster.block_on(async {
        for writer in writers {
            writer.await.expect("no panic");
        }
    });
}
