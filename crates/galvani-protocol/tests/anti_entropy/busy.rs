//! A lane whose clients always wait for something: repair goes on, and keeps to its share.
//!
//! Neither may starve the other. Next to read: `main.rs`, the two owners.

use crate::{Pair, SHARD, node};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions};
use galvani_protocol::{Input, ReplyTo};
use galvani_wire::Message;
use galvani_wire::message::{Fetch, Get, Pulled};

/// Milliseconds between two pages that a busy lane takes in.
const PAUSE_MS: u64 = 10;

/// A read at `side` that is under way for a minute.
pub(crate) fn wait_for_ever(pair: &mut Pair, side: usize) {
    pair.deaf = true;
    let key = Key::new(BucketName::default_bucket(), "awaited".to_owned()).expect("a key");
    let options = ReadOptions { r: Some(Quorum::Exactly(2)), ..ReadOptions::default() };
    let message = Message::Get(Get { key, options, timeout_ms: 60_000 });
    let from = ReplyTo { link: 1, id: 0 };
    let arrived = pair.now.micros;
    pair.handle(side, Input::Request { from, forwarded: false, arrived, message });
    pair.flow();
    assert_eq!(pair.sides[side].lane.inflight(), 1, "of {}", node(side));
}

/// One side lacks four megabytes that the other has.
fn behind() -> Pair {
    let mut pair = Pair::new();
    for number in 0..200 {
        pair.put(0, &format!("k{number}"), vec![7; 20_000]);
    }
    pair.link(true);
    pair
}

/// The same, and a client of `busy` waits for something.
fn behind_and_busy(busy: usize) -> Pair {
    let mut pair = behind();
    wait_for_ever(&mut pair, busy);
    pair
}

#[test]
fn background_cannot_starve_foreground() {
    // Whoever is busy: the one that takes the pages in, or the one that gives them.
    for busy in [1, 0] {
        keeps_to_its_share(busy);
    }
}

/// Clients do not talk to it, but wait for its answers: it is a replica of what others coordinate.
#[test]
fn a_lane_that_only_serves_others_is_busy_as_well() {
    for busy in [1, 0] {
        let mut pair = behind();
        let most = most_pages(&mut pair, |pair| {
            serve(pair, busy);
        });
        assert_eq!(most, 1, "pages in {PAUSE_MS} ms while a client waits for {}", node(busy));
        assert_eq!(pair.clock(0), pair.clock(1), "and all has come");
    }
    let most = most_pages(&mut behind(), |_| {});
    assert!(most > 1, "where nobody waits nothing waits");
    // Nor is it busy for longer than a while after it was asked for something.
    let (mut pair, mut ms) = (behind(), 0);
    let most = most_pages(&mut pair, |pair| {
        ms += 1;
        if ms == 1 {
            serve(pair, 1);
        }
    });
    assert!(most > 1, "one answer makes nobody busy for a second");
}

/// Another lane asks a side for what a client waits for there.
fn serve(pair: &mut Pair, side: usize) {
    let key = Key::new(BucketName::default_bucket(), "k0".to_owned()).expect("a key");
    let (have, shown, timeout_ms) = (Vec::new(), Vec::new(), 1_000);
    let (shard, records, epoch) = (SHARD, false, 1);
    let fetch = Fetch { shard, key, records, have, shown, epoch, timeout_ms };
    let (from, arrived) = (ReplyTo { link: 9, id: 0 }, pair.now.micros);
    let message = Message::Fetch(fetch);
    pair.handle(side, Input::Request { from, forwarded: false, arrived, message });
}

/// The most pages that came within a turn, of a second in which this is done every millisecond.
fn most_pages(pair: &mut Pair, mut each_ms: impl FnMut(&mut Pair)) -> usize {
    let mut came = Vec::new();
    for _ in 0..1_000 {
        let before = pair.pages().len();
        each_ms(pair);
        pair.pass(1);
        came.push(pair.pages().len() - before);
    }
    let window = |ms: &[usize]| ms.iter().sum::<usize>();
    came.windows(PAUSE_MS as usize).map(window).max().expect("a second")
}

fn keeps_to_its_share(busy: usize) {
    let mut pair = behind_and_busy(busy);
    let most = most_pages(&mut pair, |_| {});
    assert_eq!(most, 1, "pages in {PAUSE_MS} ms while a client of {} waits", node(busy));
    // Nor the other way round: all has come, though somebody waited all the time.
    assert_eq!(pair.sides[busy].lane.inflight(), 1);
    assert_eq!(pair.clock(0), pair.clock(1));
    let bytes: usize = pair.pages().iter().flat_map(|page| &page.values).map(Bytes::len).sum();
    assert_eq!(bytes, 200 * 20_000);
    let size = |page: &&Pulled| page.values.iter().map(Bytes::len).sum::<usize>();
    let largest = pair.pages().iter().map(size).max().expect("there are pages");
    assert!(largest < (64 << 10) + 20_000, "{largest} bytes in a page while somebody waits");
}

#[test]
fn pages_that_cost_much_come_the_more_seldom() {
    for busy in [1, 0] {
        let mut pair = behind_and_busy(busy);
        let mut at = Vec::new();
        for ms in 0..6_000 {
            let before = pair.pages().len();
            pair.pass(1);
            if pair.pages().len() > before {
                at.push(ms);
                // Twenty milliseconds of the lane's time, of which pages have a quarter.
                let now = pair.now;
                pair.sides[busy].lane.paid_for_pages(20_000, now);
            }
        }
        // The second turn was given out before it was known what the first page costs.
        let pauses = at[1..].windows(2).map(|pair| pair[1] - pair[0]);
        let least = pauses.min().expect("some pages");
        assert!(least >= 60, "{least} ms after a page of 20 ms: a client of {} waits", node(busy));
        assert_eq!(pair.clock(0), pair.clock(1), "and all has come");
    }
}
