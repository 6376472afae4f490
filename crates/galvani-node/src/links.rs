//! Connections of one lane: who is at the other end, and when to dial again.
//!
//! A lane dials every other lane of the cluster and keeps those links up; requests to a peer go
//! out on the dialed link and come back on it. Links that others dialed carry their requests.
//! It decides nothing about requests. Next to read: `lane_loop.rs`.

use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::placement::Member;
use galvani_protocol::{PeerLane, ReplyTo};
use galvani_transport::{Class, LinkId, PeerIdentity, Transport};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// First and longest wait before a lost peer is dialed again, in microseconds.
const REDIAL_MICROS: (u64, u64) = (50_000, 1_000_000);

/// A peer's lane that this lane dials.
#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    link: Option<LinkId>,
    up: bool,
    /// Whether it is a member, and does not only apply to be one.
    member: bool,
    /// Whether it is no member any more.
    leaving: bool,
    wait_micros: u64,
    redial_at: u64,
    /// Whether it was told already that the two refuse each other.
    refusal_told: bool,
}

/// Whoever is at the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A lane that this lane dialed: its frames are answers.
    Dialed(PeerLane),
    /// Someone who dialed this lane: the frames are requests.
    Accepted(PeerIdentity),
}

/// Connections of one lane.
#[derive(Debug)]
pub(crate) struct Links {
    me: PeerLane,
    peers: BTreeMap<PeerLane, Peer>,
    who: HashMap<LinkId, Who>,
    /// Accepted links by the number that `ReplyTo` carries.
    accepted: HashMap<u64, LinkId>,
    /// For jitter only.
    random: u64,
}

impl Links {
    /// Every lane of the members but this one, none of them dialed yet.
    pub(crate) fn new<'a>(
        members: impl Iterator<Item = &'a Member>,
        me: PeerLane,
        seed: u64,
    ) -> Links {
        let (who, accepted) = (HashMap::new(), HashMap::new());
        let mut links = Links { me, peers: BTreeMap::new(), who, accepted, random: seed | 1 };
        links.update(members, &[]);
        links
    }

    /// The members, and those that apply to be some, are these from now on: new ones are dialed. Links
    /// to those that left stay while they are up, and are not dialed again.
    pub(crate) fn update<'a>(
        &mut self,
        members: impl Iterator<Item = &'a Member>,
        applicants: &[Member],
    ) {
        let mut wanted = BTreeMap::new();
        let applicants = applicants.iter().map(|member| (member, false));
        for (member, is_member) in applicants.chain(members.map(|member| (member, true))) {
            for (lane, &address) in member.lanes().iter().enumerate() {
                let peer = PeerLane { node: member.id(), lane: LaneIndex(lane as u16) };
                wanted.insert(peer, (address, is_member));
            }
        }
        wanted.remove(&self.me);
        for (peer, known) in &mut self.peers {
            known.leaving = !wanted.contains_key(peer);
        }
        self.peers.retain(|_, known| !known.leaving || known.link.is_some());
        for (peer, (address, member)) in wanted {
            let wait_micros = REDIAL_MICROS.0;
            let (link, up, leaving, redial_at) = (None, false, false, 0);
            let refusal_told = false;
            let new =
                Peer { address, link, up, member, leaving, wait_micros, redial_at, refusal_told };
            let known = self.peers.entry(peer).or_insert(new);
            (known.address, known.member) = (address, member);
        }
    }

    /// Dials whoever is down and due. Returns when the next one is due.
    pub(crate) fn dial_due(&mut self, transport: &Transport, now_micros: u64) -> Option<u64> {
        let mut next = None;
        for (&lane, peer) in &mut self.peers {
            if peer.link.is_some() || peer.leaving {
                continue;
            }
            if peer.redial_at <= now_micros {
                let link = transport.dial(peer.address, Some(lane.node.to_bytes()), 0);
                peer.link = Some(link);
                self.who.insert(link, Who::Dialed(lane));
            } else {
                next = Some(next.map_or(peer.redial_at, |at: u64| at.min(peer.redial_at)));
            }
        }
        next
    }

    /// A link is up. Returns the peer's lane if this lane dialed it.
    pub(crate) fn on_up(&mut self, link: LinkId, identity: PeerIdentity) -> Option<PeerLane> {
        match self.who.get(&link) {
            Some(&Who::Dialed(lane)) => {
                let peer = self.peers.get_mut(&lane)?;
                peer.up = true;
                peer.refusal_told = false;
                peer.wait_micros = REDIAL_MICROS.0;
                Some(lane)
            }
            Some(Who::Accepted(_)) | None => {
                self.who.insert(link, Who::Accepted(identity));
                self.accepted.insert(link.number(), link);
                None
            }
        }
    }

    /// A link is gone. Returns the peer's lane if it was up and this lane had dialed it.
    pub(crate) fn on_down(&mut self, link: LinkId, now_micros: u64) -> Option<PeerLane> {
        self.accepted.remove(&link.number());
        let Some(Who::Dialed(lane)) = self.who.remove(&link) else { return None };
        let jitter = self.jitter();
        let peer = self.peers.get_mut(&lane)?;
        peer.link = None;
        // Between half of the wait and all of it, so that peers do not dial in step.
        let wait = peer.wait_micros / 2 + jitter % (peer.wait_micros / 2);
        peer.redial_at = now_micros + wait;
        peer.wait_micros = (peer.wait_micros * 2).min(REDIAL_MICROS.1);
        core::mem::take(&mut peer.up).then_some(lane)
    }

    /// The lane that was dialed, if that the two refuse each other is to be told: once, until they meet.
    pub(crate) fn take_refusal(&mut self, link: LinkId) -> Option<PeerLane> {
        let Some(&Who::Dialed(lane)) = self.who.get(&link) else { return None };
        let peer = self.peers.get_mut(&lane)?;
        (!core::mem::replace(&mut peer.refusal_told, true)).then_some(lane)
    }

    /// Hears nothing more from a link that someone dialed to us.
    pub(crate) fn forget_accepted(&mut self, link: LinkId) {
        if let Some(Who::Accepted(_)) = self.who.get(&link) {
            self.who.remove(&link);
            self.accepted.remove(&link.number());
        }
    }

    /// Who is at the other end.
    pub(crate) fn who(&self, link: LinkId) -> Option<&Who> {
        self.who.get(&link)
    }

    /// The node that a datagram came from; only nodes have any to send, from their lane 0.
    pub(crate) fn sender(&self, link: LinkId) -> Option<PeerLane> {
        match self.who(link)? {
            Who::Dialed(peer) => Some(*peer),
            Who::Accepted(PeerIdentity::Node { id }) => {
                Some(PeerLane { node: NodeId::from_bytes(*id), lane: LaneIndex(0) })
            }
            Who::Accepted(PeerIdentity::Client { .. }) => None,
        }
    }

    /// The link to a peer's lane, if it is up.
    pub(crate) fn to(&self, lane: PeerLane) -> Option<LinkId> {
        self.peers.get(&lane).filter(|peer| peer.up)?.link
    }

    /// Where an answer goes, if whoever asked is still there.
    pub(crate) fn answer_to(&self, to: ReplyTo) -> Option<(LinkId, Class)> {
        let link = *self.accepted.get(&(to.link / CLASSES))?;
        let class = *Class::ALL.get((to.link % CLASSES) as usize)?;
        Some((link, class))
    }

    /// The name under which a request's answer finds its way back.
    pub(crate) fn reply_to(link: LinkId, class: Class, id: u64) -> ReplyTo {
        let class = Class::ALL.iter().position(|&other| other == class).unwrap_or(0) as u64;
        ReplyTo { link: link.number() * CLASSES + class, id }
    }

    /// Members of which all lanes are up, and those of which some lane is not.
    pub(crate) fn nodes(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let mut up: BTreeMap<NodeId, bool> = BTreeMap::new();
        for (lane, peer) in self.peers.iter().filter(|(_, peer)| peer.member && !peer.leaving) {
            *up.entry(lane.node).or_insert(true) &= peer.up;
        }
        let nodes = |wanted: bool| {
            up.iter().filter(|(_, up)| **up == wanted).map(|(&node, _)| node).collect()
        };
        (nodes(true), nodes(false))
    }

    fn jitter(&mut self) -> u64 {
        // xorshift64: spread is all that is asked of it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

const CLASSES: u64 = Class::COUNT as u64;

#[cfg(test)]
mod tests {
    use super::Links;
    use galvani_model::ids::{LaneIndex, NodeId};
    use galvani_model::placement::Member;
    use galvani_protocol::PeerLane;

    fn member(id: u16) -> Member {
        let lanes = vec![([127, 0, 0, 1], 7000 + id).into()];
        Member::new(NodeId(id.into()), format!("n{id}"), "a", 100, lanes).expect("valid")
    }

    #[test]
    fn who_applies_is_dialed_and_is_nobody_whose_absence_is_told() {
        let me = PeerLane { node: NodeId(1), lane: LaneIndex(0) };
        let (members, applicant) = ([member(1), member(2)], member(3));
        let mut links = Links::new(members.iter(), me, 7);
        let dialed = |links: &Links| links.peers.keys().map(|it| it.node.0).collect::<Vec<_>>();
        assert_eq!(dialed(&links), [2]);
        links.update(members.iter(), std::slice::from_ref(&applicant));
        assert_eq!(dialed(&links), [2, 3]);
        assert_eq!(links.nodes(), (vec![], vec![NodeId(2)]));
        links.update(members.iter().chain([&applicant]), std::slice::from_ref(&applicant));
        assert_eq!(links.nodes(), (vec![], vec![NodeId(2), NodeId(3)]), "it is a member now");
        links.update(members.iter(), &[]);
        assert_eq!(dialed(&links), [2]);
    }
}
