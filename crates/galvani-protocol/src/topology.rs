//! What a lane knows of its cluster: who it is, who owns what, which buckets there are.
//!
//! A value, replaced whole when something changes. It answers placement questions and holds no
//! connection. It also knows since which epoch each shard is served as it is: a request of an earlier
//! one is refused (`serve.rs`). Next to read: `lane.rs`; `layout/mod.rs` for how layouts change.

use crate::effect::PeerLane;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::key::Key;
use galvani_model::limits::N_MAX;
use galvani_model::placement::LayoutState;
pub use galvani_model::placement::Owners;
use galvani_model::version::ContextKey;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// One node's picture of its cluster.
#[derive(Clone, Debug)]
pub struct Topology {
    /// This node.
    pub node: NodeId,
    /// The cluster's name, for people.
    pub name: String,
    /// Every bucket, `default` included.
    pub buckets: BTreeMap<BucketName, BucketProps>,
    /// What contexts are sealed with.
    pub context_key: ContextKey,
    layout: Arc<LayoutState>,
    fences: Arc<Fences>,
}

impl Topology {
    /// The picture a node starts with. Whatever was asked in an earlier epoch is refused: what
    /// changed since is not known.
    pub fn new(
        node: NodeId,
        name: String,
        layout: Arc<LayoutState>,
        buckets: BTreeMap<BucketName, BucketProps>,
        context_key: ContextKey,
    ) -> Topology {
        let fences = Arc::new(Fences { floor: layout.epoch(), since: Vec::new() });
        Topology { node, name, buckets, context_key, layout, fences }
    }

    /// The same with a later state of the layout.
    pub fn with_layout(&self, layout: Arc<LayoutState>) -> Topology {
        let fences = Arc::new(self.fences.after(&self.layout, &layout));
        Topology { layout, fences, ..self.clone() }
    }

    /// Who owns what.
    pub fn layout(&self) -> &Arc<LayoutState> {
        &self.layout
    }

    /// The epoch of the layout.
    pub fn epoch(&self) -> u64 {
        self.layout.epoch()
    }

    /// Whether a request of `epoch` goes by other owners of the shard than there are now.
    pub(crate) fn is_stale(&self, epoch: u64, shard: Shard) -> bool {
        epoch < self.fences.since(shard)
    }

    /// The properties of a bucket and the shard of a key in it.
    pub fn locate(&self, key: &Key) -> Option<(&BucketProps, Shard)> {
        let props = self.buckets.get(key.bucket())?;
        Some((props, self.layout.current().shard_of(key, props.n)))
    }

    /// Who is read from and coordinates requests of a shard, in preference order.
    pub fn owners(&self, shard: Shard) -> Owners {
        self.layout.owners(shard)
    }

    /// Everybody who holds or is to hold a shard: owners, and while the layout changes those that
    /// come or go.
    pub fn replicas(&self, shard: Shard) -> SmallVec<[NodeId; 2 * N_MAX as usize]> {
        self.layout.replicas(shard)
    }

    /// The other replicas of a shard.
    pub fn others(&self, shard: Shard) -> impl Iterator<Item = NodeId> + '_ {
        self.replicas(shard).into_iter().filter(|&node| node != self.node)
    }

    /// Whether a node holds or is to hold a shard.
    pub fn is_replica(&self, node: NodeId, shard: Shard) -> bool {
        self.layout.is_replica(node, shard)
    }

    /// The lane of `node` that serves `partition`; `None` if the node is not a member.
    pub fn lane_of(&self, node: NodeId, partition: Partition) -> Option<PeerLane> {
        self.layout.lane(node, partition).map(|lane| PeerLane { node, lane })
    }

    /// The node on which buckets are made: the member with the smallest id.
    pub fn bucket_home(&self) -> NodeId {
        self.layout.current().members().first().map_or(self.node, |member| member.id())
    }

    /// The numbers of copies that buckets keep.
    pub fn copies(&self) -> BTreeSet<u8> {
        self.buckets.values().map(|props| props.n).collect()
    }
}

impl Topology {
    /// A mark of the buckets: two nodes have the same one if they know the same buckets.
    pub(crate) fn buckets_mark(&self) -> u32 {
        let mut bytes = Vec::new();
        for (name, props) in &self.buckets {
            // No name contains a zero byte.
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(&[0, props.n]);
        }
        xxh3_64(&bytes) as u32
    }
}

/// Since which epoch each shard has the owners it has.
#[derive(Debug)]
struct Fences {
    /// For shards that are not listed.
    floor: u64,
    /// By partition, for each n from 1 to `N_MAX`; or nothing.
    since: Vec<u64>,
}

impl Fences {
    fn since(&self, shard: Shard) -> u64 {
        let at = usize::from(shard.partition.0) * usize::from(N_MAX) + usize::from(shard.n);
        self.since.get(at.wrapping_sub(1)).copied().unwrap_or(self.floor)
    }

    /// From one epoch to the next only the shards whose owners change are fenced; over an epoch that
    /// was missed, all.
    fn after(&self, before: &LayoutState, after: &LayoutState) -> Fences {
        let epoch = after.epoch();
        if epoch != before.epoch() + 1 || before.partitions() != after.partitions() {
            return Fences { floor: epoch, since: Vec::new() };
        }
        let partitions = (0..after.partitions()).map(Partition);
        let shards =
            partitions.flat_map(|partition| (1..=N_MAX).map(move |n| Shard { partition, n }));
        let since = shards.map(|shard| {
            let same = before.owners(shard) == after.owners(shard)
                && before.write_sets(shard) == after.write_sets(shard);
            if same { self.since(shard) } else { epoch }
        });
        Fences { floor: self.floor, since: since.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galvani_model::ids::ClusterId;
    use galvani_model::placement::{Layout, Member};

    fn layout(version: u64, nodes: u8) -> Arc<Layout> {
        let member = |number: u8| {
            let lanes = vec![([10, 0, 0, number], 7000).into()];
            let id = NodeId(u128::from(number));
            Member::new(id, format!("n{number}"), "a", 100, lanes).expect("a member")
        };
        let members = (1..=nodes).map(member).collect();
        Arc::new(Layout::compute(ClusterId(3), version, 64, 3, members).expect("a layout"))
    }

    #[test]
    fn only_requests_that_go_by_other_owners_are_stale() {
        let founding = Arc::new(LayoutState::founding(layout(1, 4)));
        let key = ContextKey([0; 16]);
        let first =
            Topology::new(NodeId(1), "t".into(), founding.clone(), BTreeMap::new(), key.clone());
        let copying = Arc::new(founding.begin(layout(2, 5)).expect("it follows"));
        let second = first.with_layout(copying.clone());
        let switching = Arc::new(copying.advance().expect("it goes on"));
        let third = second.with_layout(switching.clone());
        let (mut moved, mut stayed) = (0, 0);
        for shard in (0..64).map(|p| Shard { partition: Partition(p), n: 3 }) {
            assert!(!first.is_stale(1, shard) && !second.is_stale(2, shard));
            let moves = copying.write_sets(shard).1.is_some();
            assert_eq!(second.is_stale(1, shard), moves);
            assert_eq!((third.is_stale(1, shard), third.is_stale(2, shard)), (moves, moves));
            *if moves { &mut moved } else { &mut stayed } += 1;
        }
        assert!(moved > 0 && stayed > 0, "{moved} {stayed}");
        let late = first.with_layout(switching.clone());
        let again = Topology::new(NodeId(1), "t".into(), switching, BTreeMap::new(), key);
        for shard in (0..64).map(|p| Shard { partition: Partition(p), n: 3 }) {
            assert!(late.is_stale(2, shard) && again.is_stale(2, shard));
            assert!(!late.is_stale(3, shard) && !again.is_stale(3, shard));
        }
    }
}
