//! A stream of a Redis server.
//!
//! A script looks the id up, adds the entry and remembers the id, in this order and atomically: if it ends
//! half way, the worst is a duplicate, never an id that is known and an entry that is not there. Events
//! of different keys share one connection.

use crate::outgoing::Outgoing;
use crate::settings::Settings;
use crate::sink::{Failure, Sent, Sink};
use crate::target::RedisTarget;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, Script,
};
use tokio::sync::Mutex;

/// A stream.
pub(crate) struct RedisSink {
    client: Client,
    config: AsyncConnectionConfig,
    script: Script,
    target: RedisTarget,
    link: Mutex<Link>,
}

/// The connection, and how many there were, so that a failure of an earlier one does not close it.
#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    number: u64,
}

impl RedisSink {
    pub(crate) fn new(target: RedisTarget, settings: &Settings) -> Result<RedisSink, String> {
        let mut login = RedisConnectionInfo::default().set_db(target.db);
        if let Some(user) = &target.user {
            login = login.set_username(user);
        }
        let secret = match &settings.secret {
            Some(secret) => Some(secret.text().ok_or("the secret is not UTF-8")?),
            None => None,
        };
        if let Some(password) = target.password.as_deref().or(secret) {
            login = login.set_password(password);
        }
        let info = ConnectionAddr::Tcp(target.host.clone(), target.port)
            .into_connection_info()
            .map_err(|e| e.to_string())?
            .set_redis_settings(login);
        let client = Client::open(info).map_err(|e| e.to_string())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.attempt_timeout))
            .set_response_timeout(Some(settings.attempt_timeout));
        let script = Script::new(SCRIPT);
        Ok(RedisSink { client, config, script, target, link: Mutex::default() })
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), RedisError> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((connection.clone(), link.number));
        }
        let connect = self.client.get_multiplexed_async_connection_with_config(&self.config);
        let connection = connect.await?;
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((connection, link.number))
    }

    async fn close(&self, number: u64) {
        let mut link = self.link.lock().await;
        if link.number == number {
            link.connection = None;
        }
    }

    async fn add(
        &self,
        event: &Outgoing,
        connection: &mut MultiplexedConnection,
    ) -> Result<i64, RedisError> {
        let stream = &self.target.stream;
        let mut call = self.script.key(stream);
        call.key(seen_key(stream, &event.id))
            .arg(self.target.window.as_millis() as u64)
            .arg(self.target.maxlen)
            .arg(&[("id", event.id.as_bytes()), ("topic", event.subject.as_bytes())])
            .arg(&[("key", &event.key[..]), ("body", &event.body[..])]);
        for (name, value) in &event.attributes {
            call.arg(name).arg(value);
        }
        call.invoke_async(connection).await
    }
}

impl Sink for RedisSink {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        let (mut connection, number) = match self.connection().await {
            Ok(connected) => connected,
            Err(e) => return Sent::failed(failure_of(&e)),
        };
        match self.add(&events[0], &mut connection).await {
            Ok(added) => Sent::one(added == 0),
            Err(e) => {
                if e.is_unrecoverable_error() || e.is_io_error() {
                    self.close(number).await;
                }
                Sent::failed(failure_of(&e))
            }
        }
    }

    /// The connection watches the time: it has to be given up with the try.
    fn timed(&self) -> bool {
        false
    }
}

/// The key that remembers an id. In a cluster it must be where the stream is: the braces see to that.
fn seen_key(stream: &str, id: &str) -> String {
    match stream.contains('{') {
        true => format!("{stream}:seen:{id}"),
        false => format!("{{{stream}}}:seen:{id}"),
    }
}

fn failure_of(error: &RedisError) -> Failure {
    let why = error.to_string();
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Failure::Unusable { why };
    }
    let Some(code) = error.code() else {
        return Failure::Down { why, pause: None };
    };
    // Servers before 7 put the code of a failure inside a script into the text.
    let named = |passing: &str| code == passing || (code == "ERR" && why.contains(passing));
    if PASSING.into_iter().any(named) {
        return Failure::down(why);
    }
    match code {
        "WRONGTYPE" => Failure::unusable(format!("{why}; name a key that is free or a stream")),
        "MOVED" | "ASK" => {
            Failure::unusable(format!("{why}; name the node of the cluster that has the stream"))
        }
        _ => Failure::Unusable { why },
    }
}

/// What a server says that starts, is full or busy, or has another server to wait for.
const PASSING: [&str; 12] = [
    "LOADING",
    "MASTERDOWN",
    "BUSY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "NOSCRIPT",
    "UNKILLABLE",
    "max number of clients reached",
];

/// Returns 1 if the entry was added, 0 if its id was known.
const SCRIPT: &str = "
if redis.call('EXISTS', KEYS[2]) == 1 then
    return 0
end
local entry = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, 3))
redis.call('SET', KEYS[2], entry, 'PX', ARGV[1])
return 1
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_where_the_stream_is() {
        assert_eq!(seen_key("orders", "1"), "{orders}:seen:1");
        assert_eq!(seen_key("{a}orders", "1"), "{a}orders:seen:1");
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let of = |code: &str, text: &str| {
            failure_of(&redis::make_extension_error(code.into(), Some(text.into())))
        };
        for (code, text) in [
            ("LOADING", "Redis is loading the dataset in memory"),
            ("OOM", "command not allowed when used memory > 'maxmemory'"),
            ("ERR", "Error running script: @user_script:5: OOM command not allowed"),
            ("ERR", "max number of clients reached"),
        ] {
            assert!(matches!(of(code, text), Failure::Down { .. }), "{code} {text}");
        }
        for (code, text) in [
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value"),
            ("NOAUTH", "Authentication required."),
            ("MOVED", "3999 127.0.0.1:6381"),
            ("ERR", "unknown command 'EVALSHA'"),
        ] {
            assert!(matches!(of(code, text), Failure::Unusable { .. }), "{code} {text}");
        }
    }
}
