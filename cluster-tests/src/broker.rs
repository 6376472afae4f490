//! Real brokers: redis-server and nats-server, each with a folder and a port of its own.
//!
//! They are the programs of Debian's packages of these names. A test that needs one that is missing says so
//! and passes, except on the build server, which has both. What is in them is read by `redis-cli`, and by a
//! few lines of the NATS protocol.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// What kind of broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// redis-server, which writes to its append-only file before it answers.
    Redis,
    /// nats-server with JetStream.
    Nats,
}

/// A broker's process. It keeps its folder and port when it is started again.
#[derive(Debug)]
pub struct Broker {
    kind: Kind,
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    /// Starts one; `None`, and words on stdout, if its program is missing.
    pub fn start(kind: Kind) -> Option<Broker> {
        let program = program(match kind {
            Kind::Redis => "redis-server",
            Kind::Nats => "nats-server",
        })?;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut broker = Broker { kind, program, folder, port: free_port(), process: None };
        broker.restart();
        Some(broker)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it; it need not answer yet.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let (folder, port) = (self.folder.path(), self.port.to_string());
        let log = std::fs::File::create(folder.join("log")).expect("a log can be made");
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Redis => command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(folder)
                .args(["--appendonly", "yes", "--appendfsync", "everysec"]),
            Kind::Nats => command
                .args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"])
                .arg(folder.join("store")),
        };
        let process = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a descriptor is left"))
            .stdout(log)
            .spawn();
        self.process = Some(process.expect("the server starts"));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is our process");
            process.wait().expect("it is our process");
        }
    }

    /// Ids of the events in stream `name`, in their order; why not, while it does not answer.
    pub fn ids(&self, name: &str) -> Result<Vec<String>, String> {
        match self.kind {
            Kind::Redis => self.redis_ids(name),
            Kind::Nats => self.nats_ids(name).map_err(|error| error.to_string()),
        }
    }

    fn redis_ids(&self, name: &str) -> Result<Vec<String>, String> {
        let ran = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--raw", "XRANGE", name, "-", "+"])
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

    fn nats_ids(&self, name: &str) -> std::io::Result<Vec<String>> {
        let mut nats = Nats::connect(self.port)?;
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
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
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

/// A server program: of `PATH` or where Debian puts it. Says so if it is missing; fails on the build
/// server, where it must not be.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file: &PathBuf| Path::is_file(file));
    if found.is_none() {
        let told = format!("NOT TESTED: {name} is missing; install it: apt-get install {name}");
        assert!(std::env::var_os("CI").is_none(), "{told}");
        println!("{told}");
    }
    found
}

/// A port that was free a moment ago, below those that the system gives out: a client that tries again
/// and again while the server is away must not be given the server's port.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(61);
    loop {
        let next = offset.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (next % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
