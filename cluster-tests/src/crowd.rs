//! A crowd before one node (O2): thousands of clients with large values, and links that ask and never read.
//!
//! Tasks share a few client handles, each asking for or writing a large value as fast as it is answered.
//! Raw links each ask for large values and read nothing, so that answers pile up at the node. An honest
//! client with small values goes on beside them. What is looked at: the node's resident memory, and whether
//! the honest client is served. Next to read: `raw.rs`.

use crate::cluster::Cluster;
use crate::raw;
use bytes::{Bytes, BytesMut};
use galvani_client::{Client, ErrorKind};
use galvani_model::key::Key;
use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{ALPN, Class, Role};
use galvani_wire::{Message, encode, message};
use quinn::{Connection, RecvStream, SendStream};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Who comes, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Client tasks, each with one request under way.
    pub tasks: usize,
    /// Links that ask and never read, at most 1,024 for each of three identities.
    pub deaf_links: usize,
    /// Requests on each of these.
    pub asks: usize,
    /// Bytes of the large values.
    pub value: usize,
    /// How long all of it goes on.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Resident bytes of the node before.
    pub memory_before: u64,
    /// The most that was seen.
    pub memory_max: u64,
    /// Deaf links that were made.
    pub deaf_links: usize,
    /// Requests of the tasks: answered, refused as too many, and those that ran out of time or links.
    pub tasks: [u64; 3],
    /// Why the first of the last kind failed.
    pub task_failure: Option<String>,
    /// Requests of the honest client that were answered, in microseconds, sorted.
    pub honest_micros: Vec<u64>,
    /// Why its others failed.
    pub honest_failures: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let (before, most) = (mib(self.memory_before), mib(self.memory_max));
        writeln!(f, "memory of the node: {before} MiB before, {most} MiB at most")?;
        let [done, refused, failed] = self.tasks;
        writeln!(f, "tasks: {done} requests done, {refused} refused, {failed} failed otherwise")?;
        if let Some(why) = &self.task_failure {
            writeln!(f, "  the first of these: {why}")?;
        }
        let at = |share: usize| {
            let last = self.honest_micros.len().saturating_sub(1);
            self.honest_micros.get(last * share / 100).map_or(0.0, |&micros| micros as f64 / 1e3)
        };
        let (count, failures) = (self.honest_micros.len(), self.honest_failures.len());
        writeln!(f, "{} links that read nothing", self.deaf_links)?;
        write!(
            f,
            "honest client: {count} served, {failures} failed; p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            at(50),
            at(99),
            at(100)
        )?;
        match self.honest_failures.first() {
            Some(why) => write!(f, "\n  the first: {why}"),
            None => Ok(()),
        }
    }
}

/// What all of them share.
#[derive(Default)]
struct Field {
    stop: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    /// Why the first of these failed.
    why: OnceLock<String>,
}

/// Runs it from the beginning to the end.
pub fn run(settings: &Settings) -> Report {
    let cluster = Cluster::with(&["-n", "1", "--lanes", "1"]);
    let field = Arc::new(Field::default());
    let value = Bytes::from(vec![b'v'; settings.value]);
    // One value a key, however often it is written: siblings would make every answer a hundred of them.
    cluster.run(&["bucket", "create", BUCKET, "-n", "1", "--policy", "lww"]).expect(0);
    let first = cluster.client();
    for number in 0..KEYS {
        let put = first.bucket(BUCKET).put(large(number), value.clone()).blind().send();
        cluster.block_on(put).expect("one client is served");
    }
    let memory_before = resident(&cluster);
    let ca = ClusterCa::load(&cluster.dir().join("ca")).expect("made by dev");
    let honest =
        cluster.runtime().spawn(honest(own_client(&cluster, &ca, "honest"), field.clone()));
    let handles: Vec<Client> =
        (0..HANDLES).map(|number| own_client(&cluster, &ca, &format!("crowd{number}"))).collect();
    let task = |number: usize| {
        let client = handles[number % handles.len()].clone();
        cluster.runtime().spawn(ask(client, field.clone(), value.clone(), number))
    };
    let tasks: Vec<JoinHandle<()>> = (0..settings.tasks).map(task).collect();
    let addr = cluster.node("n1").addr;
    let deaf = cluster.runtime().spawn(deaf_links(settings.clone(), ca, addr));

    let (began, mut memory_max) = (Instant::now(), memory_before);
    while began.elapsed() < settings.time {
        memory_max = memory_max.max(resident(&cluster));
        // wait: until the chosen time is over
        std::thread::sleep(LOOK);
    }
    field.stop.store(true, Ordering::Relaxed);
    let (honest_micros, honest_failures) = cluster.block_on(honest).expect("it does not panic");
    deaf.abort();
    let deaf_links = cluster.block_on(deaf).map_or(settings.deaf_links, |links| links.len());
    tasks.iter().for_each(JoinHandle::abort);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Report {
        memory_before,
        memory_max,
        deaf_links,
        tasks: [count(&field.done), count(&field.refused), count(&field.failed)],
        task_failure: field.why.get().cloned(),
        honest_micros,
        honest_failures,
    }
}

/// A client with a certificate and links of its own.
fn own_client(cluster: &Cluster, ca: &ClusterCa, name: &str) -> Client {
    let identity = ca.issue_client(name, Role::ReadWrite).expect("issued");
    cluster.block_on(cluster.builder().identity(identity).connect()).expect("the node runs")
}

/// Asks for and writes large values until it is told to stop.
async fn ask(client: Client, field: Arc<Field>, value: Bytes, number: usize) {
    for turn in number.. {
        if field.stop.load(Ordering::Relaxed) {
            return;
        }
        let key = large(turn % KEYS);
        let done = match turn % 10 {
            0 => client.bucket(BUCKET).put(key, value.clone()).blind().send().await.map(drop),
            _ => client.bucket(BUCKET).get(key).await.map(drop),
        };
        let counter = match &done {
            Ok(()) => &field.done,
            Err(error) if matches!(error.kind(), ErrorKind::Overloaded { .. }) => &field.refused,
            Err(error) => {
                field.why.get_or_init(|| error.to_string());
                &field.failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Small writes and reads, one after the other; how long they took, and why they failed.
async fn honest(client: Client, field: Arc<Field>) -> (Vec<u64>, Vec<String>) {
    let (mut micros, mut failures) = (Vec::new(), Vec::new());
    for turn in 0_u64.. {
        if field.stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, began) = (format!("honest/{}", turn % 50), Instant::now());
        let done =
            client.update(key, |_| galvani_client::Merge::Put(turn.to_string().into())).await;
        match done {
            Ok(_) => micros.push(began.elapsed().as_micros() as u64),
            Err(error) => failures.push(error.to_string()),
        }
        // wait: its pace is a part of the load
        tokio::time::sleep(HONEST_PAUSE).await;
    }
    micros.sort_unstable();
    (micros, failures)
}

/// A link, and the stream on which nothing is read.
type Deaf = (Connection, SendStream, RecvStream);

/// Makes them one after the other, and keeps them until it is aborted.
async fn deaf_links(settings: Settings, ca: ClusterCa, addr: SocketAddr) -> Vec<Deaf> {
    let identities: Vec<Identity> = (0..3)
        .map(|number| ca.issue_client(&format!("deaf{number}"), Role::ReadWrite).expect("issued"))
        .collect();
    let mut requests = BytesMut::new();
    for number in 0..settings.asks {
        let key = Key::new(BUCKET.parse().expect("a name"), large(number % KEYS)).expect("a key");
        let get = message::Get { key, options: Default::default(), timeout_ms: 60_000 };
        let mut payload = BytesMut::new();
        encode(number as u64 + 1, false, &Message::Get(get), &mut payload).expect("a small header");
        requests.extend_from_slice(&raw::frame(&payload));
    }
    let mut links = Vec::new();
    for number in 0..settings.deaf_links {
        let identity = &identities[number % identities.len()];
        // One that is refused or lost is one less.
        let Ok(connection) = raw::connect(identity, &identity.ca_pem, addr, ALPN).await else {
            continue;
        };
        let Ok((mut send, recv)) = connection.open_bi().await else { continue };
        let asked = async {
            send.write_all(&[Class::Client.wire_id()]).await?;
            send.write_all(&requests).await
        };
        if asked.await.is_ok() {
            links.push((connection, send, recv));
        }
    }
    // Until it is aborted: the links live as long as this does.
    std::future::pending::<()>().await;
    links
}

fn large(number: usize) -> String {
    format!("large/{number}")
}

/// Resident bytes of n1.
fn resident(cluster: &Cluster) -> u64 {
    let pid = cluster.pid("n1");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a process has resident memory") * 1024
}

/// Where they are.
const BUCKET: &str = "crowd";
/// Large values there are.
const KEYS: usize = 16;
/// Client handles that the tasks share.
const HANDLES: usize = 8;
const LOOK: Duration = Duration::from_millis(200);
const HONEST_PAUSE: Duration = Duration::from_millis(10);
