//! Starting and stopping a node.
//!
//! Start: lock the data directory, open the engine, give each lane its thread, endpoint and store.
//! Stop: every lane drains and syncs, then the engine is closed, then the clean mark is written,
//! in that order: a mark is a promise about everything before it. A lane that fails takes the whole
//! node down without the mark. Next to read: `hosted.rs`.

use crate::cluster_file::{ClusterFile, ClusterFileError};
use crate::config::NodeConfig;
use crate::hosted::{Hosted, Parts, note_start};
use crate::renewal::Renewal;
use crate::shared::note_loss;
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::placement::{LayoutState, Member, MemberError};
use galvani_model::store::StoreError;
use galvani_protocol::Topology;
use galvani_storage::dir::{DataDir, DirError, DirIdentity, OpenedDir, StartKind, UncleanWhy};
use galvani_storage::engine::{Engine, EngineConfig, EngineError, FjallEngine, PowerHistory};
use galvani_transport::pki::{Identity, PkiError};
use galvani_transport::{
    BindError, Config, KeysError, MtuBound, MtuBoundError, PeerIdentity, TransportKeys,
};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, UnboundedSender};

const MIB: u64 = 1 << 20;

/// Why a node did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The cluster file cannot be used.
    #[error(transparent)]
    ClusterFile(#[from] ClusterFileError),
    /// The layout has no node of this name.
    #[error("node {name:?} is not in the layout: its nodes are {known}")]
    NotAMember {
        /// The configured name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// What `[join]` says cannot be a member.
    #[error("[join]: {0}")]
    Join(#[from] MemberError),
    /// The identity cannot be read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The certificate names another node than the layout.
    #[error("the certificate in {path} is not the one of node {name}")]
    WrongCertificate {
        /// The identity directory.
        path: PathBuf,
        /// The configured name.
        name: String,
    },
    /// The root in the identity is that of another cluster: no member would talk to this node.
    #[error("the certificates in {path} are of cluster {of}, the cluster file is of {cluster}")]
    OtherCluster {
        /// The identity directory.
        path: PathBuf,
        /// The cluster they are of.
        of: String,
        /// The cluster file's.
        cluster: ClusterId,
    },
    /// The transport's own keys cannot be read or made.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}")]
    Dir {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: DirError,
    },
    /// The engine does not open.
    #[error("storage in {path}: {source}")]
    Engine {
        /// Where.
        path: PathBuf,
        /// Why.
        source: EngineError,
    },
    /// Rows that a start needs cannot be read, or the last commit of a stop failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A lane cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The datagram size cannot be used.
    #[error(transparent)]
    Mtu(#[from] MtuBoundError),
    /// A thread or runtime could not be made.
    #[error("lane {lane}: {source}")]
    Thread {
        /// Which lane.
        lane: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process runs under the same node id. This one served for seconds at most, and sent
    /// off all that it had taken in.
    #[error("node {name} runs already: at {at}, for {} s", up_ms / 1_000)]
    RunsTwice {
        /// The node's name.
        name: String,
        /// Where the other one listens, as it says.
        at: SocketAddr,
        /// How long it ran when this one was told, in milliseconds.
        up_ms: u64,
    },
    /// A lane ended although nobody stopped it: a bug; what it said is in the log.
    #[error("lane {lane} stopped by itself; the next start takes new incarnations")]
    LaneEnded {
        /// Which lane.
        lane: u16,
    },
}

/// Runs a node on the calling thread and its lanes on their own, until `stop` resolves. `ready` is
/// called once every lane listens.
pub fn run(
    config: NodeConfig,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let node = Node::open(config)?;
    let (ended, mut on_ended) = mpsc::unbounded_channel();
    let lanes = node.spawn_lanes(&ended)?;
    drop(ended);
    ready();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| NodeError::Thread { lane: 0, source })?;
    let mut renewal = Renewal::of(&node.identity);
    let failed = runtime.block_on(async {
        tokio::select! {
            () = stop => None,
            lane = on_ended.recv() => lane,
            () = renewal.watch(&node.hosted) => None,
        }
    });
    node.stop(lanes, failed)
}

/// A node whose files are open.
struct Node {
    name: String,
    dir: DataDir,
    /// Where its certificate is.
    identity: PathBuf,
    hosted: Hosted<FjallEngine>,
}

/// A lane's thread; its result is that of its last commit.
type LaneThread = JoinHandle<Result<(), StoreError>>;

impl Node {
    fn open(config: NodeConfig) -> Result<Node, NodeError> {
        let file = ClusterFile::load(&config.node.cluster)?;
        let name = config.node.name.clone();
        let identity = Identity::load(&config.node.identity)?;
        let (of, cluster) = (identity.cluster_id_hex()?, file.layout.cluster());
        if of != cluster.to_string() {
            let path = config.node.identity.clone();
            return Err(NodeError::OtherCluster { path, of, cluster });
        }
        let id = match identity.peer_identity()? {
            PeerIdentity::Node { id } => NodeId::from_bytes(id),
            PeerIdentity::Client { .. } => {
                let path = config.node.identity.clone();
                return Err(NodeError::WrongCertificate { path, name });
            }
        };
        let founder = file.layout.member_named(&name);
        let joins = config.join.as_ref();
        let member = match (founder, joins) {
            (Some(member), _) if member.id() != id => {
                let path = config.node.identity.clone();
                return Err(NodeError::WrongCertificate { path, name });
            }
            (Some(member), _) => member.clone(),
            (None, Some(join)) => join.member(id, &name)?,
            (None, None) => {
                let names: Vec<_> = file.layout.members().iter().map(Member::name).collect();
                return Err(NodeError::NotAMember { name, known: names.join(", ") });
            }
        };
        let keys = TransportKeys::load_or_create(&config.node.identity)?;
        let opened = open_dir(&config, &file, &member)?;
        tracing::info!(event = "node_start", node = %member.name(), start = ?opened.start);
        let engine = open_engine(&config, &opened)?;
        let keep_origins = note_start(&engine, opened.start, rand::random())?;
        opened
            .dir
            .settle()
            .map_err(|source| NodeError::Dir { path: config.node.data.clone(), source })?;
        // What an earlier run left to the operating system may be acked as durable from now on.
        let path = opened.dir.engine_path();
        engine.sync().map_err(|source| NodeError::Engine { path, source })?;
        let founding = Arc::new(LayoutState::founding(file.layout.clone()));
        let (buckets, key) = (file.buckets(), file.context_key());
        let topology = Topology::new(member.id(), file.name.clone(), founding, buckets, key);
        let mtu_upper_bound = MtuBound::new(config.transport.mtu_max)?;
        let hosted = Hosted::new(Parts {
            identity,
            keys,
            topology,
            member: Some(member),
            engine: Arc::new(engine),
            limits: config.limits.clone(),
            durability: config.node.durability,
            transport: Config { mtu_upper_bound, ..Config::default() },
            keep_origins,
            faults: config.transport.faults,
            data: Some(config.node.data.clone()),
        })?;
        let identity = config.node.identity.clone();
        Ok(Node { name: name.clone(), dir: opened.dir, identity, hosted })
    }

    /// Binds every lane and starts its thread. If one cannot, those that could are stopped.
    fn spawn_lanes(&self, ended: &UnboundedSender<u16>) -> Result<Vec<LaneThread>, NodeError> {
        let mut threads = Vec::new();
        for lane in 0..self.hosted.lanes() {
            let spawned = self.prepare_lane(lane).and_then(|(runtime, life)| {
                let ended = ended.clone();
                let body = move || {
                    // Also when the lane panics: then the node must not go on without it.
                    let _last_word = LastWord { lane, ended };
                    runtime.block_on(life)
                };
                let named = thread::Builder::new().name(format!("lane-{lane}"));
                named.spawn(body).map_err(|source| NodeError::Thread { lane, source })
            });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.hosted.stop();
                    for thread in threads {
                        let _ = thread.join();
                    }
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    fn prepare_lane(
        &self,
        lane: u16,
    ) -> Result<(Runtime, impl Future<Output = Result<(), StoreError>> + Send + 'static), NodeError>
    {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| NodeError::Thread { lane, source })?;
        let life = {
            let _inside = runtime.enter();
            self.hosted.lane(lane)?
        };
        Ok((runtime, life))
    }

    fn stop(self, lanes: Vec<LaneThread>, failed: Option<u16>) -> Result<(), NodeError> {
        tracing::info!(event = "node_stop", node = %self.name);
        self.hosted.stop();
        let mut result = match (self.hosted.twin(), failed) {
            (Some(twin), _) => {
                let name = self.name.clone();
                Err(NodeError::RunsTwice { name, at: twin.address, up_ms: twin.up_ms })
            }
            (None, Some(lane)) => Err(NodeError::LaneEnded { lane }),
            (None, None) => Ok(()),
        };
        for (lane, thread) in lanes.into_iter().enumerate() {
            let ended = match thread.join() {
                Ok(committed) => committed.map_err(NodeError::Store),
                Err(_) => Err(NodeError::LaneEnded { lane: lane as u16 }),
            };
            result = result.and(ended);
        }
        if self.hosted.twin().is_some() {
            // The other one goes on without this disk: what it will ack is not here.
            note_loss(&**self.hosted.engine(), rand::random())?;
        }
        result?;
        let Node { dir, hosted, .. } = self;
        let path = dir.engine_path();
        hosted.engine().sync().map_err(|source| NodeError::Engine { path, source })?;
        drop(hosted);
        let path = dir.path().to_owned();
        dir.stop_clean().map_err(|source| NodeError::Dir { path, source })
    }
}

/// Tells the node that a lane's thread is over, however it ended.
struct LastWord {
    lane: u16,
    ended: UnboundedSender<u16>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let _ = self.ended.send(self.lane);
    }
}

fn open_dir(
    config: &NodeConfig,
    file: &ClusterFile,
    member: &Member,
) -> Result<OpenedDir, NodeError> {
    let path = &config.node.data;
    let identity = DirIdentity { cluster: file.layout.cluster(), node: member.id() };
    let opened = match DataDir::open(path, Some(identity)) {
        Err(DirError::Empty) => DataDir::create(path, identity),
        opened => opened,
    };
    opened.map_err(|source| NodeError::Dir { path: path.clone(), source })
}

fn open_engine(config: &NodeConfig, opened: &OpenedDir) -> Result<FjallEngine, NodeError> {
    let path = opened.dir.engine_path();
    let engine_config = EngineConfig {
        reserve_bytes: config.storage.reserve_mib * MIB,
        cache_bytes: config.storage.cache_mib * MIB,
        memtable_bytes: config.storage.memtable_mib * MIB,
        ..EngineConfig::default()
    };
    let crashed = StartKind::Unclean { why: UncleanWhy::Crashed };
    if opened.start == crashed && opened.power == PowerHistory::SameBoot {
        FjallEngine::renew_journals(&path)
            .map_err(|source| NodeError::Engine { path: path.clone(), source })?;
    }
    let (engine, report) = FjallEngine::open(&path, engine_config, opened.power)
        .map_err(|source| NodeError::Engine { path, source })?;
    if let Some(cut) = report.cut {
        tracing::warn!(event = "journal_cut", cut = ?cut);
    }
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use super::LastWord;
    use tokio::sync::mpsc::unbounded_channel;

    /// The node stops then: it must not go on without a lane.
    #[test]
    fn a_lane_that_panics_is_told_of() {
        let (ended, mut told) = unbounded_channel();
        let lane = std::thread::spawn(move || {
            let _last_word = LastWord { lane: 3, ended };
            panic!("an invariant is broken");
        });
        assert!(lane.join().is_err());
        assert_eq!(told.try_recv(), Ok(3));
    }
}
