//! What is said to be durable is synced before it is said: by its coordinator, an owner, a stand-in.
//!
//! Here it is looked at whether the tick's commit is to be synced; that the driver does so is its own
//! matter. Next to read: `bench.rs`, `handoff.rs`.

use crate::bench::{Bench, answers, put};
use crate::handoff::holder_of_one;
use galvani_model::limits::Limits;
use galvani_model::request::Quorum;
use galvani_protocol::Effect;
use galvani_wire::Message;
use galvani_wire::message::{Replicate, Replicated};

/// Whether the commit of the tick in which this is asked for must be synced, and what leaves after it.
fn asked_for(bench: &mut Bench, message: Message) -> (bool, Vec<Effect>) {
    bench.request(false, message);
    let syncs = bench.lane.wants_fsync(bench.store.has_staged());
    (syncs, bench.tick())
}

/// A write of which one replica is to have synced it, or none; what it is to the other owners.
fn written(durable: bool) -> Replicate {
    let mut bench = Bench::new(Limits::default());
    let Message::Put(mut made) = put(bench.key(true), 1, 1) else { panic!("made as a put") };
    made.options.dw = durable.then_some(Quorum::Exactly(1));
    let (syncs, effects) = asked_for(&mut bench, Message::Put(made));
    assert!(matches!(answers(&effects)[..], [Message::PutDone(_)]), "{effects:?}");
    assert_eq!(syncs, durable, "the coordinator counts itself");
    let sent = effects.into_iter().find_map(|effect| match effect {
        Effect::Ask { message: Message::Replicate(replicate), .. } => Some(replicate),
        _ => None,
    });
    sent.expect("the other owners are asked")
}

#[test]
fn what_a_coordinator_says_is_durable_is_synced_before_and_the_owners_are_told_to() {
    for durable in [false, true] {
        assert_eq!(written(durable).fsync, durable);
    }
}

#[test]
fn what_an_owner_says_is_durable_is_synced_before() {
    for durable in [false, true] {
        let replicate = Replicate { fsync: durable, ..written(false) };
        let mut bench = Bench::new(Limits::default());
        let (syncs, effects) = asked_for(&mut bench, Message::Replicate(replicate));
        let acked = Message::Replicated(Replicated { result: Ok(durable) });
        assert_eq!((syncs, answers(&effects)), (durable, vec![&acked]));
    }
}

#[test]
fn what_a_stand_in_says_is_durable_is_synced_before() {
    for durable in [false, true] {
        let (mut holder, .., message) = holder_of_one();
        let Message::Hint(mut hint) = message else { panic!("made as a hint") };
        hint.record.fsync = durable;
        let (syncs, effects) = asked_for(&mut holder, Message::Hint(hint));
        let acked = Message::Replicated(Replicated { result: Ok(durable) });
        assert_eq!((syncs, answers(&effects)), (durable, vec![&acked]));
    }
}
