//! Clients that read, write, delete and merge shared keys until they are told to stop.
//!
//! What each does follows from the seed; when it does it, does not. All share a few busy keys, more
//! quiet ones and many that are hardly used; a key that is full gives way to a new one. Each request
//! draws its r and w. Everything goes into the ledger, which judges reads as they come.

use crate::chaos::judge::{Violation, What};
use crate::chaos::ledger::{Kind, Ledger, Seen, Shown};
use galvani_client::{
    Applied, Client, Context, Error, ErrorKind, Outcome, ReplicaAnswer, ReplicaError,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What all clients share.
#[derive(Debug)]
pub struct Field {
    /// Everything written.
    pub ledger: Ledger,
    /// Held by whoever has a request under way; taken whole to let all end and none begin.
    pub gate: RwLock<()>,
    /// Whether they are to end.
    pub stop: AtomicBool,
    violations: Mutex<Vec<Violation>>,
    keys: Vec<AtomicU32>,
    think: Duration,
}

/// What clients met.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Reads answered.
    pub reads: u64,
    /// Writes acked.
    pub acked: u64,
    /// Of those, how many counted a stand-in.
    pub with_stand_ins: u64,
    /// Writes refused and never stored.
    pub never: u64,
    /// Writes in doubt.
    pub maybe: u64,
    /// Copies of writes that a full disk refused.
    pub no_room: u64,
    /// The longest a client asked before something of it was answered.
    pub stall: Duration,
    /// The longest call, answered or failed.
    pub longest: Duration,
    /// Failed requests by operation and kind.
    pub errors: BTreeMap<String, u64>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Crowd {
    field: Arc<Field>,
    /// Whether these are to end, whatever the others do.
    leave: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Field {
    /// Fresh keys; clients pause for `think` on average between requests.
    pub fn new(ledger: Ledger, think: Duration) -> Field {
        Field {
            ledger,
            gate: RwLock::default(),
            stop: AtomicBool::new(false),
            violations: Mutex::default(),
            keys: (0..BUSY + QUIET + RARE).map(|_| AtomicU32::new(0)).collect(),
            think,
        }
    }

    /// Notes what is wrong.
    pub fn blame(&self, violation: Violation) {
        self.violations.lock().expect("no holder panics").push(violation);
    }

    /// What is wrong so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.violations.lock().expect("no holder panics").clone()
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.violations.lock().expect("no holder panics").is_empty()
    }

    fn key(&self, rng: &mut StdRng) -> (usize, String) {
        let slot = match rng.random_range(0..10) {
            0..6 => rng.random_range(0..BUSY),
            6..9 => BUSY + rng.random_range(0..QUIET),
            _ => BUSY + QUIET + rng.random_range(0..RARE),
        };
        let generation = self.keys[slot].load(Ordering::Relaxed);
        (slot, format!("chaos/{slot}.{generation}"))
    }

    /// The key in this slot is full: the next ones to come write another.
    fn retire(&self, slot: usize, key: &str) {
        let generation = key.rsplit('.').next().and_then(|digits| digits.parse().ok());
        let Some(generation) = generation else { return };
        let slot = &self.keys[slot];
        // Another client may have done it.
        let _ =
            slot.compare_exchange(generation, generation + 1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Crowd {
    /// Clients of these numbers, in turn through these handles.
    pub fn start(
        runtime: &tokio::runtime::Handle,
        field: &Arc<Field>,
        handles: &[Client],
        numbers: Range<usize>,
        seed: u64,
    ) -> Crowd {
        let leave = Arc::new(AtomicBool::new(false));
        let start = |index: usize| {
            let one = One {
                client: handles[index % handles.len()].clone(),
                field: field.clone(),
                leave: leave.clone(),
                index,
                rng: StdRng::seed_from_u64(seed ^ ((index as u64 + 1) << 32)),
                memory: None,
                asking_since: None,
                asked_at: Instant::now(),
                tally: Tally::default(),
            };
            runtime.spawn(one.run())
        };
        let clients = numbers.map(start).collect();
        Crowd { field: field.clone(), leave, clients }
    }

    /// Lets every client finish its request, and those of other crowds; what these met, all together.
    pub async fn stop(self) -> Tally {
        self.field.stop.store(true, Ordering::Relaxed);
        self.leave().await
    }

    /// Lets every client finish its request, while other crowds of the field go on; what they met.
    pub async fn leave(self) -> Tally {
        self.leave.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            let one = client.await.expect("a client does not panic");
            sum.reads += one.reads;
            sum.acked += one.acked;
            sum.with_stand_ins += one.with_stand_ins;
            sum.never += one.never;
            sum.maybe += one.maybe;
            sum.no_room += one.no_room;
            sum.stall = sum.stall.max(one.stall);
            sum.longest = sum.longest.max(one.longest);
            for (kind, count) in one.errors {
                *sum.errors.entry(kind).or_default() += count;
            }
        }
        sum
    }
}

/// One client.
struct One {
    client: Client,
    field: Arc<Field>,
    leave: Arc<AtomicBool>,
    index: usize,
    rng: StdRng,
    /// A key seen earlier, and what was seen: a context that may be stale by now.
    memory: Option<Memory>,
    asking_since: Option<Instant>,
    /// When the last call began.
    asked_at: Instant,
    tally: Tally,
}

#[derive(Clone)]
struct Memory {
    slot: usize,
    key: String,
    seen: Seen,
    context: Context,
}

/// What one request asks.
#[derive(Clone, Copy)]
struct Ask {
    r: u8,
    w: u8,
    how: How,
}

/// How it asks for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    /// Owners only, no stand-ins.
    Strict,
    /// Reads repair before they answer.
    Blocking,
    /// Writes are on w disks, whatever becomes of the power.
    Durable,
    /// Only the first two owners are asked.
    Narrow,
}

impl One {
    async fn run(mut self) -> Tally {
        let field = self.field.clone();
        while !self.is_over() {
            let pass = field.gate.read().await;
            if self.is_over() {
                break;
            }
            self.step().await;
            drop(pass);
            let most = 2 * u64::try_from(field.think.as_micros()).unwrap_or(u64::MAX);
            let think = Duration::from_micros(self.rng.random_range(0..=most));
            // wait: as people do between requests, so that many clients leave room for the nodes
            tokio::time::sleep(think).await;
        }
        self.tally
    }

    fn is_over(&self) -> bool {
        self.field.stop.load(Ordering::Relaxed) || self.leave.load(Ordering::Relaxed)
    }

    async fn step(&mut self) {
        let (slot, key) = self.field.key(&mut self.rng);
        let ask = QUORUMS[self.rng.random_range(0..QUORUMS.len())];
        let empty = Memory { slot, key, seen: Seen::default(), context: Context::default() };
        match self.rng.random_range(0..100) {
            0..25 => self.memory = self.read(empty, ask).await.or(self.memory.take()),
            25..62 => {
                // A read and what it says to write.
                if let Some(read) = self.read(empty, ask).await {
                    self.memory = self.write(&read, ask).await.or(Some(read));
                }
            }
            62..74 => self.memory = self.write(&empty, ask).await.or(self.memory.take()),
            // After what it saw some time ago: a stale context, or its own last write.
            _ => match self.memory.clone() {
                Some(memory) => self.memory = self.write(&memory, ask).await.or(Some(memory)),
                None => self.memory = self.read(empty, ask).await,
            },
        }
    }

    async fn read(&mut self, of: Memory, ask: Ask) -> Option<Memory> {
        self.asks();
        let must = self.field.ledger.begin_read(&of.key, ask.r);
        let get = self.client.get(of.key.clone()).r(ask.r);
        let (get, held_by) = match ask.how {
            How::Blocking => (get.blocking_repair(), ask.r),
            How::Narrow => (get.n(NARROW), 0),
            How::Plain | How::Strict | How::Durable => (get, 0),
        };
        let read = match get.await {
            Ok(read) => read,
            Err(error) => {
                self.failed("get", &of.key, None, &error);
                return None;
            }
        };
        self.answered();
        self.tally.reads += 1;
        let shown: Vec<Shown> = read.siblings.iter().map(Shown::from).collect();
        match self.field.ledger.end_read(&of.key, must, &shown, held_by) {
            Ok(seen) => Some(Memory { seen, context: read.context, ..of }),
            Err(violation) => {
                let said: Vec<String> = read.answers.iter().map(ToString::to_string).collect();
                let more = format!(
                    "client {} r={} {:?} {} [{}]",
                    self.index,
                    ask.r,
                    ask.how,
                    violation.detail,
                    said.join(", ")
                );
                self.field.blame(violation.detail(more));
                None
            }
        }
    }

    async fn write(&mut self, after: &Memory, ask: Ask) -> Option<Memory> {
        let kind = match self.rng.random_range(0..100) {
            0..12 => Kind::Delete,
            _ => Kind::Put,
        };
        let issued = self.field.ledger.issue(&after.key, kind, after.seen, self.index);
        let Some((number, value)) = issued else {
            self.field.retire(after.slot, &after.key);
            return None;
        };
        self.asks();
        let put = match kind {
            Kind::Put => self.client.put(after.key.clone(), value),
            Kind::Delete => self.client.delete(after.key.clone()),
        };
        let put = put.after(&after.context).w(ask.w);
        let put = match ask.how {
            How::Plain | How::Blocking => put,
            How::Strict => put.strict(),
            How::Durable => put.dw(ask.w),
            How::Narrow => put.n(NARROW),
        };
        let written = match put.send().await {
            Ok(written) => written,
            Err(error) => {
                self.failed("write", &after.key, Some(number), &error);
                return None;
            }
        };
        self.answered();
        self.tally.acked += 1;
        let stood_in = written.answers.iter().any(|answer| answer.stands_in_for.is_some());
        self.tally.with_stand_ins += u64::from(stood_in);
        self.note_answers(&written.answers);
        self.field.ledger.acked(&after.key, number, written.dot, &written.answers);
        let own = 1 << number;
        let seen = Seen { surely: after.seen.surely | own, maybe: after.seen.maybe | own };
        Some(Memory { seen, context: written.context, ..after.clone() })
    }

    fn failed(&mut self, op: &str, key: &str, number: Option<usize>, error: &Error) {
        self.over();
        let kind = format!("{:?}", error.kind());
        let kind = kind.split([' ', '(', '{']).next().unwrap_or_default();
        *self.tally.errors.entry(format!("{op} {kind}")).or_default() += 1;
        let many = matches!(error.kind(), ErrorKind::TooManySiblings { .. });
        if !error.is_retryable() && !many {
            let violation = Violation::new(What::RefusedForGood, key, number);
            self.field.blame(violation.detail(format!("{error:?}")));
        }
        let Some(number) = number else { return };
        self.note_answers(&error.trace().answers);
        match error.applied() {
            Applied::No => {
                self.tally.never += 1;
                if let Err(violation) = self.field.ledger.never(key, number) {
                    self.field.blame(violation.detail(format!("{error:?}")));
                }
            }
            Applied::Maybe { .. } => self.tally.maybe += 1,
        }
    }

    fn note_answers(&mut self, answers: &[ReplicaAnswer]) {
        let full = Outcome::Refused(ReplicaError::DiskFull);
        let refused = answers.iter().filter(|answer| answer.outcome == full);
        self.tally.no_room += refused.count() as u64;
    }

    fn asks(&mut self) {
        self.asked_at = Instant::now();
        self.asking_since.get_or_insert(self.asked_at);
    }

    fn over(&mut self) {
        self.tally.longest = self.tally.longest.max(self.asked_at.elapsed());
    }

    fn answered(&mut self) {
        self.over();
        let since = self.asking_since.take();
        let asked = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.tally.stall = self.tally.stall.max(asked);
    }
}

const QUORUMS: [Ask; 9] = [
    Ask { r: 1, w: 1, how: How::Plain },
    Ask { r: 2, w: 2, how: How::Plain },
    Ask { r: 3, w: 1, how: How::Plain },
    Ask { r: 1, w: 3, how: How::Plain },
    Ask { r: 2, w: 2, how: How::Strict },
    Ask { r: 2, w: 2, how: How::Blocking },
    Ask { r: 2, w: 1, how: How::Blocking },
    Ask { r: 2, w: 2, how: How::Durable },
    Ask { r: 2, w: 2, how: How::Narrow },
];
/// Owners of which a narrow request asks.
const NARROW: u8 = 2;
const BUSY: usize = 24;
const QUIET: usize = 200;
const RARE: usize = 1_000;
