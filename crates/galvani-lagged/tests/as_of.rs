//! What a lagged replica shows of a moment is what the writes issued before it make, and nothing else.
//!
//! Random histories with siblings, deletions, retries and late arrivals, some of it applied and some
//! waiting, against the naive model of `common`.

mod common;

use bytes::Bytes;
use common::{
    LAG_MS, START_MS, Values, at, delete, fresh, histories, key, naive, page, settle, shard_of,
    values, write,
};
use galvani_lagged::config::PAGE_KEYS_MAX;
use galvani_lagged::{AsOf, Lagged, LaggedError, Moment, Place, Selector};
use galvani_model::bucket::{BucketName, ConflictPolicy};
use galvani_model::ids::{NodeId, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{Dot, Kind, Record, value_hash};
use galvani_storage::engine::MemoryEngine;
use proptest::prelude::{prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

/// A key's values, and what could not be left out; `None`: it is blurred.
fn shown(
    replica: &mut Lagged<MemoryEngine>,
    key: &Key,
    moment: &Moment,
    without: Option<&Selector>,
) -> Option<(Values, Vec<Dot>)> {
    match replica.read_at(key, moment, without) {
        Ok(None) => Some((Values::new(), Vec::new())),
        Ok(Some(found)) => Some((values(replica, &found, moment.at_ms), found.kept)),
        Err(LaggedError::Blurred { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

/// All keys with a prefix that have values; `None` for those that are blurred.
fn scan(
    replica: &mut Lagged<MemoryEngine>,
    prefix: &str,
    limit: usize,
    moment: &Moment,
) -> BTreeMap<Key, Option<Values>> {
    let bucket = BucketName::default_bucket();
    let mut all = BTreeMap::new();
    let mut from: Option<Place> = None;
    loop {
        let page = replica
            .scan_at(&bucket, prefix.as_bytes(), from.as_ref(), limit, moment, None)
            .expect("it caught up");
        assert!(page.found.len() <= limit);
        let blurred = page.blurred.into_iter().map(|key| (key, None));
        let exact = page.found.into_iter().map(|found| {
            let values = values(replica, &found, moment.at_ms);
            (found.key, Some(values))
        });
        for (key, values) in exact.chain(blurred) {
            let again = all.insert(key.clone(), values);
            assert!(again.is_none(), "{key} is shown twice");
        }
        match page.next {
            None => break,
            next => from = next,
        }
    }
    all.retain(|_, values: &mut Option<Values>| values.as_ref().is_none_or(|it| !it.is_empty()));
    all
}

proptest! {
    #[test]
    fn every_moment_is_what_the_writes_before_it_make(
        history in histories(40),
        gap_ms in 1..20_000u64,
        hold_ms in 0..2 * LAG_MS,
        limit in 1..4usize,
        bad in 1..4u128,
    ) {
        let mut replica = fresh();
        let mut now_ms = 0;
        for record in history.arrived(history.records.len()) {
            now_ms += gap_ms;
            replica.arrive(page(&[record]), at(now_ms)).expect("room");
            settle(&mut replica, at(now_ms));
        }
        settle(&mut replica, at(now_ms + hold_ms));
        let applied = replica.status(at(now_ms + hold_ms)).expect("readable").applied;
        let applied = history.arrived(applied as usize);
        let earliest = replica.earliest_ms().expect("it caught up");
        let last = history.records.iter().map(|it| it.head.hlc.unix_ms()).max().expect("one");
        let mut moments = vec![Moment { below: None, at_ms: last }];
        for at_ms in [earliest, earliest + (last - earliest.min(last)) / 2, earliest.max(last)] {
            let now_ms = at_ms.max(last);
            moments.push(replica.moment(AsOf::Time(at_ms), now_ms).expect("within the window"));
        }
        for record in &history.records {
            match replica.moment(AsOf::Before(record.head.dot), last) {
                Ok(moment) => moments.push(moment),
                Err(LaggedError::Applied { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            // One that was found out before it went out of the window.
            let (below, at_ms) = (Some(record.head.hlc), record.head.hlc.unix_ms());
            moments.push(Moment { below, at_ms });
        }
        let bad = Selector { authors: vec![NodeId(bad)], ..Selector::default() };
        let named = history.records.iter().filter(|it| bad.names(&it.head));
        let named: BTreeSet<_> = named.map(|it| it.head.write_id()).collect();
        for moment in moments {
            let before = |it: &&Record| !moment.is_before(it.head.hlc);
            let visible = history.records.iter().filter(before);
            let mut all = BTreeMap::new();
            for key in history.keys() {
                let is_blurred = applied
                    .iter()
                    .any(|it| it.head.key == key && moment.is_before(it.head.hlc));
                let expected = (!is_blurred).then(|| naive(visible.clone(), &key));
                let read = shown(&mut replica, &key, &moment, None).map(|(values, _)| values);
                prop_assert_eq!(&read, &expected);
                if let Some((left, kept)) = shown(&mut replica, &key, &moment, Some(&bad))
                    && kept.is_empty()
                {
                    let good = visible.clone().filter(|it| !named.contains(&it.head.write_id()));
                    prop_assert_eq!(left, naive(good, &key));
                }
                if expected.as_ref().is_none_or(|it| !it.is_empty()) {
                    all.insert(key, expected);
                }
            }
            prop_assert_eq!(&scan(&mut replica, "", limit, &moment), &all);
            all.retain(|key, _| key.bytes().starts_with(b"a"));
            prop_assert_eq!(&scan(&mut replica, "a", limit, &moment), &all);
        }
        // Whatever is earlier than that is refused, and not guessed.
        if earliest > 1 {
            match replica.moment(AsOf::Time(earliest - 1), earliest) {
                Err(LaggedError::BeforeHorizon { earliest_ms, .. }) => {
                    prop_assert_eq!(earliest_ms, earliest);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_clock_that_runs_ahead_blurs_its_own_keys_and_takes_nothing_from_the_window() {
    let mut replica = fresh();
    let ahead = write("k", (1, 1), &[], 500_000);
    let other = write("other", (1, 2), &[], 500);
    replica.arrive(page(&[ahead, other.clone()]), at(1_000)).expect("room");
    settle(&mut replica, at(1_000 + LAG_MS));
    assert_eq!(replica.earliest_ms(), Some(START_MS + 1_000));
    let moment =
        replica.moment(AsOf::Time(START_MS + 2_000), START_MS + 90_000).expect("within the window");
    assert_eq!(shown(&mut replica, &key("k"), &moment, None), None);
    let values = shown(&mut replica, &key("other"), &moment, None).expect("exact").0;
    assert_eq!(values, naive([&other].into_iter(), &key("other")));
}

#[test]
fn just_before_a_bad_write_is_exact_though_others_came_in_the_same_millisecond() {
    let mut replica = fresh();
    let good = write("k", (1, 1), &[], 500);
    let bad = delete("k", (1, 2), &[&good], 500);
    assert_eq!(good.head.hlc.unix_ms(), bad.head.hlc.unix_ms());
    replica.arrive(page(&[good.clone(), bad.clone()]), at(1_000)).expect("room");
    for as_of in [AsOf::Before(bad.head.dot), AsOf::BeforeRequest(bad.head.rid)] {
        let moment = replica.moment(as_of, START_MS + 1_000).expect("it waits");
        let (values, _) = shown(&mut replica, &key("k"), &moment, None).expect("exact");
        let values: Vec<Bytes> = values.into_values().collect();
        assert_eq!(values, [&good.value]);
    }
    let moment = replica.moment(AsOf::Time(START_MS + 500), START_MS + 1_000).expect("in it");
    assert!(
        shown(&mut replica, &key("k"), &moment, None).expect("exact").0.is_empty(),
        "deleted within it"
    );
}

#[test]
fn what_cannot_be_known_is_refused() {
    let mut replica = common::open(&MemoryEngine::new(), &MemoryEngine::new());
    let first = write("k", (1, 1), &[], 500);
    replica.arrive(page(std::slice::from_ref(&first)), at(1_000)).expect("room");
    let refused = replica.moment(AsOf::Time(START_MS + 900), START_MS + 1_000);
    assert!(matches!(refused, Err(LaggedError::NotSeeded)), "it has not caught up");
    replica.heard(START_MS + 800, 0, at(1_000)).expect("room");
    let refused = replica.moment(AsOf::Time(START_MS + 700), START_MS + 1_000);
    assert!(matches!(refused, Err(LaggedError::BeforeHorizon { .. })), "before it caught up");
    assert!(replica.moment(AsOf::Time(START_MS + 900), START_MS + 1_000).is_ok());
    let refused = replica.moment(AsOf::Time(START_MS + 1_001), START_MS + 1_000).map(drop);
    let Err(error) = refused else { panic!("it has not come yet") };
    assert!(matches!(error, LaggedError::Future { .. }));
    assert!(error.to_string().contains("shown now is 2023-11-14T22:13:21.000Z"), "{error}");
    let unknown = Dot::new(galvani_model::ids::Origin(9), 9);
    let refused = replica.moment(AsOf::Before(unknown), START_MS + 1_000);
    assert!(matches!(refused, Err(LaggedError::UnknownDot { .. })));
    let refused = replica.moment(AsOf::BeforeRequest(RequestId(5)), START_MS + 1_000);
    assert!(matches!(refused, Err(LaggedError::UnknownRequest { .. })));
    settle(&mut replica, at(1_000 + LAG_MS));
    let refused = replica.moment(AsOf::Before(first.head.dot), START_MS + 1_000);
    assert!(matches!(refused, Err(LaggedError::Applied { .. })));
}

#[test]
fn a_bad_write_that_is_applied_is_named_where_it_is_to_be_left_out() {
    let mut replica = fresh();
    let good = write("k", (1, 1), &[], 500);
    let bad = delete("k", (2, 1), &[&good], 600);
    replica.arrive(page(&[good, bad.clone()]), at(1_000)).expect("room");
    settle(&mut replica, at(1_000 + LAG_MS));
    let moment = replica.moment(AsOf::Latest, START_MS + 1_000).expect("always");
    let selector = Selector { dots: vec![bad.head.dot], ..Selector::default() };
    let (values, kept) = shown(&mut replica, &key("k"), &moment, Some(&selector)).expect("exact");
    assert!(values.is_empty());
    assert_eq!(kept, [bad.head.dot]);
}

#[test]
fn a_value_that_had_expired_by_then_is_none() {
    let mut replica = fresh();
    let mut record = write("k", (1, 1), &[], 500);
    record.head.expires_ms = START_MS + 5_000;
    replica.arrive(page(&[record]), at(1_000)).expect("room");
    for (ms, count) in [(4_999, 1), (5_000, 0)] {
        let moment = replica.moment(AsOf::Time(START_MS + ms), START_MS + 9_000).expect("in it");
        assert_eq!(
            shown(&mut replica, &key("k"), &moment, None).expect("exact").0.len(),
            count,
            "{ms}"
        );
    }
}

#[test]
fn an_lww_bucket_shows_one_value_at_every_moment() {
    let mut replica = fresh();
    replica.learn_bucket(&BucketName::default_bucket(), ConflictPolicy::Lww).expect("room");
    let (one, two) = (write("k", (1, 1), &[], 500), write("k", (2, 1), &[], 600));
    replica.arrive(page(&[two.clone(), one.clone()]), at(1_000)).expect("room");
    for (ms, expected) in [(550, &one), (600, &two)] {
        let moment = replica.moment(AsOf::Time(START_MS + ms), START_MS + 9_000).expect("in it");
        let (values, _) = shown(&mut replica, &key("k"), &moment, None).expect("exact");
        let values: Vec<Bytes> = values.into_values().collect();
        assert_eq!(values, [&expected.value]);
    }
    assert_eq!(shard_of(&key("k")), shard_of(&one.head.key));
}

#[test]
fn a_page_ends_also_where_it_finds_nothing() {
    let mut replica = fresh();
    let keys = 2 * PAGE_KEYS_MAX as u64 + 5;
    let records: Vec<Record> =
        (1..=keys).map(|n| write(&format!("k{n}"), (1, n), &[], 5_000)).collect();
    replica.arrive(page(&records), at(6_000)).expect("room");
    let moment =
        replica.moment(AsOf::Time(START_MS + 1_000), START_MS + 6_000).expect("within the window");
    let (bucket, mut from, mut pages) = (BucketName::default_bucket(), None, 0);
    loop {
        let page = replica.scan_at(&bucket, b"", from.as_ref(), 1, &moment, None).expect("exact");
        assert!(page.found.is_empty());
        pages += 1;
        match page.next {
            None => break,
            next => from = next,
        }
    }
    assert!(pages > 1, "so many keys are not looked at in one go");
}

#[test]
fn events_alone_are_held_and_change_no_key() {
    let mut replica = fresh();
    let value = write("k", (1, 1), &[], 500);
    let mut event = delete("k", (1, 2), &[&value], 600);
    event.head.kind = Kind::Emit;
    event.head.value_hash = value_hash(Kind::Emit, b"");
    replica.arrive(page(&[value.clone(), event.clone()]), at(1_000)).expect("room");
    for applied in [0, 2] {
        assert_eq!(replica.status(at(1_000)).expect("readable").applied, applied);
        let moment = replica.moment(AsOf::Latest, 0).expect("always");
        let values = shown(&mut replica, &key("k"), &moment, None).expect("exact").0;
        assert_eq!(values, naive([&value].into_iter(), &key("k")), "{applied} applied");
        let shard = shard_of(&key("k"));
        assert_eq!(
            replica.head(shard, event.head.dot).expect("readable"),
            Some(event.head.clone())
        );
        settle(&mut replica, at(1_000 + LAG_MS));
    }
}
