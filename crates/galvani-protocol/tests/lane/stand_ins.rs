//! Stand-ins of one write in a cluster that has many: how many of them it asks at most.
//!
//! An operation's asks have a bounded number of ids. Who stands in, and what it holds, is tested in
//! `handoff.rs`. Next to read: `bench.rs`.

use crate::bench::{Bench, peer, put};
use galvani_model::ids::NodeId;
use galvani_model::limits::Limits;
use galvani_protocol::{Effect, Input};
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::Replicated;

#[test]
fn a_write_whose_stand_ins_are_all_full_does_not_ask_every_node_there_is() {
    let limits = Limits { anti_entropy_ms: 0, ..Limits::default() };
    let mut bench = Bench::among(NodeId(1), 40, limits);
    let key = bench.key(true);
    let away = bench.topology.others(bench.shard(&key)).next().expect("three owners");
    bench.handle(Input::PeerDown(peer(away)));
    bench.tick();
    bench.request(false, put(key, 1, 3));
    let hint = |effect: &Effect| match effect {
        Effect::Ask { id, message: Message::Hint(_), .. } => Some(*id),
        _ => None,
    };
    let mut asked = 0;
    let mut effects = bench.tick();
    while let Some(id) = effects.iter().find_map(hint) {
        asked += 1;
        let full = Replicated { result: Err(ReplicaError::HintsFull) };
        bench.handle(Input::Reply { id, message: Message::Replicated(full) });
        effects = bench.tick();
    }
    assert_eq!(asked, 8, "of 37 that could be asked");
}
