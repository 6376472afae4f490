//! A node without threads and files of its own: the caller gives it an engine and a network, and
//! runs its lanes.
//!
//! `node.rs` makes its node here and gives each lane a thread; a simulation makes many and runs all
//! their lanes on one. A node that is dropped with its lanes is one that crashed. Next to read:
//! `lane_loop.rs`.

use crate::client_rates::ClientRates;
use crate::clock::Clock;
use crate::config::DurabilityMode;
use crate::faults::NodeFaults;
use crate::figures;
use crate::lane_loop::LaneLoop;
use crate::lane_loop::twins::Twins;
use crate::links::Links;
use crate::node::NodeError;
use crate::repair::LaneRepair;
use crate::shared::{
    Control, Shared, is_blank, load_buckets, load_layout, load_member, note_loss, save_member,
};
use galvani_model::ids::{BootId, LaneIndex};
use galvani_model::limits::Limits;
use galvani_model::placement::Member;
use galvani_model::store::StoreError;
use galvani_protocol::{Lane, LaneConfig, PeerLane, Topology};
use galvani_storage::dir::{StartKind, UncleanWhy};
use galvani_storage::engine::Engine;
use galvani_storage::{NodeStore, Opened, StoreConfig};
use galvani_transport::pki::Identity;
use galvani_transport::{BindError, Config, LaneEndpoint, Transport, TransportKeys};
use galvani_wire::NodeStatus;
use galvani_wire::twin::Greeting;
use parking_lot::Mutex;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a node is made of.
#[derive(Debug)]
pub struct Parts<E> {
    /// Who it is, as its certificate says.
    pub identity: Identity,
    /// By which peers know it again after a restart.
    pub keys: TransportKeys,
    /// Who it is, and the layout and the buckets that the cluster began with.
    pub topology: Topology,
    /// How it is reached where the layout does not say so: it is no member yet.
    pub member: Option<Member>,
    /// Where its rows are.
    pub engine: Arc<E>,
    /// Bounds of its lanes.
    pub limits: Limits,
    /// When a write counts as stored.
    pub durability: DurabilityMode,
    /// Settings of its endpoints, the network with its clock and randomness among them.
    pub transport: Config,
    /// Whether its origins may be used again: only after a stop known to be clean ([`note_start`]).
    pub keep_origins: bool,
    /// Whether faults may be set on it while it runs.
    pub faults: bool,
    /// The directory its engine's files are in, if they are files.
    pub data: Option<PathBuf>,
}

/// Notes in `engine` what a start of this kind means for the node's data, before anything is read there;
/// a loss gets the name `random`. Returns whether the node's origins may be used again.
///
/// Only a clean stop proves that the counters on disk are all that was ever minted (algorithms 2.2); the
/// other owners confirm it all the same. A directory that is new or a copy may lack what the node acked.
pub fn note_start<E: Engine>(
    engine: &E,
    start: StartKind,
    random: u128,
) -> Result<bool, StoreError> {
    let is_copy = start == (StartKind::Unclean { why: UncleanWhy::Copied });
    // A first start that was cut off before it noted anything is one, too.
    if is_copy || is_blank(engine)? {
        note_loss(engine, random)?;
    }
    Ok(start == StartKind::Clean)
}

/// A node whose lanes the caller runs.
pub struct Hosted<E: Engine> {
    member: Member,
    identity: Identity,
    keys: TransportKeys,
    limits: Limits,
    durability: DurabilityMode,
    transport: Config,
    keep_origins: bool,
    shared: Arc<Shared<E>>,
    clock: Clock,
    /// Of the lanes that were given out.
    transports: Mutex<Vec<Transport>>,
}

impl<E: Engine> Hosted<E> {
    /// Reads what a start needs; its clock starts now.
    pub fn new(parts: Parts<E>) -> Result<Hosted<E>, NodeError> {
        let Parts { engine, mut topology, transport, .. } = parts;
        if let Some(state) = load_layout(engine.as_ref())?
            && state.epoch() > topology.epoch()
            && state.current().cluster() == topology.layout().current().cluster()
        {
            let Topology { node, name, buckets, context_key, .. } = topology;
            topology = Topology::new(node, name, Arc::new(state), buckets, context_key);
        }
        let layout = topology.layout().clone();
        // One that left has written down what it was.
        let kept = load_member(engine.as_ref())?.filter(|kept| kept.id() == topology.node);
        let member = layout.member(topology.node).cloned().or(parts.member).or(kept);
        let Some(member) = member else {
            let names: Vec<_> = layout.members().map(Member::name).collect();
            let name = topology.node.to_string();
            return Err(NodeError::NotAMember { name, known: names.join(", ") });
        };
        save_member(engine.as_ref(), &member)?;
        let founding = topology.buckets.clone();
        topology.buckets.extend(load_buckets(engine.as_ref())?);
        let faults = parts.faults.then(|| NodeFaults::new(transport.network.random_u64()));
        let shared = Shared::new(engine, topology, member.lanes().len()).allowing_faults(faults);
        let shared = shared.with_data_in(parts.data.unwrap_or_default()).founded_with(founding);
        let faults = shared.faults.as_ref().map(NodeFaults::transport);
        let clock = Clock::start(transport.network.clone());
        Ok(Hosted {
            member,
            identity: parts.identity,
            keys: parts.keys,
            limits: parts.limits,
            durability: parts.durability,
            transport: Config { faults, ..transport },
            keep_origins: parts.keep_origins,
            shared: Arc::new(shared),
            clock,
            transports: Mutex::default(),
        })
    }

    /// Binds a lane's endpoint and opens its store. The future is the lane's whole life and ends with
    /// the result of its last commit. Call it inside the runtime that runs the future.
    pub fn lane(
        &self,
        lane: u16,
    ) -> Result<impl Future<Output = Result<(), StoreError>> + Send + 'static, NodeError> {
        let address = self.member.lanes()[lane as usize];
        let network = &self.transport.network;
        let transport = self.transport.clone();
        let endpoint = LaneEndpoint::bind(address, &self.identity, &self.keys, transport)?;
        self.transports.lock().push(endpoint.transport());
        let me = PeerLane { node: self.member.id(), lane: LaneIndex(lane) };
        let store_config = StoreConfig::of_lane(me.lane, self.lanes(), self.keep_origins);
        let Opened { store, kept } = NodeStore::open(self.shared.engine.clone(), store_config)?;
        // Heard before it is read: a bucket made in between comes as a message.
        let (sender, control) = mpsc::unbounded_channel();
        self.shared.add_control(sender);
        let topology = self.shared.topology();
        let boot = network.random_u128();
        let lane_config = LaneConfig {
            lane: me.lane,
            limits: self.limits.of_lane(self.lanes()),
            always_fsync: self.durability == DurabilityMode::Fsync,
            boot,
        };
        let links = Links::new(topology.layout().members(), me, network.random_u64());
        let lane_loop = LaneLoop {
            me,
            member: self.member.clone(),
            announced_at: 0,
            lane: Lane::new(lane_config, topology, kept),
            store,
            endpoint,
            links,
            rates: ClientRates::new(&self.limits),
            shared: self.shared.clone(),
            clock: self.clock.clone(),
            durability: self.durability,
            control,
            published_at: 0,
            tended_at: 0,
            repair: LaneRepair::default(),
            twins: Twins::new(BootId(boot), self.member.lanes()[0], self.clock.now()),
            costs: Default::default(),
        };
        Ok(lane_loop.run())
    }

    /// How many lanes there are to run.
    pub fn lanes(&self) -> u16 {
        self.member.lanes().len() as u16
    }

    /// Every lane shows and believes what `identity` says from now on; links that are up stay up. The
    /// first lane that refuses it says why, and all go on with what they had.
    pub fn renew(&self, identity: &Identity) -> Result<(), BindError> {
        self.transports.lock().iter().try_for_each(|transport| transport.renew(identity))
    }

    /// Tells every lane to finish what is under way and end.
    pub fn stop(&self) {
        self.shared.files.stop();
        self.shared.tell_all(&Control::Stop);
    }

    /// How it is, as it would tell a client.
    pub fn status(&self) -> NodeStatus {
        figures::status(&self.shared, &self.clock, self.durability)
    }

    /// The process that it stops for, if there is one: it is under the same node id and ran before.
    pub fn twin(&self) -> Option<Greeting> {
        self.shared.twin()
    }

    /// Where its rows are.
    pub fn engine(&self) -> &Arc<E> {
        &self.shared.engine
    }
}
