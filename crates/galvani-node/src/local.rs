//! A whole cluster inside one process, over real sockets and real files: for tests, benches and
//! examples. Not for production: its nodes share one process and die together.
//!
//! Each node runs as [`run`] would run it from the command line, on a thread of its own.
//! Next to read: `node.rs`, `provision.rs`.

use crate::config::{ConfigError, DurabilityMode, NodeConfig};
use crate::node::{NodeError, run};
use crate::provision::{ClusterSpec, NodeSpec, ProvisionError, Provisioned, create};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// A cluster to be run in this process.
#[derive(Clone, Copy, Debug)]
pub struct LocalSpec {
    /// How many nodes, named n1, n2, ..., each in a zone of its own.
    pub nodes: usize,
    /// Lanes of each node.
    pub lanes: usize,
    /// Copies of each key in bucket `default`.
    pub n: u8,
    /// Partitions, a power of two.
    pub partitions: u16,
    /// When a write counts as stored.
    pub durability: DurabilityMode,
    /// Largest UDP payload path discovery may settle on, in bytes.
    pub mtu_max: u16,
}

impl Default for LocalSpec {
    /// Three nodes of one lane, three copies, 16 partitions, `os`.
    fn default() -> LocalSpec {
        LocalSpec {
            nodes: 3,
            lanes: 1,
            n: 3,
            partitions: 16,
            durability: DurabilityMode::Os,
            mtu_max: 1452,
        }
    }
}

/// Why a cluster in this process does not run.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Ports, files or threads could not be had.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The cluster could not be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A node's configuration could not be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A node's thread panicked.
    #[error("node {node} panicked")]
    Panicked {
        /// Which one, from 0.
        node: usize,
    },
}

/// A running cluster; dropping it stops every node.
#[derive(Debug)]
pub struct LocalCluster {
    made: Provisioned,
    first_lanes: Vec<SocketAddr>,
    nodes: Vec<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), NodeError>>,
}

impl LocalCluster {
    /// Makes a cluster in `dir`, on free ports of loopback, and starts every node.
    pub fn start(spec: &LocalSpec, dir: &Path) -> Result<LocalCluster, LocalError> {
        // Held until the nodes are about to bind, so that no two get the same port.
        let sockets = (0..spec.nodes * spec.lanes)
            .map(|_| UdpSocket::bind("127.0.0.1:0"))
            .collect::<io::Result<Vec<_>>>()?;
        let addresses =
            sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>()?;
        let node = |(index, lanes): (usize, &[SocketAddr])| NodeSpec {
            name: format!("n{}", index + 1),
            zone: format!("z{}", index + 1),
            weight: 100,
            lanes: lanes.to_vec(),
        };
        let cluster_spec = ClusterSpec {
            name: "local".into(),
            partitions: spec.partitions,
            n: spec.n,
            nodes: addresses.chunks(spec.lanes).enumerate().map(node).collect(),
            durability: spec.durability,
            mtu_max: spec.mtu_max,
            faults: false,
        };
        let made = create(&cluster_spec, dir)?;
        drop(sockets);
        let first_lanes = addresses.iter().step_by(spec.lanes).copied().collect();
        let nodes = (0..spec.nodes).map(|_| None).collect();
        let mut cluster = LocalCluster { made, first_lanes, nodes };
        for node in 0..spec.nodes {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// Starts a node that does not run. Returns once all its lanes listen.
    pub fn start_node(&mut self, node: usize) -> Result<(), LocalError> {
        let config = NodeConfig::load(&self.made.configs[node])?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (listening, is_listening) = mpsc::channel();
        let body = move || {
            let stopped = async move {
                // An error means that the cluster was dropped: that is a stop, too.
                let _ = stopped.await;
            };
            let ready = move || {
                let _ = listening.send(());
            };
            run(config, ready, stopped)
        };
        let thread = thread::Builder::new().name(format!("node-{node}")).spawn(body)?;
        let running = Running { stop, thread };
        // An error means that the node gave up before it listened; its thread says why.
        if is_listening.recv().is_err() {
            running.stop(node)?;
            return Err(LocalError::Panicked { node });
        }
        self.nodes[node] = Some(running);
        Ok(())
    }

    /// Stops a node cleanly; a node that does not run is left alone.
    pub fn stop_node(&mut self, node: usize) -> Result<(), LocalError> {
        match self.nodes[node].take() {
            Some(running) => running.stop(node),
            None => Ok(()),
        }
    }

    /// The URL under which a client finds node `node`.
    pub fn url(&self, node: usize) -> String {
        format!("galvani://{}", self.first_lanes[node])
    }

    /// The directory of an administrator's identity.
    pub fn client_identity(&self) -> &Path {
        &self.made.client_identity
    }
}

impl Running {
    fn stop(self, node: usize) -> Result<(), LocalError> {
        drop(self.stop);
        match self.thread.join() {
            Ok(stopped) => Ok(stopped?),
            Err(_) => Err(LocalError::Panicked { node }),
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            // Whoever cares how a node stopped stops it by hand.
            let _ = self.stop_node(node);
        }
    }
}
