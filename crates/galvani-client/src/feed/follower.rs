//! Follows shards through whichever owners serve them, and changes over when one is lost.
//!
//! One task decides which owner serves which shards; for each of them one session asks for page after
//! page and hands them on. Positions are kept here: a session that ends, however it ends, gives back
//! how far its shards are, and they are opened elsewhere from there. So a page is handed on once, and
//! none is left out. It knows nothing of events. Next to read: `session.rs`, `stream.rs`.

use super::session::{self, Ended, Gateway, Why};
use crate::client::Shared;
use crate::directory::Directory;
use crate::error::Error;
use crate::retry::jittered;
use galvani_model::feed::{Cursor, Filter};
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::version::PartitionClock;
use galvani_wire::feed::{Begin, FeedEvent, FeedState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a follower tells.
#[derive(Debug)]
pub(crate) enum Word {
    /// A shard that was to begin now begins here.
    Began(Shard, Cursor),
    /// So many more shards are followed: of buckets that were made since.
    Following(usize),
    /// A page of some shards.
    Page(Page),
    /// A session is over: what it said of how it stands is old.
    Ended(u64),
    /// Shards that no owner serves for now; none: all are served.
    Unserved(Vec<Shard>),
    /// It cannot go on, and never will.
    Failed(Box<Error>),
}

/// What one question brought.
#[derive(Debug)]
pub(crate) struct Page {
    /// Which session it is of, of this follower.
    pub(crate) session: u64,
    /// How many shards the session is of.
    pub(crate) shards: usize,
    /// What it brought of each shard.
    pub(crate) parts: Vec<Part>,
    /// How the session stands.
    pub(crate) state: FeedState,
}

/// What a page brought of one shard.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) shard: Shard,
    /// [`Cursor::resets`] of the position that it follows.
    pub(crate) resets: u32,
    /// What [`Control::Put`] said with it; 0: followed from the start.
    pub(crate) epoch: u64,
    /// In the order in which they are to be seen.
    pub(crate) events: Vec<FeedEvent>,
    /// What a consumer is done with when it has seen them.
    pub(crate) done: PartitionClock,
    pub(crate) owed: PartitionClock,
    pub(crate) gone: PartitionClock,
}

/// What a follower is told.
#[derive(Debug)]
pub(crate) enum Control {
    /// Follow these shards from there on; one that is followed already is put there. All that comes of them
    /// then carries this number: parts of before may still come for a moment.
    Put(BTreeMap<Shard, Begin>, u64),
    /// Follow these no more.
    Take(BTreeSet<Shard>),
}

/// Follows some shards. Dropped, it ends.
pub(crate) struct Follower {
    words: mpsc::Receiver<Word>,
    control: mpsc::UnboundedSender<Control>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows `shards`, each from where it says. `credit`: bytes of events that a page may bring.
    /// `also_new`: and from their beginning those of buckets that are made later with another number
    /// of copies.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        filter: Filter,
        shards: BTreeMap<Shard, Begin>,
        credit: u32,
        also_new: bool,
    ) -> Follower {
        let (words_in, words) = mpsc::channel(WORDS_MAX);
        let (control, control_out) = mpsc::unbounded_channel();
        let (ended_in, ended) = mpsc::unbounded_channel();
        let copies = also_new.then(|| shards.keys().map(|shard| shard.n).collect());
        let mut manager = Manager::new(Arc::downgrade(shared), filter, credit, words_in, ended_in);
        manager.copies = copies;
        manager.idle = shards;
        let task = tokio::spawn(manager.run(control_out, ended));
        Follower { words, control, task }
    }

    /// The next word; `None` once the client is closed. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Word> {
        self.words.recv().await
    }

    /// For those that poll.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Word>> {
        self.words.poll_recv(cx)
    }

    /// Changes what is followed. Pages of shards that were taken may still come for a moment.
    pub(crate) fn control(&self, control: Control) {
        // If it has ended, its last word says why.
        let _ = self.control.send(control);
    }
}

/// Decides who serves what.
struct Manager {
    shared: Weak<Shared>,
    filter: Arc<Filter>,
    credit: u32,
    /// Shards that no session follows, and from where one is to.
    idle: BTreeMap<Shard, Begin>,
    /// Since when.
    wanted_since: BTreeMap<Shard, Instant>,
    running: BTreeMap<u64, Running>,
    /// Nodes that failed lately: how often, and until when others are tried first.
    avoided: BTreeMap<NodeId, (u32, Instant)>,
    last: u64,
    words: mpsc::Sender<Word>,
    ended_in: mpsc::UnboundedSender<Ended>,
    unserved: Vec<Shard>,
    /// What was said when a shard was put somewhere.
    epochs: BTreeMap<Shard, u64>,
    /// Shards of running sessions that are not wanted any more.
    dropped: BTreeSet<Shard>,
    /// Shards of running sessions that are to go on from somewhere else.
    moved: BTreeMap<Shard, Begin>,
    /// Where buckets may be made whose shards are to be followed as well: the numbers of copies that
    /// are followed already.
    copies: Option<BTreeSet<u8>>,
}

/// A session under way.
struct Running {
    gateway: Gateway,
    shards: BTreeSet<Shard>,
    stop: Arc<Notify>,
    /// Whether a page has come.
    served: Arc<AtomicBool>,
    stopping: bool,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Manager {
    /// One that follows nothing yet.
    fn new(
        shared: Weak<Shared>,
        filter: Filter,
        credit: u32,
        words: mpsc::Sender<Word>,
        ended_in: mpsc::UnboundedSender<Ended>,
    ) -> Manager {
        Manager {
            shared,
            filter: Arc::new(filter),
            credit,
            idle: BTreeMap::new(),
            wanted_since: BTreeMap::new(),
            running: BTreeMap::new(),
            avoided: BTreeMap::new(),
            last: 0,
            words,
            ended_in,
            unserved: Vec::new(),
            epochs: BTreeMap::new(),
            dropped: BTreeSet::new(),
            moved: BTreeMap::new(),
            copies: None,
        }
    }

    async fn run(
        mut self,
        mut control: mpsc::UnboundedReceiver<Control>,
        mut ended: mpsc::UnboundedReceiver<Ended>,
    ) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            let Some(again) = self.assign() else { return };
            if self.tell_unserved().await.is_err() {
                return;
            }
            tokio::select! {
                told = control.recv() => match told {
                    Some(told) => self.on_control(told),
                    None => return,
                },
                over = ended.recv() => {
                    let Some(over) = over else { return };
                    if self.on_ended(over).await.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(again), if !self.wanted_since.is_empty() => {}
                () = tokio::time::sleep_until(look_at), if self.copies.is_some() => {
                    look_at = Instant::now() + LOOK_EVERY;
                    let more = self.look_for_new();
                    if more > 0 && self.words.send(Word::Following(more)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Follows shards of buckets that were made since, and has the view of the cluster looked at.
    /// Returns how many more there are.
    fn look_for_new(&mut self) -> usize {
        let (Some(shared), Some(copies)) = (self.shared.upgrade(), &mut self.copies) else {
            return 0;
        };
        let before = self.idle.len();
        shared.stale.notify_one();
        let view = shared.directory().view().clone();
        let wanted = &self.filter.buckets;
        for (name, props) in &view.buckets {
            let asked = wanted.is_empty() || wanted.contains(name);
            if asked && copies.insert(props.n) {
                let shards = (0..view.layout.partitions())
                    .map(|at| Shard { partition: Partition(at), n: props.n });
                self.idle.extend(shards.map(|shard| (shard, Begin::At(Cursor::default()))));
            }
        }
        self.idle.len() - before
    }

    fn on_control(&mut self, control: Control) {
        let (touched, put) = match control {
            Control::Put(shards, epoch) => {
                self.epochs.extend(shards.keys().map(|shard| (*shard, epoch)));
                (shards.keys().copied().collect(), shards)
            }
            Control::Take(shards) => (shards, BTreeMap::new()),
        };
        for shard in &touched {
            self.idle.remove(shard);
            self.wanted_since.remove(shard);
            self.moved.remove(shard);
            self.dropped.remove(shard);
        }
        let running: BTreeSet<Shard> =
            self.running.values().flat_map(|it| it.shards.iter().copied()).collect();
        for shard in touched {
            let to = put.get(&shard).cloned();
            match (running.contains(&shard), to) {
                (true, Some(begin)) => drop(self.moved.insert(shard, begin)),
                (true, None) => drop(self.dropped.insert(shard)),
                (false, Some(begin)) => drop(self.idle.insert(shard, begin)),
                (false, None) => {}
            }
        }
        // A session whose shards change is opened anew without them.
        for running in self.running.values_mut() {
            let changed = |shard| self.moved.contains_key(shard) || self.dropped.contains(shard);
            if running.shards.iter().any(changed) {
                running.stop();
            }
        }
    }

    async fn on_ended(&mut self, over: Ended) -> Result<(), ()> {
        let Some(running) = self.running.remove(&over.session) else { return Ok(()) };
        let gateway = running.gateway;
        for (shard, begin) in over.positions {
            if self.dropped.remove(&shard) {
                continue;
            }
            let begin = self.moved.remove(&shard).unwrap_or(begin);
            self.idle.insert(shard, begin);
        }
        let told = match over.why {
            Why::Stopped => Ok(()),
            Why::Lost { served } => {
                let avoided = self.avoided.entry(gateway.node).or_insert((0, Instant::now()));
                avoided.0 = if served { 1 } else { avoided.0 + 1 };
                let pause = AVOID_FIRST.saturating_mul(1 << avoided.0.min(8)).min(AVOID_MAX);
                avoided.1 = Instant::now() + pause;
                if let Some(shared) = self.shared.upgrade() {
                    shared.stale.notify_one();
                }
                Ok(())
            }
            Why::Fatal(error) => self.words.send(Word::Failed(error)).await,
        };
        let told = match told {
            Ok(()) => self.words.send(Word::Ended(over.session)).await,
            Err(gone) => Err(gone),
        };
        told.map_err(|_| ())
    }

    /// Gives shards that nobody serves to owners. Returns when that is to be tried again; `None` if
    /// the client is gone.
    fn assign(&mut self) -> Option<Duration> {
        let shared = self.shared.upgrade()?;
        let again = jittered(&shared.net.links.network, AGAIN / 2, AGAIN);
        if self.idle.is_empty() {
            return Some(again);
        }
        let now = Instant::now();
        let directory = shared.directory();
        let mut chosen: BTreeMap<Gateway, BTreeSet<Shard>> = BTreeMap::new();
        for &shard in self.idle.keys() {
            self.wanted_since.entry(shard).or_insert(now);
            if let Some(gateway) = self.choose(&shared, &directory, shard, now) {
                chosen.entry(gateway).or_default().insert(shard);
            }
        }
        for (gateway, shards) in chosen {
            // One session for each gateway: the one there is gives back what it follows, and all of
            // it is opened together.
            if let Some(running) = self.running.values_mut().find(|it| it.gateway == gateway) {
                running.stop();
                continue;
            }
            self.last += 1;
            let positions: BTreeMap<Shard, Begin> = shards
                .iter()
                .filter_map(|shard| Some((*shard, self.idle.remove(shard)?)))
                .collect();
            let served = Arc::new(AtomicBool::new(false));
            let stop = Arc::new(Notify::new());
            let job = session::Job {
                number: self.last,
                gateway,
                filter: self.filter.clone(),
                epochs: self.epochs_of(&positions),
                positions,
                credit: self.credit,
                words: self.words.clone(),
                ended: self.ended_in.clone(),
                stop: stop.clone(),
                served: served.clone(),
                opened: None,
            };
            let task = tokio::spawn(session::run(self.shared.clone(), job));
            let running = Running { gateway, shards, stop, served, stopping: false, task };
            self.running.insert(self.last, running);
        }
        Some(again)
    }

    /// The numbers that a session's parts carry.
    fn epochs_of(&self, positions: &BTreeMap<Shard, Begin>) -> BTreeMap<Shard, u64> {
        let put = |shard: &Shard| Some((*shard, *self.epochs.get(shard)?));
        positions.keys().filter_map(put).collect()
    }

    /// The owner that is to serve a shard: one that did not fail lately, near if there is a choice,
    /// else the first of its owners, so that shards are spread as they are stored.
    fn choose(
        &self,
        shared: &Arc<Shared>,
        directory: &Directory,
        shard: Shard,
        now: Instant,
    ) -> Option<Gateway> {
        let owners = directory.owners(shard, shared.place());
        let (at, target) = owners.into_iter().enumerate().min_by_key(|(at, target)| {
            let avoided = self.avoided.get(&target.node).is_some_and(|(_, until)| *until > now);
            (avoided, !target.near, *at)
        })?;
        let _ = at;
        let until = self.avoided.get(&target.node).map(|(_, until)| *until);
        // All have failed lately: each has its pause before it is tried again.
        let pausing = until.is_some_and(|until| until > now);
        (!pausing).then_some(Gateway { node: target.node, addr: target.addr })
    }

    async fn tell_unserved(&mut self) -> Result<(), ()> {
        let now = Instant::now();
        for running in self.running.values().filter(|it| it.served.load(Ordering::Relaxed)) {
            for shard in &running.shards {
                self.wanted_since.remove(shard);
            }
        }
        let late = self.wanted_since.iter().filter(|(_, since)| now - **since >= UNSERVED_AFTER);
        let unserved: Vec<Shard> = late.map(|(shard, _)| *shard).collect();
        if unserved == self.unserved {
            return Ok(());
        }
        self.unserved.clone_from(&unserved);
        self.words.send(Word::Unserved(unserved)).await.map_err(|_| ())
    }
}

impl Running {
    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.stop.notify_one();
        }
    }
}

/// Words that wait for the consumer: with a session's page each, what a slow one costs in memory.
const WORDS_MAX: usize = 4;
/// How often it is looked for new buckets.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon what could not be given to an owner is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// For how long others are tried before a node that failed, at first and at most.
const AVOID_FIRST: Duration = Duration::from_millis(100);
const AVOID_MAX: Duration = Duration::from_secs(10);
/// How long nobody serves a shard before that is told.
const UNSERVED_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
