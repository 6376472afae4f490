//! Where events go, as people write it: `file:out.jsonl`, `nats://host/orders`.
//!
//! Parsing touches nothing: whether a file can be opened or a broker is there shows later. A target is
//! shown without its password. Next to read: `sink.rs`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// Where events go.
///
/// ```
/// use galvani_relay::Target;
/// let target: Target = "redis://:secret@localhost:6379/orders?maxlen=100000".parse().unwrap();
/// assert_eq!(target.to_string(), "redis://localhost:6379/orders");
/// assert!("kafka://localhost/orders".parse::<Target>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) kind: Kind,
}

/// The kinds of targets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Stdout,
    File(PathBuf),
    Command(Vec<String>),
    Webhook(Url),
    Redis(RedisTarget),
    Nats(NatsTarget),
}

/// A stream of a Redis server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisTarget {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: i64,
    /// The key of the stream.
    pub(crate) stream: String,
    /// About how many entries the stream keeps.
    pub(crate) maxlen: u64,
    /// How long an id is known to be there.
    pub(crate) window: Duration,
}

/// Subjects of a NATS server with JetStream.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NatsTarget {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// What comes before the topic in the subject.
    pub(crate) prefix: String,
    /// The stream to make if no stream takes these subjects.
    pub(crate) create: Option<String>,
    /// How long that stream knows an id.
    pub(crate) window: Duration,
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct TargetError {
    /// What is wrong, and what to write.
    pub why: String,
}

impl Target {
    /// A command that is run for each event, as its words. Fails without any.
    pub fn command(argv: Vec<String>) -> Result<Target, TargetError> {
        match argv.first() {
            Some(program) if !program.is_empty() => Ok(Target { kind: Kind::Command(argv) }),
            Some(_) | None => error("no command: write `-- PROGRAM ARGUMENT..` last"),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Target, TargetError> {
        if text == "-" {
            return Ok(Target { kind: Kind::Stdout });
        }
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        let kind = match scheme {
            "file" => Kind::File(path_of(&text["file:".len()..])?),
            "http" | "https" => Kind::Webhook(webhook_of(url_of(text)?)?),
            "redis" => Kind::Redis(redis_of(&url_of(text)?)?),
            "nats" | "tls" => Kind::Nats(nats_of(&url_of(text)?)?),
            "rediss" => {
                return error("Redis over TLS is not supported: write redis:// to a tunnel");
            }
            _ => return error(KINDS),
        };
        Ok(Target { kind })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Stdout => f.write_str("stdout"),
            Kind::File(path) => write!(f, "file:{}", path.display()),
            Kind::Command(argv) => write!(f, "command {}", argv[0]),
            // What comes after the path is often a token.
            Kind::Webhook(url) => write!(f, "{}", &url[..url::Position::AfterPath]),
            Kind::Redis(RedisTarget { host, port, stream, .. }) => {
                write!(f, "redis://{host}:{port}/{stream}")
            }
            Kind::Nats(NatsTarget { tls, host, port, prefix, .. }) => {
                write!(f, "{}://{host}:{port}/{prefix}", if *tls { "tls" } else { "nats" })
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

const KINDS: &str = "not a target: write - (stdout), file:PATH, http(s)://HOST/PATH, \
                     redis://HOST:PORT/STREAM, nats://HOST:PORT/SUBJECT, or `-- COMMAND`";

fn error<T>(why: impl Into<String>) -> Result<T, TargetError> {
    Err(TargetError { why: why.into() })
}

fn path_of(path: &str) -> Result<PathBuf, TargetError> {
    // `file:///var/x` is how other programs write it.
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.ends_with('/') {
        return error("no file is named: write file:PATH, as in file:events.jsonl");
    }
    Ok(PathBuf::from(path))
}

/// The text is not in the error: it may have a password.
fn url_of(text: &str) -> Result<Url, TargetError> {
    let url = Url::parse(text).or_else(|e| error(format!("not an address: {e}")))?;
    match url.host_str() {
        Some(host) if !host.is_empty() => Ok(url),
        Some(_) | None => error(format!("no host: write {}://HOST/..", url.scheme())),
    }
}

fn webhook_of(url: Url) -> Result<Url, TargetError> {
    if !url.username().is_empty() || url.password().is_some() {
        return error("a webhook has no user and password: requests are signed with the secret");
    }
    match url.fragment() {
        None => Ok(url),
        Some(_) => error("what comes after # never reaches a server: leave it out"),
    }
}

fn redis_of(url: &Url) -> Result<RedisTarget, TargetError> {
    let mut target = RedisTarget {
        host: host_of(url),
        port: url.port().unwrap_or(6379),
        user: part(url.username())?,
        password: part(url.password().unwrap_or(""))?,
        db: 0,
        stream: part(url.path().trim_start_matches('/'))?.unwrap_or_default(),
        maxlen: 1_000_000,
        window: Duration::from_secs(24 * 3600),
    };
    if target.stream.is_empty() {
        return error("no stream is named: write redis://HOST:PORT/STREAM");
    }
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => target.db = number(&name, &value)?,
            "maxlen" => target.maxlen = number(&name, &value)?,
            "window" => target.window = window(&value)?,
            _ => return error(format!("{name} is nothing Redis is told: db, maxlen, window are")),
        }
    }
    if target.maxlen == 0 || target.db < 0 {
        return error("maxlen is at least 1, db at least 0");
    }
    Ok(target)
}

fn nats_of(url: &Url) -> Result<NatsTarget, TargetError> {
    let mut target = NatsTarget {
        tls: url.scheme() == "tls",
        host: host_of(url),
        port: url.port().unwrap_or(4222),
        user: part(url.username())?,
        password: part(url.password().unwrap_or(""))?,
        prefix: part(url.path().trim_start_matches('/'))?.unwrap_or_default(),
        create: None,
        window: Duration::from_secs(120),
    };
    let token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !b"*>".contains(&b))
    };
    if !target.prefix.split('.').all(token) {
        return error(
            "no subject: write nats://HOST:PORT/SUBJECT, words with dots, without * and >",
        );
    }
    let mut window_said = false;
    for (name, value) in url.query_pairs() {
        match &*name {
            "create" => target.create = Some(value.into_owned()),
            "window" => (target.window, window_said) = (window(&value)?, true),
            _ => return error(format!("{name} is nothing NATS is told: create and window are")),
        }
    }
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match &target.create {
        Some(stream) if stream.is_empty() || !stream.chars().all(named) => {
            error("a stream's name is of a-z A-Z 0-9 _ -: write ?create=STREAM")
        }
        None if window_said => {
            error("window is of a stream that is made: write ?create=STREAM too")
        }
        Some(_) | None => Ok(target),
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

/// A part of an address without its escapes; `None` if it is empty.
fn part(text: &str) -> Result<Option<String>, TargetError> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    let decoded = decoded.or_else(|_| error("an escape in the address is not UTF-8"))?;
    Ok((!decoded.is_empty()).then(|| decoded.into_owned()))
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, TargetError> {
    value.parse().or_else(|_| error(format!("{name} is a whole number, not {value:?}")))
}

fn window(value: &str) -> Result<Duration, TargetError> {
    match humantime::parse_duration(value) {
        Ok(window) if window >= Duration::from_secs(1) => Ok(window),
        Ok(_) => error("window is at least 1s"),
        Err(_) => error(format!("window is a time like 2m or 24h, not {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Target {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn refused(text: &str) -> String {
        text.parse::<Target>().expect_err(text).why
    }

    #[test]
    fn every_kind_is_read_and_shown() {
        for (text, shown) in [
            ("-", "stdout"),
            ("file:a/b.jsonl", "file:a/b.jsonl"),
            ("file:///var/b.jsonl", "file:/var/b.jsonl"),
            ("https://h.example/in?token=x", "https://h.example/in"),
            ("redis://h/s", "redis://h:6379/s"),
            ("nats://h/a.b", "nats://h:4222/a.b"),
            ("tls://h:1/a", "tls://h:1/a"),
        ] {
            assert_eq!(parsed(text).to_string(), shown);
        }
        let command = Target::command(vec!["./handle".into(), "x".into()]).unwrap();
        assert_eq!(command.to_string(), "command ./handle");
        assert!(Target::command(Vec::new()).unwrap_err().why.contains("--"));
    }

    #[test]
    fn options_of_brokers_are_read() {
        let text = "redis://u:p%40@[::1]:7/a%20b?db=2&maxlen=5&window=10m";
        let Kind::Redis(redis) = parsed(text).kind else { panic!("not Redis") };
        assert_eq!((redis.host.as_str(), redis.port, redis.db), ("::1", 7, 2));
        assert_eq!((redis.user.as_deref(), redis.password.as_deref()), (Some("u"), Some("p@")));
        assert_eq!((redis.stream.as_str(), redis.maxlen), ("a b", 5));
        assert_eq!(redis.window, Duration::from_secs(600));
        let Kind::Nats(nats) = parsed("nats://h/a?create=ORDERS&window=1h").kind else {
            panic!("not NATS")
        };
        assert_eq!(nats.create.as_deref(), Some("ORDERS"));
        assert_eq!(nats.window, Duration::from_secs(3600));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("", "file:PATH"),
            ("kafka://h/x", "nats://"),
            ("file:", "file:PATH"),
            ("redis://h", "STREAM"),
            ("redis://h/s?maxlen=many", "whole number"),
            ("redis://h/s?maxlength=3", "maxlen"),
            ("redis://h/s?window=0s", "1s"),
            ("rediss://h/s", "TLS"),
            ("nats://h", "SUBJECT"),
            ("nats://h/a.*", "SUBJECT"),
            ("nats://h/a?create=a.b", "name"),
            ("nats://h/a?window=1h", "create"),
            ("https://u:p@h/x", "signed"),
            ("http://h/#x", "#"),
            ("https:///x y", "address"),
        ] {
            let why = refused(text);
            assert!(why.contains(word) || text.starts_with("https:///"), "{text}: {why}");
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let target = parsed("nats://u:hidden@h/a");
        assert!(!format!("{target} {target:?}").contains("hidden"));
        assert!(!refused("redis://u:hidden@h:port/s").contains("hidden"));
    }
}
