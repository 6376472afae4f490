//! Nodes of a cluster in memory: started, crashed, stopped and stood still.
//!
//! Each is a real node: its lanes, its endpoints and its store over an engine in memory that
//! outlives it, as a disk does. Certificates are made once for the whole process, all of one
//! length, so that handshakes are of one size. Next to read: `host.rs`.

use crate::memnet::host::Host;
use crate::memnet::wire::Wire;
use galvani_client::{Client, NodeStatus};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::version::ContextKey;
use galvani_node::config::DurabilityMode;
use galvani_node::hosted::{Hosted, Parts};
use galvani_protocol::Topology;
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
}

/// The nodes.
pub struct Nodes {
    plan: Plan,
    wire: Arc<Wire>,
    layout: Arc<Layout>,
    nodes: Vec<Node>,
    rng: StdRng,
}

/// One node, running or not.
struct Node {
    id: NodeId,
    host: Host,
    keys: TransportKeys,
    engine: Arc<MemoryEngine>,
    running: Option<Running>,
    /// Whether the last run ended cleanly.
    clean: bool,
}

struct Running {
    hosted: Hosted<MemoryEngine>,
    lanes: Vec<JoinHandle<Result<(), String>>>,
}

impl Nodes {
    /// A cluster on `wire`, all of it started.
    pub fn start(plan: Plan, wire: &Arc<Wire>, seed: u64) -> Nodes {
        let mut rng = StdRng::seed_from_u64(seed);
        let members = (0..plan.nodes).map(|index| {
            let lanes = (0..plan.lanes).map(|lane| SocketAddr::new(ip_of(index), 7_000 + lane));
            let (name, zone) = (format!("n{}", index + 1), format!("z{}", index % 3));
            Member::new(id_of(index), name, zone, 100, lanes.collect()).expect("a good member")
        });
        let cluster = ClusterId(0x5eed);
        let layout = Layout::compute(cluster, 1, PARTITIONS, COPIES, members.collect());
        let layout = Arc::new(layout.expect("three zones or more nodes than copies"));
        let nodes = (0..plan.nodes).map(|index| {
            // Wall clocks differ by up to two seconds.
            let wall_ms = WALL_MS + rng.random_range(0..2_000);
            Node {
                id: id_of(index),
                host: Host::new(wire.clone(), ip_of(index), wall_ms, rng.random()),
                keys: keys(&mut rng),
                engine: Arc::new(MemoryEngine::new()),
                running: None,
                clean: false,
            }
        });
        let nodes = nodes.collect();
        let mut all = Nodes { plan, wire: wire.clone(), layout, nodes, rng };
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
        let node = &mut self.nodes[index];
        node.host.pause(false);
        let topology = Topology::new(
            node.id,
            "memnet".to_owned(),
            Arc::new(LayoutState::founding(self.layout.clone())),
            BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(COPIES))]),
            ContextKey([7; 16]),
        );
        let network = Network::custom(node.host.clone());
        let hosted = Hosted::new(Parts {
            identity: certificates().nodes[index].clone(),
            keys: node.keys.clone(),
            topology,
            member: None,
            engine: node.engine.clone(),
            limits: Limits::default(),
            durability: self.plan.durability,
            transport: Config { network, ..self.plan.transport.clone() },
            keep_origins: std::mem::take(&mut node.clean),
            faults: false,
            data: None,
        });
        let hosted = hosted.expect("the disk is readable");
        let life = |lane| {
            let life = hosted.lane(lane).expect("its address is free and its disk readable");
            let life = async move { life.await.map_err(|error| error.to_string()) };
            tokio::spawn(node.host.gated(life))
        };
        let lanes = (0..hosted.lanes()).map(life).collect();
        node.running = Some(Running { hosted, lanes });
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
        for lane in running.lanes {
            lane.abort();
            // An error says that it was aborted, which is what was wanted.
            let _ = lane.await;
        }
        node.engine.crash(match (self.plan.disks_lie, power) {
            (true, _) => CrashKeep::Synced { unsynced: 0 },
            (false, true) => CrashKeep::Synced { unsynced },
            (false, false) => CrashKeep::Committed,
        });
        node.clean = self.plan.disks_lie;
    }

    /// Stops a node in peace.
    pub async fn stop(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(running) = node.running.take() else { return Ok(()) };
        running.hosted.stop();
        for lane in running.lanes {
            let ended = tokio::time::timeout(STOP_MOST, lane).await;
            ended
                .map_err(|_| format!("node {} did not stop in {STOP_MOST:?}", index + 1))?
                .map_err(|error| error.to_string())??;
        }
        // A process that is over has no sockets, whatever QUIC would still like to say.
        self.wire.unplug(node.host.ip());
        node.engine.sync().map_err(|error| error.to_string())?;
        node.clean = true;
        Ok(())
    }

    /// Stands a node still, or lets it go on.
    pub fn pause(&self, index: usize, paused: bool) {
        self.nodes[index].host.pause(paused);
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
        let host = Host::new(self.wire.clone(), client_ip(index), WALL_MS, self.rng.random());
        let seed = |index: usize| format!("{}:7000", self.ip(index));
        let seeds: Vec<String> = (0..self.len()).map(seed).collect();
        Client::builder()
            .seed(format!("galvani://{}", seeds.join(",")))
            .identity(certificates().client.clone())
            .network(Network::custom(host))
            .zone(format!("z{}", index % 3))
            .timeout(call)
            .connect()
            .await
    }
}

/// Where the client `index` is.
pub fn client_ip(index: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, index + 1).into()
}

fn ip_of(index: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, index + 1).into()
}

fn id_of(index: u8) -> NodeId {
    NodeId(u128::from(index) + 1)
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
        let node = |index| {
            let id = format!("{:032x}", id_of(index).0);
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
/// Most time a node may take to stop: its drain, and its last answers.
const STOP_MOST: Duration = Duration::from_secs(8);
