//! Making a cluster: its private CA, its layout, and a directory for each node.
//!
//! `galvani dev` and `galvani cluster create` call this once; `galvani dev add` and `galvani cluster
//! invite` for each node that is to join later. It never touches a directory that holds a cluster
//! already, and it never starts anything. Certificates cost the user nothing: they are made here.
//! Next to read: `cluster_file.rs`, `config.rs`.

use crate::cluster_file::{ClusterFile, ClusterFileError};
use crate::config::{
    DurabilityMode, JoinSection, NodeConfig, NodeSection, StorageSection, TransportSection,
};
use galvani_model::bucket::{BucketProps, BucketPropsError};
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutError, Member, MemberError};
use galvani_model::version::ContextKey;
pub use galvani_transport::Role;
use galvani_transport::pki::{ClusterCa, Identity, PkiError};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A cluster to be made.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// Its name, for people.
    pub name: String,
    /// Partitions, a power of two, for the cluster's life.
    pub partitions: u16,
    /// Copies that the layout is balanced for, and that bucket `default` keeps.
    pub n: u8,
    /// Its nodes.
    pub nodes: Vec<NodeSpec>,
    /// When a write counts as stored.
    pub durability: DurabilityMode,
    /// Largest UDP payload path discovery may settle on, in bytes.
    pub mtu_max: u16,
    /// Whether faults may be set on its nodes while they run.
    pub faults: bool,
}

/// A node to be made.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its share relative to others, 100 for a normal one.
    pub weight: u32,
    /// Where each of its lanes listens and is reached.
    pub lanes: Vec<SocketAddr>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Provisioned {
    /// The cluster.
    pub cluster: ClusterId,
    /// The configuration file of each node, in the order of the spec.
    pub configs: Vec<PathBuf>,
    /// The identity of an administrator: `ca.pem`, `cert.pem`, `key.pem`.
    pub client_identity: PathBuf,
}

/// Why a cluster was not made. What was written so far is left for inspection.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The directory holds a cluster already.
    #[error("{path} exists already")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A node cannot be one.
    #[error("node {name}: {source}")]
    Member {
        /// Which node.
        name: String,
        /// Why.
        source: MemberError,
    },
    /// The nodes cannot make a layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The default bucket cannot exist.
    #[error(transparent)]
    Bucket(#[from] BucketPropsError),
    /// Certificates could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The root is not that of the cluster the node is to join.
    #[error("the root in {ca} is of cluster {of}, not of cluster {cluster}")]
    OtherCluster {
        /// Where the root is.
        ca: PathBuf,
        /// The cluster it is of.
        of: String,
        /// The one to be joined.
        cluster: ClusterId,
    },
    /// The cluster has a node of that name.
    #[error("cluster {cluster} has a node {name} already")]
    NameTaken {
        /// The cluster's name.
        cluster: String,
        /// The node's.
        name: String,
    },
    /// The cluster file could not be read or written.
    #[error(transparent)]
    ClusterFile(#[from] ClusterFileError),
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes a cluster in `dir`: `cluster.json`, `ca/`, `client/`, and for each node `NAME/` with
/// `galvani.toml`, `cluster.json` and `identity/`.
pub fn create(spec: &ClusterSpec, dir: &Path) -> Result<Provisioned, ProvisionError> {
    let cluster_path = dir.join("cluster.json");
    if cluster_path.exists() {
        return Err(ProvisionError::Exists { path: cluster_path });
    }
    let default_bucket = BucketProps::with_copies(spec.n);
    default_bucket.check()?;
    let cluster = ClusterId(rand::random());
    let members = spec.nodes.iter().map(member).collect::<Result<Vec<_>, _>>()?;
    let layout = Arc::new(Layout::compute(cluster, 1, spec.partitions, spec.n, members)?);
    let context_key = ContextKey(rand::random());
    let file = ClusterFile::new(&spec.name, default_bucket, &context_key, layout.clone());

    make_dir(dir)?;
    let ca = ClusterCa::create(&cluster.to_string())?;
    ca.save(&make_dir(&dir.join("ca"))?)?;
    let client_identity = make_dir(&dir.join("client"))?;
    ca.issue_client("admin", Role::Admin)?.save(&client_identity)?;
    let mut configs = Vec::with_capacity(spec.nodes.len());
    for node in &spec.nodes {
        configs.push(create_node(spec, node, &layout, &ca, &file, dir)?);
    }
    // Last, so that an interrupted creation is not taken for a cluster.
    file.save(&cluster_path)?;
    Ok(Provisioned { cluster, configs, client_identity })
}

/// Makes the identity of a client in `out`, which must not exist, signed by the root in `ca`.
/// `name` is 1 to 63 of `a-z`, `0-9` and, inside, `-`.
pub fn create_client(ca: &Path, name: &str, role: Role, out: &Path) -> Result<(), ProvisionError> {
    if out.exists() {
        return Err(ProvisionError::Exists { path: out.to_owned() });
    }
    let identity = ClusterCa::load(ca)?.issue_client(name, role)?;
    identity.save(&make_dir(out)?)?;
    Ok(())
}

/// Issues a new identity in place of the one in `dir`, for the same node or client, signed by the root in
/// `ca`. It believes that root and those in `trust`. Until when it is good, in seconds since 1970.
pub fn renew(ca: &Path, trust: &[PathBuf], dir: &Path) -> Result<Option<u64>, ProvisionError> {
    let root = ClusterCa::load(ca)?;
    let identity = Identity::load(dir)?;
    let (of, mine) = (root.cluster_id_hex()?, identity.cluster_id_hex()?);
    if of != mine {
        let cluster = mine.parse().map_err(|_| PkiError::BadPem)?;
        return Err(ProvisionError::OtherCluster { ca: ca.to_owned(), of, cluster });
    }
    let mut trusted = Vec::with_capacity(trust.len());
    for other in trust {
        let path = other.join("ca.pem");
        let read = fs::read_to_string(&path);
        trusted.push(read.map_err(|source| ProvisionError::Io { path, source })?);
    }
    let renewed = root.renew(&identity, &trusted)?;
    renewed.save(dir)?;
    Ok(renewed.expires_s())
}

/// Makes a new root for the cluster of the root in `ca`, in `out`, which must not exist.
pub fn create_root(ca: &Path, out: &Path) -> Result<(), ProvisionError> {
    if out.exists() {
        return Err(ProvisionError::Exists { path: out.to_owned() });
    }
    let next = ClusterCa::load(ca)?.successor()?;
    next.save(&make_dir(out)?)?;
    Ok(())
}

fn create_node(
    spec: &ClusterSpec,
    node: &NodeSpec,
    layout: &Layout,
    ca: &ClusterCa,
    file: &ClusterFile,
    dir: &Path,
) -> Result<PathBuf, ProvisionError> {
    let home = dir.join(&node.name);
    let member = layout.member_named(&node.name).expect("the layout was made of these nodes");
    let config = NodeConfig {
        node: node_section(&node.name, spec.durability),
        join: None,
        limits: Limits::default(),
        storage: StorageSection::default(),
        transport: TransportSection { mtu_max: spec.mtu_max, faults: spec.faults },
    };
    write_node(&home, member, ca, file, &config)
}

/// A node that is to join a cluster that exists.
#[derive(Clone, Debug)]
pub struct JoinSpec<'a> {
    /// The directory with the cluster's root, which signs.
    pub ca: &'a Path,
    /// The cluster: best with the layout it has now.
    pub cluster: &'a ClusterFile,
    /// The node.
    pub node: NodeSpec,
    /// When a write counts as stored.
    pub durability: DurabilityMode,
    /// Bounds of its lanes.
    pub limits: Limits,
    /// Bounds of its engine.
    pub storage: StorageSection,
    /// Bounds of its endpoints.
    pub transport: TransportSection,
}

/// Makes the directory of a node that is to join, `home`, which must not exist: `galvani.toml` with
/// `[join]`, `cluster.json` and `identity/`. Who it would be, and its configuration file.
pub fn create_joiner(
    spec: &JoinSpec<'_>,
    home: &Path,
) -> Result<(Member, PathBuf), ProvisionError> {
    if home.exists() {
        return Err(ProvisionError::Exists { path: home.to_owned() });
    }
    let (ca, member, config) = joiner(spec)?;
    let config = write_node(home, &member, &ca, spec.cluster, &config)?;
    Ok((member, config))
}

/// The cluster's root, and who the node would be, if it may join.
pub(crate) fn joiner(
    spec: &JoinSpec<'_>,
) -> Result<(ClusterCa, Member, NodeConfig), ProvisionError> {
    let (layout, name) = (&spec.cluster.layout, &spec.node.name);
    let ca = ClusterCa::load(spec.ca)?;
    let (of, cluster) = (ca.cluster_id_hex()?, layout.cluster());
    if of != cluster.to_string() {
        return Err(ProvisionError::OtherCluster { ca: spec.ca.to_owned(), of, cluster });
    }
    if layout.member_named(name).is_some() {
        let cluster = spec.cluster.name.clone();
        return Err(ProvisionError::NameTaken { cluster, name: name.clone() });
    }
    let member = member(&spec.node)?;
    let NodeSpec { zone, weight, lanes, .. } = spec.node.clone();
    let config = NodeConfig {
        node: node_section(name, spec.durability),
        join: Some(JoinSection { zone, weight, lanes }),
        limits: spec.limits.clone(),
        storage: spec.storage.clone(),
        transport: spec.transport.clone(),
    };
    Ok((ca, member, config))
}

fn node_section(name: &str, durability: DurabilityMode) -> NodeSection {
    NodeSection {
        name: name.to_owned(),
        cluster: "cluster.json".into(),
        data: "data".into(),
        identity: "identity".into(),
        durability,
    }
}

/// Writes a node's directory, its configuration last; the configuration's path.
fn write_node(
    home: &Path,
    member: &Member,
    ca: &ClusterCa,
    file: &ClusterFile,
    config: &NodeConfig,
) -> Result<PathBuf, ProvisionError> {
    let addresses: BTreeSet<_> = member.lanes().iter().map(SocketAddr::ip).collect();
    let addresses: Vec<_> = addresses.into_iter().collect();
    let identity = ca.issue_node(&member.id().to_string(), &addresses)?;
    make_dir(home)?;
    identity.save(&make_dir(&home.join("identity"))?)?;
    file.save(&home.join("cluster.json"))?;
    let path = home.join("galvani.toml");
    let text = toml::to_string(config).expect("our own configuration encodes to TOML");
    fs::write(&path, text).map_err(|source| ProvisionError::Io { path: path.clone(), source })?;
    Ok(path)
}

fn member(node: &NodeSpec) -> Result<Member, ProvisionError> {
    let NodeSpec { name, zone, weight, lanes } = node.clone();
    Member::new(NodeId(rand::random()), name.clone(), zone, weight, lanes)
        .map_err(|source| ProvisionError::Member { name, source })
}

fn make_dir(path: &Path) -> Result<PathBuf, ProvisionError> {
    let io = |source| ProvisionError::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{ClusterSpec, JoinSpec, NodeSpec, ProvisionError, create, create_joiner};
    use crate::cluster_file::ClusterFile;
    use crate::config::{DurabilityMode, NodeConfig, StorageSection, TransportSection};
    use galvani_model::limits::Limits;
    use std::path::Path;

    fn node(name: &str, port: u16) -> NodeSpec {
        let lanes = vec![([127, 0, 0, 1], port).into()];
        NodeSpec { name: name.to_owned(), zone: "b".to_owned(), weight: 50, lanes }
    }

    fn cluster(dir: &Path) -> ClusterFile {
        let spec = ClusterSpec {
            name: "prod".to_owned(),
            partitions: 8,
            n: 1,
            nodes: vec![node("n1", 7070)],
            durability: DurabilityMode::Os,
            mtu_max: 1452,
            faults: false,
        };
        create(&spec, dir).expect("made");
        ClusterFile::load(&dir.join("cluster.json")).expect("made")
    }

    fn join<'a>(ca: &'a Path, cluster: &'a ClusterFile, name: &str) -> JoinSpec<'a> {
        JoinSpec {
            ca,
            cluster,
            node: node(name, 7080),
            durability: DurabilityMode::Fsync,
            limits: Limits::default(),
            storage: StorageSection::default(),
            transport: TransportSection::default(),
        }
    }

    #[test]
    fn a_node_that_joins_has_a_directory_it_can_start_from() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cluster = cluster(dir.path());
        let (ca, home) = (dir.path().join("ca"), dir.path().join("n2"));
        let spec = join(&ca, &cluster, "n2");
        let (member, config) = create_joiner(&spec, &home).expect("made");
        let config = NodeConfig::load(&config).expect("readable");
        let join = config.join.as_ref().expect("it is no founder");
        assert_eq!(join.member(member.id(), "n2").expect("valid"), member);
        assert_eq!((member.zone(), member.weight()), ("b", 50));
        assert_eq!(config.node.durability, DurabilityMode::Fsync);
        assert_eq!(ClusterFile::load(&config.node.cluster).expect("there"), cluster);
        let again = create_joiner(&spec, &home).expect_err("it is there");
        assert!(matches!(again, ProvisionError::Exists { .. }), "{again}");
    }

    #[test]
    fn nothing_is_made_for_another_cluster_or_under_a_name_that_is_taken() {
        let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let (mine, other) = (cluster(dirs[0].path()), dirs[1].path().join("ca"));
        cluster(dirs[1].path());
        let home = dirs[0].path().join("n2");
        let refused = create_joiner(&join(&other, &mine, "n2"), &home).expect_err("not its root");
        assert!(matches!(refused, ProvisionError::OtherCluster { .. }), "{refused}");
        let ca = dirs[0].path().join("ca");
        let refused = create_joiner(&join(&ca, &mine, "n1"), &home).expect_err("there is an n1");
        assert!(matches!(refused, ProvisionError::NameTaken { .. }), "{refused}");
        assert!(!home.exists());
    }
}
