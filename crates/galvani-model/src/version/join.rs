//! What a reader knows after hearing from some replicas.
//!
//! Versions are united by logical write first and only then are replaced ones dropped: dropping
//! early would depend on the order of answers, because one replica may know only one dot of an
//! alias group and another replica the write that replaced its other dot.
//! Next to read: `context.rs`.

use super::dotset::DotSet;
use super::object::{Object, Version};
use crate::bucket::ConflictPolicy;
use crate::hlc::Hlc;
use crate::ids::WriteId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The union of what replicas answered. Laws: adding answers is commutative, associative and
/// idempotent; an absent object adds nothing but its context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadJoin {
    groups: BTreeMap<WriteId, Version>,
    seen: DotSet,
    hlc: Hlc,
}

impl ReadJoin {
    /// Nothing heard yet.
    pub fn new() -> ReadJoin {
        ReadJoin::default()
    }

    /// Adds one replica's answer: its object, and what its reader has seen (compressed with that
    /// replica's own clock, in the same instant).
    pub fn add(&mut self, object: &Object, seen: &DotSet) {
        for version in object.versions() {
            match self.groups.entry(version.write) {
                Entry::Occupied(mut group) => {
                    group.get_mut().join(version);
                }
                Entry::Vacant(free) => {
                    free.insert(version.clone());
                }
            }
        }
        self.seen.union(seen);
        self.hlc = self.hlc.max(object.hlc());
    }

    /// The versions that no other heard version replaces.
    pub fn object(&self, policy: ConflictPolicy) -> Object {
        let replaced = |version: &Version| {
            self.groups
                .values()
                .any(|other| other.write != version.write && version.is_replaced_by(&other.past))
        };
        let live = self.groups.values().filter(|version| !replaced(version)).cloned().collect();
        Object::from_versions(live, policy)
    }

    /// Exactly what the reader has seen or was replaced for it: the dots of a context.
    pub fn seen(&self) -> &DotSet {
        &self.seen
    }

    /// The latest hybrid time heard of.
    pub fn hlc(&self) -> Hlc {
        self.hlc
    }
}
