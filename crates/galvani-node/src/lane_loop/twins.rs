//! Two processes under one node id: found by the nodes that both greet, and told to both.
//!
//! A copy of a node's directory, identity included, that is started elsewhere passes for the node.
//! Each process greets every node on the links it dials, lane 0 to lane 0. A node that is greeted by
//! a second process asks the first to greet again: only an answer counts, since the link of a process
//! that was killed looks alive for seconds. Then it tells each of the other, and one of them ends: that
//! which has only just started, or, where both have or neither has, that which started later. The
//! one that goes on has not what the other acked in the node's name, and fills its disk again as one
//! that lost it does (`refill.rs` of the protocol). Incarnations keep the names of writes apart.
//! Next to read: `lane_loop.rs`; `galvani-wire/src/twin.rs`.

use super::{DRAIN_MICROS, LaneLoop, NOBODY, class_of};
use crate::shared::Control;
use galvani_model::ids::{BootId, LaneIndex, NodeId};
use galvani_protocol::{Now, PeerLane};
use galvani_storage::engine::Engine;
use galvani_transport::LinkId;
use galvani_wire::Message;
use galvani_wire::twin::{Greeting, Twin};
use galvani_wire::view::TWINS_NAMED_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// How long after its start a process is a newcomer, in milliseconds. It meets its peers within a second
/// or two; what has served for longer must not be ended by whatever turns up with a wrong clock.
const NEWCOMER_MS: u64 = 15_000;

/// How long after this one was told of it a twin that ends has ended, in microseconds: it is told, too, and
/// drains.
pub(super) const ENDS_MICROS: u64 = DRAIN_MICROS + 3_000_000;

/// What lane 0 of a process knows of processes.
#[derive(Debug)]
pub(crate) struct Twins {
    boot: BootId,
    since_ms: u64,
    address: SocketAddr,
    /// One that is about to end is in nobody's way.
    stopping: bool,
    /// Whether it was told of a twin and went on, and somebody may still take it for a newcomer.
    to_greet_again: bool,
    /// Whether it last greeted as a newcomer.
    said_as_newcomer: bool,
    /// When the twin that it was told of last has ended for certain, in its microseconds, and a name for what
    /// that one acked meanwhile.
    ends_by: Option<(u64, u128)>,
    greeters: Greeters<LinkId>,
}

impl Twins {
    /// For the process `boot` with its lane 0 at `address`.
    pub(crate) fn new(boot: BootId, address: SocketAddr, now: Now) -> Twins {
        let since_ms = now.unix_ms.saturating_sub(now.micros / 1_000);
        Twins {
            boot,
            since_ms,
            address,
            stopping: false,
            to_greet_again: false,
            said_as_newcomer: false,
            ends_by: None,
            greeters: Greeters::new(),
        }
    }

    /// Says no more that it runs.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// A link is gone.
    pub(super) fn forget(&mut self, link: LinkId) {
        self.greeters.forget(link);
    }

    /// Nodes of which several processes run, and where.
    pub(super) fn running_twice(&self) -> BTreeMap<NodeId, BTreeSet<SocketAddr>> {
        self.greeters.running_twice()
    }

    fn greeting(&self, now: Now) -> Greeting {
        let (boot, since_ms, address) = (self.boot, self.since_ms, self.address);
        Greeting { boot, up_ms: now.micros / 1_000, since_ms, address }
    }
}

/// Who greeted this node, on links (`L`) that still seem to be there.
#[derive(Debug)]
struct Greeters<L> {
    by_link: BTreeMap<L, Greeter<L>>,
}

#[derive(Debug)]
struct Greeter<L> {
    node: NodeId,
    greeting: Greeting,
    /// Links of twins, to be told when this one greets again.
    asked_for: Vec<L>,
    /// Links of twins that ran while this one did.
    twins: BTreeSet<L>,
}

impl<L: Copy + Ord> Greeters<L> {
    fn new() -> Greeters<L> {
        Greeters { by_link: BTreeMap::new() }
    }

    /// A process of `node` greeted on `link`. What is to be said to whom.
    fn heard(&mut self, link: L, node: NodeId, greeting: Greeting) -> Vec<(L, Twin)> {
        match self.by_link.get_mut(&link) {
            Some(greeter) if greeter.greeting.boot == greeting.boot => {
                let was_newcomer = is_newcomer(&greeter.greeting);
                greeter.greeting = greeting.clone();
                let mut to_tell = core::mem::take(&mut greeter.asked_for);
                if was_newcomer && !is_newcomer(&greeting) {
                    // That may decide otherwise.
                    to_tell.extend(greeter.twins.iter().copied());
                }
                let mut told = Vec::new();
                for asker in to_tell {
                    if let Some(other) = self.by_link.get_mut(&asker) {
                        other.twins.insert(link);
                        told.push((link, Twin::Runs(other.greeting.clone())));
                        told.push((asker, Twin::Runs(greeting.clone())));
                    }
                }
                told
            }
            Some(_) | None => {
                let is_twin = |greeter: &Greeter<L>| {
                    greeter.node == node && greeter.greeting.boot != greeting.boot
                };
                let mut asked = Vec::new();
                for (&at, twin) in self.by_link.iter_mut().filter(|(_, other)| is_twin(other)) {
                    twin.asked_for.push(link);
                    asked.push((at, Twin::Asked));
                }
                let (asked_for, twins) = (Vec::new(), BTreeSet::new());
                self.by_link.insert(link, Greeter { node, greeting, asked_for, twins });
                asked
            }
        }
    }

    fn forget(&mut self, link: L) {
        if self.by_link.remove(&link).is_some() {
            for greeter in self.by_link.values_mut() {
                greeter.asked_for.retain(|&asker| asker != link);
                greeter.twins.remove(&link);
            }
        }
    }

    fn running_twice(&self) -> BTreeMap<NodeId, BTreeSet<SocketAddr>> {
        let mut all: BTreeMap<NodeId, BTreeSet<SocketAddr>> = BTreeMap::new();
        for greeter in self.by_link.values().filter(|greeter| !greeter.twins.is_empty()) {
            let places = all.entry(greeter.node).or_default();
            let twins = greeter.twins.iter().filter_map(|twin| self.by_link.get(twin));
            let found = twins.chain([greeter]).map(|greeter| greeter.greeting.address);
            let room = TWINS_NAMED_MAX.saturating_sub(places.len());
            places.extend(found.take(room));
        }
        all
    }
}

/// Whether the process `me` ends now that it knows that `twin` runs. Of two that know of each other
/// one goes on, whatever they know and when: a newcomer ends because of one that was no newcomer any
/// more when it said so; of two newcomers, and of two that are none, the later one ends.
fn must_end(me: &Greeting, twin: &Greeting) -> bool {
    let order = |greeting: &Greeting| (greeting.since_ms, greeting.boot);
    match (is_newcomer(me), is_newcomer(twin)) {
        (true, false) => true,
        (false, true) => false,
        (true, true) | (false, false) => order(twin) < order(me),
    }
}

fn is_newcomer(greeting: &Greeting) -> bool {
    greeting.up_ms < NEWCOMER_MS
}

impl<E: Engine> LaneLoop<E> {
    /// Says to a node on a link that was dialed to it which process this is.
    pub(super) fn greet(&mut self, link: LinkId, peer: PeerLane, now: Now) {
        let among_first = self.me.lane == LaneIndex(0) && peer.lane == LaneIndex(0);
        if among_first && !self.twins.stopping {
            let greeting = self.twins.greeting(now);
            self.twins.said_as_newcomer = is_newcomer(&greeting);
            self.say(link, Message::Greet(greeting));
        }
    }

    /// A process of `node` greeted this one.
    pub(super) fn on_greet(&mut self, link: LinkId, node: NodeId, greeting: Greeting) {
        let address = greeting.address;
        for (to, twin) in self.twins.greeters.heard(link, node, greeting) {
            match &twin {
                Twin::Runs(other) if to == link => {
                    let and = other.address;
                    tracing::error!(event = "node_runs_twice", node = %node, at = %address, and = %and);
                }
                Twin::Runs(_) | Twin::Asked => {}
            }
            self.say(to, Message::Twin(twin));
        }
    }

    /// A node that this process greeted says that another one did, too.
    pub(super) fn on_twin(&mut self, link: LinkId, peer: PeerLane, twin: Twin, now: Now) {
        let twin = match twin {
            Twin::Asked => return self.greet(link, peer, now),
            Twin::Runs(twin) => twin,
        };
        let me = self.twins.greeting(now);
        if twin.boot == me.boot {
            return;
        }
        let (ends, at) = (must_end(&me, &twin), twin.address);
        tracing::error!(event = "twin_runs", node = %self.me.node, at = %at, up_ms = twin.up_ms, ends);
        if ends {
            return self.shared.yield_to(twin);
        }
        self.twins.to_greet_again |= self.twins.said_as_newcomer;
        self.shared.tell_all(&Control::TwinServed(twin.boot.0));
        // It may be told later, and then it still ends what is under way.
        self.twins.ends_by = Some((now.micros + ENDS_MICROS, !twin.boot.0));
    }

    /// Says that it is no newcomer any more, where a twin may be there that took it for one; and counts with
    /// what a twin acked before it had ended.
    pub(super) fn look_for_twins(&mut self, now: Now) {
        if let Some((_, name)) = self.twins.ends_by.take_if(|(by, _)| *by <= now.micros) {
            self.shared.tell_all(&Control::TwinServed(name));
        }
        if self.twins.to_greet_again && !is_newcomer(&self.twins.greeting(now)) {
            self.twins.to_greet_again = false;
            for member in self.shared.topology().layout().members() {
                let first = PeerLane { node: member.id(), lane: LaneIndex(0) };
                if let Some(link) = self.links.to(first) {
                    self.greet(link, first, now);
                }
            }
        }
    }

    fn say(&self, link: LinkId, message: Message) {
        // A link that cannot take it is about to end; the next one begins with a greeting.
        let _ = self.send(link, class_of(&message), NOBODY, false, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::{Greeters, Greeting, NEWCOMER_MS, Twin, must_end};
    use galvani_model::ids::{BootId, NodeId};
    use std::collections::{BTreeMap, BTreeSet};

    const N2: NodeId = NodeId(2);

    fn greeting(boot: u128, since_ms: u64, up_ms: u64) -> Greeting {
        let address = format!("127.0.0.1:{}", 7_000 + boot).parse().expect("an address");
        Greeting { boot: BootId(boot), up_ms, since_ms, address }
    }

    #[test]
    fn only_an_answer_counts_and_then_both_are_told() {
        let mut greeters = Greeters::new();
        let (old, new) = (greeting(1, 10, 90_000), greeting(2, 90_000, 5));
        assert_eq!(greeters.heard('a', N2, old.clone()), []);
        assert_eq!(greeters.heard('x', NodeId(3), greeting(3, 1, 1)), [], "another node");
        assert_eq!(greeters.heard('b', N2, new.clone()), [('a', Twin::Asked)]);
        let again = greeting(1, 10, 90_007);
        let told = [('a', Twin::Runs(new)), ('b', Twin::Runs(again.clone()))];
        assert!(greeters.running_twice().is_empty());
        assert_eq!(greeters.heard('a', N2, again.clone()), told);
        let places = BTreeSet::from([again.address, greeting(2, 0, 0).address]);
        assert_eq!(greeters.running_twice(), BTreeMap::from([(N2, places)]));
        assert_eq!(greeters.heard('a', N2, again), [], "nobody asks any more");
        greeters.forget('a');
        assert!(greeters.running_twice().is_empty());
    }

    #[test]
    fn a_process_on_a_new_link_is_no_twin_of_itself() {
        let mut greeters = Greeters::new();
        greeters.heard('a', N2, greeting(1, 10, 100));
        assert_eq!(greeters.heard('b', N2, greeting(1, 10, 200)), []);
    }

    #[test]
    fn of_a_link_that_is_gone_nothing_is_asked_or_told() {
        let mut greeters = Greeters::new();
        greeters.heard('a', N2, greeting(1, 10, 100));
        greeters.forget('a');
        assert_eq!(greeters.heard('b', N2, greeting(2, 20, 5)), []);
        assert_eq!(greeters.heard('c', N2, greeting(3, 30, 5)), [('b', Twin::Asked)]);
        greeters.forget('c');
        assert_eq!(greeters.heard('b', N2, greeting(2, 20, 7)), []);
    }

    #[test]
    fn a_newcomer_ends_and_what_has_served_goes_on() {
        let (old, new) = (greeting(1, 50, NEWCOMER_MS), greeting(2, 10, NEWCOMER_MS - 1));
        // Whatever their clocks say of their starts.
        assert!(must_end(&new, &old) && !must_end(&old, &new));
        assert!(!must_end(&old, &old) && !must_end(&new, &new));
    }

    #[test]
    fn of_two_that_have_served_the_later_one_ends() {
        let (first, later) = (greeting(2, 10, 90_000), greeting(1, 50, 90_040));
        assert!(must_end(&later, &first) && !must_end(&first, &later));
    }

    #[test]
    fn one_that_was_told_of_as_a_newcomer_is_told_of_again() {
        let mut greeters = Greeters::new();
        let new = greeting(2, 20, NEWCOMER_MS - 1);
        greeters.heard('a', N2, greeting(1, 10, 100));
        greeters.heard('b', N2, new);
        assert_eq!(greeters.heard('a', N2, greeting(1, 10, 101)).len(), 2);
        let (first, second) = (greeting(1, 10, NEWCOMER_MS), greeting(2, 20, NEWCOMER_MS));
        let told = greeters.heard('b', N2, second.clone());
        let of_first = Twin::Runs(greeting(1, 10, 101));
        assert_eq!(told, [('b', of_first), ('a', Twin::Runs(second.clone()))]);
        let told = greeters.heard('a', N2, first.clone());
        assert_eq!(told, [('a', Twin::Runs(second.clone())), ('b', Twin::Runs(first.clone()))]);
        assert_eq!(greeters.heard('a', N2, first), [], "it has grown up once");
    }

    #[test]
    fn twins_never_both_end() {
        // Each hears of the other once, as it was when that one greeted, at any time of its life.
        let moments = [0, 1, NEWCOMER_MS - 1, NEWCOMER_MS, NEWCOMER_MS + 1];
        let starts = [(1, 10), (2, 10), (3, 5)];
        for (a, b) in starts.iter().flat_map(|a| starts.iter().map(move |b| (a, b))) {
            for [told_a, told_b, of_a, of_b] in every(moments) {
                let at = |&(boot, since): &(u128, u64), up| greeting(boot, since, up);
                let a_ends = must_end(&at(a, told_a), &at(b, of_b));
                let b_ends = must_end(&at(b, told_b), &at(a, of_a));
                // Whoever ends says nothing afterwards.
                let possible = (!b_ends || of_b <= told_b) && (!a_ends || of_a <= told_a);
                assert!(
                    !(a_ends && b_ends && possible),
                    "{a:?} {b:?} {told_a} {told_b} {of_a} {of_b}"
                );
            }
        }
    }

    /// Every choice of four.
    fn every(of: [u64; 5]) -> Vec<[u64; 4]> {
        let mut all = vec![[0; 4]];
        for place in 0..4 {
            let with = |one: [u64; 4]| {
                of.map(|value| {
                    let mut next = one;
                    next[place] = value;
                    next
                })
            };
            all = all.into_iter().flat_map(with).collect();
        }
        all
    }
}
