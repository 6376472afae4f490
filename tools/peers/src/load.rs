//! A closed loop: so many workers, each with its next request when the last one is answered.
//!
//! All workers are tasks of one thread. What counts as an error of one request is counted; before
//! the load, it ends the run. Next to read: `redis.rs`, `etcd.rs`, `k2v.rs`.

use crate::error::PeerError;
use crate::etcd::Etcd;
use crate::k2v::K2v;
use crate::processes::cpu_of;
use crate::redis::Redis;
use crate::result::{Run, at};
use crate::sigv4::Credentials;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Whose protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// RESP, one server.
    Redis,
    /// RESP, a cluster.
    RedisCluster,
    /// gRPC.
    Etcd,
    /// HTTP, signed.
    K2v,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// Writes.
    Put,
    /// Reads.
    Get,
}

impl Op {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Get => "get",
        }
    }
}

/// Arguments of `load`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose protocol.
    #[arg(long)]
    protocol: Protocol,
    /// The name in the table.
    #[arg(long)]
    name: String,
    /// Servers, HOST:PORT, separated by commas; workers take them in turn.
    #[arg(long, value_delimiter = ',', required = true)]
    addr: Vec<String>,
    #[command(flatten)]
    pub(crate) common: Common,
    /// Write every key once before.
    #[arg(long)]
    fill: bool,
    /// Process ids of the servers, for their CPU time.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// K2V: bucket.
    #[arg(long, default_value = "peers")]
    bucket: String,
    /// K2V: id of the key.
    #[arg(long, default_value = "")]
    key_id: String,
    /// K2V: the secret of the key, by way of the environment.
    #[arg(long, env = "PEERS_SECRET", default_value = "", hide_env_values = true)]
    secret: String,
    /// K2V: region.
    #[arg(long, default_value = "garage")]
    region: String,
}

/// What is the same for all peers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// What to measure.
    #[arg(long)]
    pub(crate) op: Op,
    /// Requests under way at once.
    #[arg(long, short, default_value_t = 64)]
    pub(crate) concurrency: u32,
    /// Keys.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 1_024)]
    pub(crate) value: u64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1)]
    pub(crate) warmup: u64,
    /// The file that the run is appended to.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

enum Conn {
    Redis(Redis),
    Etcd(Etcd),
    K2v(K2v),
}

impl Conn {
    async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), PeerError> {
        match self {
            Conn::Redis(redis) => redis.put(key, value).await,
            Conn::Etcd(etcd) => etcd.put(key, value).await,
            Conn::K2v(k2v) => k2v.put(key, value).await,
        }
    }

    async fn get(&mut self, key: &str) -> Result<(), PeerError> {
        let found = match self {
            Conn::Redis(redis) => redis.get(key).await?,
            Conn::Etcd(etcd) => etcd.get(key).await?,
            Conn::K2v(k2v) => k2v.get(key).await?,
        };
        found.map(drop).ok_or_else(|| PeerError::Absent { key: key.to_owned() })
    }
}

/// What workers share.
struct Shared {
    /// The next key to be written where each write is of a new one.
    fresh: Option<Cell<u64>>,
    keys: u64,
    value: Vec<u8>,
}

/// Runs the load and appends what it showed.
pub(crate) fn run(args: &Args) -> Result<(), PeerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = LocalSet::new().block_on(&runtime, measure(args))?;
    run.append(&args.common.out)?;
    println!("{} {} {:.0}/s", run.peer, run.op, run.ops_per_second);
    Ok(())
}

async fn measure(args: &Args) -> Result<Run, PeerError> {
    let Common { op, concurrency, keys, value, seconds, warmup, .. } = args.common.clone();
    // Items of K2V that exist would become siblings: see `k2v.rs`.
    let fresh = (args.protocol == Protocol::K2v && op == Op::Put).then(|| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Cell::new(since.as_micros() as u64)
    });
    let shared = Rc::new(Shared { fresh, keys, value: vec![b'x'; value as usize] });
    let mut conns = connect(args).await?;
    if args.fill {
        conns = fill(conns, &shared).await?;
    }
    let begin = Instant::now() + Duration::from_secs(warmup);
    let end = begin + Duration::from_secs(seconds);
    let workers: Vec<_> = (1_u64..)
        .zip(conns)
        .map(|(seed, conn)| {
            let worker = work(conn, shared.clone(), op, seed, begin, end);
            tokio::task::spawn_local(worker)
        })
        .collect();
    tokio::time::sleep_until(begin.into()).await;
    let cpu = cpu_of(&args.pids)?;
    tokio::time::sleep_until(end.into()).await;
    let cpu = cpu_of(&args.pids)?.saturating_sub(cpu);
    let (mut all, mut failed) = (histogram(), 0);
    for worker in workers {
        let (took, errors) = worker.await.map_err(|error| PeerError::Usage(error.to_string()))?;
        all.add(took).expect("a histogram that resizes takes any value");
        failed += errors;
    }
    let per_op = |_: &u32| cpu.as_secs_f64() * 1e6 / all.len().max(1) as f64;
    Ok(Run {
        peer: args.name.clone(),
        op: op.name().to_owned(),
        concurrency,
        value_bytes: value,
        ops_per_second: all.len() as f64 / seconds.max(1) as f64,
        p50_us: at(&all, 0.5),
        p99_us: at(&all, 0.99),
        server_cpu_us: args.pids.first().map(per_op),
        failed,
    })
}

async fn connect(args: &Args) -> Result<Vec<Conn>, PeerError> {
    let mut conns = Vec::new();
    let mut shared: Vec<Etcd> = Vec::new();
    let addresses = (0..args.common.concurrency as usize).zip(args.addr.iter().cycle());
    for (at, addr) in addresses {
        conns.push(match args.protocol {
            Protocol::Redis => Conn::Redis(Redis::connect(addr, false).await?),
            Protocol::RedisCluster => Conn::Redis(Redis::connect(addr, true).await?),
            Protocol::Etcd => match shared.get(at % args.addr.len()) {
                Some(etcd) => Conn::Etcd(etcd.clone()),
                None => {
                    shared.push(Etcd::connect(addr).await?);
                    Conn::Etcd(shared[at].clone())
                }
            },
            Protocol::K2v => {
                let credentials = Credentials {
                    key_id: args.key_id.clone(),
                    secret: args.secret.clone(),
                    region: args.region.clone(),
                    service: "k2v".to_owned(),
                };
                Conn::K2v(K2v::connect(addr, &args.bucket, credentials).await?)
            }
        });
    }
    Ok(conns)
}

/// Writes every key once; the first error ends it.
async fn fill(conns: Vec<Conn>, shared: &Rc<Shared>) -> Result<Vec<Conn>, PeerError> {
    let next = Rc::new(Cell::new(0));
    let fillers = conns.into_iter().map(|mut conn| {
        let (next, shared) = (next.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            while next.get() < shared.keys {
                let number = next.replace(next.get() + 1);
                conn.put(&key(number), &shared.value).await?;
            }
            Ok::<Conn, PeerError>(conn)
        })
    });
    let mut back = Vec::new();
    for filler in fillers.collect::<Vec<_>>() {
        back.push(filler.await.map_err(|error| PeerError::Usage(error.to_string()))??);
    }
    Ok(back)
}

async fn work(
    mut conn: Conn,
    shared: Rc<Shared>,
    op: Op,
    seed: u64,
    begin: Instant,
    end: Instant,
) -> (Histogram<u64>, u64) {
    let (mut latencies, mut errors, mut state) = (histogram(), 0, seed);
    loop {
        let began = Instant::now();
        if began >= end {
            return (latencies, errors);
        }
        let number = match &shared.fresh {
            Some(next) => next.replace(next.get() + 1),
            None => next_random(&mut state) % shared.keys,
        };
        let key = key(number);
        let done = match op {
            Op::Put => conn.put(&key, &shared.value).await,
            Op::Get => conn.get(&key).await,
        };
        let now = Instant::now();
        if began < begin || now > end {
            continue;
        }
        match done {
            Ok(()) => {
                let micros = (now - began).as_micros().max(1) as u64;
                latencies.record(micros).expect("a histogram that resizes takes any value");
            }
            Err(error) => {
                if errors == 0 {
                    eprintln!("peers: {error}");
                }
                errors += 1;
                // A server that refuses at once must not make this loop spin.
                tokio::task::yield_now().await;
            }
        }
    }
}

fn key(number: u64) -> String {
    format!("peers-{number:010}")
}

fn histogram() -> Histogram<u64> {
    // Grows as needed: a latency is never cut.
    Histogram::new(3).expect("3 digits are within 0..=5")
}

/// SplitMix64: good enough to pick keys, the same for every run.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
