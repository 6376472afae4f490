//! Sloppy quorums and hinted handoff, one input at a time.

use crate::bench::{Bench, answers, asks, failure, get, peer, put, strict};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::request::Quorum;
use galvani_model::store::{Store, StoreError};
use galvani_protocol::{Effect, Input};
use galvani_storage::engine::{Corruption, Table};
use galvani_wire::Message;
use galvani_wire::failure::{Failure, QuorumKind, ReplicaError};
use galvani_wire::message::{
    AskKnown, Hint, HintsPulled, HintsWait, Known, PullHints, Pulled, Put, Replicated,
};
use std::collections::BTreeSet;

/// Node 1 of four with a key it owns, the other owners, and the one node that is none.
fn cluster() -> (Bench, Key, [NodeId; 2], NodeId) {
    let bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let layout = bench.topology.layout();
    let shard = bench.shard(&key);
    let others: Vec<NodeId> =
        layout.owners(shard).into_iter().filter(|&node| node != NodeId(1)).collect();
    let fallback = layout.fallbacks(shard).next().expect("four nodes, three owners");
    (bench, key, [others[0], others[1]], fallback)
}

fn hints(effects: &[Effect]) -> Vec<(NodeId, u64, &Hint)> {
    let mut hints = Vec::new();
    for effect in effects {
        if let Effect::Ask { to, id, message: Message::Hint(hint), .. } = effect {
            hints.push((to.node, *id, hint));
        }
    }
    hints
}

fn stored() -> Message {
    Message::Replicated(Replicated { result: Ok(false) })
}

#[test]
fn a_stand_in_is_asked_for_an_owner_that_is_away_and_counts_for_w() {
    let (mut bench, key, [away, up], fallback) = cluster();
    bench.handle(Input::PeerDown(peer(away)));
    bench.tick();
    bench.request(false, put(key, 1, 3));
    let effects = bench.tick();
    let asked = hints(&effects);
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].0, asked[0].2.owner), (fallback, away));
    let to_owner = asks(&effects).into_iter().find(|(to, _)| to.node == up).expect("asked");
    bench.handle(Input::Reply { id: to_owner.1, message: stored() });
    assert!(answers(&bench.tick()).is_empty(), "two of three places");
    bench.handle(Input::Reply { id: asked[0].1, message: stored() });
    let effects = bench.tick();
    match answers(&effects)[..] {
        [Message::PutDone(done)] => {
            let stand_in = done.answers.iter().find(|answer| answer.stands_in_for.is_some());
            let stand_in = stand_in.expect("it is named");
            assert_eq!((stand_in.node, stand_in.stands_in_for), (fallback, Some(away)));
        }
        ref other => panic!("stored, got {other:?}"),
    }
}

#[test]
fn a_strict_write_has_no_stand_ins_and_pw_counts_owners_only() {
    let (mut bench, key, [away, _], _) = cluster();
    bench.handle(Input::PeerDown(peer(away)));
    bench.tick();
    bench.request(false, strict(put(key.clone(), 1, 3)));
    let down = |what| Failure::ReplicasDown { what, need: 3, up: 2, n: 3 };
    let effects = bench.tick();
    assert_eq!(failure(&effects).0, down(QuorumKind::W));
    let Message::Put(mut primaries) = put(key, 2, 1) else { unreachable!("made as a put") };
    primaries.options.pw = Some(Quorum::Exactly(3));
    bench.request(false, Message::Put(primaries));
    assert_eq!(failure(&bench.tick()).0, down(QuorumKind::Pw));
}

#[test]
fn an_owner_that_refuses_or_is_silent_for_long_gets_a_stand_in() {
    let (mut bench, key, [full, silent], fallback) = cluster();
    bench.request(false, put(key.clone(), 1, 3));
    let effects = bench.tick();
    assert!(hints(&effects).is_empty(), "all owners can be reached");
    let ask_of =
        |node| asks(&effects).into_iter().find(|(to, _)| to.node == node).expect("asked").1;
    let refused = Replicated { result: Err(ReplicaError::DiskFull) };
    bench.handle(Input::Reply { id: ask_of(full), message: Message::Replicated(refused) });
    let effects = bench.tick();
    assert_eq!(hints(&effects)[0].0, fallback);

    bench.request(false, put(key, 2, 3));
    bench.tick();
    bench.now.micros += 400_000;
    bench.handle(Input::Wake);
    let effects = bench.tick();
    let asked = hints(&effects);
    assert_eq!(asked.len(), 1, "one fallback, one hint");
    assert!([full, silent].contains(&asked[0].2.owner));
}

#[test]
fn hint_delete_before_ack_never_only_when_it_is_durable_at_its_owner() {
    let (mut holder, shard, owner, message) = holder_of_one();
    holder.request(false, message.clone());
    assert_eq!(answers(&holder.tick()), [&stored()]);
    assert_eq!(holder.store.hint_figures()[&owner].count, 1);
    let Message::Hint(Hint { record, .. }) = &message else { unreachable!("made as a hint") };
    let dot = record.head.dot;
    let origins = vec![(shard, dot.origin), (shard, Origin(99))];
    holder.request(false, Message::AskKnown(AskKnown { origins }));
    let known = Message::Known(Known { counters: vec![dot.counter, 0] });
    assert_eq!(answers(&holder.tick()), [&known], "whoever minted it may have forgotten it");
    let pull = |taken| {
        let (lane, refused, credit) = (LaneIndex(0), Vec::new(), 1 << 20);
        Message::PullHints(PullHints { node: owner, lane, taken, refused, credit })
    };
    let given = |bench: &mut Bench, taken| {
        bench.request(false, pull(taken));
        match answers(&bench.tick())[..] {
            [Message::HintsPulled(Ok(page))] => page.clone(),
            ref other => panic!("a page, got {other:?}"),
        }
    };
    let first = given(&mut holder, 0);
    assert_eq!(first.shards, [shard]);
    let again = given(&mut holder, first.page + 9);
    assert_eq!(again.shards, [shard], "another page's number drops nothing");
    assert_ne!(again.page, first.page);
    let stale = given(&mut holder, first.page);
    assert_eq!(stale.shards, [shard], "nor does that of an earlier page");
    assert!(given(&mut holder, stale.page).shards.is_empty());
    assert!(holder.store.hint_figures().is_empty());
    assert_eq!(holder.lane.counters().hints_delivered, 1);
}

#[test]
fn hint_expiry_last_copy_a_full_store_refuses_and_drops_nothing() {
    let (mut holder, _, _, message) = holder_of_one();
    let none = Limits { hint_bytes_per_owner: 0, anti_entropy_ms: 0, ..Limits::default() };
    let mut full = Bench::new(none);
    full.request(false, message.clone());
    let refused = Replicated { result: Err(ReplicaError::HintsFull) };
    assert_eq!(answers(&full.tick()), [&Message::Replicated(refused)]);
    // The bound in all holds, too, where one owner's does not.
    let all = Limits { hint_bytes: 0, anti_entropy_ms: 0, ..Limits::default() };
    let mut full = Bench::new(all);
    full.request(false, message.clone());
    let refused = Replicated { result: Err(ReplicaError::HintsFull) };
    assert_eq!(answers(&full.tick()), [&Message::Replicated(refused)]);
    assert_eq!((full.lane.counters().hints_refused, full.lane.counters().hints_held), (1, 0));
    // And an owner never holds a hint of its own shard.
    let Message::Hint(mut hint) = message else { unreachable!("made as a hint") };
    hint.owner = NodeId(1);
    holder.request(false, Message::Hint(hint));
    let refused = Replicated { result: Err(ReplicaError::NotOwner) };
    assert_eq!(answers(&holder.tick()), [&Message::Replicated(refused)]);
}

#[test]
fn a_record_that_cannot_be_taken_in_is_kept_and_holds_up_no_other() {
    let (mut holder, shard, owner, message) = holder_of_one();
    let Message::Hint(first) = message else { unreachable!("made as a hint") };
    let mut second = first.clone();
    second.record.head.dot.counter += 1;
    for hint in [first, second] {
        holder.request(false, Message::Hint(hint));
    }
    holder.tick();
    let pull = |bench: &mut Bench, taken, refused: &[u16]| {
        let (node, lane, refused) = (owner, LaneIndex(0), refused.to_vec());
        bench.request(
            false,
            Message::PullHints(PullHints { node, lane, taken, refused, credit: 1 << 20 }),
        );
        match answers(&bench.tick())[..] {
            [Message::HintsPulled(Ok(page))] => page.clone(),
            ref other => panic!("a page, got {other:?}"),
        }
    };
    let page = pull(&mut holder, 0, &[]);
    assert_eq!(page.shards, [shard, shard]);
    let rest = pull(&mut holder, page.page, &[0]);
    assert!(rest.shards.is_empty(), "what was refused is passed over for now");
    assert_eq!(holder.store.hint_figures()[&owner].count, 1, "and kept");
    assert_eq!(pull(&mut holder, 0, &[]).shards, [shard], "and given again from the start");
}

#[test]
fn a_damaged_row_of_the_owner_refuses_one_hint_and_takes_in_the_others() {
    let (.., message) = holder_of_one();
    let Message::Hint(hint) = message else { unreachable!("made as a hint") };
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let shard = bench.shard(&key);
    bench.request(false, put(key.clone(), 3, 1));
    bench.tick();
    let row = galvani_storage::format::keys::object(shard, &key);
    assert!(bench.engine.corrupt(Table::Objects, &row, Corruption::FlipBit(40)));
    // Another key of the same shard is whole.
    let mut others = (0..).map(|number| crate::bench::key(&format!("other-{number}")));
    let other = others.find(|other| bench.shard(other) == shard).expect("some key fits");
    bench.handle(Input::PeerDown(peer(NodeId(2))));
    bench.handle(Input::PeerUp(peer(NodeId(2))));
    let asked = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Ask { id, message: Message::PullHints(pull), .. } => Some((*id, pull.clone())),
            _ => None,
        })
    };
    let (id, _) = asked(&bench.tick()).expect("a peer that comes up is asked");
    let record = |key, counter| {
        let mut head = hint.record.head.clone();
        (head.key, head.dot.counter) = (key, counter);
        head
    };
    let heads = vec![record(key, 11), record(other.clone(), 12)];
    let values = vec![hint.record.value.clone(); 2];
    let records = Pulled { heads, values, ..Pulled::default() };
    let page = HintsPulled { page: 5, shards: vec![shard; 2], records };
    bench.handle(Input::Reply { id, message: Message::HintsPulled(Ok(page)) });
    let effects = bench.tick();
    let (_, next) = asked(&effects)
        .or_else(|| {
            bench.handle(Input::Wake);
            asked(&bench.tick())
        })
        .expect("the next page is asked for");
    assert_eq!((next.taken, next.refused), (5, vec![0]));
    assert!(!bench.store.object(shard, &other).expect("whole").is_absent());
}

#[test]
fn an_owner_is_told_again_of_hints_that_still_wait() {
    let (mut holder, _, owner, message) = holder_of_one();
    holder.request(false, message);
    holder.tick();
    let mut told = 0;
    for _ in 0..5_000 {
        holder.now.micros += 1_000;
        holder.handle(Input::Wake);
        told += holder
            .tick()
            .iter()
            .filter(|effect| {
                matches!(effect, Effect::Ask { to, message: Message::HintsWait(_), .. }
                    if to.node == owner)
            })
            .count();
    }
    assert!((2..=4).contains(&told), "once, and again every two seconds: {told}");
}

#[test]
fn an_owner_that_never_answered_an_acked_write_gets_a_hint_in_the_end() {
    let (mut bench, key, [up, silent], fallback) = cluster();
    bench.request(false, put(key, 1, 2));
    let effects = bench.tick();
    let id_of = |node| asks(&effects).into_iter().find(|(to, _)| to.node == node).expect("asked").1;
    bench.handle(Input::Reply { id: id_of(up), message: stored() });
    assert!(matches!(answers(&bench.tick())[..], [Message::PutDone(_)]));
    bench.now.micros += 1_000_000;
    bench.handle(Input::Wake);
    let effects = bench.tick();
    let left = hints(&effects);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].0, left[0].2.owner), (fallback, silent));
}

#[test]
fn a_write_that_may_need_a_stand_in_is_refused_when_the_lane_holds_too_much() {
    let limits = Limits { held_bytes: 5, anti_entropy_ms: 0, ..Limits::default() };
    let mut bench = Bench::new(limits);
    let key = bench.key(true);
    let four_bytes = |rid, w| {
        let Message::Put(made) = put(key.clone(), rid, w) else { unreachable!("made as a put") };
        Message::Put(Put { value: vec![7; 4].into(), ..made })
    };
    bench.request(false, four_bytes(1, 3));
    assert!(answers(&bench.tick()).is_empty(), "it waits for its owners, and holds its value");
    bench.request(false, four_bytes(2, 3));
    assert!(matches!(failure(&bench.tick()).0, Failure::Overloaded { .. }));
    bench.request(false, strict(four_bytes(3, 1)));
    assert!(matches!(answers(&bench.tick())[..], [Message::PutDone(_)]), "it holds nothing");
}

#[test]
fn a_write_that_nobody_can_decide_any_more_is_answered_at_once() {
    let (mut bench, key, [first, second], _) = cluster();
    bench.request(false, put(key, 1, 3));
    let effects = bench.tick();
    let id_of = |node| asks(&effects).into_iter().find(|(to, _)| to.node == node).expect("asked").1;
    let refused = Replicated { result: Err(ReplicaError::UnknownBucket) };
    bench.handle(Input::Reply { id: id_of(first), message: Message::Replicated(refused) });
    bench.handle(Input::Reply { id: id_of(second), message: stored() });
    let (failure, _) = failure(&bench.tick());
    assert!(matches!(failure, Failure::QuorumNotMet { need: 3, got: 2, .. }), "{failure:?}");
}

#[test]
fn a_page_whose_commit_failed_is_not_said_to_be_taken() {
    let (.., message) = holder_of_one();
    let Message::Hint(hint) = message else { unreachable!("made as a hint") };
    // This node as the owner: the record is of a key it owns.
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let mut record = hint.record;
    record.shard = bench.shard(&key);
    record.head.key = key;
    let asked = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Ask { to, id, message: Message::PullHints(pull), .. } => {
                Some((*to, *id, pull.taken))
            }
            _ => None,
        })
    };
    bench.handle(Input::PeerDown(peer(NodeId(2))));
    bench.handle(Input::PeerUp(peer(NodeId(2))));
    bench.handle(Input::Wake);
    let effects = bench.tick();
    let (_, id, taken) = asked(&effects).expect("a peer that comes up is asked");
    assert_eq!(taken, 0);
    let (heads, values) = (vec![record.head], vec![record.value]);
    let records = Pulled { heads, values, ..Pulled::default() };
    let page = HintsPulled { page: 5, shards: vec![record.shard], records };
    bench.handle(Input::Reply { id, message: Message::HintsPulled(Ok(page)) });
    assert!(bench.lane.wants_fsync(true), "a page is fsynced before anyone drops it");
    let committed = Err(StoreError::Full);
    let _ = bench.store.commit(false);
    // The question for the next page, made in that tick, would say that this one is taken.
    let left = bench.lane.end_tick(committed);
    assert_eq!(asked(&left), None, "its holder would drop what is nowhere else");
    bench.now.micros += 2_000_000;
    bench.handle(Input::Wake);
    let taken = asked(&bench.tick()).map(|(.., taken)| taken);
    assert_eq!(taken, Some(0), "asked again, and nothing is said to be durable");
}

/// Node 1 as a stand-in, the owner, and a hint for it to hold.
pub(crate) fn holder_of_one() -> (Bench, Shard, NodeId, Message) {
    let bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(false);
    let shard = bench.shard(&key);
    let owner = bench.topology.layout().owners(shard)[0];
    // The record is made by the key's true owner: any that hangs together will do.
    let mut maker = Bench::new(Limits::default());
    let own = maker.key(true);
    maker.request(false, put(own, 7, 1));
    let effects = maker.tick();
    let replicate = effects.iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(replicate.clone()),
        _ => None,
    });
    let mut record = replicate.expect("the other owners are asked");
    record.shard = shard;
    record.head.key = key;
    (bench, shard, owner, Message::Hint(Hint { owner, record }))
}

#[test]
fn a_kept_origin_is_used_again_once_every_member_has_spoken_stand_ins_too() {
    let (mut bench, key, others, fallback) = cluster();
    let shard = bench.shard(&key);
    let everyone = BTreeSet::from([others[0], others[1], fallback]);
    let next = |bench: &mut Bench, rid| {
        bench.request(false, strict(put(key.clone(), rid, 1)));
        bench.tick();
        bench.store.replica(shard).expect("readable").own.expect("it wrote")
    };
    // Who speaks after a clean stop, what the stand-in's hints name, whether the origin stays.
    let cases = [(None, 0, true), (Some(fallback), 0, false), (None, 1, false)];
    for (rid, (silent, ahead, kept)) in (1..).step_by(2).zip(cases) {
        let before = next(&mut bench, rid);
        let questions = bench.restart_with(shard, before);
        let asked: BTreeSet<NodeId> = questions.iter().map(|(to, _)| to.node).collect();
        assert_eq!(asked, everyone);
        for (to, id) in questions.into_iter().filter(|(to, _)| Some(to.node) != silent) {
            let ahead = if to.node == fallback { ahead } else { 0 };
            let known = Known { counters: vec![before.counter + ahead] };
            bench.handle(Input::Reply { id, message: Message::Known(known) });
        }
        bench.tick();
        let after = next(&mut bench, rid + 1);
        assert_eq!(after.origin == before.origin, kept, "{silent:?} {ahead}");
    }
    // Who has come since is not in the layout that a disk which went back knows.
    let before = next(&mut bench, 11);
    for (_, id) in bench.restart_with(shard, before) {
        let known = Known { counters: vec![before.counter] };
        bench.handle(Input::Reply { id, message: Message::Known(known) });
    }
    bench.tick();
    assert_eq!(next(&mut bench, 12).origin, before.origin);
    bench.adopt(bench.copying());
    assert_ne!(next(&mut bench, 13).origin, before.origin, "node 99 has not spoken");
}

#[test]
fn pages_of_all_peers_together_keep_to_one_share_of_a_lane_that_clients_wait_for() {
    let (.., message) = holder_of_one();
    let Message::Hint(hint) = message else { unreachable!("made as a hint") };
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let shard = bench.shard(&key);
    bench.request(false, get(key.clone(), 3));
    let peers = [2, 3, 4].map(NodeId);
    for node in peers {
        let waits = HintsWait { node, lane: LaneIndex(0) };
        bench.request(false, Message::HintsWait(waits));
    }
    let mut asked: Vec<(u64, NodeId)> = Vec::new();
    for ms in 0..500 {
        for effect in bench.tick() {
            let Effect::Ask { to, id, message: Message::PullHints(_), .. } = effect else {
                continue;
            };
            asked.push((ms, to.node));
            let mut head = hint.record.head.clone();
            (head.key, head.dot.counter) = (key.clone(), 100 + asked.len() as u64);
            let values = vec![hint.record.value.clone()];
            let records = Pulled { heads: vec![head], values, ..Pulled::default() };
            let page = HintsPulled { page: asked.len() as u64, shards: vec![shard], records };
            bench.handle(Input::Reply { id, message: Message::HintsPulled(Ok(page)) });
        }
        bench.now.micros += 1_000;
        bench.handle(Input::Wake);
    }
    let close = asked.windows(2).find(|pair| pair[1].0 - pair[0].0 < 10);
    assert_eq!(close, None, "a page is a turn of 10 ms, whoever gives it");
    for node in peers {
        let turns = asked.iter().filter(|(_, of)| *of == node).count();
        assert!(turns >= 10, "{node} had {turns} turns of {}", asked.len());
    }
}

#[test]
fn a_pause_that_a_holder_asks_for_is_kept_though_it_says_again_that_hints_wait() {
    let (.., message) = holder_of_one();
    let Message::Hint(hint) = message else { unreachable!("made as a hint") };
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let node = NodeId(2);
    let waits = || Message::HintsWait(HintsWait { node, lane: LaneIndex(0) });
    let mut asked = Vec::new();
    for ms in 0..400_u64 {
        bench.request(false, waits());
        for effect in bench.tick() {
            let Effect::Ask { id, message: Message::PullHints(_), .. } = effect else { continue };
            asked.push(ms);
            let mut head = hint.record.head.clone();
            (head.key, head.dot.counter) = (key.clone(), 100 + ms);
            let values = vec![hint.record.value.clone()];
            let records = Pulled { heads: vec![head], values, pause_ms: 100, ..Pulled::default() };
            let page = HintsPulled { page: 1 + ms, shards: vec![shard], records };
            bench.handle(Input::Reply { id, message: Message::HintsPulled(Ok(page)) });
        }
        bench.now.micros += 1_000;
        bench.handle(Input::Wake);
    }
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 99), "{asked:?}");
}

/// Hints whose owner is no member any more go to whoever owns their keys now, which costs the lane time.
#[test]
fn hints_that_go_elsewhere_wait_for_their_turn_where_clients_wait() {
    let (mut bench, shard, owner, message) = holder_of_one();
    let Message::Hint(hint) = message else { unreachable!("made as a hint") };
    for counter in 1..=100 {
        let mut hint = hint.clone();
        hint.record.head.dot.counter = counter;
        hint.record.head.rid = RequestId(u128::from(counter));
        bench.request(false, Message::Hint(hint));
        bench.tick();
    }
    assert_eq!(bench.store.hint_figures()[&owner].count, 100);
    let members = bench.topology.layout().current().members();
    let left = members.iter().filter(|member| member.id() != owner).cloned().collect();
    bench.change_to(left);
    assert!(bench.topology.is_replica(NodeId(1), shard), "of three nodes all own everything");
    bench.request(false, get(bench.key(true), 3));
    let mut went = Vec::new();
    for ms in 0..1_000_u64 {
        let held = |bench: &Bench| bench.store.hint_figures().get(&owner).map_or(0, |of| of.count);
        let before = held(&bench);
        bench.tick();
        if held(&bench) < before {
            went.push(ms);
        }
        bench.now.micros += 1_000;
        bench.handle(Input::Wake);
    }
    assert!(bench.store.hint_figures().is_empty(), "all go");
    assert!(went.len() >= 4, "in pages: {went:?}");
    assert!(went.windows(2).all(|pair| pair[1] - pair[0] >= 10), "a page is a turn: {went:?}");
}

/// With a narrowed n: an owner that nobody counts must not use up the stand-ins of those that count.
#[test]
fn an_owner_that_is_not_counted_takes_no_stand_in_from_one_that_is() {
    let mut bench = Bench::new(Limits { anti_entropy_ms: 0, ..Limits::default() });
    let mut keys = (0..).map(|number| crate::bench::key(&format!("narrow-{number}")));
    let first = |key: &Key| bench.topology.owners(bench.shard(key))[0] == NodeId(1);
    let key = keys.find(first).expect("some key is owned first");
    let owners = bench.topology.owners(bench.shard(&key));
    bench.handle(Input::PeerDown(peer(owners[2])));
    let Message::Put(mut narrowed) = put(key, 7, 2) else { unreachable!("made as a put") };
    narrowed.options.n = Some(2);
    bench.request(false, Message::Put(narrowed));
    assert_eq!(hints(&bench.tick()), [], "the third owner is away, and does not count");
    bench.now.micros += 400_000;
    bench.handle(Input::Wake);
    let asked = bench.tick();
    let held_for: Vec<NodeId> = hints(&asked).iter().map(|(_, _, hint)| hint.owner).collect();
    assert_eq!(held_for, [owners[1]], "the second one counts, and is silent");
}

#[test]
fn what_is_no_hint_is_not_held() {
    let (mut holder, shard, owner, message) = holder_of_one();
    let Message::Hint(whole) = message else { unreachable!("made as a hint") };
    let not = |change: &dyn Fn(&mut Hint)| {
        let mut hint = whole.clone();
        change(&mut hint);
        Message::Hint(hint)
    };
    let elsewhere = Shard { partition: Partition((shard.partition.0 + 1) % 16), n: shard.n };
    let cases = [
        (not(&|hint| hint.record.shard = elsewhere), ReplicaError::Malformed),
        (not(&|hint| hint.record.value = Bytes::from_static(b"other")), ReplicaError::Malformed),
        (not(&|hint| hint.record.head.dot.counter = 0), ReplicaError::Malformed),
        (not(&|hint| hint.owner = NodeId(1)), ReplicaError::NotOwner),
        (not(&|hint| hint.owner = NodeId(77)), ReplicaError::NotOwner),
    ];
    for (message, error) in cases {
        holder.request(false, message);
        let refused = Message::Replicated(Replicated { result: Err(error) });
        assert_eq!(answers(&holder.tick()), [&refused]);
    }
    assert!(holder.store.hint_figures().is_empty());
    holder.request(false, Message::Hint(whole.clone()));
    assert_eq!(answers(&holder.tick()), [&stored()]);
    assert_eq!(holder.store.hint_figures()[&owner].count, 1);
}

/// Owners that never say what they have must not keep hints from their owner for ever.
#[test]
fn hints_are_fetched_in_the_end_though_no_other_owner_answers() {
    let mut bench = Bench::new(Limits::default());
    let began = bench.now.micros;
    let mut asked = None;
    while asked.is_none() && bench.now.micros < began + 60_000_000 {
        let pulls =
            |effect: &Effect| matches!(effect, Effect::Ask { message: Message::PullHints(_), .. });
        if bench.tick().iter().any(pulls) {
            asked = Some((bench.now.micros - began) / 1_000_000);
        }
        bench.now.micros += 100_000;
        bench.handle(Input::Wake);
    }
    assert_eq!(asked, Some(30), "seconds after the start");
}
