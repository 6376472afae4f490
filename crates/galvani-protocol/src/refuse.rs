//! What is refused before anything is written: the checks every request passes first.
//!
//! Pure questions with typed answers. Nothing here changes anything; whatever is refused here has
//! certainly not been stored anywhere. Next to read: `put.rs`, `get.rs`.

use crate::ops::Ctx;
use crate::replica::as_replica_error;
use galvani_model::bucket::BucketProps;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::limits::{CLOCK_AHEAD_MS_MAX, TIMEOUT_MS_MAX};
use galvani_model::quorum::Needs;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions, check_ttl};
use galvani_model::version::{Context, ContextError, Kind, emits_fit};
use galvani_wire::failure::{Failure, QuorumKind};
use galvani_wire::message::Put;

/// A write's numbers, all of which can be met by n replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteQuorum {
    pub(crate) n: u8,
    pub(crate) w: u8,
    pub(crate) pw: u8,
    pub(crate) dw: u8,
}

/// A read's numbers, all of which can be met by n replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadQuorum {
    pub(crate) n: u8,
    pub(crate) r: u8,
    pub(crate) pr: u8,
}

impl WriteQuorum {
    /// What the tracker is to count.
    pub(crate) fn needs(self) -> Needs {
        Needs { places: self.w, primaries: self.pw, durable: self.dw }
    }
}

impl ReadQuorum {
    /// What the tracker is to count.
    pub(crate) fn needs(self) -> Needs {
        Needs { places: self.r, primaries: self.pr, durable: 0 }
    }
}

/// The numbers of a write to a bucket, or which of them cannot be met.
pub(crate) fn write_quorum(
    options: &WriteOptions,
    props: &BucketProps,
) -> Result<WriteQuorum, Failure> {
    let n = copies(options.n, props)?;
    let w = inherited(QuorumKind::W, options.w, props.w, n)?;
    let pw = optional(QuorumKind::Pw, options.pw, n)?;
    let dw = optional(QuorumKind::Dw, options.dw, n)?;
    Ok(WriteQuorum { n, w, pw, dw })
}

/// The numbers of a read of a bucket, or which of them cannot be met.
pub(crate) fn read_quorum(
    options: &ReadOptions,
    props: &BucketProps,
) -> Result<ReadQuorum, Failure> {
    let n = copies(options.n, props)?;
    let r = inherited(QuorumKind::R, options.r, props.r, n)?;
    let pr = optional(QuorumKind::Pr, options.pr, n)?;
    Ok(ReadQuorum { n, r, pr })
}

fn copies(asked: Option<u8>, props: &BucketProps) -> Result<u8, Failure> {
    match asked {
        None => Ok(props.n),
        Some(n) if (1..=props.n).contains(&n) => Ok(n),
        Some(asked) => Err(Failure::CopiesImpossible { asked, n: props.n }),
    }
}

/// A number of the request, or the bucket's default. A default above a narrowed n means all of it.
fn inherited(
    what: QuorumKind,
    asked: Option<Quorum>,
    default: Quorum,
    n: u8,
) -> Result<u8, Failure> {
    match asked {
        Some(asked) => asked.resolve(n).ok_or(Failure::QuorumImpossible { what, asked, n }),
        None => Ok(default.resolve(n).unwrap_or(n)),
    }
}

/// A number that asks for nothing when it is not given; an explicit 0 asks for nothing too.
fn optional(what: QuorumKind, asked: Option<Quorum>, n: u8) -> Result<u8, Failure> {
    match asked {
        None | Some(Quorum::Exactly(0)) => Ok(0),
        Some(asked) => asked.resolve(n).ok_or(Failure::QuorumImpossible { what, asked, n }),
    }
}

/// The deadline of a request in the lane's microseconds, or that it has passed already.
pub(crate) fn deadline(ctx: &Ctx<'_>, timeout_ms: u32) -> Result<u64, Failure> {
    match timeout_ms.min(TIMEOUT_MS_MAX) {
        0 => Err(Failure::DeadlinePassed),
        ms => Ok(ctx.now.micros + u64::from(ms) * 1000),
    }
}

/// What of a write can be judged without looking at the key: size, date, context.
pub(crate) fn write_shape(
    ctx: &Ctx<'_>,
    put: &Put,
    props: &BucketProps,
) -> Result<Context, Failure> {
    if put.value.len() > props.value_bytes_max as usize {
        let (size, limit) = (put.value.len() as u64, u64::from(props.value_bytes_max));
        return Err(Failure::ValueTooLarge { size, limit });
    }
    if put.kind != Kind::Put && !put.value.is_empty() {
        let what = "only a put carries a value".into();
        return Err(Failure::Malformed { what });
    }
    if put.kind == Kind::Emit && (put.emits.is_empty() || put.context.is_some()) {
        let what = "a write of events alone has events, and replaces nothing".into();
        return Err(Failure::Malformed { what });
    }
    if !emits_fit(&put.emits) {
        let bytes = put.emits.iter().map(|emit| emit.bytes() as u64).sum();
        return Err(Failure::EmitsTooLarge { bytes, count: put.emits.len() as u32 });
    }
    let ahead_ms = put.issued.unix_ms().saturating_sub(ctx.now.unix_ms);
    if ahead_ms > CLOCK_AHEAD_MS_MAX {
        return Err(Failure::ClockAhead { ahead_ms });
    }
    match &put.context {
        None => Ok(Context::default()),
        Some(token) => {
            Context::open(token, &put.key, &ctx.topology.context_key).map_err(context_failure)
        }
    }
}

/// Refuses a write that nobody here remembers, and that may all the same be a retry: it is older than
/// records that were trimmed before this replica took their dots in. Written anew it could show what
/// was replaced long ago. Until the other owners were met it is not known what they have trimmed:
/// then every write counts that is old enough for it.
pub(crate) fn forgotten(ctx: &mut Ctx<'_>, shard: Shard, issued: Hlc) -> Result<(), Failure> {
    let age_ms = ctx.now.unix_ms.saturating_sub(issued.unix_ms());
    let limits = &ctx.config.limits;
    let by_time = (limits.feed_keep_ms > 0).then_some(limits.feed_keep_ms);
    let by_bytes = (limits.feed_bytes > 0).then_some(u64::from(TIMEOUT_MS_MAX));
    // Clocks differ: an owner may find a record older than this one does.
    let goes_after = by_time.into_iter().chain(by_bytes).min();
    let is_old = goes_after.is_some_and(|after_ms| age_ms >= after_ms - after_ms / 8);
    // A disk that was lost knew of retries that nobody here knows of.
    let is_known = ctx.sync.has_met(ctx.topology, shard) && !ctx.layout.refill.lacks(shard);
    if is_old && !is_known {
        return Err(Failure::RetryTooLate { age_ms });
    }
    match ctx.store.replica(shard) {
        Ok(state) if issued > state.unknown_until => Ok(()),
        Ok(_) => Err(Failure::RetryTooLate { age_ms }),
        Err(error) => Err(Failure::Coordinator(as_replica_error(&error))),
    }
}

/// When a write's value ends, in milliseconds since 1970 (0: never), or why it cannot be so. From the
/// client's own time and what never changes: all tries, through whatever coordinators, have the same.
pub(crate) fn expiry(put: &Put, props: &BucketProps) -> Result<u64, Failure> {
    if put.kind != Kind::Put {
        return match put.options.ttl_ms {
            None | Some(0) => Ok(0),
            Some(_) => Err(Failure::Malformed { what: "only values expire".into() }),
        };
    }
    let ttl_ms = put.options.ttl_ms.unwrap_or(props.ttl_ms);
    check_ttl(ttl_ms).map_err(|error| Failure::TtlImpossible { ttl_ms: error.ttl_ms })?;
    Ok(if ttl_ms == 0 { 0 } else { put.issued.unix_ms().saturating_add(ttl_ms) })
}

fn context_failure(error: ContextError) -> Failure {
    match error {
        ContextError::TooLong { .. } => Failure::ContextTooLong,
        ContextError::Forged => Failure::ContextForged,
        ContextError::OtherKey => Failure::ContextOtherKey,
    }
}

/// Whether enough of `replicas` can be reached for `need` acks, or of the `stand_ins` that may take
/// the place of others; known before anything is written.
pub(crate) fn reachable(
    ctx: &Ctx<'_>,
    replicas: &[NodeId],
    shard: galvani_model::ids::Shard,
    (what, need): (QuorumKind, u8),
    stand_ins: usize,
) -> Result<(), Failure> {
    // Down is what all have agreed on after it was given time to refute: to ask it as well would cost
    // the client its whole timeout, and leave the write in doubt. A silent peer is only suspected.
    let answers = |node| ctx.reach(node, shard).is_some() && !ctx.down.contains(&node);
    let up = |&&node: &&NodeId| ctx.is_me(node) || answers(node);
    let up = replicas.iter().filter(up).count();
    let up = (up + stand_ins.min(replicas.len() - up)) as u8;
    if up >= need {
        Ok(())
    } else {
        Err(Failure::ReplicasDown { what, need, up, n: replicas.len() as u8 })
    }
}
