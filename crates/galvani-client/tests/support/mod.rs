//! A cluster of scripted nodes: real links and messages, made-up answers.
//!
//! Each node is an endpoint that describes the cluster truthfully and leaves every other request to
//! the test's script, which sees the request's number and decides. Everything asked is recorded.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use galvani_client::{Builder, Client, Identity};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{ClusterId, NodeId, Origin};
use galvani_model::placement::{Layout, Member, WEIGHT_NORMAL};
use galvani_model::version::{Dot, Kind};
use galvani_transport::pki::ClusterCa;
use galvani_transport::{Class, CloseCode, Config, Event, LaneEndpoint, Role, TransportKeys};
use galvani_wire::message::{Failed, GetDone, PutDone, Sibling};
use galvani_wire::{Answer, AppliedOutcome, ClusterView, Failure, Frame, Message, Outcome, encode};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What a node does with a request.
pub enum Action {
    Reply(Message),
    /// Replies after this long.
    Late(Duration, Message),
    Silent,
    Hangup,
}

/// One request as a node got it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Index of the node.
    pub node: usize,
    /// Its number among all requests to all nodes, from 0.
    pub number: usize,
    pub message: Message,
}

#[derive(Default)]
pub struct Deaf {
    pub node: Option<usize>,
    pub sent: Vec<Message>,
}

type Script = dyn Fn(&Asked) -> Action + Send + Sync;

pub struct Cluster {
    pub ca: ClusterCa,
    pub view: ClusterView,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// The node that answers nothing at all, as if it were stopped, and what it was sent.
    pub deaf: Arc<Mutex<Deaf>>,
    tasks: Vec<Option<JoinHandle<()>>>,
}

impl Cluster {
    /// `nodes` nodes n1, n2, ... in zones z1, z2, ...; three copies, or fewer with fewer nodes.
    pub async fn start(
        nodes: usize,
        script: impl Fn(&Asked) -> Action + Send + Sync + 'static,
    ) -> Cluster {
        let ca = ClusterCa::create("c0ffee").expect("made");
        let mut endpoints = Vec::new();
        let mut members = Vec::new();
        for index in 0..nodes {
            let id = node_id(index);
            let identity = ca.issue_node(&id.to_string(), &[]).expect("issued");
            let keys = TransportKeys::generate().expect("randomness");
            let addr = SocketAddr::from(([127, 0, 0, 1], 0));
            let endpoint =
                LaneEndpoint::bind(addr, &identity, &keys, Config::loopback()).expect("bound");
            let lanes = vec![endpoint.local_addr()];
            let (name, zone) = (format!("n{}", index + 1), format!("z{}", index + 1));
            members.push(Member::new(id, name, zone, WEIGHT_NORMAL, lanes).expect("valid"));
            endpoints.push(endpoint);
        }
        let cluster = ClusterId(7);
        let copies = nodes.min(3) as u8;
        let layout = Layout::compute(cluster, 1, 16, copies, members).expect("a layout");
        let buckets = [(BucketName::default_bucket(), BucketProps::with_copies(copies))];
        let view = ClusterView {
            cluster,
            name: "fake".to_owned(),
            node: node_id(0),
            layout: layout.into(),
            epoch: 1,
            change: None,
            buckets: buckets.into(),
        };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let deaf = Arc::<Mutex<Deaf>>::default();
        let script: Arc<Script> = Arc::new(script);
        let tasks = endpoints.into_iter().enumerate().map(|(node, endpoint)| {
            let node = Node {
                node,
                endpoint,
                view: view.clone(),
                asked: asked.clone(),
                deaf: deaf.clone(),
                script: script.clone(),
            };
            Some(tokio::spawn(node.run()))
        });
        Cluster { tasks: tasks.collect(), ca, view, asked, deaf }
    }

    /// Ends a node without a word to anyone but its peers' transports.
    pub async fn stop(&mut self, node: usize) {
        if let Some(task) = self.tasks[node].take() {
            task.abort();
            let _ = task.await;
        }
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        self.view.layout.member(node_id(node)).expect("a member").lanes()[0]
    }

    pub fn identity(&self) -> Identity {
        self.ca.issue_client("test", Role::Admin).expect("issued")
    }

    /// A builder with the last node as the seed.
    pub fn builder(&self) -> Builder {
        let seed = format!("galvani://{}", self.address(self.view.layout.members().len() - 1));
        Client::builder().seed(seed).identity(self.identity())
    }

    pub async fn client(&self) -> Client {
        self.builder().connect().await.expect("connected")
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// The index of the first owner of a key of bucket `default`.
    pub fn first_owner(&self, key: &'static str) -> usize {
        let key = galvani_model::key::Key::new(BucketName::default_bucket(), key).expect("a key");
        let shard = self.view.layout.shard_of(&key, self.view.layout.n());
        let owner = self.view.layout.first_owner(shard).expect("an owner");
        owner.0 as usize - 1
    }
}

struct Node {
    node: usize,
    endpoint: LaneEndpoint,
    view: ClusterView,
    asked: Arc<Mutex<Vec<Asked>>>,
    deaf: Arc<Mutex<Deaf>>,
    script: Arc<Script>,
}

impl Node {
    async fn run(mut self) {
        let mut events = Vec::new();
        while self.endpoint.recv_batch(&mut events).await > 0 {
            for event in events.drain(..) {
                let Event::Frame { link, payload, .. } = event else { continue };
                let frame = Frame::decode(payload).expect("a client sends whole messages");
                match self.act(frame.message) {
                    Action::Reply(reply) => {
                        let write = |out: &mut _| {
                            encode(frame.id, false, &reply, out).expect("a small header")
                        };
                        // A client that went away needs no answer.
                        let _ = self.endpoint.send_with(link, Class::Client, write);
                    }
                    Action::Late(after, reply) => {
                        let transport = self.endpoint.transport();
                        tokio::spawn(async move {
                            // wait: the scripted delay itself is what the test is about
                            tokio::time::sleep(after).await;
                            let write = |out: &mut _| {
                                encode(frame.id, false, &reply, out).expect("a small header")
                            };
                            let _ = transport.send_with(link, Class::Client, write);
                        });
                    }
                    Action::Silent => {}
                    Action::Hangup => self.endpoint.close(link, CloseCode::NORMAL, "hangup"),
                }
            }
        }
    }

    fn act(&self, message: Message) -> Action {
        let mut deaf = self.deaf.lock();
        if deaf.node == Some(self.node) {
            deaf.sent.push(message);
            return Action::Silent;
        }
        drop(deaf);
        if message == Message::Describe {
            let node = node_id(self.node);
            let view = ClusterView { node, ..self.view.clone() };
            return Action::Reply(Message::Described(Box::new(view)));
        }
        let mut asked = self.asked.lock();
        let one = Asked { node: self.node, number: asked.len(), message };
        asked.push(one.clone());
        drop(asked);
        (self.script)(&one)
    }
}

pub fn node_id(index: usize) -> NodeId {
    NodeId(index as u128 + 1)
}

pub fn answer(node: usize, outcome: Outcome) -> Answer {
    Answer { node: node_id(node), stands_in_for: None, outcome, micros: 300 }
}

/// A write stored by the first two nodes.
pub fn stored(siblings: u32) -> Action {
    Action::Reply(Message::PutDone(PutDone {
        dot: Dot::new(Origin(1), 1),
        context: Bytes::from_static(b"context of a write"),
        siblings,
        answers: vec![
            answer(0, Outcome::Stored),
            answer(1, Outcome::StoredDurably),
            answer(2, Outcome::Pending),
        ],
    }))
}

/// A read that found these values; `None` is a tombstone.
pub fn found(values: &[Option<&str>]) -> Action {
    let sibling = |(index, value): (usize, &Option<&str>)| {
        let bytes = Bytes::copy_from_slice(value.unwrap_or_default().as_bytes());
        Sibling {
            dot: Dot::new(Origin(index as u128 + 1), 1),
            kind: if value.is_some() { Kind::Put } else { Kind::Delete },
            hlc: galvani_model::hlc::Hlc::from_unix_ms(1_000),
            author: node_id(index),
            value_len: bytes.len() as u32,
            expires_ms: 0,
            value: bytes,
        }
    };
    Action::Reply(Message::GetDone(GetDone {
        siblings: values.iter().enumerate().map(sibling).collect(),
        context: Bytes::from_static(b"context of a read"),
        answers: vec![answer(0, Outcome::Answered), answer(1, Outcome::Answered)],
    }))
}

pub fn failed(failure: Failure, applied: AppliedOutcome) -> Action {
    let answers = vec![answer(0, Outcome::Stored), answer(2, Outcome::Unreachable)];
    Action::Reply(Message::Failed(Failed { failure, applied, answers }))
}

pub fn refused(failure: Failure) -> Action {
    failed(failure, AppliedOutcome::No)
}

pub const SECOND: Duration = Duration::from_secs(1);
