//! Redis Streams, with a real server that is killed and comes back.
//!
//! The server writes to its append-only file before it answers, so a SIGKILL loses nothing that it has
//! acknowledged (a power cut would). Without redis-server these tests say so, and fail on the build server.

mod support;

use galvani_brokers::{Broker, Kind};
use galvani_relay::{Reason, Relay, Secret, Settings, Target};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use std::time::Duration;
use support::{DEADLINE, assert_all_once_in_order, deliver_through_a_kill, events, settings};

fn server() -> Option<Broker> {
    Broker::start(Kind::Redis)
}

async fn relay(broker: &Broker, rest: &str, settings: Settings) -> Relay {
    let target: Target = format!("redis://127.0.0.1:{}/{rest}", broker.port()).parse().unwrap();
    Relay::open(target, settings).await.unwrap()
}

async fn connect(broker: &Broker) -> MultiplexedConnection {
    let client = redis::Client::open(("127.0.0.1", broker.port())).unwrap();
    let start = std::time::Instant::now();
    loop {
        let mut connection = match client.get_multiplexed_async_connection().await {
            Ok(connection) => connection,
            Err(e) => {
                assert!(start.elapsed() < DEADLINE, "{e}");
                // wait: for the server to listen, until the deadline above.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        if redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok() {
            return connection;
        }
    }
}

/// One field of all entries of a stream, in their order.
async fn field(connection: &mut MultiplexedConnection, stream: &str, field: &str) -> Vec<Vec<u8>> {
    let mut range = redis::cmd("XRANGE");
    let entries: StreamRangeReply =
        range.arg(stream).arg("-").arg("+").query_async(connection).await.unwrap();
    entries.ids.iter().map(|entry| entry.get(field).unwrap()).collect()
}

#[tokio::test]
async fn every_event_is_in_the_stream_once_through_kills_of_the_server() {
    let Some(mut broker) = server() else { return };
    let mut relay = relay(&broker, "orders", settings()).await;
    let mut sent = Vec::new();
    for round in 0..3 {
        let some = events(&format!("r{round}"), 4000, 37);
        relay = deliver_through_a_kill(relay, &mut broker, some.clone()).await;
        sent.extend(some);
    }
    let mut connection = connect(&broker).await;
    assert_all_once_in_order(&field(&mut connection, "orders", "body").await, &sent);
    // Another relay, which knows nothing of the first.
    let mut other = self::relay(&broker, "orders", settings()).await;
    let again = other.deliver(sent.clone()).await.unwrap();
    assert_eq!((again.events, again.duplicates), (sent.len(), sent.len()));
    assert_eq!(field(&mut connection, "orders", "id").await.len(), sent.len());
}

#[tokio::test]
async fn an_entry_says_what_it_is_about_and_the_stream_is_kept_short() {
    let Some(broker) = server() else { return };
    let mut relay = relay(&broker, "short?maxlen=10", settings()).await;
    let mut all = events("e", 1000, 1);
    all.last_mut().unwrap().attributes.push(("written-at".into(), "noon".into()));
    let last = all.last().unwrap().clone();
    relay.deliver(all).await.unwrap();
    let mut connection = connect(&broker).await;
    for (name, value) in
        [("id", last.id.as_bytes()), ("topic", b"orders"), ("key", &last.key), ("body", &last.body)]
    {
        assert_eq!(field(&mut connection, "short", name).await.last().unwrap(), value, "{name}");
    }
    // About as long as it is told: whole nodes of a hundred entries go.
    let length = field(&mut connection, "short", "id").await.len();
    assert!((10..=210).contains(&length), "{length}");
}

#[tokio::test]
async fn an_id_counts_as_known_only_once_its_entry_is_there() {
    let Some(broker) = server() else { return };
    let mut connection = connect(&broker).await;
    let set = redis::cmd("SET").arg("taken").arg("a string").query_async(&mut connection).await;
    let () = set.unwrap();
    let all = events("e", 3, 1);
    let mut relay = relay(&broker, "taken", settings()).await;
    let error = relay.deliver(all.clone()).await.unwrap_err();
    let Reason::Unusable { why } = &error.reason else { panic!("{error}") };
    assert!(why.contains("WRONGTYPE") && why.contains("name a key"), "{why}");
    assert_eq!((error.id.as_str(), error.unsent.len()), ("e-0#0", 3));
    let () = redis::cmd("DEL").arg("taken").query_async(&mut connection).await.unwrap();
    assert_eq!(relay.deliver(all.clone()).await.unwrap().duplicates, 0);
    assert_all_once_in_order(&field(&mut connection, "taken", "body").await, &all);
}

#[tokio::test]
async fn a_server_with_a_password_wants_the_right_one() {
    let Some(broker) = server() else { return };
    let mut connection = connect(&broker).await;
    let mut set = redis::cmd("CONFIG");
    let () =
        set.arg(&["SET", "requirepass", "opensesame"]).query_async(&mut connection).await.unwrap();
    for (secret, right) in [(None, false), (Some("wrong"), false), (Some("opensesame\n"), true)] {
        let secret = secret.and_then(|text| Secret::new(text.as_bytes()));
        let mut relay = relay(&broker, "s", Settings { secret, ..settings() }).await;
        match relay.deliver(events("e", 1, 1)).await {
            Ok(_) => assert!(right),
            Err(e) => {
                assert!(!right && matches!(e.reason, Reason::Unusable { .. }), "{e}");
                assert!(!e.to_string().contains("opensesame"));
            }
        }
    }
}
