//! Making a bucket: on one node, known to every node before it is answered.
//!
//! Buckets are made on one member only (`Topology::bucket_home`), so two makers cannot cross; every
//! member must be reachable, and one that is known to be down is named before anything is defined,
//! by whichever node is asked. The other members are told one after the other; telling again is
//! harmless, so a half-made bucket is finished by making it again with the same properties.
//! Next to read: `lane.rs`.

use crate::effect::{Effect, PeerLane, ReplyTo};
use crate::ops::{Ctx, Heard, Step};
use crate::refuse;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::limits::BUCKETS_MAX;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::CreateBucket;

/// A bucket being made.
#[derive(Clone, Debug)]
pub(crate) struct BucketOp {
    op: u64,
    reply_to: ReplyTo,
    bucket: CreateBucket,
    /// Members still to be told, the next one last.
    to_tell: Vec<NodeId>,
    /// When the client stops waiting, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl BucketOp {
    /// Starts on the home node; `None` if it was refused or is over at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        bucket: CreateBucket,
    ) -> Option<BucketOp> {
        let deadline = match Self::prepare(ctx, &bucket) {
            Ok(deadline) => deadline,
            Err(failure) => {
                ctx.refuse(reply_to, op, failure);
                return None;
            }
        };
        define(ctx, bucket.name.clone(), bucket.props.clone());
        let others = ctx.topology.layout().members().map(|member| member.id());
        let to_tell: Vec<NodeId> = others.filter(|&node| !ctx.is_me(node)).collect();
        let mut this = BucketOp { op, reply_to, bucket, to_tell, deadline };
        this.tell_next(ctx).keep(this)
    }

    fn prepare(ctx: &Ctx<'_>, bucket: &CreateBucket) -> Result<u64, Failure> {
        let home = ctx.topology.bucket_home();
        let down = |node: NodeId| {
            !ctx.is_me(node) && (!ctx.up.contains(&first_lane(node)) || ctx.down.contains(&node))
        };
        if !ctx.is_me(home) {
            // Sending the client to a home that is down would cost it all its time.
            return Err(match down(home) {
                true => Failure::MemberDown { node: home },
                false => Failure::BucketHome { node: home },
            });
        }
        acceptable(ctx, &bucket.name, &bucket.props)?;
        if let Some(change) = ctx.topology.layout().transition() {
            return Err(Failure::LayoutChanging { version: change.next.version() });
        }
        let mut members = ctx.topology.layout().members();
        if let Some(member) = members.find(|member| down(member.id())) {
            return Err(Failure::MemberDown { node: member.id() });
        }
        refuse::deadline(ctx, bucket.timeout_ms)
    }

    /// A member answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        let failure = match heard {
            Heard::Reply(Message::BucketDefined(Ok(()))) => {
                self.to_tell.pop();
                return self.tell_next(ctx);
            }
            Heard::Reply(Message::BucketDefined(Err(failure))) => failure,
            Heard::Reply(_) => Failure::Malformed { what: "an answer of another kind".into() },
            Heard::Silence => self.half_made(ctx, "became unreachable"),
        };
        self.give_up(ctx, failure)
    }

    /// The member whose answer it waits for.
    pub(crate) fn waits_for(&self) -> Option<PeerLane> {
        self.to_tell.last().map(|&node| first_lane(node))
    }

    /// Time is up.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        self.give_up(ctx, self.half_made(ctx, "did not answer in time"))
    }

    fn give_up(&self, ctx: &mut Ctx<'_>, failure: Failure) -> Step {
        let applied = AppliedOutcome::Maybe { acks: 1 };
        ctx.fail(self.reply_to, self.op, failure, applied, Vec::new());
        Step::Done
    }

    /// The node it waits for did `what`: those told before know the bucket.
    fn half_made(&self, ctx: &Ctx<'_>, what: &str) -> Failure {
        let member = self.to_tell.last().and_then(|&node| ctx.topology.layout().member(node));
        let name = member.map_or("?", |member| member.name());
        let why =
            format!("node {name} {what}, and not every node knows it yet: make it again to finish");
        Failure::BucketRefused { why }
    }

    fn tell_next(&mut self, ctx: &mut Ctx<'_>) -> Step {
        match self.to_tell.last() {
            Some(&node) => {
                let message = Message::DefineBucket(self.bucket.clone());
                ctx.ask(first_lane(node), self.op, 0, message);
                Step::Wait
            }
            None => {
                ctx.answer(self.reply_to, self.op, Message::BucketCreated);
                Step::Done
            }
        }
    }
}

/// Takes in a bucket that its home node tells this node of.
pub(crate) fn on_define(ctx: &mut Ctx<'_>, bucket: CreateBucket) -> Result<(), Failure> {
    // How many nodes there are is for whoever makes it to know: this one may have an old layout.
    possible(ctx, &bucket.name, &bucket.props)?;
    define(ctx, bucket.name, bucket.props);
    Ok(())
}

fn define(ctx: &mut Ctx<'_>, name: BucketName, props: BucketProps) {
    if !ctx.topology.buckets.contains_key(&name) {
        ctx.effects.push(Effect::DefineBucket { name, props });
    }
}

fn acceptable(ctx: &Ctx<'_>, name: &BucketName, props: &BucketProps) -> Result<(), Failure> {
    let nodes = usize::from(ctx.topology.layout().current().n_max());
    if props.n as usize > nodes {
        let why = format!("n={} asks for more copies than there are nodes ({nodes})", props.n);
        return Err(Failure::BucketRefused { why });
    }
    possible(ctx, name, props)
}

fn possible(ctx: &Ctx<'_>, name: &BucketName, props: &BucketProps) -> Result<(), Failure> {
    props.check().map_err(|error| Failure::BucketRefused { why: error.to_string() })?;
    match ctx.topology.buckets.get(name) {
        Some(existing) if existing != props => Err(Failure::BucketExists),
        Some(_) => Ok(()),
        None if ctx.topology.buckets.len() >= BUCKETS_MAX => {
            let why = format!("there are {BUCKETS_MAX} buckets already, the limit");
            Err(Failure::BucketRefused { why })
        }
        None => Ok(()),
    }
}

/// Buckets are handled on the first lane of each node.
fn first_lane(node: NodeId) -> PeerLane {
    PeerLane { node, lane: LaneIndex(0) }
}
