//! Operations of a load against a cluster, one at a time, each entered in the ledger.
//!
//! A write is sent after what is known of its key. Where keys are chosen evenly, one that is being
//! written is passed over for another, so that a load leaves no siblings; where some keys are hot,
//! writes of one key race, as they would in earnest: then, and after a write that ended in doubt,
//! the next one reads first, and that is part of its latency. Next to read: `open.rs`, `closed.rs`.

use crate::args::bench::Run;
use crate::commands::options;
use crate::connect::Session;
use bytes::Bytes;
use galvani_client::{Applied, Bucket, Context, Error, ErrorKind};
use galvani_load::ledger::{Ledger, Name};
use galvani_load::random::Random;
use galvani_load::workload::{Kind, Mix, Op, Sequence};
use galvani_load::zipf::Chosen;
use std::cell::RefCell;
use std::time::Instant;

/// A load's keys and how they are asked for.
#[derive(Debug)]
pub(crate) struct Driver<'a> {
    bucket: Bucket,
    args: &'a Run,
    mix: Mix,
    fill: Bytes,
    pub(crate) ledger: RefCell<Ledger<Context>>,
    sequence: RefCell<Sequence>,
}

/// One operation that is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Todo {
    kind: Kind,
    key: usize,
    /// When it is due.
    pub(crate) due: Instant,
}

/// One operation's end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) kind: Kind,
    pub(crate) due: Instant,
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
    pub(crate) result: Result<(), ErrorKind>,
}

impl<'a> Driver<'a> {
    /// Of the keys in the ledger.
    pub(crate) fn new(
        session: &Session,
        args: &'a Run,
        mix: Mix,
        ledger: Ledger<Context>,
    ) -> Driver<'a> {
        let keys = ledger.len() as u64;
        Driver {
            bucket: session.bucket(&args.bucket),
            args,
            mix,
            fill: fill(args.value_bytes() as usize),
            ledger: RefCell::new(ledger),
            sequence: RefCell::new(Sequence::of(mix, keys, args.seed)),
        }
    }

    /// The same keys, through another client.
    pub(crate) fn through(self, session: &Session) -> Driver<'a> {
        Driver { bucket: session.bucket(&self.args.bucket), ..self }
    }

    /// The same keys, asked for as other arguments say.
    pub(crate) fn asking<'b>(self, args: &'b Run) -> Driver<'b> {
        let Driver { bucket, args: _, mix, fill, ledger, sequence } = self;
        Driver { bucket, args, mix, fill, ledger, sequence }
    }

    /// Begins the operations of `--seed` anew, over all keys there are now.
    pub(crate) fn rewind(&self) {
        let keys = self.ledger.borrow().len() as u64;
        self.sequence.replace(Sequence::of(self.mix, keys, self.args.seed));
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> usize {
        self.ledger.borrow().len()
    }

    /// The next operation; `None`: every key that would do is being written.
    pub(crate) fn next(&self, due: Instant) -> Option<Todo> {
        let (Op { kind, key }, any) = {
            let mut sequence = self.sequence.borrow_mut();
            (sequence.draw(), sequence.any_key_does())
        };
        let mut ledger = self.ledger.borrow_mut();
        let chosen = match key {
            Chosen::Key(index) => index as usize,
            Chosen::Ago(ago) => ledger.latest(ago),
        };
        let key = match kind {
            Kind::Insert => {
                ledger.reach(chosen);
                chosen
            }
            Kind::Put | Kind::Rmw if any => free(&ledger, chosen)?,
            Kind::Get | Kind::Put | Kind::Rmw => chosen,
        };
        if kind != Kind::Get {
            ledger.take(key);
        }
        Some(Todo { kind, key, due })
    }

    /// Does one operation.
    pub(crate) async fn one(&self, todo: Todo) -> Ended {
        let sent = Instant::now();
        let Todo { kind, key, due } = todo;
        let result = match kind {
            Kind::Get => self.get(key).await,
            Kind::Put | Kind::Insert => self.put(key).await,
            Kind::Rmw => match self.get(key).await {
                Ok(()) => self.put(key).await,
                Err(error) => Err(error),
            },
        };
        if kind != Kind::Get {
            self.ledger.borrow_mut().release(key);
        }
        let result = result.map_err(|error| error.kind().clone());
        Ended { kind, due, sent, at: Instant::now(), result }
    }

    fn name(&self, key: usize) -> Bytes {
        name(key, self.ledger.borrow().maker(key))
    }

    async fn get(&self, key: usize) -> Result<(), Error> {
        let looking = self.ledger.borrow().look(key);
        let get = options::read(self.bucket.get(self.name(key)), self.args.copies, self.args.read);
        let get = if self.args.copies.strict { get.strict() } else { get };
        let read = get.await?;
        let names = read.values().filter_map(|value| Name::of(value));
        self.ledger.borrow_mut().saw(looking, &read.context, names);
        Ok(())
    }

    async fn put(&self, key: usize) -> Result<(), Error> {
        if self.ledger.borrow().must_read(key) {
            self.get(key).await?;
        }
        let begun = self.ledger.borrow_mut().begin(key);
        let mut value = self.fill.to_vec();
        begun.name.stamp(&mut value);
        let put = self.bucket.put(self.name(key), value);
        let put = match &begun.context {
            Some(context) => put.after(context),
            None => put.blind(),
        };
        let result = options::write(put, self.args.copies, self.args.write).send().await;
        let mut ledger = self.ledger.borrow_mut();
        match result {
            Ok(written) => {
                ledger.acked(&begun, written.context, written.siblings_now <= 1);
                Ok(())
            }
            Err(error) => {
                match error.applied() {
                    Applied::No => ledger.refused(&begun),
                    Applied::Maybe { .. } => ledger.in_doubt(&begun),
                }
                Err(error)
            }
        }
    }
}

/// The chosen key, or the next one that nothing writes.
fn free(ledger: &Ledger<Context>, chosen: usize) -> Option<usize> {
    let keys = ledger.len();
    if ledger.is_full() {
        return None;
    }
    (0..keys).map(|step| (chosen + step) % keys).find(|key| !ledger.is_busy(*key))
}

/// The key of an index; of one that a run makes (`Ledger::maker`) it is that run's alone.
pub(crate) fn name(key: usize, maker: Option<u64>) -> Bytes {
    Bytes::from(match maker {
        None => format!("bench/{key:08}"),
        Some(run) => format!("bench/{run:016x}/{key:08}"),
    })
}

/// Bytes that do not compress to nothing, the same for every run.
pub(crate) fn fill(length: usize) -> Bytes {
    let mut random = Random::of(0);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.bits().to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
