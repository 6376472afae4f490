//! What the other owners have taken in, as far as consumers of the feed need to know.
//!
//! Asked for only while somebody follows a shard: now and then, so that a consumer can be told up to
//! when its feed is complete, and at once where writes wait for more owners to have them. The answers
//! judge what is shown and change nothing: what is missing here comes by anti-entropy.
//! Next to read: `track.rs`. Source: algorithms 4.2 (F2, F5), 4.3.

use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::reap::SHARDS_MAX;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::version::PartitionClock;
use galvani_wire::Message;
use galvani_wire::message::Clocks;
use std::collections::{BTreeMap, BTreeSet};

/// How often the clocks of a followed shard are asked for, in microseconds.
const PACE_MICROS: u64 = 1_000_000;
/// How often where writes wait for them, in microseconds: at first, and when that was in vain for long.
const HOT_MICROS: u64 = 5_000;
const COOL_MICROS: u64 = 500_000;
/// How long a peer may take to answer, in microseconds.
const PATIENCE_MICROS: u64 = 2_000_000;

/// What was heard of the owners of the shards that are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnersHeard {
    shards: BTreeMap<Shard, BTreeMap<NodeId, Word>>,
    asking: BTreeMap<PeerLane, Asking>,
    /// Shards of which writes wait for other owners: since how many questions in vain, and when the
    /// next one is due.
    hurried: BTreeMap<Shard, Hurry>,
    /// When all shards are asked about again, in the lane's microseconds.
    all_at: u64,
}

/// What one owner said of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// When it was asked, in milliseconds since 1970 of this node's clock: it said what it had then,
    /// or later.
    pub(crate) asked_ms: u64,
    pub(crate) clock: PartitionClock,
    /// Whether it has all that it ever acked: else there may be more than it says.
    pub(crate) whole: bool,
}

/// How urgently a shard's other owners are asked.
#[derive(Clone, Copy, Debug)]
struct Hurry {
    in_vain: u32,
    due: u64,
}

/// What is to be asked of one peer.
#[derive(Clone, Debug, Default)]
struct Asking {
    under_way: bool,
    due: BTreeSet<Shard>,
    /// When it may be asked again.
    not_before: u64,
}

impl OwnersHeard {
    /// Somebody follows these shards from now on.
    pub(crate) fn follow(&mut self, shards: impl IntoIterator<Item = Shard>) {
        for shard in shards {
            self.shards.entry(shard).or_default();
        }
        self.all_at = 0;
    }

    /// Nobody follows a shard of which `followed` is false.
    pub(crate) fn forget(&mut self, followed: impl Fn(Shard) -> bool) {
        self.shards.retain(|shard, _| followed(*shard));
        self.hurried.retain(|shard, _| followed(*shard));
        if self.shards.is_empty() {
            *self = OwnersHeard::default();
        }
    }

    /// Whether anybody follows the shard.
    pub(crate) fn follows(&self, shard: Shard) -> bool {
        self.shards.contains_key(&shard)
    }

    /// What was heard of a shard.
    pub(crate) fn of(&self, shard: Shard) -> impl Iterator<Item = (NodeId, &Word)> {
        self.shards.get(&shard).into_iter().flatten().map(|(node, word)| (*node, word))
    }

    /// Owners may be others than before: nothing was heard of them yet.
    pub(crate) fn doubt(&mut self) {
        self.shards.values_mut().for_each(BTreeMap::clear);
    }

    /// Writes of a shard wait for its other owners. `news`: not only those that did before.
    pub(crate) fn hurry(&mut self, shard: Shard, news: bool, now: u64) {
        let hurry = self.hurried.entry(shard).or_insert(Hurry { in_vain: 0, due: now });
        if news {
            *hurry = Hurry { in_vain: 0, due: hurry.due.min(now + HOT_MICROS) };
        }
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.shards.is_empty() {
            return None;
        }
        let due = self.asking.values().filter(|it| !it.under_way && !it.due.is_empty());
        let due = due.map(|it| it.not_before).min();
        let hurried = self.hurried.values().map(|hurry| hurry.due).min();
        [Some(self.all_at), due, hurried].into_iter().flatten().min()
    }

    /// An answer came, or will not.
    fn is_over(&mut self, peer: PeerLane) {
        if let Some(asking) = self.asking.get_mut(&peer) {
            asking.under_way = false;
        }
    }
}

/// The lanes of the other owners of a shard that can be reached.
fn others(ctx: &Ctx<'_>, shard: Shard) -> Vec<PeerLane> {
    let owners = ctx.topology.owners(shard).into_iter().filter(|&node| !ctx.is_me(node));
    owners.filter_map(|node| ctx.reach(node, shard)).collect()
}

/// What is to be asked now.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<(PeerLane, Vec<Shard>)> {
    let now = ctx.now.micros;
    let heard = &mut ctx.feed.heard;
    if heard.next_deadline().is_none_or(|due| due > now) {
        return Vec::new();
    }
    let sessions = &ctx.feed.sessions;
    heard.hurried.retain(|&shard, _| sessions.values().any(|it| it.waits(shard, now)));
    let mut shards = BTreeSet::new();
    for (&shard, hurry) in heard.hurried.iter_mut().filter(|(_, hurry)| hurry.due <= now) {
        shards.insert(shard);
        hurry.due = now + (HOT_MICROS << hurry.in_vain.min(10)).min(COOL_MICROS);
        hurry.in_vain += 1;
    }
    if heard.all_at <= now {
        heard.all_at = now + PACE_MICROS;
        shards.extend(heard.shards.keys());
    }
    for shard in shards {
        for peer in others(ctx, shard) {
            ctx.feed.heard.asking.entry(peer).or_default().due.insert(shard);
        }
    }
    let up = ctx.up;
    let asking = &mut ctx.feed.heard.asking;
    asking.retain(|peer, _| up.contains(peer));
    let ready = asking.iter_mut().filter(|(_, it)| !it.under_way && it.not_before <= now);
    let ready = ready.filter(|(_, it)| !it.due.is_empty());
    let asks = ready.map(|(&peer, of_peer)| {
        let shards: Vec<Shard> = of_peer.due.iter().copied().take(SHARDS_MAX).collect();
        for shard in &shards {
            of_peer.due.remove(shard);
        }
        of_peer.under_way = true;
        of_peer.not_before = now + HOT_MICROS;
        (peer, shards)
    });
    asks.collect()
}

/// A question under way.
#[derive(Clone, Debug)]
pub(crate) struct HearOp {
    /// Who was asked.
    pub(crate) to: PeerLane,
    shards: Vec<Shard>,
    asked_ms: u64,
    /// When the answer is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl HearOp {
    /// Asks a peer for its clocks.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane, shards: Vec<Shard>) -> HearOp {
        ctx.ask_clocks(to, op, 0, &shards, false);
        let (asked_ms, deadline) = (ctx.now.unix_ms, ctx.now.micros + PATIENCE_MICROS);
        HearOp { to, shards, asked_ms, deadline }
    }

    /// The peer answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.feed.heard.is_over(self.to);
        if let Heard::Reply(Message::Clocks(Ok(Clocks { epoch, clocks, lacking }))) = heard
            && clocks.len() == self.shards.len()
        {
            ctx.layout.heard_of(epoch);
            for (&shard, clock) in self.shards.iter().zip(clocks) {
                let Some(clock) = clock else { continue };
                let whole = !lacking.contains(&shard);
                let word = Word { asked_ms: self.asked_ms, clock, whole };
                if let Some(owners) = ctx.feed.heard.shards.get_mut(&shard) {
                    owners.insert(self.to.node, word);
                    ctx.feed.note_heard(shard);
                }
            }
        }
        Step::Done
    }

    /// No answer came in time.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        ctx.feed.heard.is_over(self.to);
        Step::Done
    }
}
