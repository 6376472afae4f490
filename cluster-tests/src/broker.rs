//! What is in a broker: the ids of the events that a relay has brought there.
//!
//! The brokers themselves are in `cluster-tests/brokers`. Redis is read by `redis-cli`, and NATS by a few
//! lines of its protocol, so that nothing of what is tested takes part in it.

use galvani_brokers::{Broker, Kind};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// Ids of the events in stream `name`, in their order; why not, while it does not answer.
pub fn ids(broker: &Broker, name: &str) -> Result<Vec<String>, String> {
    match broker.kind() {
        Kind::Redis => redis_ids(broker.port(), name),
        Kind::Nats => nats_ids(broker.port(), name).map_err(|error| error.to_string()),
    }
}

fn redis_ids(port: u16, name: &str) -> Result<Vec<String>, String> {
    let ran = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "--raw", "XRANGE", name, "-", "+"])
        .output()
        .map_err(|error| format!("redis-cli: {error}"))?;
    let text = String::from_utf8_lossy(&ran.stdout);
    if !ran.status.success() {
        return Err(format!("{text}{}", String::from_utf8_lossy(&ran.stderr)));
    }
    // An entry is its name and then fields and values, each on a line; `id` is the first field.
    let lines: Vec<&str> = text.lines().collect();
    let ids = lines.windows(3).filter(|it| it[1] == "id" && it[0].contains('-'));
    Ok(ids.map(|it| it[2].to_owned()).collect())
}

fn nats_ids(port: u16, name: &str) -> std::io::Result<Vec<String>> {
    let mut nats = Nats::connect(port)?;
    let info = nats.ask(&format!("$JS.API.STREAM.INFO.{name}"), &json!({}))?;
    // Nothing has made the stream yet, where the answer is an error.
    let last = info["state"]["last_seq"].as_u64().unwrap_or(0);
    let get = |seq: u64| {
        let message =
            nats.ask(&format!("$JS.API.STREAM.MSG.GET.{name}"), &json!({ "seq": seq }))?;
        // The body is the event; its id is the message's.
        let body = base64(message["message"]["data"].as_str().unwrap_or_default());
        let event: Value = serde_json::from_slice(&body)?;
        Ok(event["id"].as_str().unwrap_or_default().to_owned())
    };
    (1..=last).map(get).collect()
}

/// A connection that asks one thing after the other.
struct Nats {
    reader: BufReader<TcpStream>,
}

impl Nats {
    fn connect(port: u16) -> std::io::Result<Nats> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut nats = Nats { reader: BufReader::new(stream) };
        nats.send("CONNECT {\"verbose\":false}\r\nSUB answers 1\r\n")?;
        Ok(nats)
    }

    fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.reader.get_mut().write_all(text.as_bytes())
    }

    fn ask(&mut self, subject: &str, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        self.send(&format!("PUB {subject} answers {}\r\n{body}\r\n", body.len()))?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["PING"] => self.send("PONG\r\n")?,
                ["MSG", .., size] => {
                    let size: usize = size.parse().map_err(std::io::Error::other)?;
                    let mut bytes = vec![0; size + 2];
                    self.reader.read_exact(&mut bytes)?;
                    return Ok(serde_json::from_slice(&bytes[..size])?);
                }
                _ => {}
            }
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|known| *known == letter) else { break };
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
