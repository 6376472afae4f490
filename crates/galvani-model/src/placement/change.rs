//! What an operator asks of a layout, in words: nodes added, removed, replaced, weighed, moved.
//!
//! A request becomes a set of members, and that the next layout (`next.rs`). A replacement alone
//! moves what the old node owned and nothing else: the new one gets its rows and places. Refusals
//! are typed and complete: whatever is returned as a layout can be carried out. Next to read:
//! `plan.rs`.

use super::layout::Layout;
use super::member::{Member, MemberError};
use super::record::LayoutError;
use crate::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// One wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This node joins.
    Add(Member),
    /// This node leaves.
    Remove(NodeId),
    /// A node takes the rows and places of another, which leaves. It has the same zone and weight.
    Replace {
        /// The node that leaves.
        old: NodeId,
        /// The node that takes its place; its name may be that of the old one.
        new: Member,
    },
    /// This node's share becomes another.
    Reweigh(NodeId, u32),
    /// This node stands in another zone.
    Zone(NodeId, String),
}

/// Why a request for another layout is refused. Nothing was changed; mend the named part and ask
/// again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The layout that would follow cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A weight or zone cannot be.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// No node of the layout has this id.
    #[error("node {node} is not in the layout")]
    UnknownNode {
        /// The node that was named.
        node: NodeId,
    },
    /// A node to be added is in the layout already.
    #[error("node {name} ({node}) is in the layout already")]
    AlreadyMember {
        /// The node.
        node: NodeId,
        /// What the layout calls it.
        name: String,
    },
    /// One request names a node twice.
    #[error("node {node} is named twice")]
    NamedTwice {
        /// The node.
        node: NodeId,
    },
    /// A node in the place of another must be like it.
    #[error("node {name} has not the zone and weight of the node it replaces: {zone}, {weight}")]
    Unlike {
        /// The new node.
        name: String,
        /// Zone of the node it replaces.
        zone: String,
        /// Weight of the node it replaces.
        weight: u32,
    },
    /// The layout is that already.
    #[error("nothing would change")]
    NothingChanges,
}

/// Which node stands in for which: old to new.
pub(super) type Replaced = BTreeMap<NodeId, NodeId>;

impl Layout {
    /// The layout that follows when all of `changes` are made at once. If they only replace nodes,
    /// no other rows move; else the shares are exact and the moves the fewest, as in
    /// [`next`](Self::next).
    pub fn changed(&self, changes: &[Change]) -> Result<Layout, PlanError> {
        let mut request = Request::on(self);
        for change in changes {
            request.make(change)?;
        }
        let Request { members, replaced, only_replaced, .. } = request;
        let members: Vec<Member> = members.into_values().collect();
        let next = match only_replaced {
            true => self.substituted(members, &replaced)?,
            false => self.successor(members, &replaced)?,
        };
        let (now, after) = (self.record(), next.record());
        if now.members == after.members && now.owners == after.owners {
            return Err(PlanError::NothingChanges);
        }
        Ok(next)
    }
}

/// The members while changes are made, one after the other.
struct Request<'a> {
    layout: &'a Layout,
    members: BTreeMap<NodeId, Member>,
    replaced: Replaced,
    only_replaced: bool,
    named: BTreeSet<NodeId>,
}

impl<'a> Request<'a> {
    fn on(layout: &'a Layout) -> Request<'a> {
        Request {
            layout,
            members: layout.members().iter().map(|m| (m.id(), m.clone())).collect(),
            replaced: Replaced::new(),
            only_replaced: true,
            named: BTreeSet::new(),
        }
    }

    fn make(&mut self, change: &Change) -> Result<(), PlanError> {
        match change {
            Change::Add(new) => {
                self.join(new)?;
                self.only_replaced = false;
            }
            Change::Remove(node) => {
                self.take(*node)?;
                self.only_replaced = false;
            }
            Change::Replace { old, new } => {
                let before = self.take(*old)?;
                if (new.zone(), new.weight()) != (before.zone(), before.weight()) {
                    return Err(PlanError::Unlike {
                        name: new.name().into(),
                        zone: before.zone().into(),
                        weight: before.weight(),
                    });
                }
                self.join(new)?;
                self.replaced.insert(*old, new.id());
            }
            Change::Reweigh(node, weight) => {
                let changed = self.take(*node)?.with_weight(*weight)?;
                self.members.insert(*node, changed);
                self.only_replaced = false;
            }
            Change::Zone(node, zone) => {
                let changed = self.take(*node)?.with_zone(zone.as_str())?;
                self.members.insert(*node, changed);
                self.only_replaced = false;
            }
        }
        Ok(())
    }

    /// A node of the layout that nothing was asked of yet.
    fn take(&mut self, node: NodeId) -> Result<Member, PlanError> {
        self.name(node)?;
        self.members.remove(&node).ok_or(PlanError::UnknownNode { node })
    }

    fn join(&mut self, new: &Member) -> Result<(), PlanError> {
        let node = new.id();
        if let Some(member) = self.layout.member(node) {
            return Err(PlanError::AlreadyMember { node, name: member.name().into() });
        }
        self.name(node)?;
        self.members.insert(node, new.clone());
        Ok(())
    }

    fn name(&mut self, node: NodeId) -> Result<(), PlanError> {
        match self.named.insert(node) {
            true => Ok(()),
            false => Err(PlanError::NamedTwice { node }),
        }
    }
}
