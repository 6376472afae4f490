//! Webhooks, with a receiver of our own that checks every request as a receiver should.
//!
//! It is busy now and then, loses answers, and goes away and comes back. What it has at the end, without
//! what its ids tell it to drop, must be what was sent.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use galvani_relay::{Reason, Relay, Retry, Secret, Settings, Target};
use parking_lot::Mutex;
use ring::hmac;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{DEADLINE, assert_all_once_in_order, events, settings, until};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Clone)]
struct Got {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// What a request is answered: lines from the status on, and whether the event is kept. `None`: nothing,
/// the connection is closed.
struct Answer {
    keep: bool,
    head: Option<String>,
}

type Judge = Box<dyn FnMut(&Got) -> Answer + Send>;

/// A receiver.
struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

struct State {
    judge: Judge,
    requests: Vec<Got>,
    kept: Vec<Vec<u8>>,
    ids: HashSet<String>,
    connections: usize,
}

impl Receiver {
    async fn start(judge: impl FnMut(&Got) -> Answer + Send + 'static) -> Receiver {
        let state = Arc::new(Mutex::new(State {
            judge: Box::new(judge),
            requests: Vec::new(),
            kept: Vec::new(),
            ids: HashSet::new(),
            connections: 0,
        }));
        let mut receiver = Receiver { port: galvani_brokers::free_port(), state, task: None };
        receiver.restart().await;
        receiver
    }

    async fn restart(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let state = self.state.clone();
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                state.lock().connections += 1;
                connections.spawn(serve(stream, state.clone()));
            }
        }));
    }

    /// Closes its port and all connections.
    async fn stop(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    async fn relay(&self, settings: Settings) -> Relay {
        let target: Target = format!("http://127.0.0.1:{}/in?x=1", self.port).parse().unwrap();
        Relay::open(target, settings).await.unwrap()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    while let Some(got) = read(&mut stream).await {
        let answer = {
            let mut state = state.lock();
            state.requests.push(got.clone());
            let answer = (state.judge)(&got);
            if answer.keep && state.ids.insert(got.headers["idempotency-key"].clone()) {
                state.kept.push(got.body);
            }
            answer
        };
        let Some(head) = answer.head else { return };
        let text = format!("HTTP/1.1 {head}\r\ncontent-length: 2\r\n\r\nok");
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Got> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let length = stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" if length == 0 => return None,
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |line: &String| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let headers: BTreeMap<_, _> = lines[1..].iter().map(header).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Got { line: lines.swap_remove(0), headers, body })
}

fn ok(_: &Got) -> Answer {
    Answer { keep: true, head: Some("200 OK".into()) }
}

fn refuse(status: &str) -> Answer {
    Answer { keep: false, head: Some(status.into()) }
}

/// As a receiver checks it: anybody can send, only who has the secret can sign.
fn is_signed(got: &Got, secret: &[u8]) -> bool {
    let header = |name: &str| got.headers[name].as_str();
    let signed = [
        format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(),
        &got.body,
    ]
    .concat();
    let tag = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    let at = Duration::from_secs(header("webhook-timestamp").parse().unwrap());
    let age = SystemTime::now().duration_since(UNIX_EPOCH + at).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    age < Duration::from_secs(300) && hmac::verify(&key, &signed, &tag).is_ok()
}

#[tokio::test]
async fn events_arrive_signed_in_order_and_once_through_errors_and_lost_answers() {
    let mut count = 0;
    let receiver = Receiver::start(move |got| {
        if !is_signed(got, b"s3cret") {
            return refuse("401 Not you");
        }
        count += 1;
        match count % 20 {
            3 => refuse("503 Busy"),
            8 => refuse("429 Slow down\r\nretry-after: 0"),
            12 => refuse("408 Late"),
            // Kept, and the answer is lost.
            16 => Answer { keep: true, head: None },
            _ => ok(got),
        }
    })
    .await;
    let secret = Secret::new(b"s3cret");
    let mut relay = receiver.relay(Settings { secret, ..settings() }).await;
    let sent = events("e", 1000, 29);
    let done = relay.deliver(sent.clone()).await.unwrap();
    assert_eq!(done.events, 1000);
    let state = receiver.state.lock();
    assert_all_once_in_order(&state.kept, &sent);
    assert_eq!(done.retried as usize, state.requests.len() - 1000);
    assert!(state.requests.len() > 1150, "it was not hard enough");
    let got = &state.requests[0];
    assert_eq!(got.line, "POST /in?x=1 HTTP/1.1");
    for (name, value) in [("content-type", "application/json"), ("galvani-topic", "orders")] {
        assert_eq!(got.headers[name], value);
    }
    assert_eq!(got.headers["idempotency-key"], got.headers["webhook-id"]);
    let (connections, requests) = (state.connections, state.requests.len());
    assert!(connections < requests / 4, "{connections} connections for {requests} requests");
}

#[tokio::test]
async fn a_receiver_that_goes_and_comes_back_has_every_event() {
    let mut receiver = Receiver::start(ok).await;
    let mut relay = receiver.relay(settings()).await;
    let figures = relay.figures();
    let mut sent = Vec::new();
    for round in 0..3 {
        let some = events(&format!("r{round}"), 1000, 13);
        sent.extend(some.clone());
        let before = figures.read().delivered;
        let delivery = tokio::spawn(async move {
            relay.deliver(some).await.unwrap();
            relay
        });
        until("some are delivered", || figures.read().delivered > before + 100).await;
        receiver.stop().await;
        let noticed = || figures.read().failing_since.is_some() || delivery.is_finished();
        until("the relay notices", noticed).await;
        receiver.restart().await;
        relay = tokio::time::timeout(DEADLINE, delivery).await.expect("all in time").unwrap();
    }
    assert_all_once_in_order(&receiver.state.lock().kept, &sent);
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_pause_gets_it_from_all_events() {
    let mut first: Option<Instant> = None;
    let early = Arc::new(AtomicUsize::new(0));
    let count = early.clone();
    let receiver = Receiver::start(move |got| match first {
        None => {
            first = Some(Instant::now());
            refuse("429 Slow down\r\nretry-after: 2")
        }
        // Those under way when it was said, and any that do not keep to it.
        Some(at) if at.elapsed() < Duration::from_millis(1800) => {
            count.fetch_add(1, Ordering::Relaxed);
            refuse("500 Too early")
        }
        Some(_) => ok(got),
    })
    .await;
    let wait = Duration::from_millis(10);
    let retry = Retry { first: wait, longest: wait, ..Retry::default() };
    let mut relay = receiver.relay(Settings { retry, ..settings() }).await;
    relay.deliver(events("e", 100, 100)).await.unwrap();
    // The bound is 16 under way; without the pause, one would be tried every few milliseconds.
    let early = early.load(Ordering::Relaxed);
    assert!(early <= 40, "{early} requests in the pause");
}

#[tokio::test]
async fn a_refused_event_is_named_and_a_wrong_address_is_told_apart() {
    let receiver = Receiver::start(|got| match got.headers["idempotency-key"].as_str() {
        "e-3#0" => refuse("422 No such product"),
        _ => ok(got),
    })
    .await;
    let sent = events("e", 6, 2);
    let mut relay = receiver.relay(settings()).await;
    let error = relay.deliver(sent.clone()).await.unwrap_err();
    assert_eq!(error.id, "e-3#0");
    let Reason::Refused { why } = &error.reason else { panic!("{error}") };
    assert!(why.contains("422") && why.contains("ok"), "{why}");
    assert!(!error.to_string().contains("x=1"), "tokens of the address are not shown: {error}");
    let rest: Vec<_> = error.unsent.into_iter().filter(|event| event.id != "e-3#0").collect();
    relay.deliver(rest).await.unwrap();
    let taken: Vec<_> = sent.into_iter().filter(|event| event.id != "e-3#0").collect();
    assert_all_once_in_order(&receiver.state.lock().kept, &taken);

    for status in ["404 Not here", "301 Moved\r\nlocation: /other", "401 Who"] {
        let receiver = Receiver::start(move |_| refuse(status)).await;
        let error = receiver.relay(settings()).await.deliver(events("e", 1, 1)).await.unwrap_err();
        assert!(matches!(error.reason, Reason::Unusable { .. }), "{error}");
        assert_eq!(receiver.state.lock().requests.len(), 1);
    }
}

#[tokio::test]
async fn a_delivery_that_is_dropped_can_be_made_again() {
    let receiver = Receiver::start(ok).await;
    let mut relay = receiver.relay(settings()).await;
    let figures = relay.figures();
    let sent = events("e", 2000, 17);
    {
        let delivery = relay.deliver(sent.clone());
        let some = until("some are delivered", || figures.read().delivered > 200);
        tokio::select! {
            _ = delivery => {}
            () = some => {}
        }
    }
    assert_eq!(figures.read().in_flight, 0);
    let before = figures.read().delivered as usize;
    let done = relay.deliver(sent.clone()).await.unwrap();
    assert_eq!((done.events, done.duplicates), (2000, before));
    let state = receiver.state.lock();
    assert_all_once_in_order(&state.kept, &sent);
    assert!(state.requests.len() <= 2000 + 16, "only what was under way is sent twice");
}
