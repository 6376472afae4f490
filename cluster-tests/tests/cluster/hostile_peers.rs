//! Peers on the QUIC port that do not keep to the protocol: the node stays up, honest clients are
//! served, and memory stays bounded.

use bytes::BytesMut;
use galvani_client::Client;
use galvani_cluster_tests::{Cluster, raw, until};
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::version::{Dot, DotSet, Kind, RecordHead, value_hash};
use galvani_transport::pki::{ClusterCa, Identity};
use galvani_transport::{ALPN, Class, CloseCode, DEFAULT_FRAME_BYTES_MAX, Role};
use galvani_wire::{Message, encode, message};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// More than a node may grow by for anything a stranger sends it, in bytes.
const GROWTH_MAX: u64 = 64 << 20;

#[test]
fn garbage_datagrams_disturb_nobody() {
    let watched = Watched::start();
    let addr = watched.cluster.node("n1").addr;
    watched.holds(|| raw::send_garbage(addr, 30_000, 7));
}

#[test]
fn wrong_alpn_and_certificates_are_refused() {
    let watched = Watched::start();
    let cluster = &watched.cluster;
    let addr = cluster.node("n1").addr;
    let admin = Identity::load(&cluster.identity()).expect("made by dev");
    let stranger = ClusterCa::create("c0ffee").expect("randomness");
    let strange = stranger.issue_client("stranger", Role::Admin).expect("issued");
    watched.holds(|| {
        for _ in 0..20 {
            for alpn in [&b"galvani/1"[..], b"galvani/99", b"h3", b"galvani/", b"\xff"] {
                let refused = cluster.block_on(raw::connect(&admin, &admin.ca_pem, addr, alpn));
                assert!(refused.is_err(), "{alpn:?} was agreed on");
            }
            // TLS 1.3: the client is through before the server has judged its certificate.
            let half = cluster.block_on(raw::connect(&strange, &admin.ca_pem, addr, ALPN));
            if let Ok(connection) = half {
                let closed = cluster.block_on(async {
                    tokio::time::timeout(galvani_cluster_tests::wait::PATIENCE, connection.closed())
                        .await
                });
                let closed = closed.expect("a stranger is thrown out");
                assert!(closed.to_string().contains("certificate"), "{closed}");
            }
        }
    });
}

#[test]
fn nodes_and_clients_of_another_protocol_number_are_told_so() {
    let cluster = Cluster::start();
    let n3 = cluster.node("n3").addr;
    let identity = Identity::load(&cluster.home("n3").join("identity")).expect("made by dev");
    cluster.stop("n3");
    let other = cluster.block_on(async { raw::serve_as(&identity, n3, b"galvani/999") });
    let speaks = format!("this side speaks {}", galvani_transport::protocol());
    let told = |name: &str| {
        let log = std::fs::read_to_string(cluster.home(name).join("node.log")).expect("a log");
        log.lines().filter(|line| line.contains("peer_refused") && line.contains(&speaks)).count()
    };
    until("n1 and n2 to say that n3 speaks another protocol", || {
        let lines = ["n1", "n2"].map(told);
        if lines.iter().all(|lines| *lines > 0) { Ok(()) } else { Err(lines) }
    });
    let refused = cluster.run_at("n3", &["get", "k"]).expect(9).is_three_part_error();
    refused.says(&[&speaks]);
    // They go on dialing, and say it once.
    until("n1 to have dialed it for some time", || {
        let heard = other.load(Ordering::Relaxed);
        if heard > 8 { Ok(()) } else { Err(heard) }
    });
    assert_eq!(["n1", "n2"].map(told), [1, 1]);
}

#[test]
fn length_prefix_4gib_is_refused_before_anything_is_kept_for_it() {
    let watched = Watched::start();
    watched.holds(|| {
        for length in [u32::MAX, DEFAULT_FRAME_BYTES_MAX as u32 + 1, 1 << 31] {
            for _ in 0..10 {
                let closed = watched.send(Class::Client, &length.to_le_bytes());
                assert_eq!(closed, CloseCode::FRAME_TOO_LARGE);
            }
        }
    });
}

#[test]
fn slowloris_stream_frames_announced_and_never_sent_cost_nothing() {
    let watched = Watched::start();
    watched.holds(|| {
        let connections: Vec<_> = (0..50)
            .map(|_| {
                let connection = watched.connect();
                let length = (DEFAULT_FRAME_BYTES_MAX as u32).to_le_bytes();
                let stream = watched.cluster.block_on(async {
                    let (mut send, recv) = raw::open(&connection, Class::Client).await;
                    send.write_all(&length).await.expect("four bytes fit");
                    (send, recv)
                });
                (connection, stream)
            })
            .collect();
        // The other requests go on while these hang.
        watched.until_served(50);
        drop(connections);
    });
}

#[test]
fn malformed_messages_in_good_frames_are_answered_or_refused() {
    let watched = Watched::start();
    let mut good = BytesMut::new();
    encode(1, false, &Message::Describe, &mut good).expect("a small header");
    let mut payloads: Vec<Vec<u8>> = vec![Vec::new(), vec![0], vec![0xff; 100], vec![0; 14]];
    payloads.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
    payloads.extend((0..=255_u8).map(|kind| {
        let mut bent = good.to_vec();
        bent[0] = kind;
        bent.extend_from_slice(&[0xc1; 40]);
        bent
    }));
    // A header that says it is longer than all there is.
    let mut long = good.to_vec();
    long[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    payloads.push(long);
    watched.holds(|| {
        for payload in &payloads {
            let connection = watched.connect();
            watched.cluster.block_on(async {
                let (mut send, mut recv) = raw::open(&connection, Class::Client).await;
                send.write_all(&raw::frame(payload)).await.expect("a small frame fits");
                let mut answer = [0_u8; 4];
                // Answered with a failure or closed, but never left to wait.
                let ended = async {
                    tokio::select! {
                        _ = recv.read_exact(&mut answer) => {}
                        _ = connection.closed() => {}
                    }
                };
                let waited = tokio::time::timeout(galvani_cluster_tests::wait::PATIENCE, ended);
                waited.await.unwrap_or_else(|_| panic!("no answer to {payload:?}"));
            });
            connection.close(0_u32.into(), b"");
        }
    });
}

#[test]
fn a_client_that_opens_the_replication_class_is_thrown_out() {
    let watched = Watched::start();
    watched.holds(|| {
        for class in [Class::Replication, Class::Background] {
            assert_eq!(watched.send(class, b""), CloseCode::CLASS_REFUSED);
        }
    });
}

#[test]
fn client_cert_sends_replica_message_and_changes_nothing() {
    let watched = Watched::start();
    let cluster = &watched.cluster;
    let key = Key::new(BucketName::default_bucket(), "smuggled").expect("a key");
    let layout = watched.client.cluster().layout.clone();
    let shard = Shard { partition: layout.partition_of(&key), n: 3 };
    let head = RecordHead {
        dot: Dot::new(Origin(7), 1),
        key: key.clone(),
        past: DotSet::new(),
        hlc: Hlc(1),
        rid: RequestId(1),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: 1,
        value_hash: value_hash(Kind::Put, b"x"),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    };
    let replicate = message::Replicate {
        shard,
        head,
        fsync: false,
        epoch: 1,
        timeout_ms: 1000,
        value: bytes::Bytes::from_static(b"x"),
    };
    watched.holds(|| {
        for forwarded in [false, true] {
            let mut frame = BytesMut::new();
            encode(1, forwarded, &Message::Replicate(replicate.clone()), &mut frame)
                .expect("a small header");
            let connection = watched.connect();
            cluster.block_on(async {
                let (mut send, mut recv) = raw::open(&connection, Class::Client).await;
                send.write_all(&raw::frame(&frame)).await.expect("a small frame fits");
                let mut answer = [0_u8; 4];
                let ended = async {
                    tokio::select! {
                        _ = recv.read_exact(&mut answer) => {}
                        _ = connection.closed() => {}
                    }
                };
                let waited = tokio::time::timeout(galvani_cluster_tests::wait::PATIENCE, ended);
                waited.await.expect("refused, not left to wait");
            });
        }
        let explained = cluster.block_on(watched.client.explain("smuggled")).expect("all are up");
        for replica in &explained.replicas {
            assert_eq!(replica.versions.as_ref().map(Vec::len), Ok(0), "{replica:?}");
        }
    });
}

#[test]
fn handshake_flood_leaves_honest_clients_alone() {
    let watched = Watched::start();
    let cluster = &watched.cluster;
    let admin = Identity::load(&cluster.identity()).expect("made by dev");
    let addr = cluster.node("n1").addr;
    watched.holds(|| {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let admin = admin.clone();
                // Opens nothing: a stranger that proves nothing more is given up.
                let peer = async move { raw::connect(&admin, &admin.ca_pem, addr, ALPN).await };
                cluster.runtime().spawn(peer)
            })
            .collect();
        watched.until_served(50);
        for task in tasks {
            // Refused, let in, or cut off: all are right for a flood.
            let _ = cluster.block_on(task).expect("no panic");
        }
    });
}

/// A cluster with an honest client at work, whose first node is attacked.
struct Watched {
    client: Client,
    served: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    honest: JoinHandle<()>,
    cluster: Cluster,
}

impl Watched {
    fn start() -> Watched {
        let cluster = Cluster::start();
        let client = cluster.client_at("n1");
        let (served, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let work = {
            let (client, served, stop) = (client.clone(), served.clone(), stop.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = served.load(Ordering::Relaxed);
                    let key = format!("honest/{}", number % 50);
                    let read = client.get(key.clone()).r(2).await.expect("read");
                    let put = client.put(key, number.to_string()).after(&read).w(2);
                    put.send().await.expect("written");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let honest = cluster.runtime().spawn(work);
        let watched = Watched { client, served, stop, honest, cluster };
        watched.until_served(20);
        watched
    }

    /// Attacks, and checks that the node is the same process, serves, and did not grow much.
    fn holds(&self, attack: impl FnOnce()) {
        let before = self.cluster.status_of(&self.client, "n1");
        attack();
        self.until_served(50);
        let after = self.cluster.status_of(&self.client, "n1");
        assert_eq!(before.pid, after.pid, "n1 was started anew");
        let grown = after.memory_bytes.saturating_sub(before.memory_bytes);
        println!("memory {} -> {} bytes", before.memory_bytes, after.memory_bytes);
        assert!(grown <= GROWTH_MAX, "n1 grew by {grown} bytes");
        assert_eq!(after.counters.quorum_failures, before.counters.quorum_failures);
        self.stop.store(true, Ordering::Relaxed);
        until("the honest client to be done", || match self.honest.is_finished() {
            true => Ok(()),
            false => Err(self.served.load(Ordering::Relaxed)),
        });
    }

    fn until_served(&self, more: u64) {
        let target = self.served.load(Ordering::Relaxed) + more;
        until("the honest client to be served", || {
            assert!(!self.honest.is_finished(), "the honest client failed");
            match self.served.load(Ordering::Relaxed) {
                served if served >= target => Ok(()),
                served => Err(served),
            }
        });
    }

    /// A client with a good certificate that may not speak for a node.
    fn connect(&self) -> quinn::Connection {
        let admin = Identity::load(&self.cluster.identity()).expect("made by dev");
        let addr = self.cluster.node("n1").addr;
        let connected = raw::connect(&admin, &admin.ca_pem, addr, ALPN);
        self.cluster.block_on(connected).expect("a good certificate")
    }

    /// Sends `bytes` on a stream of `class`; how the node ended it.
    fn send(&self, class: Class, bytes: &[u8]) -> CloseCode {
        let connection = self.connect();
        self.cluster.block_on(async {
            let (mut send, _recv) = raw::open(&connection, class).await;
            // The node may have closed already.
            let _ = send.write_all(bytes).await;
            raw::close_code(&connection).await
        })
    }
}

#[test]
fn a_client_does_what_its_role_allows_and_no_more() {
    let cluster = Cluster::start();
    cluster.run(&["put", "k", "v", "-w", "3"]).expect(0);
    let ca = cluster.dir().join("ca").display().to_string();
    for (role, put, bucket) in [("read-only", 9, 9), ("read-write", 0, 9), ("admin", 0, 0)] {
        let out = cluster.scratch().join(role).display().to_string();
        let make = ["cluster", "client", role, "--role", role, "--ca", &ca, "--out", &out];
        cluster.run(&make).expect(0);
        cluster.run(&make).expect(5);
        let server = cluster.node("n1").addr.to_string();
        let with = |words: &[&str], exit| {
            let identity = ["--server", &server, "--identity", &out];
            cluster.run(&[words, &identity].concat()).expect(exit);
        };
        with(&["get", "k"], 0);
        with(&["put", "k", role], put);
        with(&["bucket", "create", &format!("of-{role}"), "-n", "3"], bucket);
    }
    let nowhere = cluster.scratch().join("none").display().to_string();
    let out = cluster.scratch().join("unmade").display().to_string();
    cluster
        .run(&["cluster", "client", "x", "--role", "admin", "--ca", &nowhere, "--out", &out])
        .expect(9);
}
