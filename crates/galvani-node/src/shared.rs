//! What the lanes of one node share: topology, figures, and a way to call each other.
//!
//! Lanes share no data path: a lane reads its own copy of the topology and gets a new one as an
//! input. Buckets and layouts are what changes while running; they are on disk before anyone here goes
//! by them. Next to read: `lane_loop.rs`.

use crate::faults::NodeFaults;
use crate::figures::LaneFigures;
use crate::repair::FileCheck;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{NodeId, Partition};
use galvani_model::placement::{LayoutState, Member};
use galvani_model::store::StoreError;
use galvani_protocol::{LOSS_FACT, Topology, facts_of_a_loss};
use galvani_storage::engine::{Batch, Durability, Engine, EngineError, Table};
use galvani_storage::format::{keys, rows};
use galvani_storage::write_facts;
use galvani_wire::message::CreateBucket;
use galvani_wire::twin::Greeting;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::UnboundedSender;

/// What another thread tells a lane. Rare, so the channel needs no bound beyond the number of
/// buckets, one stop, how often nodes can be found to be down or alive, and repairs, which only
/// administrators ask for.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    /// Buckets or layout have changed.
    Topology(Arc<Topology>),
    /// Lane 0 found out how a node is.
    Liveness {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        alive: bool,
    },
    /// A lane found out that the node's disk went back, and named that so.
    WentBack(u128),
    /// Another process served under this node's id.
    TwinServed(u128),
    /// An administrator asks for a repair; how many were asked for by then.
    Repair {
        /// The number.
        asked: u64,
        /// Only this partition, if it is said.
        partition: Option<Partition>,
    },
    /// Other nodes apply to be members.
    Applicants,
    /// Drain and end.
    Stop,
}

/// What the lanes of one node share.
pub(crate) struct Shared<E> {
    pub(crate) engine: Arc<E>,
    topology: Mutex<Arc<Topology>>,
    controls: Mutex<Vec<UnboundedSender<Control>>>,
    figures: Vec<Mutex<LaneFigures>>,
    /// When the disk was last asked, in the node's microseconds, and its answer in bytes.
    disk: Mutex<Option<(u64, u64)>>,
    /// Faults that may be set on purpose; `None` unless the configuration allows them.
    pub(crate) faults: Option<NodeFaults>,
    /// Repairs asked for since the node started.
    repairs: AtomicU64,
    /// What reading its files whole has found.
    pub(crate) files: FileCheck,
    /// Buckets of the cluster file: every node knows them from its start.
    founding: BTreeMap<BucketName, BucketProps>,
    /// Where the data is, for people.
    pub(crate) data: PathBuf,
    /// The process under the same node id that this one ends for.
    twin: Mutex<Option<Greeting>>,
    /// Nodes that are no members and have told how they would be, and when, in this node's
    /// microseconds.
    applicants: Mutex<BTreeMap<NodeId, (Member, u64)>>,
}

/// How long an answer of the disk is good for, in microseconds: asking walks the directory.
const DISK_MICROS: u64 = 1_000_000;

/// The meta row of the layout's state.
const LAYOUT_KEY: &[u8] = b"layout";
/// The meta row of what this node is as a member.
const MEMBER_KEY: &[u8] = b"member";
/// Applicants that are kept, and for how long, in microseconds: they tell every two seconds.
const APPLICANTS_MAX: usize = 64;
const APPLICANT_MICROS: u64 = 10_000_000;
/// Meta rows of buckets: this, then the name.
const BUCKET_PREFIX: &[u8] = b"bucket/";

impl<E: Engine> Shared<E> {
    pub(crate) fn new(engine: Arc<E>, topology: Topology, lanes: usize) -> Shared<E> {
        Shared {
            engine,
            topology: Mutex::new(Arc::new(topology)),
            controls: Mutex::new(Vec::new()),
            figures: (0..lanes).map(|_| Mutex::default()).collect(),
            disk: Mutex::new(None),
            faults: None,
            repairs: AtomicU64::new(0),
            files: FileCheck::default(),
            founding: BTreeMap::new(),
            data: PathBuf::new(),
            twin: Mutex::default(),
            applicants: Mutex::default(),
        }
    }

    /// Lets faults be set on purpose.
    pub(crate) fn allowing_faults(self, faults: Option<NodeFaults>) -> Shared<E> {
        Shared { faults, ..self }
    }

    /// With its data in this directory.
    pub(crate) fn with_data_in(self, data: PathBuf) -> Shared<E> {
        Shared { data, ..self }
    }

    /// With these buckets in the cluster file.
    pub(crate) fn founded_with(self, founding: BTreeMap<BucketName, BucketProps>) -> Shared<E> {
        Shared { founding, ..self }
    }

    /// This process ends, for the sake of another one under the same node id.
    pub(crate) fn yield_to(&self, twin: Greeting) {
        self.twin.lock().get_or_insert(twin);
        self.tell_all(&Control::Stop);
    }

    /// The process that this one ends for.
    pub(crate) fn twin(&self) -> Option<Greeting> {
        self.twin.lock().clone()
    }

    /// Buckets that were made while the cluster ran: a node that lost its disk does not know them.
    pub(crate) fn buckets_made(&self) -> Vec<CreateBucket> {
        let topology = self.topology();
        let made = topology.buckets.iter().filter(|(name, _)| !self.founding.contains_key(*name));
        let one = |(name, props): (&BucketName, &BucketProps)| CreateBucket {
            name: name.clone(),
            props: props.clone(),
            timeout_ms: 0,
        };
        made.map(one).collect()
    }

    /// Every lane is to repair what it holds of a partition, or of all. Files hold rows of every
    /// partition: they are read for all only.
    pub(crate) fn ask_repair(&self, partition: Option<Partition>) {
        let asked = self.repairs.fetch_add(1, Ordering::SeqCst) + 1;
        if partition.is_none() {
            self.files.start(&self.engine);
        }
        self.tell_all(&Control::Repair { asked, partition });
    }

    /// Repairs asked for since the node started.
    pub(crate) fn repairs_asked(&self) -> u64 {
        self.repairs.load(Ordering::SeqCst)
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.topology.lock().clone()
    }

    pub(crate) fn add_control(&self, control: UnboundedSender<Control>) {
        self.controls.lock().push(control);
    }

    /// Tells every lane; a lane that has ended already needs no telling.
    pub(crate) fn tell_all(&self, control: &Control) {
        for lane in self.controls.lock().iter() {
            let _ = lane.send(control.clone());
        }
    }

    /// Writes buckets down, all with one fsync, and then lets every lane know of them at once. What
    /// became of each, in their order.
    pub(crate) fn define_buckets(
        &self,
        buckets: &[(BucketName, BucketProps)],
    ) -> Vec<Result<(), StoreError>> {
        let mut current = self.topology.lock();
        let mut next = Topology::clone(&current);
        let mut batch = Batch::new();
        let mut define = |(name, props): &(BucketName, BucketProps)| {
            match next.buckets.get(name) {
                Some(existing) if existing == props => return Ok(()),
                Some(_) => {
                    let what = format!("bucket {name} was made with other properties meanwhile");
                    return Err(StoreError::Failed { what });
                }
                None => {}
            }
            let key = bucket_key(name);
            batch.put_with(Table::Meta, &key, |out| rows::put(&key, props, out));
            next.buckets.insert(name.clone(), props.clone());
            Ok(())
        };
        let defined: Vec<_> = buckets.iter().map(&mut define).collect();
        if batch.is_empty() {
            return defined;
        }
        if let Err(error) = self.engine.commit(&batch, Durability::Fsync) {
            let what = error.to_string();
            return vec![Err(StoreError::Failed { what }); buckets.len()];
        }
        *current = Arc::new(next);
        // Before another lane may change it: lanes must hear of changes in their order.
        self.tell_all(&Control::Topology(current.clone()));
        defined
    }

    /// Writes down what the cluster has decided on, unless something later is known, and then lets
    /// every lane know.
    pub(crate) fn adopt_layout(&self, state: Arc<LayoutState>) -> Result<(), StoreError> {
        let mut current = self.topology.lock();
        if state.epoch() <= current.epoch() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put_with(Table::Meta, LAYOUT_KEY, |out| rows::put(LAYOUT_KEY, &*state, out));
        if let Err(error) = self.engine.commit(&batch, Durability::Fsync) {
            return Err(StoreError::Failed { what: error.to_string() });
        }
        *current = Arc::new(current.with_layout(state));
        // Before another lane may change it: lanes must hear of changes in their order.
        self.tell_all(&Control::Topology(current.clone()));
        Ok(())
    }

    /// A node that is no member tells how it would be one.
    pub(crate) fn note_applicant(&self, member: Member, now_micros: u64) {
        self.forget_applicants(now_micros);
        let mut applicants = self.applicants.lock();
        let is_member = self.topology().layout().member(member.id()).is_some();
        if is_member || applicants.len() >= APPLICANTS_MAX {
            return;
        }
        let before = applicants.insert(member.id(), (member.clone(), now_micros));
        drop(applicants);
        if before.is_none_or(|(before, _)| before != member) {
            self.tell_all(&Control::Applicants);
        }
    }

    /// Forgets those that have told nothing for long, or are members.
    pub(crate) fn forget_applicants(&self, now_micros: u64) {
        let mut applicants = self.applicants.lock();
        let (topology, before) = (self.topology(), applicants.len());
        applicants.retain(|node, (_, at)| {
            *at + APPLICANT_MICROS > now_micros && topology.layout().member(*node).is_none()
        });
        let fewer = applicants.len() < before;
        drop(applicants);
        if fewer {
            self.tell_all(&Control::Applicants);
        }
    }

    /// Nodes that are no members and have told lately how they would be.
    pub(crate) fn applicants(&self, now_micros: u64) -> Vec<Member> {
        self.forget_applicants(now_micros);
        self.applicants.lock().values().map(|(member, _)| member.clone()).collect()
    }

    /// Whether a bucket has other properties here.
    pub(crate) fn contradicts(&self, bucket: &CreateBucket) -> bool {
        let topology = self.topology();
        topology.buckets.get(&bucket.name).is_some_and(|known| *known != bucket.props)
    }

    pub(crate) fn publish(&self, lane: usize, figures: LaneFigures) {
        *self.figures[lane].lock() = figures;
    }

    /// Bytes the data takes on disk, as of the last second.
    pub(crate) fn disk_bytes(&self, now_micros: u64) -> u64 {
        let mut disk = self.disk.lock();
        match *disk {
            Some((at, bytes)) if now_micros < at + DISK_MICROS => bytes,
            Some(_) | None => {
                let bytes = self.engine.stats().disk_bytes;
                *disk = Some((now_micros, bytes));
                bytes
            }
        }
    }

    /// Every lane's latest figures.
    pub(crate) fn figures(&self) -> Vec<LaneFigures> {
        self.figures.iter().map(|figures| figures.lock().clone()).collect()
    }
}

/// The last state of the layout that this node has heard of.
pub(crate) fn load_layout<E: Engine>(engine: &E) -> Result<Option<LayoutState>, StoreError> {
    load(engine, LAYOUT_KEY, "the layout")
}

/// What this node was as a member, or would have been.
pub(crate) fn load_member<E: Engine>(engine: &E) -> Result<Option<Member>, StoreError> {
    load(engine, MEMBER_KEY, "this node as a member")
}

/// Writes down what this node is as a member: it starts as that also when it is none any more.
pub(crate) fn save_member<E: Engine>(engine: &E, member: &Member) -> Result<(), StoreError> {
    if load_member(engine)?.as_ref() == Some(member) {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.put_with(Table::Meta, MEMBER_KEY, |out| rows::put(MEMBER_KEY, member, out));
    let saved = engine.commit(&batch, Durability::Fsync);
    saved.map_err(|error| StoreError::Failed { what: error.to_string() })
}

/// Notes that the disk is new, or of an earlier time: this node may have acked what is not on it. It asks
/// the other voters before it votes on a layout, and is not read from before the other owners have
/// filled it again.
pub(crate) fn note_loss<E: Engine>(engine: &E, name: u128) -> Result<(), StoreError> {
    let noted = write_facts(engine, &facts_of_a_loss(name));
    noted.map_err(|error| StoreError::Failed { what: error.to_string() })
}

/// Whether nothing was ever taken in or held there, and no loss was noted.
pub(crate) fn is_blank<E: Engine>(engine: &E) -> Result<bool, StoreError> {
    let (mut rows, loss) = (0, keys::fact(LOSS_FACT));
    let mut see = |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Break(())
    };
    let after = keys::after_prefix(&loss);
    engine
        .scan(Table::Meta, &loss, after.as_deref(), 1, &mut see)
        .and_then(|()| engine.scan(Table::Clocks, &[0], None, 1, &mut see))
        .and_then(|()| engine.scan(Table::Hints, &[0], None, 1, &mut see))
        .map_err(|error| StoreError::Failed { what: error.to_string() })?;
    Ok(rows == 0)
}

fn load<E: Engine, T: serde::de::DeserializeOwned>(
    engine: &E,
    key: &[u8],
    what: &str,
) -> Result<Option<T>, StoreError> {
    let row = engine.get(Table::Meta, key).map_err(|error| match error {
        EngineError::Corrupt { what, .. } => StoreError::Corrupt { what },
        error => StoreError::Failed { what: error.to_string() },
    })?;
    let read = row.map(|row| rows::get(key, &row)).transpose();
    read.map_err(|error| StoreError::Corrupt { what: format!("{what}: {error}") })
}

/// The buckets that were made while this node ran before.
pub(crate) fn load_buckets<E: Engine>(
    engine: &E,
) -> Result<BTreeMap<BucketName, BucketProps>, StoreError> {
    let mut buckets = BTreeMap::new();
    let mut damaged = None;
    let mut take = |key: &[u8], row: &[u8]| {
        let Some(name) = key.strip_prefix(BUCKET_PREFIX) else { return ControlFlow::Break(()) };
        let name = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        match (name, rows::get(key, row)) {
            (Some(name), Ok(props)) => {
                buckets.insert(name, props);
                ControlFlow::Continue(())
            }
            (_, bad) => {
                let why = bad.err().map_or("a bad name".to_owned(), |error| error.to_string());
                damaged = Some(why);
                ControlFlow::Break(())
            }
        }
    };
    engine.scan(Table::Meta, BUCKET_PREFIX, None, usize::MAX, &mut take).map_err(|error| {
        match error {
            EngineError::Corrupt { what, .. } => StoreError::Corrupt { what },
            error => StoreError::Failed { what: error.to_string() },
        }
    })?;
    match damaged {
        None => Ok(buckets),
        Some(why) => Err(StoreError::Corrupt { what: format!("a bucket's row: {why}") }),
    }
}

fn bucket_key(name: &BucketName) -> Vec<u8> {
    [BUCKET_PREFIX, name.as_str().as_bytes()].concat()
}
