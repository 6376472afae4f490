//! The floor under every request: id-matched echo over one stream, 1 KiB there and 64 B back.
//!
//! One thread per endpoint, each with its own current-thread runtime, 64 requests in flight.
//! Prints requests per second and processor time per request of both sides together.
//! Usage: `echo_floor [seconds] [in flight] [datagram bytes]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use galvani_transport::pki::ClusterCa;
use galvani_transport::{Class, Config, Event, LaneEndpoint, LinkId, MtuBound, TransportKeys};
use rustix::time::{ClockId, clock_gettime};

const REQUEST: usize = 1_024;
const REPLY: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().map_or(Ok(3), |arg| arg.parse())?;
    let in_flight = args.next().map_or(Ok(64), |arg| arg.parse())?;
    let mut config = Config::default();
    if let Some(bytes) = args.next() {
        config.mtu_upper_bound = MtuBound::new(bytes.parse()?)?;
    }
    let ca = ClusterCa::create("f100")?;
    let server_identity = ca.issue_node(&format!("{:032x}", 1), &[])?;
    let client_identity = ca.issue_node(&format!("{:032x}", 2), &[])?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (tell, told) = std::sync::mpsc::channel();
    let server_config = config.clone();
    thread::spawn(move || {
        current_thread().block_on(async move {
            let keys = TransportKeys::generate().expect("randomness");
            let server = LaneEndpoint::bind(any, &server_identity, &keys, server_config);
            let mut server = server.expect("server endpoint");
            tell.send(server.local_addr()).expect("main waits");
            serve(&mut server).await;
        });
    });
    let addr = told.recv()?;
    current_thread().block_on(async move {
        let keys = TransportKeys::generate()?;
        let mut client = LaneEndpoint::bind(any, &client_identity, &keys, config)?;
        client.dial(addr, None, 0);
        let link = wait_for_link(&mut client).await;
        measure(&mut client, link, Duration::from_millis(500), in_flight).await;
        let (busy, start) = (cpu_time(), Instant::now());
        let count = measure(&mut client, link, Duration::from_secs(seconds), in_flight).await;
        let (busy, wall) = (cpu_time() - busy, start.elapsed());
        let per_second = count as f64 / wall.as_secs_f64();
        let micros = busy.as_secs_f64() * 1e6 / count as f64;
        println!("{in_flight} in flight: {per_second:.0} rpc/s, {micros:.2} us cpu per rpc");
        println!("{:?}", client.socket_buffers());
        Ok(())
    })
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

async fn serve(server: &mut LaneEndpoint) {
    let mut events = Vec::new();
    loop {
        server.recv_batch(&mut events).await;
        for event in events.drain(..) {
            if let Event::Frame { link, class, payload, .. } = event {
                let id = &payload[..8];
                let sent = server.send(link, class, &[id, &[0; REPLY - 8]]);
                sent.expect("room for replies");
            }
        }
    }
}

/// Keeps `in_flight` requests under way for `time`, then lets them finish. Returns how many
/// replies came; every reply must name a request that was under way.
async fn measure(client: &mut LaneEndpoint, link: LinkId, time: Duration, in_flight: u64) -> u64 {
    let end = Instant::now() + time;
    let mut events = Vec::new();
    let (mut next, mut done, mut under_way) = (0_u64, 0_u64, 0_u64);
    let body = [0; REQUEST - 8];
    loop {
        let more = Instant::now() < end;
        while more && under_way < in_flight {
            let sent = client.send(link, Class::Client, &[&next.to_le_bytes(), &body]);
            sent.expect("room for requests");
            next += 1;
            under_way += 1;
        }
        if under_way == 0 {
            return done;
        }
        client.recv_batch(&mut events).await;
        for event in events.drain(..) {
            if let Event::Frame { payload, .. } = event {
                let id = u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"));
                assert_eq!(id, done, "one stream keeps order");
                done += 1;
                under_way -= 1;
            }
        }
    }
}

/// Waits for the dialed link.
async fn wait_for_link(client: &mut LaneEndpoint) -> LinkId {
    let mut events = Vec::new();
    client.recv_batch(&mut events).await;
    match events.first() {
        Some(Event::LinkUp { link, .. }) => *link,
        other => panic!("no link: {other:?}"),
    }
}

/// Processor time of all threads of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
