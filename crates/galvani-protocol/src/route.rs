//! Where a request goes: to an operation of this lane, to an owner, or to what answers at once.
//!
//! It looks at keys, at owners and at how fast they answered lately; what becomes of a request it leaves to
//! whom it goes. Next to read: `lane/requests.rs`, its only caller;
//! then `put.rs`, `get.rs`, `serve.rs`.

use crate::buckets::{self, BucketOp};
use crate::effect::{PeerLane, ReplyTo};
use crate::explain::ExplainOp;
use crate::feed;
use crate::forward::ForwardOp;
use crate::get::GetOp;
use crate::handoff::hold;
use crate::known;
use crate::layout;
use crate::list::ListOp;
use crate::ops::{Ctx, NOBODY};
use crate::put::PutOp;
use crate::reap;
use crate::refuse;
use crate::replica::as_replica_error;
use crate::retried::RetriedOp;
use crate::serve;
use crate::sync::{compare, pull, unequal};
use crate::table::Op;
use crate::topology::Owners;
use galvani_model::ids::{LaneIndex, Shard};
use galvani_wire::Message;
use galvani_wire::failure::Failure;
use galvani_wire::message::{CreateBucket, HintsWait, Put};
use smallvec::SmallVec;

/// How a client's request came to this lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// Where its answer goes.
    pub(crate) from: ReplyTo,
    /// Whether another node sent it on.
    pub(crate) forwarded: bool,
    /// Whether the other owners were asked for it already.
    pub(crate) looked: bool,
}

/// Starts a client's request here, or sends it on to an owner.
pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, came: Came, message: Message) -> Option<Op> {
    let Came { from, forwarded, .. } = came;
    let shard = match route(ctx, &message) {
        Ok(None) => return start_here(ctx, op, came, message, None),
        Ok(Some(shard)) => shard,
        Err(failure) => {
            ctx.refuse(from, op, failure);
            return None;
        }
    };
    let owners = ctx.topology.owners(shard);
    let me = ctx.topology.lane_of(ctx.topology.node, shard.partition);
    let here =
        owners.contains(&ctx.topology.node) && me.is_some_and(|lane| lane.lane == ctx.config.lane);
    // What this owner may have forgotten another one knows.
    let others = match here && !forwarded && may_be_forgotten(ctx, shard, &message) {
        false => SmallVec::new(),
        true => {
            in_order(ctx, &owners, shard).into_iter().filter(|lane| !ctx.is_me(lane.node)).collect()
        }
    };
    if here && others.is_empty() {
        return start_here(ctx, op, came, message, Some(shard));
    }
    let failure = if forwarded {
        Failure::LayoutChanged
    } else {
        let to = if here { others } else { in_order(ctx, &owners, shard) };
        match refuse::deadline(ctx, timeout_of(&message)) {
            _ if to.is_empty() => Failure::NoOwnerReachable,
            Ok(deadline) => {
                let forward = ForwardOp::start(ctx, op, from, &to, message, deadline);
                return Some(Op::Forward(forward));
            }
            Err(failure) => failure,
        }
    };
    ctx.refuse(from, op, failure);
    None
}

/// Whether it is a write that this replica may have taken in and forgotten.
fn may_be_forgotten(ctx: &mut Ctx<'_>, shard: Shard, message: &Message) -> bool {
    let Message::Put(put) = message else { return false };
    refuse::forgotten(ctx, shard, put.issued).is_err()
}

/// The owners' lanes that can be reached, in the order in which a request is sent on to them:
/// another lane of this node; one whose silence is to be probed; whoever answers fastest, in
/// preference order where that is about equal; those that are silent; those that are down.
fn in_order(ctx: &mut Ctx<'_>, owners: &Owners, shard: Shard) -> SmallVec<[PeerLane; 4]> {
    let mut lanes: SmallVec<[PeerLane; 4]> =
        owners.iter().filter_map(|&node| ctx.reach(node, shard)).collect();
    let now = ctx.now.micros;
    lanes.sort_by_cached_key(|&lane| {
        let rank = match (ctx.down.contains(&lane.node), ctx.scores.is_open(lane)) {
            _ if ctx.is_me(lane.node) => 0,
            (true, _) => 4,
            (false, false) => 2,
            (false, true) if ctx.scores.is_passed_over(lane, now) => 3,
            (false, true) => 1,
        };
        (rank, ctx.scores.cost(lane))
    });
    lanes
}

/// The shard whose owners may coordinate a request; `None` if it has none.
fn route(ctx: &Ctx<'_>, message: &Message) -> Result<Option<Shard>, Failure> {
    let key = match message {
        Message::Put(put) => &put.key,
        Message::Get(get) => &get.key,
        Message::Explain(explain) => &explain.key,
        Message::List(list) => {
            let props = ctx.topology.buckets.get(&list.bucket).ok_or(Failure::UnknownBucket)?;
            let shard = Shard { partition: list.partition, n: props.n };
            if !ctx.topology.layout().contains(shard) {
                let what = format!("partition {} does not exist", list.partition);
                return Err(Failure::Malformed { what });
            }
            return Ok(Some(shard));
        }
        _ => return Ok(None),
    };
    let (_, shard) = ctx.topology.locate(key).ok_or(Failure::UnknownBucket)?;
    Ok(Some(shard))
}

/// How long the client waits, in milliseconds; 0: it does not say.
pub(crate) fn timeout_of(message: &Message) -> u32 {
    match message {
        Message::Put(put) => put.timeout_ms,
        Message::Get(get) => get.timeout_ms,
        Message::List(list) => list.timeout_ms,
        Message::Explain(explain) => explain.timeout_ms,
        Message::ChangeLayout(change) => change.timeout_ms,
        _ => 0,
    }
}

fn start_here(
    ctx: &mut Ctx<'_>,
    op: u64,
    came: Came,
    message: Message,
    shard: Option<Shard>,
) -> Option<Op> {
    let from = came.from;
    match (message, shard) {
        (Message::Put(put), Some(shard)) => start_put(ctx, op, came, put, shard),
        (Message::Get(get), Some(shard)) => {
            let owners = ctx.topology.owners(shard);
            GetOp::start(ctx, op, from, get, shard, &owners).map(|get| Op::Get(get, shard))
        }
        (Message::List(list), Some(shard)) => {
            ListOp::start(ctx, op, from, list, shard).map(|list| Op::List(list, shard))
        }
        (Message::Explain(explain), Some(shard)) => {
            ExplainOp::start(ctx, op, from, explain).map(|explain| Op::Explain(explain, shard))
        }
        (Message::CreateBucket(bucket), None) => start_bucket(ctx, op, from, bucket),
        (Message::ChangeLayout(change), None) => {
            layout::change(ctx, op, from, *change).map(Op::Layout)
        }
        (message, _) => {
            let what = format!("{} is not a request", message.name());
            ctx.refuse(from, op, Failure::Malformed { what });
            None
        }
    }
}

fn start_put(ctx: &mut Ctx<'_>, op: u64, came: Came, put: Put, shard: Shard) -> Option<Op> {
    let put = match put.retry && !came.looked {
        false => put,
        true => match RetriedOp::start(ctx, op, came, Box::new(put), shard) {
            Ok(retried) => return Some(Op::Retried(retried, shard)),
            Err(put) => *put,
        },
    };
    PutOp::start(ctx, op, came.from, put, shard).map(|put| Op::Put(put, shard))
}

fn start_bucket(ctx: &mut Ctx<'_>, op: u64, from: ReplyTo, bucket: CreateBucket) -> Option<Op> {
    if ctx.config.lane != LaneIndex(0) {
        let node = ctx.topology.bucket_home();
        ctx.refuse(from, op, Failure::BucketHome { node });
        return None;
    }
    BucketOp::start(ctx, op, from, bucket).map(Op::Bucket)
}

/// Answers what needs no operation.
pub(crate) fn serve_peer(ctx: &mut Ctx<'_>, from: ReplyTo, message: Message) {
    match message {
        Message::Replicate(replicate) => serve::on_replicate(ctx, from, replicate),
        Message::Supply(supply) => serve::on_supply(ctx, from, supply),
        Message::Fetch(fetch) => serve::on_fetch(ctx, from, fetch),
        Message::FetchPage(fetch) => serve::on_fetch_page(ctx, from, fetch),
        Message::DefineBucket(bucket) => {
            let defined = buckets::on_define(ctx, bucket);
            ctx.answer(from, NOBODY, Message::BucketDefined(defined));
        }
        Message::AskKnown(ask) => match known::answer(ctx, &ask) {
            Ok(known) => ctx.answer(from, NOBODY, Message::Known(known)),
            Err(error) => {
                ctx.refuse(from, NOBODY, Failure::Coordinator(as_replica_error(&error)));
            }
        },
        Message::Compare(compare) => {
            let compared = compare::answer(ctx, compare);
            ctx.answer(from, NOBODY, Message::Compared(compared));
        }
        Message::Pull(pull) => {
            let pulled = pull::answer(ctx, &pull);
            ctx.answer(from, NOBODY, Message::Pulled(pulled));
        }
        Message::AskSlice(ask) => {
            let slice = unequal::answer(ctx, &ask);
            ctx.answer(from, NOBODY, Message::SliceIs(slice));
        }
        Message::Hint(hint) => hold::on_hint(ctx, from, hint),
        Message::PullHints(pull) => {
            let pulled = hold::give(ctx, &pull);
            ctx.answer(from, NOBODY, Message::HintsPulled(pulled));
        }
        Message::FindHints(find) => {
            let found = hold::find(ctx, &find);
            ctx.answer(from, NOBODY, Message::HintsFound(found));
        }
        Message::HintsWait(HintsWait { node, lane }) => {
            ctx.handoff.waits_at(PeerLane { node, lane }, ctx.now);
            ctx.answer(from, NOBODY, Message::Noted);
        }
        Message::FeedOpen(open) => feed::on_open(ctx, from, open),
        Message::FeedNext(next) => feed::on_next(ctx, from, next),
        message @ (Message::AskLayout
        | Message::LayoutIs(_)
        | Message::Prepare(_)
        | Message::Accept(_)
        | Message::AskJoiner(_)
        | Message::AskProgress(_)) => layout::serve(ctx, from, message),
        Message::AskClocks(ask) => {
            let clocks = reap::answer(ctx, &ask);
            ctx.answer(from, NOBODY, Message::Clocks(clocks));
        }
        Message::Describe => {
            let view = layout::describe(ctx.topology);
            ctx.answer(from, NOBODY, Message::Described(Box::new(view)));
        }
        message => {
            let what = format!("{} is not a request", message.name());
            ctx.refuse(from, NOBODY, Failure::Malformed { what });
        }
    }
}
