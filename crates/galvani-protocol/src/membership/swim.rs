//! Which nodes live, found out together: probes, suspicion, refutation, gossip.
//!
//! A thin driver of the crate `foca`, which has the algorithm: it gives foca this lane's time,
//! randomness and datagrams. The members are those of the layout, for ever: nobody joins by
//! hearsay, and whoever is down is kept and spoken to until it answers. Being down is news for
//! others to weigh; no link and no data is touched here.
//! Source: Das, Gupta, Motivala 2002 (SWIM). Next to read: `codec.rs`; `lane.rs`, its only caller.

use super::codec::{Alias, Members};
use crate::effect::Now;
use bytes::Bytes;
use core::convert::Infallible;
use core::fmt;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;
use foca::{
    Codec, Config, Foca, Identity, Member, NoCustomBroadcast, Notification, PeriodicParams,
    Runtime, State, Timer,
};
use galvani_model::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// How often this node probes another one, in an order drawn anew for each round: of three nodes
/// each is probed by each of the others every 750 ms at the latest and found silent 250 ms later.
/// With [`SUSPECT_MS`] one that died is down for all after 1.1 to 1.8 s; in larger clusters news of
/// it takes another 200 to 400 ms. The cost is some eight small datagrams a second.
const PROBE_PERIOD_MS: u64 = 250;
/// How long a direct answer may take before others are asked to try: far above a healthy round trip
/// and half of the period, so that their answers come within it.
const PROBE_RTT_MS: u64 = 125;
/// How long a suspect may take to refute. One that stands still for half a second (a slow fsync) is
/// suspected 250 ms after it stopped at the earliest and finds the suspicion in its inbox when it
/// goes on: 550 ms are left for the refutation to travel.
const SUSPECT_MS: u64 = 800;
/// How often news is passed on while there is any: three times within [`SUSPECT_MS`] at least.
const GOSSIP_MS: u64 = 200;
/// Nodes asked to probe in place of this one, and nodes that news goes to at once.
const HELPERS: usize = 3;
/// Times a piece of news is passed on by each node: for clusters of hundreds of nodes.
const TRANSMISSIONS: u8 = 10;
/// Bytes of a datagram: below what any path carries in a packet (1,200 less QUIC's share).
const BYTES_MAX: usize = 1_000;
/// How often members that are down, or were never heard, are spoken to, in microseconds.
const ANNOUNCE_MICROS: u64 = 1_000_000;
/// How long a member may stay unheard, and without a link, from this node's first instant on before it
/// counts as down, in microseconds. One that was down already before is no news to those who know it,
/// so nobody tells; and a link that takes this long does not come up.
const UNHEARD_MICROS: u64 = 5_000_000;
/// How many times in a row a member is a suspect when others are spoken to until it is told so. By
/// the algorithm a suspicion is over sooner, unless whoever raised it stopped or restarted before
/// its time was up: then nobody counts it down, and once its news is old nobody passes it on to the
/// suspect, who alone can refute it.
const TELL_AFTER: u8 = 3;
/// Being later than this with what is due says that this node stood still, in microseconds: then all
/// that it waits for moves by as much. Time in which nothing could be heard here is no evidence against
/// others.
const STILL_MICROS: u64 = 100_000;

/// How a member is, as far as the nodes found out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers somebody, or was not heard of yet.
    Alive,
    /// It did not answer and may still refute that.
    Suspect,
    /// It answered nobody for long.
    Down,
}

/// What one call brought about.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Datagrams to send.
    pub(crate) sends: Vec<(NodeId, Bytes)>,
    /// Members that are down from now on (false), or are again alive (true).
    pub(crate) changes: Vec<(NodeId, bool)>,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped;

type Engine = Foca<Alias, Members, Dice, NoCustomBroadcast>;

/// This node's part in it.
pub(crate) struct Swim {
    me: NodeId,
    /// Everybody, this node included.
    members: Members,
    seed: u64,
    /// Made at the first instant, which its life begins with.
    foca: Option<Box<Engine>>,
    timers: Timers,
    announce_at: u64,
    /// This node's first instant, later by the time in which it stood still.
    born: u64,
    /// Members that a link was up with: those are not unheard.
    linked: BTreeSet<NodeId>,
    /// Members that are down as far as was told.
    down: BTreeSet<NodeId>,
    /// How often in a row each suspect was one, at most [`TELL_AFTER`].
    suspected: BTreeMap<NodeId, u8>,
}

/// Timers by when they are due; those of one instant in the order they were set.
#[derive(Debug, Default)]
struct Timers {
    due: BTreeMap<(u64, u64), Timer<Alias>>,
    set: u64,
}

impl fmt::Debug for Swim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swim").field("me", &self.me).field("timers", &self.timers).finish()
    }
}

impl Swim {
    /// For a node among `members`; `seed` is any number.
    pub(crate) fn new(me: NodeId, members: BTreeSet<NodeId>, seed: u64) -> Swim {
        let members = Members { known: members };
        let timers = Timers::default();
        let suspected = BTreeMap::new();
        let (foca, linked, down) = (None, BTreeSet::new(), BTreeSet::new());
        Swim { me, members, seed, foca, timers, announce_at: 0, born: 0, linked, down, suspected }
    }

    /// A datagram of `from`, as its certificate names it.
    pub(crate) fn on_datagram(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        now: Now,
        out: &mut Outcome,
    ) -> Result<(), Dropped> {
        let header = self.members.decode_header(bytes).map_err(|_| Dropped)?;
        if header.src.node != from || from == self.me || header.dst.node != self.me {
            return Err(Dropped);
        }
        self.drive(now, out, |foca, runtime| {
            if header.dst.life > foca.identity().life
                && let Some(next) = header.dst.renew()
            {
                // The wall clock was set back since the life that others know of.
                foca.change_identity(next, &mut *runtime).map_err(|_| Dropped)?;
            }
            foca.handle_data(bytes, runtime).map_err(|_| Dropped)
        })
    }

    /// A link to a member is up: it is spoken to at once.
    pub(crate) fn on_link_up(&mut self, node: NodeId, now: Now, out: &mut Outcome) {
        self.linked.insert(node);
        // What cannot be sent now is said again.
        let _ = self.drive(now, out, |foca, runtime| {
            announce(foca, |member| member.id().node == node, runtime)
        });
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Now, out: &mut Outcome) {
        self.forgive_stillness(now.micros);
        while let Some(timer) = self.timers.take_due(now.micros) {
            // A timer of an earlier life is refused, which is all that can go wrong.
            let _ = self.drive(now, out, |foca, runtime| foca.handle_timer(timer, runtime));
        }
        if self.announce_at <= now.micros {
            self.announce_at = now.micros + ANNOUNCE_MICROS;
            // What cannot be sent now is said again.
            let _ = self.drive(now, out, |foca, runtime| {
                announce(foca, |member| member.state() == State::Down, runtime)
            });
            self.tell_suspects(out);
            self.give_up_unheard(now, out);
        }
    }

    /// When [`Swim::poll`] has something to do.
    pub(crate) fn next_deadline(&self) -> u64 {
        let timer = self.timers.due.first_key_value().map(|((due, _), _)| *due);
        timer.map_or(self.announce_at, |due| due.min(self.announce_at))
    }

    /// How a member is.
    pub(crate) fn standing(&self, node: NodeId) -> Standing {
        let mut known = self.foca.iter().flat_map(|foca| foca.iter_membership_state());
        match known.find(|member| member.id().node == node) {
            Some(member) if member.id().life > 0 => match member.state() {
                State::Alive => Standing::Alive,
                State::Suspect => Standing::Suspect,
                State::Down => Standing::Down,
            },
            Some(_) | None if self.down.contains(&node) => Standing::Down,
            Some(_) | None => Standing::Alive,
        }
    }

    /// Where this node stood still, all that it waits for is due as much later.
    fn forgive_stillness(&mut self, now: u64) {
        let late = now.saturating_sub(self.next_deadline());
        // Before the first look nothing was waited for.
        if self.announce_at > 0 && late > STILL_MICROS {
            self.timers.postpone(late);
            self.born = self.born.saturating_add(late);
        }
    }

    /// Members that have not been heard since this node's first instant are down by now.
    fn give_up_unheard(&mut self, now: Now, out: &mut Outcome) {
        if now.micros < self.born.saturating_add(UNHEARD_MICROS) {
            return;
        }
        let known = self.foca.iter().flat_map(|foca| foca.iter_membership_state());
        let silent = known.filter(|member| member.state() == State::Down);
        for node in silent.map(|member| member.id().node) {
            if !self.linked.contains(&node) && self.down.insert(node) {
                out.changes.push((node, false));
            }
        }
    }

    /// Tells members that have been suspects for long that they are.
    fn tell_suspects(&mut self, out: &mut Outcome) {
        let Some(foca) = &self.foca else { return };
        let all = foca.iter_membership_state();
        let suspects: Vec<_> =
            all.filter(|member| member.state() == State::Suspect).cloned().collect();
        let count = |member: &Member<Alias>| {
            let before = self.suspected.get(&member.id().node).copied().unwrap_or(0);
            (member.id().node, (before + 1).min(TELL_AFTER))
        };
        self.suspected = suspects.iter().map(count).collect();
        let src = *foca.identity();
        for suspect in suspects {
            if self.suspected[&suspect.id().node] == TELL_AFTER {
                out.sends.extend(self.members.suspicion(src, &suspect));
            }
        }
    }

    fn drive<E>(
        &mut self,
        now: Now,
        out: &mut Outcome,
        act: impl FnOnce(&mut Engine, &mut Outlet<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let told = out.changes.len();
        let mut runtime = Outlet { now: now.micros, timers: &mut self.timers, out };
        let foca = self.foca.get_or_insert_with(|| {
            self.born = now.micros;
            let me = Alias { node: self.me, life: now.unix_ms.max(1) };
            let dice = Dice { state: self.seed };
            let mut foca = Foca::new(me, tuning(), dice, self.members.clone());
            // Nobody was heard yet: all are spoken to, and none is news.
            let others = self.members.known.iter().filter(|&&node| node != self.me);
            let unknown = others.map(|&node| Member::down(Alias { node, life: 0 }));
            let taken = foca.apply_many(unknown, false, &mut runtime);
            debug_assert!(taken.is_ok(), "members are taken in without being written");
            Box::new(foca)
        });
        let acted = act(foca, &mut runtime);
        // After a new life foca stands still until it is fed.
        let fed = foca.apply_many(core::iter::empty(), false, &mut runtime);
        debug_assert!(fed.is_ok(), "nothing was applied");
        for (node, alive) in &out.changes[told..] {
            match alive {
                true => self.down.remove(node),
                false => self.down.insert(*node),
            };
        }
        acted
    }
}

impl Timers {
    fn set(&mut self, due: u64, timer: Timer<Alias>) {
        self.set += 1;
        self.due.insert((due, self.set), timer);
    }

    fn take_due(&mut self, now: u64) -> Option<Timer<Alias>> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    fn postpone(&mut self, by: u64) {
        let due = core::mem::take(&mut self.due);
        self.due = due.into_iter().map(|((at, set), timer)| ((at + by, set), timer)).collect();
    }
}

/// Speaks to some of the members.
fn announce(
    foca: &mut Engine,
    whom: impl Fn(&Member<Alias>) -> bool,
    runtime: &mut Outlet<'_>,
) -> Result<(), foca::Error> {
    let chosen = foca.iter_membership_state().filter(|member| whom(member));
    let chosen: Vec<Alias> = chosen.map(|member| *member.id()).collect();
    for alias in chosen {
        foca.announce(alias, &mut *runtime)?;
    }
    Ok(())
}

fn tuning() -> Config {
    let frequency = Duration::from_millis(GOSSIP_MS);
    let num_members = NonZeroUsize::new(HELPERS).expect("HELPERS is not 0");
    Config {
        probe_period: Duration::from_millis(PROBE_PERIOD_MS),
        probe_rtt: Duration::from_millis(PROBE_RTT_MS),
        num_indirect_probes: num_members,
        max_transmissions: NonZeroU8::new(TRANSMISSIONS).expect("TRANSMISSIONS is not 0"),
        suspect_to_down_after: Duration::from_millis(SUSPECT_MS),
        // Nobody is forgotten: whoever is down stays a member.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(BYTES_MAX).expect("BYTES_MAX is not 0"),
        notify_down_members: true,
        periodic_announce: None,
        // This node does it itself, also when it believes to be alone.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency, num_members }),
    }
}

/// Where foca's wishes go.
struct Outlet<'a> {
    now: u64,
    timers: &'a mut Timers,
    out: &'a mut Outcome,
}

impl Runtime<Alias> for Outlet<'_> {
    fn notify(&mut self, notification: Notification<'_, Alias>) {
        match notification {
            Notification::MemberUp(id) => self.out.changes.push((id.node, true)),
            Notification::MemberDown(id) => self.out.changes.push((id.node, false)),
            Notification::Rename(..)
            | Notification::Active
            | Notification::Idle
            | Notification::Defunct
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Alias, data: &[u8]) {
        self.out.sends.push((to.node, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Alias>, after: Duration) {
        let after = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.timers.set(self.now.saturating_add(after), event);
    }
}

/// Spread without secrets: splitmix64, from the lane's own random bits.
#[derive(Debug)]
struct Dice {
    state: u64,
}

impl rand_core::TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|bits| (bits >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(bits ^ (bits >> 31))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(8) {
            let bits = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&bits[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
