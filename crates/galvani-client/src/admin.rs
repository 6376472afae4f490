//! Questions about the cluster itself: buckets, where a key lives, how the nodes are.
//!
//! Any node answers these; making a bucket is sent on to the one node where buckets are made.
//! Answers of several nodes are partial rather than late: a node that does not answer in time is
//! listed with its error.

use crate::answer::ReplicaAnswer;
use crate::bucket::subject;
use crate::call::{Plan, run};
use crate::client::{Client, Shared};
use crate::deadline::Deadline;
use crate::directory::{Directory, Route};
use crate::error::{Error, ErrorKind, Result};
use crate::race::first;
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{NodeId, Shard};
use galvani_model::placement::Member;
use galvani_model::version::{Dot, DotSet, Version};
use galvani_wire::message::{self, CreateBucket, Explained, FAULT_LINKS_MAX, SetFaults};
use galvani_wire::view::LinkFaults;
use galvani_wire::{Message, NodeStatus};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a key lives and what each owner holds of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The key's placement hash.
    pub hash: u64,
    /// Its shard: partition and copies.
    pub shard: Shard,
    /// Names of its owners, in order.
    pub owners: Vec<String>,
    /// Names of the nodes that stand in for owners, best first.
    pub fallbacks: Vec<String>,
    /// Each owner's view.
    pub replicas: Vec<ReplicaState>,
    /// The name of the owner that asked the others: this client's reads begin with its copy, and at
    /// r=1 it answers from that alone.
    pub coordinator: String,
    /// That owner's clock: by it values have expired.
    pub at: SystemTime,
    /// What each node that may stand in holds for the owners.
    pub holders: Vec<HolderState>,
}

/// The hints of a key that one node holds for its owners.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HolderState {
    /// The node's name.
    pub node: String,
    /// For whom, by name, and which write; or why it did not say.
    pub hints: Result<Vec<(String, Dot)>, ReplicaAnswer>,
    /// Whether there may be more hints of the key than are named.
    pub more: bool,
}

/// What one owner holds of a key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplicaState {
    /// The node's name.
    pub node: String,
    /// Its versions, or why it did not say.
    pub versions: Result<Vec<Version>, ReplicaAnswer>,
    /// What it has seen of the key.
    pub seen: DotSet,
}

/// One member of the cluster and how it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeReport {
    /// Which node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// What it said of itself, or why it said nothing.
    pub status: Result<NodeStatus>,
    /// Until when the certificate is good that it showed, in seconds since 1970, if it answered.
    pub certificate_expires_s: Option<u64>,
}

impl Client {
    /// Every bucket of the cluster, asked anew.
    pub async fn buckets(&self) -> Result<BTreeMap<BucketName, BucketProps>> {
        let deadline = self.shared.deadline("buckets", self.timeout)?;
        let route = self.shared.directory().any(self.shared.zone());
        let view = self.shared.refresh("buckets", route, deadline).await?;
        Ok(view.buckets.clone())
    }

    /// Makes a bucket on every node. Making it again with the same properties is no change and no
    /// error.
    pub async fn create_bucket(&self, name: impl AsRef<str>, props: BucketProps) -> Result<()> {
        const OP: &str = "create bucket";
        let shown: String = name.as_ref().chars().take(80).collect();
        let fail = |kind| Error::new(OP, shown.as_str(), kind);
        let name: BucketName =
            name.as_ref().parse().map_err(|error| fail(ErrorKind::BucketName(error)))?;
        props.check().map_err(|error| fail(ErrorKind::BucketRefused { why: error.to_string() }))?;
        let deadline = self.shared.deadline(OP, self.timeout)?;
        let mut route = self.shared.directory().any(self.shared.zone());
        for _ in 0..=REDIRECTS_MAX {
            let asked = create_at(&self.shared, route, deadline, &name, &props).await;
            let directory = self.shared.directory();
            let Err(error) = asked else {
                // The view is only how the client finds its way: the bucket exists either way.
                let route = directory.any(self.shared.zone());
                let _ = self.shared.refresh("describe", route, deadline).await;
                return Ok(());
            };
            let ErrorKind::BucketHome { node } = error.kind() else { return Err(error) };
            match directory.view().layout.member_named(node) {
                Some(member) => route = directory.only(member),
                None => return Err(error),
            }
        }
        Err(fail(ErrorKind::Protocol { what: "nodes send each other the request".to_owned() }))
    }

    /// Where `key` of bucket `default` lives and what each owner holds of it.
    pub async fn explain(&self, key: impl Into<Bytes>) -> Result<Explanation> {
        self.bucket("default").explain(key).await
    }

    /// How every member is, in the order of their names; while the layout changes also those that come
    /// and those that leave. All together have a second at most, and less if the client's timeout is
    /// less; one that does not answer is listed with its error.
    pub async fn status(&self) -> Vec<NodeReport> {
        let directory = self.shared.directory();
        let timeout = self.timeout.unwrap_or(self.shared.settings.timeout);
        let deadline = Deadline::after(timeout.min(NODE_TIMEOUT));
        let mut waiting = directory.members();
        waiting.sort_by(|a, b| b.name().cmp(a.name()));
        let (mut asked, mut reports) = (Vec::new(), Vec::new());
        loop {
            while asked.len() < NODES_AT_ONCE {
                let Some(member) = waiting.pop() else { break };
                let report = report(&self.shared, &directory, member, deadline);
                asked.push(Box::pin(report));
            }
            if asked.is_empty() {
                break;
            }
            reports.push(first(&mut asked).await.1);
        }
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// How one node is that need not be a member: one that applies to be one, or was one until lately.
    /// It has a second, and less if the client's timeout is less.
    pub async fn status_of(&self, node: &Member) -> NodeReport {
        let timeout = self.timeout.unwrap_or(self.shared.settings.timeout);
        let deadline = Deadline::after(timeout.min(NODE_TIMEOUT));
        report(&self.shared, &self.shared.directory(), node, deadline).await
    }
}

impl Client {
    /// Breaks the links between node `name` and others on purpose, or mends them: with `heal` all
    /// faults that were set on it before go first. All that are set on it then. Needs the role
    /// `admin` and a node whose configuration allows faults; that node alone is asked.
    pub async fn set_faults(
        &self,
        name: &str,
        heal: bool,
        links: &[LinkFaults],
    ) -> Result<Vec<LinkFaults>> {
        const OP: &str = "set faults";
        let fail = |what| Error::new(OP, name, ErrorKind::Setting { what });
        if links.len() > FAULT_LINKS_MAX || !links.iter().all(LinkFaults::is_bounded) {
            return Err(fail("faults are out of their bounds".to_owned()));
        }
        let question = Message::SetFaults(SetFaults { heal, links: links.to_vec() });
        let accept = |message| match message {
            Message::FaultsSet(set) => Ok(set),
            other => Err(Box::new(other)),
        };
        self.ask_node(OP, name, true, &question, accept).await
    }

    /// Asks node `name`, and no other, in this client's time. `changes`: as in [`Plan`].
    pub(crate) async fn ask_node<T>(
        &self,
        op: &'static str,
        name: &str,
        changes: bool,
        question: &Message,
        accept: fn(Message) -> Result<T, Box<Message>>,
    ) -> Result<T> {
        let directory = self.shared.directory();
        let Some(member) = directory.view().layout.member_named(name) else {
            let what = format!("the cluster has no node {name}");
            return Err(Error::new(op, name, ErrorKind::Setting { what }));
        };
        let deadline = self.shared.deadline(op, self.timeout)?;
        ask_member(&self.shared, &directory, member, op, (deadline, changes), question, accept)
            .await
    }
}

impl crate::Bucket {
    /// Where `key` lives and what each owner holds of it.
    pub async fn explain(&self, key: impl Into<Bytes>) -> Result<Explanation> {
        const OP: &str = "explain";
        let key = self.key(OP, key.into())?;
        let shared = &self.client().shared;
        let deadline = shared.deadline(OP, self.client().timeout)?;
        let directory = shared.directory_with(key.bucket(), deadline).await;
        let plan = Plan {
            op: OP,
            subject: &|| subject(&key),
            bucket: Some(key.bucket()),
            route: directory.route(&key, shared.place()),
            deadline,
            write: None,
            changes: false,
            hedge: false,
            make: &|_| {
                let timeout_ms = deadline.server_ms();
                Message::Explain(message::Explain { key: key.clone(), hints: true, timeout_ms })
            },
            accept: |message| match message {
                Message::Explained(explained) => Ok(explained),
                other => Err(Box::new(other)),
            },
        };
        let explained = run(shared, plan).await?;
        Ok(Explanation::of(explained, &directory))
    }
}

impl Explanation {
    fn of(explained: Explained, directory: &Directory) -> Explanation {
        let name = |node: &NodeId| directory.name_of(*node);
        let copies = usize::from(explained.shard.n).min(explained.preference.len());
        let (owners, fallbacks) = explained.preference.split_at(copies);
        let state = |view: message::ReplicaView| ReplicaState {
            node: name(&view.node),
            versions: view.versions.map_err(|answer| ReplicaAnswer::of(&answer, directory)),
            seen: view.seen,
        };
        let holder = |view: message::HolderView| HolderState {
            node: name(&view.node),
            more: view.hints.as_ref().is_ok_and(|found| found.more),
            hints: match view.hints {
                Ok(found) => {
                    Ok(found.hints.iter().map(|(owner, dot)| (name(owner), *dot)).collect())
                }
                Err(answer) => Err(ReplicaAnswer::of(&answer, directory)),
            },
        };
        Explanation {
            coordinator: name(&explained.coordinator),
            at: UNIX_EPOCH + Duration::from_millis(explained.now_ms),
            hash: explained.hash,
            shard: explained.shard,
            owners: owners.iter().map(name).collect(),
            fallbacks: fallbacks.iter().map(name).collect(),
            replicas: explained.replicas.into_iter().map(state).collect(),
            holders: explained.holders.into_iter().map(holder).collect(),
        }
    }
}

async fn create_at(
    shared: &Shared,
    route: Route,
    deadline: Deadline,
    name: &BucketName,
    props: &BucketProps,
) -> Result<()> {
    let plan = Plan {
        op: "create bucket",
        subject: &|| name.to_string(),
        bucket: Some(name),
        route,
        deadline,
        write: None,
        changes: true,
        hedge: false,
        make: &|_| {
            Message::CreateBucket(CreateBucket {
                name: name.clone(),
                props: props.clone(),
                timeout_ms: deadline.server_ms(),
            })
        },
        accept: |message| match message {
            Message::BucketCreated => Ok(()),
            other => Err(Box::new(other)),
        },
    };
    run(shared, plan).await
}

async fn report(
    shared: &Shared,
    directory: &Directory,
    member: &Member,
    deadline: Deadline,
) -> NodeReport {
    let accept = |message| match message {
        Message::StatusIs(status) => Ok(*status),
        other => Err(Box::new(other)),
    };
    let timing = (deadline, false);
    let question = &Message::Status;
    let status = ask_member(shared, directory, member, "status", timing, question, accept).await;
    let address = member.lanes().first().filter(|_| status.is_ok());
    NodeReport {
        id: member.id(),
        name: member.name().to_owned(),
        zone: member.zone().to_owned(),
        status,
        certificate_expires_s: address.and_then(|at| shared.net.links.expires_s(*at)),
    }
}

/// Asks one member, and no other.
async fn ask_member<T>(
    shared: &Shared,
    directory: &Directory,
    member: &Member,
    op: &'static str,
    (deadline, changes): (Deadline, bool),
    question: &Message,
    accept: fn(Message) -> Result<T, Box<Message>>,
) -> Result<T> {
    let plan = Plan {
        op,
        subject: &|| member.name().to_owned(),
        bucket: None,
        route: directory.only(member),
        deadline,
        write: None,
        changes,
        hedge: false,
        make: &|_| question.clone(),
        accept,
    };
    run(shared, plan).await
}

/// The node where buckets are made may change while it is asked for, but not for ever.
const REDIRECTS_MAX: u32 = 3;
const NODE_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes whose status is asked at once.
const NODES_AT_ONCE: usize = 64;
