//! What a lane knows of its cluster: who it is, who owns what, which buckets there are.
//!
//! A value, replaced whole when something changes. It answers placement questions and holds no
//! connection. Next to read: `lane.rs`.

use crate::effect::PeerLane;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::key::Key;
use galvani_model::placement::Layout;
use galvani_model::version::ContextKey;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Up to n owners of a shard, in preference order.
pub type Owners = SmallVec<[NodeId; 7]>;

/// One node's picture of its cluster.
#[derive(Clone, Debug)]
pub struct Topology {
    /// This node.
    pub node: NodeId,
    /// The cluster's name, for people.
    pub name: String,
    /// Who owns what.
    pub layout: Arc<Layout>,
    /// Every bucket, `default` included.
    pub buckets: BTreeMap<BucketName, BucketProps>,
    /// What contexts are sealed with.
    pub context_key: ContextKey,
}

impl Topology {
    /// The properties of a bucket and the shard of a key in it.
    pub fn locate(&self, key: &Key) -> Option<(&BucketProps, Shard)> {
        let props = self.buckets.get(key.bucket())?;
        Some((props, self.layout.shard_of(key, props.n)))
    }

    /// The owners of a shard, in preference order.
    pub fn owners(&self, shard: Shard) -> Owners {
        self.layout.owners(shard)
    }

    /// The lane of `node` that serves `partition`; `None` if the node is not a member.
    pub fn lane_of(&self, node: NodeId, partition: Partition) -> Option<PeerLane> {
        self.layout.lane(node, partition).map(|lane| PeerLane { node, lane })
    }

    /// The node on which buckets are made: the member with the smallest id.
    pub fn bucket_home(&self) -> NodeId {
        self.layout.members().first().map_or(self.node, |member| member.id())
    }
}
