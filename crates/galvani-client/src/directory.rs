//! What the client knows of its cluster: the view, and names and routes read from it.
//!
//! A [`Directory`] is one view, shared and never changed; a newer view replaces it whole. It asks
//! nobody: `client.rs` refreshes it in the background.

use galvani_model::bucket::BucketName;
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::key::Key;
use galvani_model::placement::Member;
use galvani_wire::Answer;
use galvani_wire::ClusterView;
use smallvec::SmallVec;
use std::net::SocketAddr;
use std::sync::Arc;

/// One view of the cluster.
#[derive(Clone)]
pub(crate) struct Directory {
    view: Arc<ClusterView>,
}

/// A lane of a node that may take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
    /// Whether it owns what is asked about, so that it need not send the request on.
    pub(crate) owner: bool,
    /// Whether it is in the client's zone.
    pub(crate) near: bool,
}

/// Where a client stands: which lanes it asks first, or at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Its zone.
    pub(crate) zone: Option<String>,
    /// The one node it sends requests on keys to.
    pub(crate) only: Option<String>,
}

/// The lanes to try, owners first, in layout order.
pub(crate) type Route = SmallVec<[Target; 8]>;

impl Directory {
    pub(crate) fn new(view: ClusterView) -> Directory {
        Directory { view: Arc::new(view) }
    }

    pub(crate) fn view(&self) -> &Arc<ClusterView> {
        &self.view
    }

    /// The node's name, or the first digits of its id if it is no member any more.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        match self.view.layout.member(node) {
            Some(member) => member.name().to_owned(),
            None => node.short(),
        }
    }

    pub(crate) fn knows_bucket(&self, bucket: &BucketName) -> bool {
        self.view.buckets.contains_key(bucket)
    }

    /// Lanes for a key.
    pub(crate) fn route(&self, key: &Key, place: &Place) -> Route {
        self.route_partition(self.view.layout.partition_of(key), key.bucket(), place)
    }

    /// Lanes for a partition of a bucket. A bucket that is not known is looked for where the
    /// layout's own n would put it.
    pub(crate) fn route_partition(
        &self,
        partition: Partition,
        bucket: &BucketName,
        place: &Place,
    ) -> Route {
        let layout = &self.view.layout;
        if let Some(name) = &place.only {
            // It sends on what it does not own.
            let only = layout.member_named(name).map(|member| Target {
                node: member.id(),
                addr: member.lane_address(partition),
                owner: true,
                near: true,
            });
            return only.into_iter().collect();
        }
        let zone = place.zone.as_deref();
        let n = match self.view.buckets.get(bucket) {
            Some(props) => props.n,
            None => layout.n(),
        };
        let owners = layout.owners(Shard { partition, n }).len();
        let lanes = layout.preference(partition).take(owners + OTHERS_MAX);
        lanes
            .enumerate()
            .filter_map(|(index, node)| {
                let member = layout.member(node)?;
                Some(Target {
                    node,
                    addr: member.lane_address(partition),
                    owner: index < owners,
                    near: zone == Some(member.zone()),
                })
            })
            .collect()
    }

    /// Where a shard's owners serve it, in layout order; where requests go to one node, only that.
    pub(crate) fn owners(&self, shard: Shard, place: &Place) -> Route {
        let layout = &self.view.layout;
        if !layout.contains(shard) {
            return Route::new();
        }
        let zone = place.zone.as_deref();
        let members = layout.owners(shard).into_iter().filter_map(|node| layout.member(node));
        let members =
            members.filter(|it| place.only.as_deref().is_none_or(|only| only == it.name()));
        members
            .map(|member| Target {
                node: member.id(),
                addr: member.lane_address(shard.partition),
                owner: true,
                near: zone.is_none() || zone == Some(member.zone()),
            })
            .collect()
    }

    /// All members; while the layout changes also those that come and those that leave.
    pub(crate) fn members(&self) -> Vec<&Member> {
        let change = self.view.change.iter().flat_map(|change| [&change.old, &change.new]);
        let mut all: Vec<&Member> = Vec::new();
        for member in core::iter::once(&self.view.layout).chain(change).flat_map(|it| it.members())
        {
            if !all.iter().any(|known| known.id() == member.id()) {
                all.push(member);
            }
        }
        all
    }

    /// The first lane of every member, for requests that any node answers.
    pub(crate) fn any(&self, zone: Option<&str>) -> Route {
        self.view.layout.members().iter().map(|member| first_lane(member, zone)).collect()
    }

    /// The first lane of one member.
    pub(crate) fn only(&self, member: &Member) -> Route {
        Route::from_slice(&[first_lane(member, None)])
    }

    /// Whether these answers are of replicas that are no owners of the key by this view: then the
    /// view is old, or the layout is changing.
    pub(crate) fn is_contradicted(&self, key: &Key, answers: &[Answer]) -> bool {
        let Some(props) = self.view.buckets.get(key.bucket()) else { return false };
        let owners = self.view.layout.owners(self.view.layout.shard_of(key, props.n));
        let mut replicas = answers.iter().filter(|answer| answer.stands_in_for.is_none());
        replicas.any(|answer| !owners.contains(&answer.node))
    }

    /// Whether `other` is of the same cluster and not older.
    pub(crate) fn may_become(&self, other: &ClusterView) -> bool {
        other.cluster == self.view.cluster && other.epoch >= self.view.epoch
    }
}

fn first_lane(member: &Member, zone: Option<&str>) -> Target {
    Target {
        node: member.id(),
        addr: member.lane_address(Partition(0)),
        owner: true,
        near: zone == Some(member.zone()),
    }
}

/// Nodes that own nothing of the key and are still worth asking: they send the request on.
const OTHERS_MAX: usize = 4;
