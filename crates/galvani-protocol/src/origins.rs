//! Who this lane's vnodes mint as, and when a new incarnation is due.
//!
//! An origin is the hash of a number drawn once per process start, the shard, and a count: unique
//! for ever as long as that number is random. An origin kept from before a clean stop is used again
//! only after every other member has said how much it knows of it; a write that cannot wait takes a
//! new incarnation, which is always safe and costs one more entry in clocks.
//! Next to read: `replica.rs`. Source: algorithms 2.1-2.2.

use galvani_model::ids::{NodeId, Origin, Shard};
use galvani_model::store::{OwnOrigin, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_128;

/// The incarnations of one lane since its process started.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    boot: u128,
    taken: u64,
    /// Kept from before a clean stop, and which nodes have yet to say what they know of it.
    unconfirmed: BTreeMap<Shard, BTreeSet<NodeId>>,
    /// Shards that mint under an origin kept from before, confirmed or not.
    kept: BTreeSet<Shard>,
    /// Members that are asked, or were.
    members: BTreeSet<NodeId>,
}

impl Origins {
    /// `boot` is 128 bits of the operating system's randomness, drawn for this start of this lane.
    pub(crate) fn new(boot: u128) -> Origins {
        let (unconfirmed, kept, members) = Default::default();
        Origins { boot, taken: 0, unconfirmed, kept, members }
    }

    /// The other members are these, by the newest layout. A disk that went back knows an older one: who
    /// has come since must be asked, too.
    pub(crate) fn know_members(&mut self, members: impl Iterator<Item = NodeId>) {
        let new: Vec<NodeId> = members.filter(|&node| self.members.insert(node)).collect();
        if !new.is_empty() {
            for &shard in &self.kept {
                self.unconfirmed.entry(shard).or_default().extend(&new);
            }
        }
    }

    /// A shard whose origin was kept: every other member is to be asked before it is used again.
    pub(crate) fn keep(&mut self, shard: Shard) {
        self.kept.insert(shard);
        if !self.members.is_empty() {
            self.unconfirmed.insert(shard, self.members.clone());
        }
    }

    /// The shard is held here no more.
    pub(crate) fn forget(&mut self, shard: Shard) {
        self.unconfirmed.remove(&shard);
        self.kept.remove(&shard);
    }

    /// The shards that `node` has yet to be asked about.
    pub(crate) fn to_ask(&self, node: NodeId) -> Vec<Shard> {
        let waiting = self.unconfirmed.iter().filter(|(_, others)| others.contains(&node));
        waiting.map(|(&shard, _)| shard).collect()
    }

    /// `node` knows no more of the shard's origin than we do.
    pub(crate) fn confirm(&mut self, shard: Shard, node: NodeId) {
        if let Some(others) = self.unconfirmed.get_mut(&shard) {
            others.remove(&node);
            if others.is_empty() {
                self.unconfirmed.remove(&shard);
            }
        }
    }

    /// The vnode's actor with one more dot minted: the caller logs that dot in the same batch.
    pub(crate) fn mint(
        &mut self,
        store: &mut dyn Store,
        shard: Shard,
    ) -> Result<OwnOrigin, StoreError> {
        if self.unconfirmed.contains_key(&shard) {
            // Forgotten before it is replaced: should this write fail, the next one must not find
            // the old origin as if it had been confirmed.
            store.forget_origin(shard)?;
            self.forget(shard);
        }
        Ok(match store.replica(shard)?.own {
            Some(own) => OwnOrigin { origin: own.origin, counter: own.counter + 1 },
            None => OwnOrigin { origin: self.incarnate(shard), counter: 1 },
        })
    }

    fn incarnate(&mut self, shard: Shard) -> Origin {
        self.taken += 1;
        let mut bytes = [0u8; 27];
        bytes[..16].copy_from_slice(&self.boot.to_le_bytes());
        bytes[16..18].copy_from_slice(&shard.partition.0.to_le_bytes());
        bytes[18] = shard.n;
        bytes[19..].copy_from_slice(&self.taken.to_le_bytes());
        Origin(xxh3_128(&bytes))
    }
}
