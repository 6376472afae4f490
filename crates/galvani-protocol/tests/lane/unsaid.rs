//! A tick whose commit failed: no answer leaves, and nothing is handed on, that rests on what it staged.
//!
//! Each of these stages a write and is asked something in the same tick. Operations that such a tick ends
//! are in `requests.rs` and `read_repair.rs`. Next to read: `bench.rs`.

use crate::bench::{Bench, answers, put};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::LaneIndex;
use galvani_model::limits::Limits;
use galvani_model::version::{Digest, PartitionClock};
use galvani_protocol::Effect;
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::layout::AskProgress;
use galvani_wire::message::{
    AskClocks, AskSlice, Compare, CreateBucket, Failed, Fetch, FetchPage, FindHints, PullHints,
};

const FULL: ReplicaError = ReplicaError::DiskFull;

/// What is answered from what is stored and staged, and what may be said when the tick has failed.
fn questions(bench: &Bench) -> Vec<(Message, Message)> {
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let node = bench.topology.others(shard).next().expect("three owners");
    let (lane, bucket) = (LaneIndex(0), BucketName::default_bucket());
    let (epoch, timeout_ms) = (1, 100);
    let clocks = AskClocks { node, lane, shards: vec![shard], durable: false };
    let (have, shown, records) = (Vec::new(), Vec::new(), true);
    let fetch = Fetch { shard, key: key.clone(), records, have, shown, epoch, timeout_ms };
    let (prefix, after, limit) = (Bytes::new(), None, 9);
    let page = FetchPage { shard, bucket, prefix, after, limit, timeout_ms, epoch };
    let shards = vec![(shard, PartitionClock::new(), Digest::default())];
    let slice = AskSlice { shard, after: None, keys: true };
    let hints = PullHints { node, lane, taken: 0, refused: Vec::new(), credit: 1 << 20 };
    let (name, props) = ("logs".parse().expect("a name"), BucketProps::with_copies(3));
    let progress = Failed {
        failure: Failure::Coordinator(FULL),
        applied: AppliedOutcome::Maybe { acks: 0 },
        answers: Vec::new(),
    };
    vec![
        (Message::AskClocks(clocks), Message::Clocks(Err(FULL))),
        (Message::Fetch(fetch), Message::Fetched(Err(FULL))),
        (Message::FetchPage(page), Message::FetchedPage(Err(FULL))),
        (Message::Compare(Compare { node, lane, shards }), Message::Compared(Err(FULL))),
        (Message::AskSlice(slice), Message::SliceIs(Err(FULL))),
        (Message::PullHints(hints), Message::HintsPulled(Err(FULL))),
        (Message::FindHints(FindHints { shard, key }), Message::HintsFound(Err(FULL))),
        (Message::AskProgress(AskProgress { epoch }), Message::Failed(progress)),
        (
            Message::DefineBucket(CreateBucket { name, props, timeout_ms }),
            Message::BucketDefined(Err(Failure::Coordinator(FULL))),
        ),
    ]
}

#[test]
fn nothing_that_rests_on_a_failed_tick_is_answered() {
    for (question, unsaid) in questions(&Bench::new(Limits::default())) {
        let mut bench = Bench::new(Limits::default());
        let name = question.name();
        bench.engine.fail_next_commits([FailKind::Full]);
        bench.request(false, put(bench.key(true), 1, 1));
        bench.request(false, question);
        let effects = bench.tick();
        let said = answers(&effects);
        // The other answer is the write's, which is refused.
        assert!(said.len() == 2 && said.contains(&&unsaid), "{name}: {said:?}");
        let defines = |effect: &Effect| matches!(effect, Effect::DefineBucket { .. });
        assert!(!effects.iter().any(defines), "{name}: {effects:?}");
    }
}

#[test]
fn a_layout_that_a_failed_tick_heard_of_is_not_handed_on() {
    let mut bench = Bench::new(Limits::default());
    let adopts = |effects: &[Effect]| {
        effects.iter().filter(|effect| matches!(effect, Effect::Adopt(_))).count()
    };
    let news = Message::LayoutIs(Box::new(bench.copying()));
    bench.engine.fail_next_commits([FailKind::Full]);
    bench.request(false, put(bench.key(true), 1, 1));
    bench.request(false, news.clone());
    assert_eq!(adopts(&bench.tick()), 0);
    bench.request(false, news);
    assert_eq!(adopts(&bench.tick()), 1, "it is, when it is heard again");
}
