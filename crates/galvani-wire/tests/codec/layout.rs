//! Messages about layouts, as all messages of the codec's tests.
//!
//! One of each kind and variant, so that every field travels.

use super::bucket;
use galvani_model::bucket::BucketProps;
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::placement::{Layout, LayoutState, Member, Pace, Phase};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::layout::{
    Accept, AskJoiner, AskProgress, Ballot, ChangeLayout, JoinerIs, Prepare, Progress, Promise,
    Unfit, Vote, Wish,
};
use galvani_wire::message::Failed;
use galvani_wire::view::{ClusterView, LayoutChange};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn view() -> ClusterView {
    let member = |id: u128, port: u16| {
        let address = format!("127.0.0.1:{port}").parse().expect("an address");
        Member::new(NodeId(id), format!("n{id}"), "a", 100, vec![address]).expect("a member")
    };
    let members = vec![member(1, 7070), member(2, 7080), member(3, 7090)];
    let layout = Layout::compute(ClusterId(9), 1, 8, 3, members.clone()).expect("a layout");
    let new = Layout::compute(ClusterId(9), 2, 8, 2, members).expect("a layout");
    let (old, new) = (Arc::new(layout), Arc::new(new));
    let change =
        LayoutChange { old: old.clone(), new, phase: Phase::Switching, begun: 6, pace: pace() };
    ClusterView {
        cluster: ClusterId(9),
        name: "dev".into(),
        node: NodeId(1),
        layout: old,
        epoch: 7,
        change: Some(change),
        buckets: BTreeMap::from([(bucket(), BucketProps::with_copies(3))]),
    }
}

fn pace() -> Pace {
    Pace { paused: true, bytes_per_second: 5 }
}

fn state() -> LayoutState {
    let view = view();
    let founding = LayoutState::founding(view.layout);
    founding.begin(view.change.expect("there is one").new).expect("it follows")
}

fn unfit(why: Unfit) -> Message {
    let failure = Failure::JoinerUnfit { node: NodeId(4), why };
    Message::Failed(Failed { failure, applied: AppliedOutcome::No, answers: Vec::new() })
}

pub(crate) fn messages() -> Vec<Message> {
    let ballot = Ballot { round: 5, node: NodeId(2) };
    vec![
        Message::ChangeLayout(Box::new(ChangeLayout {
            wish: Wish::Begin { next: view().layout, after: 3, pace: pace() },
            timeout_ms: 9,
        })),
        Message::ChangeLayout(Box::new(ChangeLayout {
            wish: Wish::Abort { begun: 4 },
            timeout_ms: 9,
        })),
        Message::ChangeLayout(Box::new(ChangeLayout {
            wish: Wish::Pace { begun: 4, pace: pace() },
            timeout_ms: 9,
        })),
        Message::LayoutChanged(Box::new(state().at_pace(pace()).expect("it is copying"))),
        Message::LayoutChanged(Box::new(state())),
        Message::AskLayout,
        Message::LayoutIs(Box::new(state())),
        Message::Prepare(Prepare { epoch: 4, ballot }),
        Message::Accept(Box::new(Accept { ballot, state: state() })),
        Message::Voted(Ok(Vote::Promised { ballot, accepted: Some((ballot, Box::new(state()))) })),
        Message::Voted(Ok(Vote::Accepted { ballot })),
        Message::Voted(Ok(Vote::Kept(Box::new(Promise {
            epoch: 4,
            promised: ballot,
            accepted: Some((ballot, state())),
        })))),
        Message::Voted(Ok(Vote::Forgot(Box::default()))),
        Message::Voted(Ok(Vote::Outbid(ballot))),
        Message::Voted(Ok(Vote::Decided(Box::new(state())))),
        Message::Voted(Ok(Vote::Behind { epoch: 3 })),
        Message::Voted(Err(ReplicaError::StorageFailed)),
        Message::AskProgress(AskProgress { epoch: 4 }),
        Message::Progress(Progress { epoch: 4, left: 5, buckets: 6 }),
        Message::Announce(Box::new(view().layout.members()[0].clone())),
        Message::AskJoiner(AskJoiner { epoch: 4 }),
        Message::JoinerIs(Ok(JoinerIs { epoch: 4, held: 5 })),
        Message::JoinerIs(Err(ReplicaError::StorageFailed)),
        unfit(Unfit::Unreachable),
        unfit(Unfit::Silent),
        unfit(Unfit::Holds { shards: 3 }),
        unfit(Unfit::Unreadable),
    ]
}
