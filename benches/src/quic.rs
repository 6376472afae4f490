//! The floor under requests: the QUIC library in the shape that Galvani uses, and nothing else.
//!
//! One long-lived stream per connection, messages framed and matched by id, all replies to what one
//! read brought written at once, one thread with a current-thread runtime per endpoint. An *echo*
//! answers each request; a *relay* asks two echoes and answers when one of them has, which is what
//! a replicated put or get costs on the network. Nothing is stored, decoded or decided.

use crate::measure::{Cost, Stopwatch};
use bytes::{Buf, Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use quinn::{TransportConfig, VarInt};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};

/// Bytes of the bodies of one kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of the request, from the client and on to the replicas.
    pub request: usize,
    /// Of a replica's answer.
    pub ack: usize,
    /// Of the answer to the client.
    pub reply: usize,
}

/// A put: the value goes everywhere, small answers come back.
pub const PUT: Shape = Shape { request: 1_024, ack: 64, reply: 64 };
/// A get: small questions, versions from the replicas, the value to the client.
pub const GET: Shape = Shape { request: 64, ack: 64, reply: 1_024 };

/// A chain of endpoints on threads of their own, and a client's end of it.
#[derive(Debug)]
pub struct Floor {
    runtime: Runtime,
    pipe: Option<Pipe>,
    shape: Shape,
    next_id: u64,
    threads: Vec<JoinHandle<()>>,
}

impl Floor {
    /// A client and one endpoint that answers.
    pub fn echo(shape: Shape) -> Floor {
        let (addr, thread) = spawn(move |client| run_echo(client, shape.reply));
        Floor::connect(addr, shape, vec![thread])
    }

    /// A client, a coordinator and two replicas; the coordinator answers when one of the two has.
    pub fn relay(shape: Shape) -> Floor {
        let (one, first) = spawn(move |client| run_echo(client, shape.ack));
        let (two, second) = spawn(move |client| run_echo(client, shape.ack));
        let (addr, third) = spawn(move |client| run_relay(client, [one, two], shape));
        Floor::connect(addr, shape, vec![third, first, second])
    }

    fn connect(addr: SocketAddr, shape: Shape, threads: Vec<JoinHandle<()>>) -> Floor {
        let runtime = current_thread();
        let pipe = Some(runtime.block_on(dial(addr)));
        Floor { runtime, pipe, shape, next_id: 0, threads }
    }

    /// Keeps `in_flight` requests under way for `time`, then waits for the last answers.
    pub fn measure(&mut self, in_flight: usize, time: Duration) -> Cost {
        let watch = Stopwatch::start();
        let end = Instant::now() + time;
        let mut latencies = self.drive(in_flight, |_| Instant::now() < end);
        watch.stop_with(&mut latencies)
    }

    /// Makes `count` requests, `in_flight` of them under way at once.
    pub fn run(&mut self, in_flight: usize, count: usize) {
        self.drive(in_flight, |sent| sent < count);
    }

    fn drive(&mut self, in_flight: usize, mut more: impl FnMut(usize) -> bool) -> Vec<u64> {
        let Floor { runtime, pipe, shape, next_id, .. } = self;
        let first = *next_id;
        let pipe = pipe.as_mut().expect("taken only by drop");
        let body = vec![b'x'; shape.request];
        let (mut sent, mut began, mut latencies) = (Vec::new(), 0, Vec::new());
        runtime.block_on(async {
            loop {
                while began - latencies.len() < in_flight && more(began) {
                    sent.push(Instant::now());
                    pipe.queue(*next_id, &body);
                    *next_id += 1;
                    began += 1;
                }
                if began == latencies.len() {
                    return latencies;
                }
                pipe.flush().await;
                assert!(pipe.read().await, "the other end answers while it is asked");
                while let Some((id, reply)) = pipe.take() {
                    assert_eq!(reply.len(), shape.reply, "the answer to request {id}");
                    latencies.push(sent[(id - first) as usize].elapsed().as_nanos() as u64);
                }
            }
        })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The end of one connection ends the thread behind it, and so on down the chain.
        if let Some(pipe) = self.pipe.take() {
            self.runtime.block_on(pipe.close());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One stream of one connection, with what was read and what is to be written.
#[derive(Debug)]
struct Pipe {
    connection: Connection,
    endpoint: Endpoint,
    send: SendStream,
    recv: RecvStream,
    input: BytesMut,
    output: Vec<u8>,
}

impl Pipe {
    fn new(endpoint: Endpoint, connection: Connection, stream: (SendStream, RecvStream)) -> Pipe {
        let (send, recv) = stream;
        let (input, output) = (BytesMut::new(), Vec::new());
        Pipe { connection, endpoint, send, recv, input, output }
    }

    /// Adds a frame to what is written next: length, id, body.
    fn queue(&mut self, id: u64, body: &[u8]) {
        self.output.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.output.extend_from_slice(&id.to_le_bytes());
        self.output.extend_from_slice(body);
    }

    async fn flush(&mut self) {
        if !self.output.is_empty() {
            // An error means that the other end is gone; the next read says so.
            let _ = self.send.write_all(&self.output).await;
            self.output.clear();
        }
    }

    /// Reads what has come. False at the end. May be dropped while it waits: nothing is lost.
    async fn read(&mut self) -> bool {
        self.input.reserve(READ_BYTES);
        matches!(self.recv.read_buf(&mut self.input).await, Ok(read) if read > 0)
    }

    /// Ends the connection and waits until the other end was told.
    async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        self.endpoint.wait_idle().await;
    }

    /// The next whole frame of what was read.
    fn take(&mut self) -> Option<(u64, Bytes)> {
        let head = self.input.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if self.input.len() < HEAD_BYTES + length {
            return None;
        }
        self.input.advance(4);
        let id = self.input.get_u64_le();
        Some((id, self.input.split_to(length).freeze()))
    }
}

async fn run_echo(mut client: Pipe, reply: usize) {
    let body = vec![b'y'; reply];
    while client.read().await {
        while let Some((id, _)) = client.take() {
            client.queue(id, &body);
        }
        client.flush().await;
    }
    client.close().await;
}

async fn run_relay(mut client: Pipe, replicas: [SocketAddr; 2], shape: Shape) {
    let (mut one, mut two) = (dial(replicas[0]).await, dial(replicas[1]).await);
    let body = vec![b'y'; shape.reply];
    let mut answered = BTreeSet::new();
    loop {
        let alive = tokio::select! {
            alive = client.read() => alive,
            alive = one.read() => alive,
            alive = two.read() => alive,
        };
        if !alive {
            break;
        }
        while let Some((id, request)) = client.take() {
            one.queue(id, &request);
            two.queue(id, &request);
        }
        for replica in [&mut one, &mut two] {
            while let Some((id, _)) = replica.take() {
                // The first of the two answers is enough; the second one is expected, too.
                if !answered.remove(&id) {
                    answered.insert(id);
                    client.queue(id, &body);
                }
            }
        }
        one.flush().await;
        two.flush().await;
        client.flush().await;
    }
    for pipe in [one, two, client] {
        pipe.close().await;
    }
}

/// Starts an endpoint on a thread of its own that accepts one connection and serves it with `body`.
fn spawn<F, Served>(body: F) -> (SocketAddr, JoinHandle<()>)
where
    F: FnOnce(Pipe) -> Served + Send + 'static,
    Served: Future<Output = ()>,
{
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        current_thread().block_on(async move {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let endpoint = Endpoint::server(server_config(), any).expect("a free port");
            tell.send(endpoint.local_addr().expect("a bound socket")).expect("it waits");
            let incoming = endpoint.accept().await.expect("an endpoint that is open");
            let connection = incoming.await.expect("a handshake");
            let stream = connection.accept_bi().await.expect("one stream");
            body(Pipe::new(endpoint, connection, stream)).await;
        });
    });
    (told.recv().expect("a bound endpoint"), thread)
}

async fn dial(addr: SocketAddr) -> Pipe {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = Endpoint::client(any).expect("a free port");
    let connecting = endpoint.connect_with(client_config(), addr, "floor").expect("valid settings");
    let connection = connecting.await.expect("a handshake");
    let stream = connection.open_bi().await.expect("one stream");
    Pipe::new(endpoint, connection, stream)
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Windows as in `galvani-transport/src/config.rs`; the datagram size is the library's default
/// there and here: 1,452 bytes at most.
fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(5 << 20))
        .send_window(4 << 20)
        .keep_alive_interval(Some(Duration::from_secs(1)));
    Arc::new(transport)
}

/// One key pair for all endpoints of this process.
fn certificate() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
    static MADE: std::sync::OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> =
        std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        rcgen::generate_simple_self_signed(vec!["floor".to_owned()]).expect("a certificate")
    })
}

fn server_config() -> ServerConfig {
    let made = certificate();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a private key");
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key that fits its certificate");
    let quic = QuicServerConfig::try_from(tls).expect("a cipher for QUIC");
    let mut server = ServerConfig::with_crypto(Arc::new(quic));
    server.transport_config(transport());
    server
}

fn client_config() -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate().cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let quic = QuicClientConfig::try_from(tls).expect("a cipher for QUIC");
    let mut client = ClientConfig::new(Arc::new(quic));
    client.transport_config(transport());
    client
}

/// Length and id.
const HEAD_BYTES: usize = 12;
/// Room for one read.
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::{Floor, GET, PUT};

    #[test]
    fn every_request_is_answered_and_the_threads_end() {
        for shape in [PUT, GET] {
            for mut floor in [Floor::echo(shape), Floor::relay(shape)] {
                floor.run(1, 10);
                let latencies = floor.drive(64, |sent| sent < 500);
                assert_eq!(latencies.len(), 500);
                // Joins all threads.
                drop(floor);
            }
        }
    }
}
