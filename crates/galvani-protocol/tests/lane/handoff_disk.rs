//! Hinted handoff beside a disk that takes nothing, the owner's or the holder's, and beside links that come
//! again: no page is asked for too often, none is dropped too early.

use crate::bench::{Bench, answers, peer, put};
use crate::handoff::holder_of_one;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::limits::Limits;
use galvani_model::store::Store;
use galvani_protocol::{Effect, Input};
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::message::{Hint, HintsPulled, HintsWait, PullHints, Pulled};

/// The question for hints among these effects.
fn asked(effects: &[Effect]) -> Option<(u64, PullHints)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask { id, message: Message::PullHints(pull), .. } => Some((*id, pull.clone())),
        _ => None,
    })
}

#[test]
fn a_page_whose_commit_failed_is_asked_for_again_later_and_nothing_of_it_is_dropped() {
    let (.., message) = holder_of_one();
    let Message::Hint(Hint { record, .. }) = message else { unreachable!("made as a hint") };
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let page = || {
        let mut head = record.head.clone();
        (head.key, head.dot.counter) = (key.clone(), 100);
        let values = vec![record.value.clone()];
        let records = Pulled { heads: vec![head], values, pause_ms: 50, ..Pulled::default() };
        Message::HintsPulled(Ok(HintsPulled { page: 5, shards: vec![shard], records }))
    };
    let wait = HintsWait { node: NodeId(2), lane: LaneIndex(0) };
    bench.request(false, Message::HintsWait(wait));
    bench.handle(Input::Wake);
    let (id, _) = asked(&bench.tick()).expect("whoever says that it holds hints is asked");
    bench.engine.fail_next_commits([FailKind::Poisoned]);
    bench.handle(Input::Reply { id, message: page() });
    assert_eq!(asked(&bench.tick()), None, "the commit of that tick has failed");
    for _ in 0..9 {
        bench.now.micros += 100_000;
        bench.handle(Input::Wake);
        assert_eq!(asked(&bench.tick()), None, "what failed at once would fail again");
    }
    bench.now.micros += 200_000;
    bench.handle(Input::Wake);
    let (id, pull) = asked(&bench.tick()).expect("it is asked for again");
    assert_eq!(pull.taken, 0, "its holder must not drop what is not durable here");
    bench.handle(Input::Reply { id, message: page() });
    assert_eq!(asked(&bench.tick()), None, "its holder has asked for a pause");
    bench.now.micros += 50_000;
    bench.handle(Input::Wake);
    let (_, next) = asked(&bench.tick()).expect("the next page is asked for");
    assert_eq!(next.taken, 5);
}

#[test]
fn a_holder_that_is_met_again_while_it_is_asked_is_not_asked_twice() {
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let holder = peer(NodeId(2));
    let wait = HintsWait { node: holder.node, lane: holder.lane };
    bench.request(false, Message::HintsWait(wait));
    bench.handle(Input::Wake);
    asked(&bench.tick()).expect("whoever says that it holds hints is asked");
    bench.handle(Input::PeerUp(holder));
    bench.handle(Input::Wake);
    assert_eq!(
        asked(&bench.tick()),
        None,
        "each of two chains would drop what the other has taken"
    );
    bench.handle(Input::PeerDown(holder));
    bench.handle(Input::PeerUp(holder));
    bench.handle(Input::Wake);
    asked(&bench.tick()).expect("what was asked before it went is not waited for");
}

#[test]
fn a_holder_that_cannot_let_go_says_nothing_of_hints_for_a_while() {
    let (mut holder, _, owner, message) = holder_of_one();
    holder.request(false, message);
    holder.tick();
    let pull = |bench: &mut Bench, taken| {
        let (node, lane, refused, credit) = (owner, LaneIndex(0), Vec::new(), 1 << 20);
        bench.request(false, Message::PullHints(PullHints { node, lane, taken, refused, credit }));
        match answers(&bench.tick())[..] {
            [Message::HintsPulled(Ok(page))] => page.clone(),
            ref other => panic!("a page, got {other:?}"),
        }
    };
    let page = pull(&mut holder, 0);
    // The second time so soon its engine stays shut.
    let key = holder.key(true);
    for rid in [1, 2] {
        holder.engine.fail_next_commits([FailKind::Poisoned]);
        holder.request(false, put(key.clone(), rid, 1));
        holder.tick();
    }
    let rest = pull(&mut holder, page.page);
    assert!(rest.shards.is_empty(), "what its owner has is passed over for now");
    assert_eq!(holder.store.hint_figures()[&owner].count, 1, "and kept");
    let told = |bench: &mut Bench, ms: u64| {
        let mut told = 0;
        for _ in 0..ms / 100 {
            bench.now.micros += 100_000;
            bench.handle(Input::Wake);
            let is_told = |effect: &&Effect| {
                matches!(effect, Effect::Ask { to, message: Message::HintsWait(_), .. }
                    if *to == peer(owner))
            };
            told += bench.tick().iter().filter(is_told).count();
        }
        told
    };
    assert_eq!(told(&mut holder, 9_000), 0, "all of it would be sent again, and stay again");
    assert!(told(&mut holder, 3_000) > 0, "in the end it is told of again");
}
