//! NATS JetStream, with a real server that is killed and comes back.
//!
//! The server's store outlives a SIGKILL, and it learns the ids of its window anew from it. Without
//! nats-server these tests say so, and fail on the build server.

mod support;

use async_nats::Client;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use galvani_brokers::{Broker, Kind};
use galvani_relay::{Reason, Relay, Secret, Settings, Target};
use serde_json::{Value, json};
use support::{DEADLINE, assert_all_once_in_order, deliver_through_a_kill, events, settings};

fn server() -> Option<Broker> {
    Broker::start(Kind::Nats)
}

async fn relay(broker: &Broker, rest: &str, settings: Settings) -> Relay {
    let target: Target = format!("nats://127.0.0.1:{}/{rest}", broker.port()).parse().unwrap();
    Relay::open(target, settings).await.unwrap()
}

async fn connect(broker: &Broker) -> Client {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let client = options.connect(format!("127.0.0.1:{}", broker.port())).await.unwrap();
    let state = || client.connection_state() == async_nats::connection::State::Connected;
    support::until("the server answers", state).await;
    client
}

async fn api(client: &Client, what: &str, body: Value) -> Value {
    let subject = format!("$JS.API.{what}");
    let answer = client.request(subject, body.to_string().into());
    let answer = tokio::time::timeout(DEADLINE, answer).await.unwrap().unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// All messages of a stream, in their order: subject, headers, body.
async fn messages(client: &Client, name: &str) -> Vec<(String, String, Vec<u8>)> {
    let info = api(client, &format!("STREAM.INFO.{name}"), json!({})).await;
    let last = info["state"]["last_seq"].as_u64().unwrap();
    let decoded = |value: &Value| STANDARD.decode(value.as_str().unwrap_or("")).unwrap();
    let get = async |seq: u64| {
        let answer = api(client, &format!("STREAM.MSG.GET.{name}"), json!({ "seq": seq })).await;
        let message = &answer["message"];
        let headers = String::from_utf8(decoded(&message["hdrs"])).unwrap();
        (message["subject"].as_str().unwrap().to_owned(), headers, decoded(&message["data"]))
    };
    stream::iter(1..=last).map(get).buffered(50).collect().await
}

#[tokio::test]
async fn every_event_is_in_the_stream_once_through_kills_of_the_server() {
    let Some(mut broker) = server() else { return };
    // No try ends because of its time: what was under way must be known to be lost with the connection.
    let patient = Settings { attempt_timeout: 10 * DEADLINE, ..settings() };
    let mut relay = relay(&broker, "shop?create=SHOP&window=10m", patient).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        let some = events(&format!("r{round}"), 2000, 37);
        relay = deliver_through_a_kill(relay, &mut broker, some.clone()).await;
        sent.extend(some);
    }
    let client = connect(&broker).await;
    let all = messages(&client, "SHOP").await;
    assert!(all.iter().all(|(subject, _, _)| subject == "shop.orders"));
    let bodies: Vec<_> = all.into_iter().map(|(_, _, body)| body).collect();
    assert_all_once_in_order(&bodies, &sent);
    // Another relay, which knows nothing of the first, and makes no second stream.
    let mut other = self::relay(&broker, "shop?create=OTHER", settings()).await;
    let again = other.deliver(sent.clone()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (sent.len(), sent.len()));
    let names = api(&client, "STREAM.NAMES", json!({})).await;
    assert_eq!(names["streams"], json!(["SHOP"]));
}

#[tokio::test]
async fn a_stream_is_made_only_where_that_was_asked_for() {
    let Some(broker) = server() else { return };
    let error =
        relay(&broker, "shop", settings()).await.deliver(events("e", 2, 1)).await.unwrap_err();
    let Reason::Unusable { why } = &error.reason else { panic!("{error}") };
    assert!(why.contains("shop.orders") && why.contains("?create="), "{why}");
    let client = connect(&broker).await;
    // A stream that takes other subjects is as good as none.
    let other = json!({ "name": "OTHER", "subjects": ["shop.other"] });
    assert!(api(&client, "STREAM.CREATE.OTHER", other).await["error"].is_null());
    let error =
        relay(&broker, "shop", settings()).await.deliver(events("e", 1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("no stream takes shop.orders"), "{error}");
    api(&client, "STREAM.DELETE.OTHER", json!({})).await;
    let made =
        api(&client, "STREAM.CREATE.MINE", json!({ "name": "MINE", "subjects": ["shop.*"] }));
    assert!(made.await["error"].is_null());
    relay(&broker, "shop", settings()).await.deliver(events("e", 2, 1)).await.unwrap();
    assert_eq!(messages(&client, "MINE").await.len(), 2);
}

#[tokio::test]
async fn a_message_has_its_id_and_attributes_in_headers() {
    let Some(broker) = server() else { return };
    let mut one = events("e", 1, 1);
    one[0].attributes.push(("written-at".into(), "noon".into()));
    one[0].subject = "orders.paid".into();
    relay(&broker, "shop?create=SHOP", settings()).await.deliver(one).await.unwrap();
    let all = messages(&connect(&broker).await, "SHOP").await;
    let (subject, headers, _) = &all[0];
    assert_eq!(subject, "shop.orders.paid");
    assert!(headers.contains("Nats-Msg-Id: e-0#0\r\n"), "{headers}");
    assert!(headers.contains("Galvani-written-at: noon\r\n"), "{headers}");
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_server_is_refused_and_others_go_on() {
    let Some(broker) = server() else { return };
    let mut all = events("e", 3, 3);
    all[1].body = vec![b'1'; 2 << 20].into();
    let mut relay = relay(&broker, "shop?create=SHOP", settings()).await;
    let error = relay.deliver(all).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Refused { .. }), "{error}");
    assert_eq!(error.id, "e-1#0");
    let rest = error.unsent.into_iter().filter(|event| event.id != "e-1#0").collect();
    relay.deliver(rest).await.unwrap();
    assert_eq!(messages(&connect(&broker).await, "SHOP").await.len(), 2);
}

#[tokio::test]
async fn the_secret_is_the_token() {
    let Some(broker) = Broker::start_with(Kind::Nats, &["--auth", "opensesame"]) else { return };
    let secret = Secret::new(b"opensesame\n");
    let mut right = relay(&broker, "s?create=S", Settings { secret, ..settings() }).await;
    right.deliver(events("e", 1, 1)).await.unwrap();
    let mut few = settings();
    few.retry.tries_max = Some(2);
    let mut wrong = relay(&broker, "s", few).await;
    let error = wrong.deliver(events("e", 1, 1)).await.unwrap_err();
    assert!(matches!(error.reason, Reason::GaveUp { .. }), "{error}");
    assert!(error.to_string().to_lowercase().contains("authorization"), "{error}");
}
