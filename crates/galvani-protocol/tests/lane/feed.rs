//! The feed at one owner: order, waiting, visibility, pages, and what a lost page or commit does.

use crate::bench::{Bench, answers, failure, get, put};
use bytes::Bytes;
use galvani_model::bucket::FeedMode;
use galvani_model::feed::{Cursor, Filter, Visibility};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::{Limits, VALUE_BYTES_MAX};
use galvani_model::store::Store;
use galvani_model::version::{Dot, Kind, PartitionClock, RecordHead, value_hash};
use galvani_protocol::{Effect, Input};
use galvani_storage::engine::FailKind;
use galvani_wire::Message;
use galvani_wire::failure::Failure;
use galvani_wire::feed::{Begin, FeedNext, FeedOpen, FeedOpened, FeedPage};
use galvani_wire::message::{Clocks, Failed, Replicate};
use std::sync::Arc;

/// A consumer of one shard.
struct Consumer {
    session: u64,
    pages: u64,
    cursor: Cursor,
    /// What the other owners say they have.
    others: Vec<u64>,
}

impl Consumer {
    fn open(bench: &mut Bench, shard: Shard, filter: Filter) -> Consumer {
        let shards = vec![(shard, Begin::At(Cursor::default()))];
        let open = FeedOpen { filter, shards, timeout_ms: 1_000 };
        bench.request(false, Message::FeedOpen(open));
        bench.handle(Input::Wake);
        let effects = bench.tick();
        let opened = answers(&effects).into_iter().find_map(|message| match message {
            Message::FeedOpened(opened) => Some(opened.clone()),
            _ => None,
        });
        let FeedOpened { session, elsewhere, .. } = opened.expect("it is opened");
        assert_eq!(elsewhere, []);
        let consumer = Consumer { session, pages: 0, cursor: Cursor::default(), others: vec![] };
        for effect in effects {
            consumer.answer(bench, effect);
        }
        consumer
    }

    fn ask(&self, bench: &mut Bench, credit: u32) {
        let (session, page) = (self.session, self.pages);
        let next = FeedNext { session, page, credit, wait_ms: 100, close: false };
        bench.request(false, Message::FeedNext(next));
    }

    /// The counters of what comes within the wait, with a mark on what is late.
    fn next(&mut self, bench: &mut Bench) -> Vec<(u64, bool)> {
        let page = self.page(bench, 1 << 20);
        page.events.iter().map(|event| (event.head.dot.counter, event.late)).collect()
    }

    fn page(&mut self, bench: &mut Bench, credit: u32) -> FeedPage {
        self.ask(bench, credit);
        for _ in 0..200 {
            bench.handle(Input::Wake);
            let mut came = None;
            for effect in bench.tick() {
                match effect {
                    Effect::Answer { message: Message::FeedPage(page), .. } => came = Some(page),
                    other => self.answer(bench, other),
                }
            }
            if let Some(page) = came {
                self.pages += 1;
                for advance in &page.advances {
                    self.cursor.pass(&advance.done);
                    self.cursor.owe_all(&advance.owed);
                }
                return page;
            }
            bench.now.micros += 1_000;
            bench.now.unix_ms += 1;
        }
        panic!("a page comes at the end of the wait at the latest");
    }

    /// Another owner that is asked for its clocks answers.
    fn answer(&self, bench: &mut Bench, effect: Effect) {
        let Effect::Ask { id, message: Message::AskClocks(ask), .. } = effect else { return };
        assert!(!ask.durable, "consumers cost no sync");
        let mut clock = PartitionClock::new();
        for &counter in &self.others {
            clock.insert(Dot::new(Origin(77), counter));
        }
        let clocks = ask.shards.iter().map(|_| Some(clock.clone())).collect();
        bench.handle(Input::Reply {
            id,
            message: Message::Clocks(Ok(Clocks { epoch: 1, clocks, lacking: Vec::new() })),
        });
    }
}

fn record(key: &Key, counter: u64, past: &[u64]) -> (RecordHead, Bytes) {
    let value = Bytes::from(format!("v{counter}"));
    let head = RecordHead {
        dot: Dot::new(Origin(77), counter),
        key: key.clone(),
        past: past.iter().map(|&counter| Dot::new(Origin(77), counter)).collect(),
        hlc: Hlc::from_unix_ms(1_000_000 + counter),
        rid: RequestId(u128::from(counter)),
        author: NodeId(2),
        kind: Kind::Put,
        value_len: value.len() as u32,
        value_hash: value_hash(Kind::Put, &value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    };
    (head, value)
}

fn replicate(bench: &mut Bench, key: &Key, counter: u64, past: &[u64]) {
    let (head, value) = record(key, counter, past);
    let shard = bench.shard(key);
    let message = Message::Replicate(Replicate {
        shard,
        head,
        fsync: false,
        epoch: 1,
        timeout_ms: 100,
        value,
    });
    bench.request(false, message);
}

#[test]
fn writes_of_one_key_come_in_causal_order_however_they_arrived() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    replicate(&mut bench, &key, 3, &[1, 2]);
    replicate(&mut bench, &key, 1, &[]);
    replicate(&mut bench, &key, 2, &[1]);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    assert_eq!(consumer.next(&mut bench), [(1, false), (2, false), (3, false)]);
    assert_eq!(consumer.next(&mut bench), [], "each once");
}

#[test]
fn a_write_waits_for_what_it_replaces_and_then_goes_first() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    replicate(&mut bench, &key, 2, &[1]);
    replicate(&mut bench, &key, 3, &[1, 2]);
    let page = consumer.page(&mut bench, 1 << 20);
    assert_eq!((page.events.len(), page.state.held), (0, 2), "both wait");
    // It comes after all: nothing is out of order.
    replicate(&mut bench, &key, 1, &[]);
    assert_eq!(consumer.next(&mut bench), [(1, false), (2, false), (3, false)]);
    // The next one does not come for too long.
    replicate(&mut bench, &key, 6, &[3, 5]);
    assert_eq!(consumer.next(&mut bench), []);
    bench.now.micros += 2_000_000;
    assert_eq!(consumer.next(&mut bench), [(6, false)]);
    replicate(&mut bench, &key, 5, &[3]);
    assert_eq!(consumer.next(&mut bench), [(5, true)], "late, and marked so");
    // A consumer that goes on from that position elsewhere would be told the same.
    assert!(!consumer.cursor.is_late(Dot::new(Origin(77), 4)));
}

#[test]
fn a_write_waits_longer_while_another_owner_has_what_it_replaces() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    replicate(&mut bench, &key, 2, &[1]);
    assert_eq!(consumer.next(&mut bench), []);
    consumer.others = vec![1, 2];
    bench.now.micros += 1_500_000;
    assert_eq!(consumer.next(&mut bench), []);
    bench.now.micros += 1_000_000;
    assert_eq!(consumer.next(&mut bench), [], "it is on its way");
    replicate(&mut bench, &key, 1, &[]);
    assert_eq!(consumer.next(&mut bench), [(1, false), (2, false)]);
}

#[test]
fn a_write_that_is_trimmed_while_it_waits_holds_nothing_up() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    consumer.others = vec![1, 2, 3];
    replicate(&mut bench, &key, 2, &[1]);
    replicate(&mut bench, &key, 3, &[2]);
    let page = consumer.page(&mut bench, 1 << 20);
    assert_eq!((page.events.len(), page.state.held), (0, 2), "one for the other");
    let (dot, until) = (Dot::new(Origin(77), 2), Hlc::from_unix_ms(1_000_002));
    bench.store.trim(shard, &[dot], until).expect("its record is there");
    bench.tick();
    bench.now.micros += 2_000_000;
    let page = consumer.page(&mut bench, 1 << 20);
    let shown: Vec<u64> = page.events.iter().map(|event| event.head.dot.counter).collect();
    assert_eq!((shown, page.state.held), (vec![3], 0));
    assert!(page.advances[0].gone.contains(dot));
    assert!(bench.lane.next_deadline().is_some_and(|due| due > bench.now.micros));
}

#[test]
fn more_writes_than_may_wait_do_not_keep_each_other_from_their_turn() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    for counter in 6..=4_200 {
        replicate(&mut bench, &key, counter, &[1]);
    }
    bench.tick();
    assert_eq!(consumer.next(&mut bench), [], "all wait for what they replace");
    // An earlier one has to be waited for first, and one of another origin finds no room.
    replicate(&mut bench, &key, 5, &[1]);
    let (mut head, value) = record(&key, 1, &[]);
    head.dot = Dot::new(Origin(78), 1);
    head.past = [Dot::new(Origin(79), 1)].into_iter().collect();
    let message = Replicate { shard, head, fsync: false, epoch: 1, timeout_ms: 100, value };
    bench.request(false, Message::Replicate(message));
    assert_eq!(consumer.next(&mut bench), []);
    bench.now.micros += 2_000_000;
    let page = consumer.page(&mut bench, 1 << 20);
    let shown: Vec<u64> = page.events.iter().map(|event| event.head.dot.counter).collect();
    assert_eq!(shown[..3], [5, 6, 7], "none waits for ever");
}

#[test]
fn other_keys_do_not_wait() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut names = (0..).map(|number| crate::bench::key(&format!("other-{number}")));
    let other = names.find(|other| bench.shard(other) == shard).expect("some key is in it");
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    replicate(&mut bench, &key, 2, &[1]);
    replicate(&mut bench, &other, 3, &[]);
    assert_eq!(consumer.next(&mut bench), [(3, false)]);
}

#[test]
fn by_quorum_a_write_is_shown_once_most_owners_have_it() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let filter = Filter { visibility: Visibility::Quorum, ..Filter::default() };
    let mut consumer = Consumer::open(&mut bench, shard, filter);
    replicate(&mut bench, &key, 1, &[]);
    replicate(&mut bench, &key, 2, &[1]);
    let page = consumer.page(&mut bench, 1 << 20);
    assert_eq!((page.events.len(), page.state.held), (0, 2));
    consumer.others = vec![1];
    assert_eq!(consumer.next(&mut bench), [(1, false)]);
    consumer.others = vec![1, 2];
    assert_eq!(consumer.next(&mut bench), [(2, false)]);
}

#[test]
fn a_page_brings_what_the_consumer_takes_and_one_event_more_at_most() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    for counter in 1..=5 {
        replicate(&mut bench, &key, counter, &[]);
    }
    assert_eq!(consumer.page(&mut bench, 1).events.len(), 1);
    assert_eq!(consumer.page(&mut bench, 300).events.len(), 2);
    assert_eq!(consumer.next(&mut bench).len(), 2);
}

#[test]
fn what_nobody_asked_for_is_done_with() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let filter = Filter { prefix: "nothing".into(), ..Filter::default() };
    let mut consumer = Consumer::open(&mut bench, shard, filter);
    replicate(&mut bench, &key, 1, &[]);
    assert_eq!(consumer.next(&mut bench), []);
    assert!(consumer.cursor.delivered().contains(Dot::new(Origin(77), 1)));
}

#[test]
fn a_session_whose_consumer_lost_a_page_is_over() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    replicate(&mut bench, &key, 1, &[]);
    assert_eq!(consumer.next(&mut bench), [(1, false)]);
    consumer.pages = 0;
    consumer.ask(&mut bench, 1 << 20);
    assert_eq!(failure(&bench.tick()).0, Failure::NoSession);
}

/// Red if each session may read so much: many consumers would then hold up a lane's other work.
#[test]
fn all_sessions_of_a_lane_together_read_so_many_records_in_a_tick() {
    const RECORDS: u64 = 1_600;
    const IN_A_TICK: u64 = 2_048;
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let filter = Filter { prefix: "nothing".into(), ..Filter::default() };
    let mut consumers: Vec<Consumer> =
        (0..3).map(|_| Consumer::open(&mut bench, shard, filter.clone())).collect();
    for counter in 1..=RECORDS {
        replicate(&mut bench, &key, counter, &[]);
    }
    bench.tick();
    let ask = |bench: &mut Bench, session: u64, page: u64| {
        let next = FeedNext { session, page, credit: 1 << 20, wait_ms: 0, close: false };
        bench.request(false, Message::FeedNext(next));
    };
    consumers.iter().for_each(|it| ask(&mut bench, it.session, 0));
    let (mut passed, mut ticks) = (0, 0);
    while passed < 3 * RECORDS {
        bench.now.micros += 10_000;
        bench.handle(Input::Wake);
        let mut in_tick = 0;
        for effect in bench.tick() {
            let Effect::Answer { message: Message::FeedPage(page), .. } = effect else { continue };
            in_tick += page.advances.iter().map(|it| it.done.len()).sum::<u64>();
            let asks = consumers.iter_mut().find(|it| it.session == page.session).expect("ours");
            asks.pages += 1;
            ask(&mut bench, asks.session, asks.pages);
        }
        assert!(in_tick <= IN_A_TICK, "{in_tick} in a tick");
        (passed, ticks) = (passed + in_tick, ticks + 1);
        assert!(ticks < 10, "those that came short have their turn: {passed} passed");
    }
}

/// Red if consumers that are far behind read on as if nobody waited for the lane; and if they get nowhere.
#[test]
fn reading_for_consumers_keeps_to_its_share_while_clients_wait() {
    const WRITES: u64 = 1_000;
    const WINDOW_MS: usize = 5;
    const IN_A_WINDOW: usize = 64;
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    for counter in 1..=WRITES {
        replicate(&mut bench, &key, counter, &[]);
    }
    bench.tick();
    // Somebody reads, and no other owner answers.
    let from = bench.request(false, get(key, 3));
    bench.tick();
    assert_eq!(bench.lane.inflight(), 1, "{from:?} waits");
    let consumer = Consumer::open(&mut bench, shard, Filter::default());
    let (mut pages, mut came, mut rests) = (0, Vec::new(), 0);
    consumer.ask(&mut bench, 1 << 20);
    while came.iter().sum::<usize>() < WRITES as usize && came.len() < 1_000 {
        let mut shown = 0;
        // A lane that is busy has tick after tick.
        for _ in 0..4 {
            bench.now.micros += 250;
            rests += usize::from(bench.lane.next_deadline() > Some(bench.now.micros));
            bench.handle(Input::Wake);
            for effect in bench.tick() {
                if let Effect::Answer { message: Message::FeedPage(page), .. } = effect {
                    shown += page.events.len();
                    pages += 1;
                    Consumer { pages, others: vec![], cursor: Cursor::default(), ..consumer }
                        .ask(&mut bench, 1 << 20);
                }
            }
        }
        came.push(shown);
    }
    let most = came.windows(WINDOW_MS).map(|ms| ms.iter().sum::<usize>()).max();
    assert!(most <= Some(2 * IN_A_WINDOW), "{most:?} in {WINDOW_MS} ms while a client waits");
    assert_eq!(came.iter().sum::<usize>() as u64, WRITES, "all has come all the same");
    assert!(rests > 2 * came.len(), "it is due again and again while it rests");
    assert_eq!(bench.lane.inflight(), 1, "somebody waited all the time");
}

/// Red if a consumer that closes its session leaves it to the lane until it is idle for long.
#[test]
fn a_session_that_is_closed_makes_room_for_another() {
    let mut bench = Bench::new(Limits::default());
    let shard = bench.shard(&bench.key(true));
    let open = |bench: &mut Bench| {
        let shards = vec![(shard, Begin::Now)];
        let open = FeedOpen { filter: Filter::default(), shards, timeout_ms: 1_000 };
        bench.request(false, Message::FeedOpen(open));
        let effects = bench.tick();
        answers(&effects).into_iter().find_map(|message| match message {
            Message::FeedOpened(opened) => Some(opened.session),
            _ => None,
        })
    };
    let sessions: Vec<u64> = std::iter::from_fn(|| open(&mut bench)).take(1_000).collect();
    assert_eq!(sessions.len(), 256, "so many at once");
    let (session, page) = (sessions[17], 0);
    let close = FeedNext { session, page, credit: 0, wait_ms: 0, close: true };
    bench.request(false, Message::FeedNext(close));
    assert_eq!(failure(&bench.tick()).0, Failure::NoSession, "it is over");
    assert!(open(&mut bench).is_some(), "there is room for one");
    assert_eq!(open(&mut bench), None, "and for one only");
}

#[test]
fn what_a_failed_commit_staged_is_shown_to_nobody() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let consumer = Consumer::open(&mut bench, shard, Filter::default());
    consumer.ask(&mut bench, 1 << 20);
    bench.handle(Input::Wake);
    assert!(answers(&bench.tick()).is_empty(), "it waits");
    replicate(&mut bench, &key, 1, &[]);
    bench.now.micros += 5_000;
    bench.handle(Input::Wake);
    bench.engine.fail_next_commits([FailKind::IoLost]);
    let effects = bench.tick();
    let told = answers(&effects);
    let over = |message: &&&Message| {
        matches!(message, Message::Failed(Failed { failure: Failure::NoSession, .. }))
    };
    assert_eq!(told.iter().filter(over).count(), 1, "{told:?}");
    let shown = told.iter().any(|message| matches!(message, Message::FeedPage(_)));
    assert!(!shown, "{told:?}");
    // What the disk then has is shown to whoever comes.
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    assert_eq!(consumer.next(&mut bench), []);
}

#[test]
fn a_record_says_what_it_replaced_and_what_stayed_beside_it() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.key(true);
    let shard = bench.shard(&key);
    replicate(&mut bench, &key, 1, &[]);
    replicate(&mut bench, &key, 2, &[]);
    bench.request(false, put(key.clone(), 9, 1));
    bench.tick();
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    let page = consumer.page(&mut bench, 1 << 20);
    let last = page.events.iter().find(|event| event.head.rid == RequestId(9)).expect("shown");
    let beside: Vec<u64> = last.head.concurrent.iter().map(|dot| dot.counter).collect();
    assert_eq!((beside, last.head.supersedes.len()), (vec![1, 2], 0));
    assert!(last.carries && last.values[0].as_ref() == b"v");
}

#[test]
fn a_shard_that_is_served_elsewhere_is_named() {
    let mut bench = Bench::new(Limits::default());
    let elsewhere = bench.shard(&bench.key(false));
    let shards = vec![(elsewhere, Begin::Now)];
    let open = FeedOpen { filter: Filter::default(), shards, timeout_ms: 1_000 };
    bench.request(false, Message::FeedOpen(open));
    let effects = bench.tick();
    let [Message::FeedOpened(opened)] = answers(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(
        (opened.elsewhere.as_slice(), opened.began.as_slice()),
        (&[elsewhere][..], &[None][..])
    );
}

#[test]
fn old_values_never_make_an_event_larger_than_a_frame() {
    let mut bench = Bench::new(Limits::default());
    let mut topology = (*bench.topology).clone();
    for props in topology.buckets.values_mut() {
        props.feed = FeedMode::NewAndOld;
    }
    bench.topology = Arc::new(topology);
    bench.handle(Input::Topology(bench.topology.clone()));
    let key = bench.key(true);
    let shard = bench.shard(&key);
    let write = |bench: &mut Bench, counter: u64, past: &[u64], bytes: usize| {
        let (mut head, _) = record(&key, counter, past);
        let value = Bytes::from(vec![counter as u8; bytes]);
        (head.value_len, head.value_hash) = (bytes as u32, value_hash(Kind::Put, &value));
        head.supersedes = head
            .past
            .iter()
            .flat_map(|(origin, base, _)| (1..=base).map(move |counter| Dot::new(origin, counter)))
            .collect();
        let record = Replicate { shard, head, fsync: false, epoch: 1, timeout_ms: 100, value };
        bench.request(false, Message::Replicate(record));
        bench.tick();
    };
    write(&mut bench, 1, &[], 9 << 20);
    write(&mut bench, 2, &[1], 9 << 20);
    write(&mut bench, 3, &[1, 2], 1 << 20);
    let mut consumer = Consumer::open(&mut bench, shard, Filter::default());
    let mut shown = Vec::new();
    for _ in 0..3 {
        let page = consumer.page(&mut bench, 1 << 20);
        let bytes: usize = page.events.iter().flat_map(|it| &it.values).map(Bytes::len).sum();
        assert!(bytes <= VALUE_BYTES_MAX, "a page of {bytes} bytes");
        shown.extend(page.events);
    }
    let old = |at: usize| shown[at].old.iter().map(|old| old.len).collect::<Vec<u32>>();
    assert_eq!(old(1), [0], "there is no room for it");
    assert_eq!(old(2), [9 << 20, 0], "for the first of them there is");
}
