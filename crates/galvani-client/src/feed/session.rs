//! One session with one owner: opens it, asks for page after page, and hands them on.
//!
//! It ends with the first thing that goes wrong, and gives back how far its shards are: exactly the
//! pages that were handed on. It never tries again; `follower.rs` does, elsewhere.

use super::follower::{Page, Part, Word};
use crate::client::Shared;
use crate::error::{Error, ErrorKind};
use crate::failure::kind_of;
use crate::request::{Make, Request};
use galvani_model::feed::{Cursor, Filter};
use galvani_model::ids::{NodeId, Shard};
use galvani_wire::feed::{Begin, FeedNext, FeedOpen, FeedPage};
use galvani_wire::message::Failed;
use galvani_wire::{Failure, Message};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// A lane of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) addr: SocketAddr,
}

/// What a session is to do.
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) gateway: Gateway,
    pub(crate) filter: Arc<Filter>,
    pub(crate) positions: BTreeMap<Shard, Begin>,
    /// The number that parts of a shard carry; 0 where none is said.
    pub(crate) epochs: BTreeMap<Shard, u64>,
    pub(crate) credit: u32,
    pub(crate) words: mpsc::Sender<Word>,
    pub(crate) ended: mpsc::UnboundedSender<Ended>,
    pub(crate) stop: Arc<Notify>,
    /// Set when a page has come.
    pub(crate) served: Arc<AtomicBool>,
    /// The owner's number of the session, and how many pages of it have come.
    pub(crate) opened: Option<(u64, u64)>,
}

/// How a session ended.
pub(crate) struct Ended {
    pub(crate) session: u64,
    /// How far its shards are.
    pub(crate) positions: BTreeMap<Shard, Begin>,
    pub(crate) why: Why,
}

/// Why a session ended.
pub(crate) enum Why {
    /// It was told to.
    Stopped,
    /// The owner did not answer, or would not go on. `served`: it gave pages before.
    Lost { served: bool },
    /// No owner will answer otherwise.
    Fatal(Box<Error>),
}

/// Runs a session to its end.
pub(crate) async fn run(shared: Weak<Shared>, mut job: Job) {
    let stop = job.stop.clone();
    let why = tokio::select! {
        () = stop.notified() => Why::Stopped,
        why = follow(&shared, &mut job) => why,
    };
    let why = match why {
        Why::Lost { .. } => Why::Lost { served: job.served.load(Ordering::Relaxed) },
        other => other,
    };
    if let (Why::Stopped, Some((session, page)), Some(shared)) =
        (&why, job.opened, shared.upgrade())
    {
        let next = FeedNext { session, page, credit: 0, wait_ms: 0, close: true };
        let Gateway { node, addr } = job.gateway;
        let make = move |_| Message::FeedNext(next.clone());
        // Nobody waits for the answer; without it the session ends by itself, later.
        drop(Request::start(&shared.net.links, addr, Some(node), &make, None));
    }
    // Nobody is there to hear it if the follower was dropped.
    let _ = job.ended.send(Ended { session: job.number, positions: job.positions, why });
}

/// Goes on until something goes wrong. Dropped at any await, the positions are those of the pages that
/// were handed on.
async fn follow(shared: &Weak<Shared>, job: &mut Job) -> Why {
    let shards: Vec<(Shard, Begin)> =
        job.positions.iter().map(|(shard, begin)| (*shard, begin.clone())).collect();
    let filter = job.filter.clone();
    let open = move |_| {
        let timeout_ms = OPEN_PATIENCE.as_millis() as u32;
        Message::FeedOpen(FeedOpen {
            filter: Filter::clone(&filter),
            shards: shards.clone(),
            timeout_ms,
        })
    };
    let opened = match ask(shared, job.gateway, &open, OPEN_PATIENCE).await {
        Ok(Message::FeedOpened(opened)) if opened.began.len() == job.positions.len() => opened,
        Ok(other) => return refused(shared, other),
        Err(why) => return why,
    };
    if !opened.elsewhere.is_empty() {
        // The layout has changed. What is served here is asked for again, without the rest.
        return Why::Lost { served: false };
    }
    let order: Vec<Shard> = job.positions.keys().copied().collect();
    for (shard, began) in order.into_iter().zip(opened.began) {
        if let Some(cursor) = began {
            // Told first: dropped in between, it begins now again, and says so.
            if job.words.send(Word::Began(shard, cursor.clone())).await.is_err() {
                return Why::Stopped;
            }
            job.positions.insert(shard, Begin::At(cursor));
        }
    }
    let (session, credit) = (opened.session, job.credit);
    for page in 0.. {
        job.opened = Some((session, page));
        let next = |_| {
            let wait_ms = WAIT.as_millis() as u32;
            Message::FeedNext(FeedNext { session, page, credit, wait_ms, close: false })
        };
        let page = match ask(shared, job.gateway, &next, WAIT + PATIENCE).await {
            Ok(Message::FeedPage(page)) => page,
            Ok(other) => return refused(shared, other),
            Err(why) => return why,
        };
        if let Err(why) = hand_on(job, page).await {
            return why;
        }
        job.served.store(true, Ordering::Relaxed);
    }
    Why::Lost { served: true }
}

/// Hands a page on; only then do the positions move.
async fn hand_on(job: &mut Job, page: FeedPage) -> Result<(), Why> {
    let lying = || Why::Lost { served: false };
    let FeedPage { session: _, events, advances, state } = page;
    let mut parts = Vec::with_capacity(advances.len());
    let mut moved = Vec::with_capacity(advances.len());
    for advance in advances {
        let Some(Begin::At(cursor)) = job.positions.get(&advance.shard) else {
            return Err(lying());
        };
        let mut after: Cursor = cursor.clone();
        after.pass(&advance.done);
        after.owe_all(&advance.owed);
        after.settle();
        moved.push((advance.shard, after));
        parts.push(Part {
            shard: advance.shard,
            resets: cursor.resets,
            epoch: job.epochs.get(&advance.shard).copied().unwrap_or(0),
            events: Vec::new(),
            done: advance.done,
            owed: advance.owed,
            gone: advance.gone,
        });
    }
    for event in events {
        let Some(part) = parts.get_mut(usize::from(event.shard)) else { return Err(lying()) };
        part.events.push(event);
    }
    let page = Page { session: job.number, shards: job.positions.len(), parts, state };
    if job.words.send(Word::Page(page)).await.is_err() {
        return Err(Why::Stopped);
    }
    for (shard, cursor) in moved {
        job.positions.insert(shard, Begin::At(cursor));
    }
    Ok(())
}

/// Asks the gateway, and waits no longer than `patience`.
async fn ask(
    shared: &Weak<Shared>,
    gateway: Gateway,
    make: &Make<'_>,
    patience: Duration,
) -> Result<Message, Why> {
    let Some(links) = shared.upgrade().map(|shared| shared.net.links.clone()) else {
        return Err(Why::Stopped);
    };
    let request = Request::start(&links, gateway.addr, Some(gateway.node), make, None);
    match tokio::time::timeout(patience, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) if fault.is_distrust() => {
            let kind = ErrorKind::Tls { detail: fault.to_string() };
            Err(Why::Fatal(Box::new(Error::new("feed", "", kind))))
        }
        Ok(Err(_)) => Err(Why::Lost { served: false }),
        Err(_) => {
            links.note_silence(gateway.addr);
            Err(Why::Lost { served: false })
        }
    }
}

/// What an answer that is no page means.
fn refused(shared: &Weak<Shared>, answer: Message) -> Why {
    let lost = Why::Lost { served: false };
    let Message::Failed(Failed { failure, applied, answers }) = answer else { return lost };
    let fatal = match &failure {
        Failure::NotPermitted | Failure::Malformed { .. } => true,
        // It may not have heard of a new bucket yet, have too much to do, or be stopping.
        _ => false,
    };
    match shared.upgrade() {
        Some(shared) if fatal => {
            let failed = Failed { failure, applied, answers };
            let kind = kind_of(&failed, None, Duration::ZERO, &shared.directory());
            Why::Fatal(Box::new(Error::new("feed", "", kind)))
        }
        _ => lost,
    }
}

/// How long a gateway may take to open a session.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);
/// How long a gateway waits for something new before it says how things stand.
const WAIT: Duration = Duration::from_millis(500);
/// How long after that it counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::{Gateway, Job, hand_on};
    use crate::feed::Word;
    use galvani_model::feed::{Cursor, Filter};
    use galvani_model::ids::{NodeId, Partition, Shard};
    use galvani_model::version::PartitionClock;
    use galvani_wire::feed::{Advance, Begin, FeedPage, FeedState};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn its_parts_carry_the_number_that_it_was_given() {
        let shards = [1, 2].map(|at| Shard { partition: Partition(at), n: 3 });
        let (words_in, mut words) = mpsc::channel(1);
        let mut job = Job {
            number: 1,
            gateway: Gateway { node: NodeId(1), addr: ([127, 0, 0, 1], 1).into() },
            filter: Arc::new(Filter::default()),
            positions: shards.map(|shard| (shard, Begin::At(Cursor::default()))).into(),
            epochs: BTreeMap::from([(shards[0], 7)]),
            credit: 1,
            words: words_in,
            ended: mpsc::unbounded_channel().0,
            stop: Arc::default(),
            served: Arc::default(),
            opened: None,
        };
        let none = PartitionClock::new;
        let advance = |shard| Advance { shard, done: none(), owed: none(), gone: none() };
        let advances = shards.map(advance).into();
        let page =
            FeedPage { session: 3, events: Vec::new(), advances, state: FeedState::default() };
        assert!(hand_on(&mut job, page).await.is_ok());
        let Some(Word::Page(page)) = words.recv().await else { panic!("no page") };
        let numbers: Vec<u64> = page.parts.iter().map(|part| part.epoch).collect();
        assert_eq!(numbers, [7, 0]);
    }
}
