//! Nodes of a cluster in memory: started, crashed, stopped and stood still, with disks that are lost,
//! put back, full or copied.
//!
//! Each is a real node: its lanes, its endpoints and its store over an engine in memory that
//! outlives it, as a disk does. Certificates are made once for the whole process, all of one
//! length, so that handshakes are of one size. Next to read: `host.rs`.

use crate::memnet::host::Host;
use crate::memnet::wire::Wire;
use galvani_client::{Builder, Client, NodeStatus};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::version::ContextKey;
use galvani_node::config::DurabilityMode;
use galvani_node::hosted::{Hosted, Parts, note_start};
use galvani_protocol::Topology;
use galvani_storage::dir::{StartKind, UncleanWhy};
use galvani_storage::engine::{CrashKeep, Engine, MemoryEngine};
use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{Config, Network, Role, TransportKeys};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Most nodes of a cluster.
pub const NODES_MAX: u8 = 5;

/// What the nodes of a cluster have in common.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many there are.
    pub nodes: u8,
    /// Lanes of each.
    pub lanes: u16,
    /// When a write counts as stored.
    pub durability: DurabilityMode,
    /// Settings of the endpoints, but for the network.
    pub transport: Config,
    /// Whether a node has the same transport keys after a restart.
    pub keeps_keys: bool,
    /// Whether disks lose what was committed when a node crashes: they lie.
    pub disks_lie: bool,
    /// Whether a node knows of a disk that is new, or a copy.
    pub notices_loss: bool,
}

/// The nodes.
pub struct Nodes {
    plan: Plan,
    wire: Arc<Wire>,
    layout: Arc<Layout>,
    nodes: Vec<Node>,
    began: Instant,
    /// A process on a copy of a node's disk, with an address of its own.
    copy: Option<(Host, Running)>,
    rng: StdRng,
}

/// One node, running or not.
struct Node {
    host: Host,
    keys: TransportKeys,
    engine: Arc<MemoryEngine>,
    running: Option<Running>,
    /// What its directory says of its last run.
    start: StartKind,
    /// Whether its disk has no room.
    full: bool,
}

struct Running {
    hosted: Hosted<MemoryEngine>,
    lanes: Vec<JoinHandle<Result<(), String>>>,
}

impl Nodes {
    /// A cluster on `wire`, all of it started.
    pub fn start(plan: Plan, wire: &Arc<Wire>, seed: u64) -> Nodes {
        let mut rng = StdRng::seed_from_u64(seed);
        let members = (0..plan.nodes).map(usize::from);
        let members = members.map(|index| member_at(index, ip_of(index), plan.lanes));
        let cluster = ClusterId(0x5eed);
        let layout = Layout::compute(cluster, 1, PARTITIONS, COPIES, members.collect());
        let layout = Arc::new(layout.expect("three zones or more nodes than copies"));
        let nodes = (0..plan.nodes).map(usize::from).map(|index| {
            // Wall clocks differ by up to two seconds.
            let wall_ms = WALL_MS + rng.random_range(0..2_000);
            Node {
                host: Host::new(wire.clone(), ip_of(index), wall_ms, rng.random()),
                keys: keys(&mut rng),
                engine: Arc::new(MemoryEngine::new()),
                running: None,
                start: StartKind::Unclean { why: UncleanWhy::First },
                full: false,
            }
        });
        let nodes = nodes.collect();
        let mut all = Nodes {
            plan,
            wire: wire.clone(),
            layout,
            nodes,
            began: Instant::now(),
            copy: None,
            rng,
        };
        (0..all.len()).for_each(|index| all.begin(index));
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a node is.
    pub fn ip(&self, index: usize) -> IpAddr {
        self.nodes[index].host.ip()
    }

    /// Whether a node runs.
    pub fn runs(&self, index: usize) -> bool {
        self.nodes[index].running.is_some()
    }

    /// Starts a node that does not run.
    pub fn begin(&mut self, index: usize) {
        if !self.plan.keeps_keys {
            self.nodes[index].keys = keys(&mut self.rng);
        }
        let name = self.rng.random();
        let crashed = StartKind::Unclean { why: UncleanWhy::Crashed };
        let node = &mut self.nodes[index];
        let start = std::mem::replace(&mut node.start, crashed);
        let Node { host, keys, engine, .. } = &*node;
        let process = Process { index, host, keys, engine, start, name };
        node.running = Some(process.run(&self.plan, self.layout.clone()));
    }

    /// Starts a second process of a node on a copy of its disk as it is now, somewhere else.
    pub fn begin_copy(&mut self, index: usize) {
        let since_ms = self.began.elapsed().as_millis() as u64;
        let wall_ms = WALL_MS + since_ms + self.rng.random_range(0..2_000);
        let host = Host::new(self.wire.clone(), COPY_IP.into(), wall_ms, self.rng.random());
        let (keys, name) = (self.nodes[index].keys.clone(), self.rng.random());
        let members =
            self.layout.members().iter().map(|member| match member.id() == id_of(index) {
                true => member_at(index, COPY_IP.into(), self.plan.lanes),
                false => member.clone(),
            });
        let cluster = self.layout.cluster();
        let layout = Layout::compute(cluster, 1, PARTITIONS, COPIES, members.collect());
        let layout = Arc::new(layout.expect("as the first one, but for an address"));
        let engine = Arc::new(self.nodes[index].engine.snapshot());
        let start = StartKind::Unclean { why: UncleanWhy::Copied };
        let process = Process { index, host: &host, keys: &keys, engine: &engine, start, name };
        let running = process.run(&self.plan, layout);
        self.copy = Some((host, running));
    }

    /// Whether the process on a copy has ended, and by itself for the sake of the other one.
    pub fn copy_yielded(&self) -> bool {
        let yielded = |(_, running): &(Host, Running)| running.hosted.twin().is_some();
        self.copy.as_ref().is_some_and(yielded)
    }

    /// The process on a copy is gone.
    pub async fn end_copy(&mut self) {
        let Some((host, running)) = self.copy.take() else { return };
        self.wire.unplug(host.ip());
        running.abort().await;
    }

    /// Crashes a node: nobody hears a goodbye, and what was under way is gone. With the power, if
    /// `power`, what was not synced may be gone too.
    pub async fn crash(&mut self, index: usize, power: bool) {
        let unsynced = self.rng.random_range(0..4);
        let node = &mut self.nodes[index];
        let Some(running) = node.running.take() else { return };
        self.wire.unplug(node.host.ip());
        // What stands still could not be taken away.
        node.host.pause(false);
        running.abort().await;
        node.engine.crash(match (self.plan.disks_lie, power) {
            (true, _) => CrashKeep::Synced { unsynced: 0 },
            (false, true) => CrashKeep::Synced { unsynced },
            (false, false) => CrashKeep::Committed,
        });
        if self.plan.disks_lie {
            node.start = StartKind::Clean;
        }
    }

    /// Stops a node in peace.
    pub async fn stop(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(running) = node.running.take() else { return Ok(()) };
        running.hosted.stop();
        let mut committed = Ok(());
        for lane in running.lanes {
            let ended = tokio::time::timeout(STOP_MOST, lane).await;
            let ended = ended
                .map_err(|_| format!("node {} did not stop in {STOP_MOST:?}", index + 1))?
                .map_err(|error| error.to_string())?;
            committed = committed.and(ended);
        }
        // A process that is over has no sockets, whatever QUIC would still like to say.
        self.wire.unplug(node.host.ip());
        if running.hosted.twin().is_some() {
            // As a process does that ends for another one: it notes that it will lack what that one acks.
            node.start = StartKind::Unclean { why: UncleanWhy::Copied };
            return committed.or(if node.full { Ok(()) } else { Err("a lane failed".to_owned()) });
        }
        match (committed, node.full) {
            (Ok(()), _) => {
                node.engine.sync().map_err(|error| error.to_string())?;
                node.start = StartKind::Clean;
                Ok(())
            }
            // Its last batch had no room: it says so, and such a stop is not a clean one.
            (Err(_), true) => Ok(()),
            (Err(why), false) => Err(why),
        }
    }

    /// A copy of what a node's disk holds now.
    pub fn copy_of_disk(&self, index: usize) -> MemoryEngine {
        self.nodes[index].engine.snapshot()
    }

    /// Another disk for a node that does not run: an older copy of its own, or none.
    pub fn put_disk(&mut self, index: usize, older: Option<MemoryEngine>) {
        let node = &mut self.nodes[index];
        assert!(node.running.is_none(), "a process holds its disk");
        let why = if older.is_some() { UncleanWhy::Copied } else { UncleanWhy::First };
        node.start = StartKind::Unclean { why };
        node.engine = Arc::new(older.unwrap_or_default());
        node.engine.set_full(node.full);
    }

    /// A node's disk has no room, or has room again.
    pub fn fill(&mut self, index: usize, full: bool) {
        let node = &mut self.nodes[index];
        node.full = full;
        node.engine.set_full(full);
    }

    /// A node's wall clock jumps.
    pub fn jump(&self, index: usize, by_ms: i64) {
        self.nodes[index].host.jump(by_ms);
    }

    /// Stands a node still, or lets it go on.
    pub fn pause(&self, index: usize, paused: bool) {
        self.nodes[index].host.pause(paused);
    }

    /// Whether a node ends, or has ended, for the sake of another process under its id.
    pub fn yields(&self, index: usize) -> bool {
        let running = self.nodes[index].running.as_ref();
        running.is_some_and(|running| running.hosted.twin().is_some())
    }

    /// A node whose lane has ended by itself.
    pub fn ended(&self) -> Option<usize> {
        let ended = |node: &Node| {
            let lanes = node.running.iter().flat_map(|running| &running.lanes);
            lanes.into_iter().any(JoinHandle::is_finished)
        };
        self.nodes.iter().position(ended)
    }

    /// How each running node is, as it says itself.
    pub fn status(&self) -> Vec<NodeStatus> {
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        running.map(|running| running.hosted.status()).collect()
    }

    /// A client with an address of its own, `index` from 0.
    pub async fn client(&mut self, index: u8, call: Duration) -> galvani_client::Result<Client> {
        let seed = |index: usize| format!("{}:7000", self.ip(index));
        let seeds: Vec<String> = (0..self.len()).map(seed).collect();
        self.builder(index, &seeds.join(","), call).connect().await
    }

    /// A client of the process on a copy of node `of`, and of no other.
    pub async fn client_of_copy(
        &mut self,
        index: u8,
        of: usize,
        call: Duration,
    ) -> galvani_client::Result<Client> {
        let builder = self.builder(index, &format!("{COPY_IP}:7000"), call);
        builder.only(name_of(of)).connect_timeout(call).connect().await
    }

    fn builder(&mut self, index: u8, seeds: &str, call: Duration) -> Builder {
        let wall_ms = WALL_MS + self.began.elapsed().as_millis() as u64;
        let host = Host::new(self.wire.clone(), client_ip(index), wall_ms, self.rng.random());
        Client::builder()
            .seed(format!("galvani://{seeds}"))
            .identity(certificates().client.clone())
            .network(Network::custom(host))
            .zone(format!("z{}", index % 3))
            .timeout(call)
    }
}

impl Running {
    /// Takes it away: nothing of it runs any more.
    async fn abort(self) {
        for lane in self.lanes {
            lane.abort();
            // An error says that it was aborted, which is what was wanted.
            let _ = lane.await;
        }
    }
}

/// What one process of a node is started with.
struct Process<'a> {
    index: usize,
    host: &'a Host,
    keys: &'a TransportKeys,
    engine: &'a Arc<MemoryEngine>,
    start: StartKind,
    /// Of a loss, if its disk has lost anything.
    name: u128,
}

impl Process<'_> {
    fn run(self, plan: &Plan, layout: Arc<Layout>) -> Running {
        let Process { index, host, keys, engine, start, name } = self;
        host.pause(false);
        let keep_origins = match plan.notices_loss {
            true => note_start(&**engine, start, name).expect("the disk is readable"),
            false => start == StartKind::Clean,
        };
        let topology = Topology::new(
            id_of(index),
            "memnet".to_owned(),
            Arc::new(LayoutState::founding(layout)),
            BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(COPIES))]),
            ContextKey([7; 16]),
        );
        let network = Network::custom(host.clone());
        let hosted = Hosted::new(Parts {
            identity: certificates().nodes[index].clone(),
            keys: keys.clone(),
            topology,
            member: None,
            engine: engine.clone(),
            limits: Limits::default(),
            durability: plan.durability,
            transport: Config { network, ..plan.transport.clone() },
            keep_origins,
            faults: false,
            data: None,
        });
        let hosted = hosted.expect("the disk is readable");
        let life = |lane| {
            let life = hosted.lane(lane).expect("its address is free and its disk readable");
            let life = async move { life.await.map_err(|error| error.to_string()) };
            tokio::spawn(host.gated(life))
        };
        let lanes = (0..hosted.lanes()).map(life).collect();
        Running { hosted, lanes }
    }
}

/// Where the client `index` is.
pub fn client_ip(index: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, index + 1).into()
}

fn ip_of(index: usize) -> IpAddr {
    let last = u8::try_from(index + 1).expect("few nodes");
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn id_of(index: usize) -> NodeId {
    NodeId(index as u128 + 1)
}

fn name_of(index: usize) -> String {
    format!("n{}", index + 1)
}

fn member_at(index: usize, ip: IpAddr, lanes: u16) -> Member {
    let lanes = (0..lanes).map(|lane| SocketAddr::new(ip, 7_000 + lane)).collect();
    let zone = format!("z{}", index % 3);
    Member::new(id_of(index), name_of(index), zone, 100, lanes).expect("a good member")
}

fn keys(rng: &mut StdRng) -> TransportKeys {
    let mut reset_key = [0; 64];
    rng.fill(&mut reset_key[..]);
    TransportKeys { reset_key, cid_key: rng.random() }
}

struct Certificates {
    nodes: Vec<Identity>,
    client: Identity,
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let ca = longest(
            || ClusterCa::create_ed25519("5eed").expect("a good id"),
            |ca| ca.cert_pem.len(),
        );
        let node = |index: u8| {
            let id = format!("{:032x}", id_of(index.into()).0);
            longest(|| ca.issue_node(&id, &[]).expect("a good id"), |made| made.cert_pem.len())
        };
        let client = || ca.issue_client("memnet", Role::Admin).expect("a good name");
        let client = longest(client, |made| made.cert_pem.len());
        Certificates { nodes: (0..NODES_MAX).map(node).collect(), client }
    })
}

/// Of several the longest: now and then one is a byte shorter, for a serial number that begins with
/// zeros, and that would make another trace of the same seed.
fn longest<T>(make: impl Fn() -> T, length: impl Fn(&T) -> usize) -> T {
    (0..6).map(|_| make()).max_by_key(length).expect("there are some")
}

/// What the wall clock shows when a run begins, before what is wrong with it.
const WALL_MS: u64 = 1_800_000_000_000;
const COPIES: u8 = 3;
const PARTITIONS: u16 = 16;
/// Where a process on a copy of a node's disk is.
const COPY_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// Most time a node may take to stop: its drain, and its last answers.
const STOP_MOST: Duration = Duration::from_secs(8);
