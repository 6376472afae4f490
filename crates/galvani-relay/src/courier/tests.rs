//! The courier with a target that is told what to answer, and time that moves only when all wait.

use super::{Courier, Delivered, Rules};
use crate::error::Reason;
use crate::figures::FiguresHandle;
use crate::outgoing::Outgoing;
use crate::settings::Retry;
use crate::sink::{Failure, Sent, Sink};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A target. Each try takes a second, and ends as the script for its event says.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    /// What tries of an event meet, the next one first; then it is taken.
    scripts: HashMap<String, Vec<Failure>>,
    /// All tries meet this until then.
    down_until: Option<Instant>,
    /// Ids taken, in their order, duplicates too.
    taken: Vec<String>,
    tries: usize,
    under_way: HashSet<String>,
    most_under_way: usize,
    slow: HashSet<String>,
}

struct UnderWay(Fake, String);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.lock().under_way.remove(&self.1);
    }
}

impl Sink for Fake {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        let event = &events[0];
        let key = String::from_utf8_lossy(&event.key).into_owned();
        let slow = {
            let mut state = self.0.lock();
            state.tries += 1;
            assert!(state.under_way.insert(key.clone()), "two of one key are under way");
            state.most_under_way = state.most_under_way.max(state.under_way.len());
            state.slow.contains(&event.id)
        };
        let _under_way = UnderWay(self.clone(), key);
        // wait: stands for a target that takes a second, in virtual time.
        tokio::time::sleep(Duration::from_secs(if slow { 1000 } else { 1 })).await;
        let mut state = self.0.lock();
        if state.down_until.is_some_and(|until| Instant::now() < until) {
            return Sent::failed(Failure::down("down"));
        }
        if let Some(script) = state.scripts.get_mut(&event.id)
            && !script.is_empty()
        {
            return Sent::failed(script.remove(0));
        }
        let known = state.taken.contains(&event.id);
        state.taken.push(event.id.clone());
        Sent::one(known)
    }
}

fn retry() -> Retry {
    Retry { first: Duration::from_secs(2), longest: Duration::from_secs(60), ..Retry::default() }
}

fn courier(fake: &Fake, retry: Retry) -> Courier<Fake> {
    let rules = Rules {
        target: "fake".into(),
        max_in_flight: 3,
        attempt_timeout: Duration::from_secs(10),
        retry,
        figures: FiguresHandle::default(),
    };
    Courier::new(fake.clone(), rules)
}

/// `a1 b1 a2`: key and number.
fn batch(text: &str) -> Vec<Outgoing> {
    let event = |id: &str| {
        let key = id[..1].to_owned().into();
        Outgoing::new(id.to_owned(), "t".into(), key, "{}".into())
    };
    text.split_whitespace().map(event).collect()
}

fn of_key<'a>(taken: &'a [String], key: &str) -> Vec<&'a str> {
    taken.iter().map(String::as_str).filter(|id| id.starts_with(key)).collect()
}

fn passing(count: usize) -> Vec<Failure> {
    vec![Failure::passing("not now"); count]
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_order_and_go_side_by_side_up_to_the_bound() {
    let fake = Fake::default();
    fake.0.lock().scripts.insert("a1".into(), passing(2));
    let mut courier = courier(&fake, retry());
    let done = courier.deliver(batch("a1 a2 b1 b2 a3 c1 d1 e1 b3")).await.unwrap();
    assert_eq!(done, Delivered { events: 9, duplicates: 0, retried: 2 });
    let state = fake.0.lock();
    assert_eq!(of_key(&state.taken, "a"), ["a1", "a2", "a3"]);
    assert_eq!(of_key(&state.taken, "b"), ["b1", "b2", "b3"]);
    assert_eq!(state.most_under_way, 3);
    let place = |id: &str| state.taken.iter().position(|taken| taken == id);
    assert!(place("b3") < place("a1"), "b waited for a, which failed");
    let figures = courier.rules.figures.read();
    assert_eq!((figures.delivered, figures.retried, figures.in_flight), (9, 2, 0));
    assert_eq!(figures.failing_since, None);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_probed_by_one_and_then_used_in_full() {
    let fake = Fake::default();
    let start = Instant::now();
    fake.0.lock().down_until = Some(start + Duration::from_secs(3600));
    let mut courier = courier(&fake, retry());
    let figures = courier.rules.figures.clone();
    let mut delivery = Box::pin(courier.deliver(batch("a1 b1 c1 d1 e1 a2")));
    assert!(timeout(Duration::from_secs(3000), &mut delivery).await.is_err());
    assert!(figures.read().failing_since.is_some());
    assert_eq!(figures.read().last_failure.as_deref(), Some("down"));
    // Three met it first, then pauses of 30 to 60 s: with a try a second it would be thousands.
    let tries = fake.0.lock().tries;
    assert!((50..=110).contains(&tries), "{tries} tries");
    fake.0.lock().most_under_way = 0;
    assert!(timeout(Duration::from_secs(500), &mut delivery).await.is_err());
    assert_eq!(fake.0.lock().most_under_way, 1, "only the prober");
    delivery.await.unwrap();
    assert_eq!(fake.0.lock().most_under_way, 3, "all once it is back");
    assert!(start.elapsed() < Duration::from_secs(3600 + 70));
    assert_eq!(figures.read().failing_since, None);
}

#[tokio::test(start_paused = true)]
async fn one_event_that_fails_does_not_hold_up_other_keys() {
    let fake = Fake::default();
    fake.0.lock().scripts.insert("a1".into(), passing(1000));
    let mut courier = courier(&fake, Retry { tries_max: Some(40), ..retry() });
    let text: String = (0..50).map(|n| format!(" b{n} c{n}")).collect();
    let mut delivery = Box::pin(courier.deliver(batch(&format!("a1{text}"))));
    assert!(timeout(Duration::from_secs(120), &mut delivery).await.is_err());
    assert_eq!(fake.0.lock().taken.len(), 100);
    let error = delivery.await.unwrap_err();
    assert!(matches!(error.reason, Reason::GaveUp { tries: 40, .. }), "{error}");
    assert_eq!((error.id.as_str(), error.unsent), ("a1", batch("a1")));
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_when_the_time_is_over_and_not_much_later() {
    let fake = Fake::default();
    let start = Instant::now();
    fake.0.lock().down_until = Some(start + Duration::from_secs(36_000));
    let give_up_after = Some(Duration::from_secs(300));
    let mut courier = courier(&fake, Retry { give_up_after, ..retry() });
    let error = courier.deliver(batch("a1 a2")).await.unwrap_err();
    assert!(matches!(&error.reason, Reason::GaveUp { why, .. } if why == "down"), "{error}");
    assert!((300..=400).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(error.unsent, batch("a1 a2"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_is_named_and_the_rest_can_go_on_without_it() {
    let fake = Fake::default();
    fake.0.lock().scripts.insert("a2".into(), vec![Failure::refused("too large")]);
    let mut courier = courier(&fake, retry());
    let error = courier.deliver(batch("a1 a2 a3 b1")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "event a2 (t) was not delivered to fake: the target refuses it: too large"
    );
    let unsent: Vec<_> = error.unsent.into_iter().filter(|event| event.id != "a2").collect();
    courier.deliver(unsent).await.unwrap();
    let state = fake.0.lock();
    assert_eq!(of_key(&state.taken, "a"), ["a1", "a3"]);
    assert_eq!(of_key(&state.taken, "b"), ["b1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_when_one_is_refused_is_waited_for_and_nothing_begins() {
    let fake = Fake::default();
    fake.0.lock().scripts.insert("a1".into(), vec![Failure::unusable("no such stream")]);
    let mut courier = courier(&fake, retry());
    let error = courier.deliver(batch("a1 b1 c1 b2 d1")).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unusable { .. }));
    assert_eq!(error.unsent.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["a1", "b2", "d1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_delivery_leaves_nothing_under_way_and_what_was_taken_is_not_sent_again() {
    let fake = Fake::default();
    fake.0.lock().slow.insert("b1".into());
    let mut courier = courier(&fake, retry());
    let figures = courier.rules.figures.clone();
    let cut = timeout(Duration::from_secs(5), courier.deliver(batch("a1 a2 b1 b2"))).await;
    assert!(cut.is_err());
    assert_eq!(fake.0.lock().taken, ["a1", "a2"]);
    assert_eq!(fake.0.lock().under_way.len(), 0);
    assert_eq!(figures.read().in_flight, 0);
    fake.0.lock().slow.clear();
    let done = courier.deliver(batch("a1 a2 b1 b2")).await.unwrap();
    assert_eq!((done.events, done.duplicates), (4, 2));
    assert_eq!(fake.0.lock().taken, ["a1", "a2", "b1", "b2"]);
    // Once a batch is through, ids are the target's business again.
    let again = courier.deliver(batch("a1")).await.unwrap();
    assert_eq!((again.duplicates, fake.0.lock().taken.len()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_try_without_an_answer_ends_and_is_made_again() {
    let fake = Fake::default();
    fake.0.lock().slow.insert("a1".into());
    let mut courier = courier(&fake, Retry { tries_max: Some(2), ..retry() });
    let error = courier.deliver(batch("a1")).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 10000 ms"), "{error}");
    assert_eq!(fake.0.lock().tries, 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_target_asks_for_is_kept() {
    let fake = Fake::default();
    let pause = Some(Duration::from_secs(200));
    let busy = Failure::Down { why: "429".into(), pause };
    fake.0.lock().scripts.insert("a1".into(), vec![busy]);
    let start = Instant::now();
    courier(&fake, retry()).deliver(batch("a1 b1 b2")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_event_that_no_target_can_be_given_is_refused_before_anything_is_sent() {
    let fake = Fake::default();
    let mut all = batch("a1 b1");
    all[1].body = "{}\n".into();
    let error = courier(&fake, retry()).deliver(all).await.unwrap_err();
    assert_eq!((error.id.as_str(), error.unsent.len()), ("b1", 2));
    assert_eq!(fake.0.lock().tries, 0);
}
