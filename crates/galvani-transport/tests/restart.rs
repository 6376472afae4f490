//! A node that crashes and comes back on its port: its peers must notice at once.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{ANY_PORT, PATIENCE, bind, expect_down, expect_up, new_ca, node};
use galvani_transport::pki::Identity;
use galvani_transport::{Class, Config, DownReason, Event, LaneEndpoint, SendError, TransportKeys};
use tokio::runtime::{Builder, Runtime};

/// One life of a node: an endpoint on a runtime of its own. Dropping the runtime is a crash: no
/// closing packet leaves, and the socket is free again.
struct Life {
    runtime: Runtime,
    addr: SocketAddr,
}

impl Life {
    fn begin(addr: SocketAddr, identity: Identity, keys: TransportKeys) -> Life {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let (tell, told) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let endpoint = LaneEndpoint::bind(addr, &identity, &keys, Config::default());
            let mut endpoint = endpoint.expect("endpoint");
            tell.send(endpoint.local_addr()).expect("test waits");
            let mut events = Vec::new();
            while endpoint.recv_batch(&mut events).await > 0 {
                events.clear();
            }
        });
        let addr = told.recv_timeout(PATIENCE).expect("bound");
        Life { runtime, addr }
    }

    fn crash(self) -> SocketAddr {
        self.runtime.shutdown_timeout(PATIENCE);
        self.addr
    }
}

/// How long a peer that keeps sending takes to notice the restart, and what it sees.
fn notice(
    keys_of_second_life: impl FnOnce(&TransportKeys) -> TransportKeys,
) -> (Duration, DownReason) {
    let ca = new_ca();
    let keys = TransportKeys::generate().expect("keys");
    let identity = node(&ca, 1);
    let first = Life::begin(ANY_PORT, identity.clone(), keys.clone());
    let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
    let (elapsed, reason, second) = runtime.block_on(async {
        let config = Config {
            idle_timeout: Duration::from_secs(4),
            keep_alive: Duration::from_secs(1),
            ..Config::default()
        };
        let mut peer = bind(&node(&ca, 2), config);
        peer.dial(first.addr, None, 0);
        let (link, _) = expect_up(&mut peer).await;
        let addr = tokio::task::spawn_blocking(move || first.crash()).await.expect("crashed");
        let second = Life::begin(addr, identity, keys_of_second_life(&keys));
        let restarted = Instant::now();
        let ticker = peer.transport();
        let beat = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                if ticker.send(link, Class::Replication, &[b"beat"]) == Err(SendError::Closed) {
                    std::future::pending::<()>().await;
                }
            }
        };
        let reason = tokio::select! {
            (_, reason) = expect_down(&mut peer) => reason,
            () = beat => unreachable!("beats until the link is down"),
        };
        let elapsed = restarted.elapsed();
        // Where the reset was noticed the address serves again at once.
        if reason == DownReason::Reset {
            peer.dial(addr, None, 0);
            let up = common::one(&mut peer).await;
            assert!(matches!(up, Event::LinkUp { .. }), "{up:?}");
        }
        // Handed out, because a runtime may not be dropped inside another.
        (elapsed, reason, second)
    });
    second.crash();
    (elapsed, reason)
}

/// With `TransportKeys::generate()` in place of the kept keys this is red: the new process cannot
/// make a reset its peer believes, and the peer waits for its idle timeout. The test below proves
/// it.
#[test]
fn a_restart_with_kept_keys_is_noticed_at_once() {
    let (elapsed, reason) = notice(TransportKeys::clone);
    assert_eq!(reason, DownReason::Reset);
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

#[test]
fn a_restart_with_new_keys_is_only_noticed_by_silence() {
    let (elapsed, reason) = notice(|_| TransportKeys::generate().expect("keys"));
    assert_eq!(reason, DownReason::IdleTimeout);
    assert!(elapsed > Duration::from_secs(2), "{elapsed:?}");
}
