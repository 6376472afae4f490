//! Faults that an administrator sets on this node's links to break a cluster on purpose.
//!
//! Peers are named by node; the layout says which addresses they have. All lanes share the faults,
//! nothing of them is kept: a node that starts has none. Next to read: `lane_loop.rs`; the faults
//! themselves are in `galvani-transport/src/faults.rs`.

use crate::shared::Shared;
use galvani_model::ids::NodeId;
use galvani_model::placement::LayoutState;
use galvani_storage::engine::Engine;
use galvani_transport::{Faults, PeerFaults};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::{Failed, SetFaults};
use galvani_wire::view::LinkFaults;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// The faults of one node, by the other node.
pub(crate) struct NodeFaults {
    transport: Faults,
    set: Mutex<BTreeMap<NodeId, LinkFaults>>,
}

impl NodeFaults {
    pub(crate) fn new(seed: u64) -> NodeFaults {
        NodeFaults { transport: Faults::new(seed), set: Mutex::default() }
    }

    /// What the endpoints of all lanes go by.
    pub(crate) fn transport(&self) -> Faults {
        self.transport.clone()
    }

    /// What is set now.
    pub(crate) fn current(&self) -> Vec<LinkFaults> {
        self.set.lock().values().cloned().collect()
    }

    /// Takes over what is wanted, whole or not at all; what is set then.
    fn apply(
        &self,
        wanted: &SetFaults,
        me: NodeId,
        layout: &LayoutState,
    ) -> Result<Vec<LinkFaults>, Failure> {
        for link in &wanted.links {
            if link.node == me || layout.member(link.node).is_none() {
                let what = format!("node {} is no peer of this one", link.node);
                return Err(Failure::Malformed { what });
            }
        }
        let mut set = self.set.lock();
        if wanted.heal {
            set.clear();
        }
        for link in &wanted.links {
            set.entry(link.node).or_insert_with(|| LinkFaults::none(link.node)).add(link);
        }
        set.retain(|&node, link| *link != LinkFaults::none(node));
        let addresses = set.values().flat_map(|link| {
            let lanes = layout.member(link.node).map(|member| member.lanes().to_vec());
            lanes.unwrap_or_default().into_iter().map(|address| (address, peer_faults(link)))
        });
        self.transport.set(addresses);
        Ok(set.values().cloned().collect())
    }
}

/// Sets what is wanted, if the configuration allows it; what to answer.
pub(crate) fn answer<E: Engine>(shared: &Shared<E>, wanted: &SetFaults) -> Message {
    let topology = shared.topology();
    let applied = match &shared.faults {
        Some(faults) => faults.apply(wanted, topology.node, topology.layout()),
        None => Err(Failure::FaultsNotAllowed),
    };
    match applied {
        Ok(set) => {
            tracing::warn!(event = "faults_set", healed = wanted.heal, set = ?set);
            Message::FaultsSet(set)
        }
        Err(failure) => {
            tracing::warn!(event = "faults_refused", failure = ?failure);
            let applied = AppliedOutcome::No;
            Message::Failed(Failed { failure, applied, answers: Vec::new() })
        }
    }
}

fn peer_faults(link: &LinkFaults) -> PeerFaults {
    let micros = |micros: u32| Duration::from_micros(micros.into());
    PeerFaults {
        cut_out: link.cut_out,
        cut_in: link.cut_in,
        loss_ppm: link.loss_ppm.unwrap_or(0),
        delay: link.delay.map_or(Duration::ZERO, |delay| micros(delay.micros)),
        jitter: link.delay.map_or(Duration::ZERO, |delay| micros(delay.jitter_micros)),
    }
}

#[cfg(test)]
mod tests {
    use super::NodeFaults;
    use galvani_model::ids::{ClusterId, NodeId};
    use galvani_model::placement::{Layout, LayoutState, Member};
    use galvani_wire::failure::Failure;
    use galvani_wire::message::SetFaults;
    use galvani_wire::view::LinkFaults;
    use std::sync::Arc;

    fn layout() -> LayoutState {
        let members = (1..=3u16).map(|id| {
            let lane = |port: u16| format!("127.0.0.1:{}", port + id).parse().expect("an address");
            let lanes = vec![lane(7000), lane(8000)];
            Member::new(NodeId(id.into()), format!("n{id}"), "z", 100, lanes).expect("a member")
        });
        let layout = Layout::compute(ClusterId(5), 1, 16, 3, members.collect());
        LayoutState::founding(Arc::new(layout.expect("a layout")))
    }

    fn cut(node: u128) -> LinkFaults {
        LinkFaults { cut_out: true, ..LinkFaults::none(NodeId(node)) }
    }

    #[test]
    fn cuts_add_up_until_they_are_healed() {
        let (faults, layout) = (NodeFaults::new(1), layout());
        let apply = |heal, links| faults.apply(&SetFaults { heal, links }, NodeId(1), &layout);
        assert_eq!(apply(false, vec![cut(2)]), Ok(vec![cut(2)]));
        let lossy = LinkFaults { loss_ppm: Some(5), ..LinkFaults::none(NodeId(2)) };
        let both = LinkFaults { loss_ppm: Some(5), ..cut(2) };
        assert_eq!(apply(false, vec![lossy, cut(3)]), Ok(vec![both.clone(), cut(3)]));
        assert_eq!(faults.current(), [both, cut(3)]);
        assert_eq!(apply(true, vec![cut(3)]), Ok(vec![cut(3)]), "healed first");
        assert_eq!(apply(true, Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn nodes_that_are_no_peers_change_nothing() {
        let (faults, layout) = (NodeFaults::new(1), layout());
        for stranger in [1, 9] {
            let links = vec![cut(2), cut(stranger)];
            let refused = faults.apply(&SetFaults { heal: false, links }, NodeId(1), &layout);
            assert!(matches!(refused, Err(Failure::Malformed { .. })), "{refused:?}");
            assert_eq!(faults.current(), []);
        }
    }
}
