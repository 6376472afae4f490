//! Listings: one page of a bucket's keys in one partition, as r replicas know them.
//!
//! Each replica answers a page of its own; the pages are joined key by key and cut where the
//! shortest one ends, so that no key between two pages is skipped. It repairs nothing.
//! Next to read: `get.rs`.

use crate::effect::ReplyTo;
use crate::ops::{Asked, Ctx, Heard, OVERLOAD_RETRY_MS, Step, shortfall, tracker};
use crate::refuse;
use crate::replica;
use crate::serve;
use bytes::Bytes;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{Origin, Shard};
use galvani_model::limits::LIST_PAGE_MAX;
use galvani_model::quorum::{QuorumTracker, Verdict};
use galvani_model::store::Listed;
use galvani_model::version::{DotSet, Object, ReadJoin, Version};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, Outcome, QuorumKind, ReplicaError};
use galvani_wire::message::{FetchPage, HeldPage, List, Page};
use std::collections::BTreeMap;

/// A page under way.
#[derive(Clone, Debug)]
pub(crate) struct ListOp {
    op: u64,
    reply_to: ReplyTo,
    shard: Shard,
    /// Whether this owner's own page counts.
    own_counts: bool,
    policy: ConflictPolicy,
    n: u8,
    limit: u16,
    asked: Asked,
    tracker: QuorumTracker,
    joins: BTreeMap<Bytes, ReadJoin>,
    /// About how many bytes of keys and versions were taken in.
    held: usize,
    /// The last key up to which every replica heard so far has told all; `None`: to the end.
    told_up_to: Option<Bytes>,
    /// When the client stops waiting, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl ListOp {
    /// Starts a page on an owner of the shard; `None` if it was refused or is over at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        list: List,
        shard: Shard,
    ) -> Option<ListOp> {
        let prepared = Self::prepare(ctx, op, reply_to, &list, shard);
        ctx.begin(reply_to, op, prepared, |this, ctx| this.launch(ctx, list, shard))
    }

    fn prepare(
        ctx: &Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        list: &List,
        shard: Shard,
    ) -> Result<ListOp, Failure> {
        let props = ctx.topology.buckets.get(&list.bucket).ok_or(Failure::UnknownBucket)?;
        if !ctx.topology.layout().contains(shard) {
            let what = format!("partition {} does not exist", list.partition);
            return Err(Failure::Malformed { what });
        }
        let need = refuse::read_quorum(&list.options, props)?;
        if !ctx.may_hold(PAGE_BYTES_MAX) {
            return Err(Failure::Overloaded { retry_after_ms: OVERLOAD_RETRY_MS });
        }
        let owners = ctx.topology.owners(shard);
        let replicas = &owners[..need.n as usize];
        Ok(ListOp {
            op,
            reply_to,
            shard,
            own_counts: false,
            policy: props.policy,
            n: need.n,
            limit: list.limit.clamp(1, LIST_PAGE_MAX as u16),
            asked: Asked::new(replicas, ctx.now),
            tracker: tracker(replicas, need.needs(), 0),
            joins: BTreeMap::new(),
            held: 0,
            told_up_to: None,
            deadline: refuse::deadline(ctx, list.timeout_ms)?,
        })
    }

    fn launch(&mut self, ctx: &mut Ctx<'_>, list: List, shard: Shard) -> Step {
        let List { bucket, prefix, after, timeout_ms, .. } = list;
        let (limit, epoch) = (self.limit, ctx.topology.epoch());
        let fetch = FetchPage { shard, bucket, prefix, after, limit, timeout_ms, epoch };
        for (index, node) in self.asked.pending().collect::<Vec<_>>() {
            if ctx.is_me(node) {
                let said = own_page(ctx, &fetch).map_err(Outcome::Refused);
                self.own_counts = said.is_ok();
                self.count(ctx, index, said);
            } else if let Some(lane) = ctx.reach(node, shard) {
                ctx.ask(lane, self.op, index, Message::FetchPage(fetch.clone()));
            } else {
                self.count(ctx, index, Err(Outcome::Unreachable));
            }
        }
        self.progress(ctx)
    }

    /// A replica answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        let said = match heard {
            Heard::Reply(Message::FetchedPage(page)) => page.map_err(Outcome::Refused),
            Heard::Reply(_) => Err(Outcome::Refused(ReplicaError::Malformed)),
            Heard::Silence => Err(Outcome::Unreachable),
        };
        self.count(ctx, index, said);
        self.progress(ctx)
    }

    /// About how many bytes of keys and versions it holds.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The replicas it asked.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Time is up.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        self.answer_lost(ctx);
        Step::Done
    }

    fn count(&mut self, ctx: &Ctx<'_>, index: usize, said: Result<HeldPage, Outcome>) {
        // More than the lane may hold counts as no answer, as with values.
        let said = said.and_then(|page| match ctx.may_hold(self.held + page_bytes(&page)) {
            true => Ok(page),
            false => Err(Outcome::Refused(ReplicaError::Overloaded)),
        });
        let outcome = match &said {
            Ok(_) => Outcome::Answered,
            Err(outcome) => outcome.clone(),
        };
        let Some(node) = self.asked.note(index, outcome, ctx.now) else {
            return;
        };
        match said {
            Ok(page) => {
                self.take_in(page);
                self.tracker.ack(node, false);
            }
            Err(_) => {
                self.tracker.fail(node);
            }
        }
    }

    fn take_in(&mut self, page: HeldPage) {
        self.held += page_bytes(&page);
        if page.more
            && let Some((last, _)) = page.keys.last()
        {
            let bound = self.told_up_to.take().map_or(last.clone(), |b| b.min(last.clone()));
            self.told_up_to = Some(bound);
        }
        for (key, versions) in page.keys {
            let object = Object::from_versions(versions, ConflictPolicy::Siblings);
            self.joins.entry(key).or_default().add(&object, &DotSet::new());
        }
    }

    fn progress(&mut self, ctx: &mut Ctx<'_>) -> Step {
        match self.tracker.verdict() {
            Verdict::Pending => return Step::Wait,
            Verdict::Met => self.answer_met(ctx),
            Verdict::Lost => self.answer_lost(ctx),
        }
        Step::Done
    }

    fn answer_met(&mut self, ctx: &mut Ctx<'_>) {
        // It may have been heard meanwhile that this owner's own page, which was counted, is not whole.
        if self.own_counts && serve::whole(ctx, self.shard).is_err() {
            let failure = Failure::Coordinator(ReplicaError::Refilling);
            let (no, answers) = (AppliedOutcome::No, self.asked.answers());
            return ctx.fail(self.reply_to, self.op, failure, no, answers);
        }
        let told = |key: &Bytes| self.told_up_to.as_ref().is_none_or(|bound| key <= bound);
        let keys = self.joins.iter().filter(|(key, _)| told(key));
        let now_ms = ctx.now.unix_ms;
        let counted = keys.map(|(key, join)| (key.clone(), values(join, self.policy, now_ms)));
        let keys = counted.filter(|(_, values)| *values > 0).collect();
        let page = Page { keys, next_after: self.told_up_to.clone() };
        ctx.answer(self.reply_to, self.op, Message::Listed(page));
    }

    fn answer_lost(&mut self, ctx: &mut Ctx<'_>) {
        let (_, need, got) = shortfall(&self.tracker);
        let failure = Failure::QuorumNotMet { what: QuorumKind::R, need, got, n: self.n };
        let failure = ctx.or_layout_changed(&self.asked, failure);
        ctx.fail(self.reply_to, self.op, failure, AppliedOutcome::No, self.asked.answers());
    }
}

fn values(join: &ReadJoin, policy: ConflictPolicy, now_ms: u64) -> u32 {
    join.object(policy).values_at(now_ms) as u32
}

/// This replica's page: as many keys as were asked for, or as fit in a frame's header.
pub(crate) fn own_page(ctx: &mut Ctx<'_>, fetch: &FetchPage) -> Result<HeldPage, ReplicaError> {
    serve::whole(ctx, fetch.shard)?;
    let limit = fetch.limit.clamp(1, LIST_PAGE_MAX as u16) as usize;
    let after = fetch.after.as_deref();
    let listed = ctx.store.list(fetch.shard, &fetch.bucket, &fetch.prefix, after, limit);
    let listed = listed.map_err(|error| replica::as_replica_error(&error))?;
    let mut more = listed.len() >= limit;
    let (mut keys, mut bytes) = (Vec::with_capacity(listed.len()), 0);
    for Listed { key, object } in listed {
        bytes += entry_bytes(key.bytes(), object.versions());
        if bytes > PAGE_BYTES_MAX && !keys.is_empty() {
            more = true;
            break;
        }
        keys.push((key.bytes().clone(), object.versions().to_vec()));
    }
    Ok(HeldPage { keys, more })
}

/// Bytes of keys and versions in one page, so that its header stays far below its bound.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// About how many bytes a page takes, in a message or while it is joined.
pub(crate) fn page_bytes(page: &HeldPage) -> usize {
    page.keys.iter().map(|(key, versions)| entry_bytes(key, versions)).sum()
}

fn entry_bytes(key: &Bytes, versions: &[Version]) -> usize {
    key.len() + versions.iter().map(size).sum::<usize>()
}

/// About how many bytes a version takes in a message.
fn size(version: &Version) -> usize {
    let dots = |(_, _, cloud): (Origin, u64, &[u64])| 32 + cloud.len() * 9;
    100 + version.dots.len() * 32 + version.past.iter().map(dots).sum::<usize>()
}
