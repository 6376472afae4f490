//! The same echo as in `quic.rs` over Galvani's own transport: endpoints, classes, outboxes,
//! inboxes. What it costs more than the floor is what the transport adds to the QUIC library.
//! Nothing is decoded here. Next to read: `galvani-transport/src/endpoint.rs`.

use crate::measure::{Cost, Stopwatch};
use crate::quic::Shape;
use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{Class, Config, Event, LaneEndpoint, LinkId, TransportKeys};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// A client's endpoint, and one that answers on a thread of its own.
pub struct Echo {
    runtime: Runtime,
    client: Option<LaneEndpoint>,
    link: LinkId,
    shape: Shape,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts both and links them.
    pub fn start(shape: Shape) -> Echo {
        let ca = ClusterCa::create("f100").expect("a root");
        let issue = |id: u128| ca.issue_node(&format!("{id:032x}"), &[]).expect("an identity");
        let (server, client) = (issue(1), issue(2));
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            current_thread().block_on(async move {
                let server = bind(&server);
                tell.send(server.local_addr()).expect("it waits");
                serve(server, shape.reply).await;
            });
        });
        let addr = told.recv().expect("a bound endpoint");
        let runtime = current_thread();
        let (client, link) = runtime.block_on(async {
            let mut client = bind(&client);
            client.dial(addr, None, 0);
            let mut events = Vec::new();
            client.recv_batch(&mut events).await;
            match events.first() {
                Some(Event::LinkUp { link, .. }) => (client, *link),
                other => panic!("no link: {other:?}"),
            }
        });
        Echo { runtime, client: Some(client), link, shape, thread: Some(thread) }
    }

    /// Keeps `in_flight` requests under way for `time`, then waits for the last answers.
    pub fn measure(&mut self, in_flight: usize, time: Duration) -> Cost {
        let watch = Stopwatch::start();
        let end = Instant::now() + time;
        let mut latencies = self.drive(in_flight, |_| Instant::now() < end);
        watch.stop_with(&mut latencies)
    }

    fn drive(&mut self, in_flight: usize, mut more: impl FnMut(usize) -> bool) -> Vec<u64> {
        let Echo { runtime, client, link, shape, .. } = self;
        let client = client.as_mut().expect("taken only by drop");
        let body = vec![b'x'; shape.request - 8];
        let (mut sent, mut events, mut latencies) = (Vec::<Instant>::new(), Vec::new(), Vec::new());
        runtime.block_on(async {
            loop {
                while sent.len() - latencies.len() < in_flight && more(sent.len()) {
                    let id = (sent.len() as u64).to_le_bytes();
                    sent.push(Instant::now());
                    client.send(*link, Class::Client, &[&id, &body]).expect("room");
                }
                if sent.len() == latencies.len() {
                    return latencies;
                }
                client.recv_batch(&mut events).await;
                for event in events.drain(..) {
                    let Event::Frame { payload, .. } = event else { panic!("no frame: {event:?}") };
                    let id = payload.first_chunk().map(|id| u64::from_le_bytes(*id));
                    let at = id.expect("an id of 8 bytes") as usize;
                    latencies.push(sent[at].elapsed().as_nanos() as u64);
                }
            }
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let client = self.client.take();
        self.runtime.block_on(async {
            if let Some(mut client) = client {
                client.shutdown(Duration::from_secs(1)).await;
            }
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers until the link is down.
async fn serve(mut server: LaneEndpoint, reply: usize) {
    let (mut events, body) = (Vec::new(), vec![0; reply - 8]);
    loop {
        server.recv_batch(&mut events).await;
        for event in events.drain(..) {
            match event {
                Event::Frame { link, class, payload, .. } => {
                    server.send(link, class, &[&payload[..8], &body]).expect("room for replies");
                }
                Event::LinkDown { .. } => return,
                _ => {}
            }
        }
    }
}

fn bind(identity: &Identity) -> LaneEndpoint {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let keys = TransportKeys::generate().expect("randomness");
    LaneEndpoint::bind(any, identity, &keys, Config::default()).expect("an endpoint")
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[cfg(test)]
mod tests {
    use super::Echo;
    use crate::quic::{GET, PUT};

    #[test]
    fn every_request_is_answered_and_the_thread_ends() {
        for shape in [PUT, GET] {
            let mut echo = Echo::start(shape);
            assert_eq!(echo.drive(64, |sent| sent < 500).len(), 500);
        }
    }
}
