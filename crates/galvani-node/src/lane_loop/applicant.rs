//! A node that is no member tells those that are how it would be one.
//!
//! It asks for nothing: an administrator finds it among the applicants and plans with it. One that left
//! tells so, too. Next to read: `shared.rs`, which keeps what others tell.

use super::{LaneLoop, NOBODY, class_of};
use galvani_model::ids::LaneIndex;
use galvani_protocol::{Now, PeerLane, Topology};
use galvani_storage::engine::Engine;
use galvani_wire::Message;

/// How often it tells, in microseconds.
const ANNOUNCE_MICROS: u64 = 2_000_000;

impl<E: Engine> LaneLoop<E> {
    /// Dials members, and those that apply: once one is a member, writes need it at once, and those
    /// that find no link are refused.
    pub(super) fn meet(&mut self, topology: &Topology, now: Now) {
        let applicants = self.shared.applicants(now.micros);
        self.links.update(topology.layout().members(), &applicants);
    }

    /// A node that is no member tells those that are how it would be one.
    pub(super) fn announce(&mut self, now: Now) {
        let is_due = self.announced_at == 0 || now.micros >= self.announced_at + ANNOUNCE_MICROS;
        if self.me.lane != LaneIndex(0) || !is_due {
            return;
        }
        self.announced_at = now.micros;
        let topology = self.shared.topology();
        if topology.layout().member(self.me.node).is_some() {
            return self.shared.forget_applicants(now.micros);
        }
        let message = Message::Announce(Box::new(self.member.clone()));
        for member in topology.layout().members() {
            let first = PeerLane { node: member.id(), lane: LaneIndex(0) };
            if let Some(link) = self.links.to(first) {
                // The next time comes soon.
                let _ = self.send(link, class_of(&message), NOBODY, false, &message);
            }
        }
    }
}
