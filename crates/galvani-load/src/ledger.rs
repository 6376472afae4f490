//! What a load wrote, key by key, and what must therefore be found at the end.
//!
//! Every value carries its name: which run wrote it, and the how-manieth write of its key it was.
//! Of each key the ledger keeps the writes that nothing acked has replaced; usually that is one. A
//! write replaces exactly what its context covers, so the judgement is exact also where writes of
//! one key raced: an acked write that nothing replaced must be there (else it is *lost*), and what
//! was replaced, or was refused as never stored, must not (else it is *resurrected*). A write that
//! ended in doubt may be there or not; what it would have replaced may be gone only where that write
//! is found, or was itself replaced: what is nowhere has replaced nothing.

use smallvec::SmallVec;

/// The name of a value: first in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Which run wrote it.
    pub run: u64,
    /// The how-manieth write of the run to its key.
    pub sequence: u32,
}

impl Name {
    /// Bytes that a name takes.
    pub const BYTES: usize = 12;

    /// Writes it over the first bytes of a value that is long enough.
    pub fn stamp(self, value: &mut [u8]) {
        if let Some(head) = value.first_chunk_mut::<{ Name::BYTES }>() {
            head[..8].copy_from_slice(&self.run.to_be_bytes());
            head[8..].copy_from_slice(&self.sequence.to_be_bytes());
        }
    }

    /// The name that a value carries; `None`: it is too short for one.
    pub fn of(value: &[u8]) -> Option<Name> {
        let (run, rest) = value.split_first_chunk::<8>()?;
        let sequence = rest.first_chunk::<4>()?;
        let (run, sequence) = (u64::from_be_bytes(*run), u32::from_be_bytes(*sequence));
        Some(Name { run, sequence })
    }
}

type Sequences = SmallVec<[u32; 2]>;

/// A write that nothing acked has replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    sequence: u32,
    state: State,
    /// What it replaces wherever it is stored; of an acked write that is no entry any more.
    covers: Sequences,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    Acked,
    InDoubt,
}

/// A write that is about to be sent.
#[derive(Clone, Debug)]
pub struct Begun<C> {
    /// Which key.
    pub key: usize,
    /// The name its value carries.
    pub name: Name,
    /// What it is sent after; `None`: nothing, the key is new.
    pub context: Option<C>,
    covers: Sequences,
}

/// A read that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Looking {
    /// Which key.
    pub key: usize,
    acks: u32,
}

/// What is known of one key.
#[derive(Clone, Debug)]
struct Held<C> {
    /// The value that was there when the load began; counted as the acked write 0.
    first: Option<Name>,
    /// The last write begun.
    last: u32,
    /// Acked writes so far: a read that began before the last one is out of date.
    acks: u32,
    /// Operations that write it and are to be done or under way.
    writers: u32,
    /// What the next write is sent after.
    known: Option<(C, Sequences)>,
    live: SmallVec<[Entry; 1]>,
}

/// What was found of one key, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Acked writes that are gone and that nothing replaced.
    pub lost: u64,
    /// Values that had been replaced, or had been refused, and are there.
    pub resurrected: u64,
    /// Values of somebody else.
    pub foreign: u64,
    /// Keys that lack an acked write and have a value of somebody else, which may have replaced it:
    /// nobody knows whether it was lost.
    pub unjudged: u64,
}

impl Judgement {
    /// Adds another one.
    pub fn add(&mut self, other: Judgement) {
        self.lost += other.lost;
        self.resurrected += other.resurrected;
        self.foreign += other.foreign;
        self.unjudged += other.unjudged;
    }
}

/// All keys of a load.
#[derive(Clone, Debug)]
pub struct Ledger<C> {
    run: u64,
    keys: Vec<Held<C>>,
    /// Keys that had a value before the load began: the first ones.
    prepared: usize,
    /// Keys 0..this have a value, or the write that was to make them ended without an ack.
    settled: usize,
    /// New keys below `settled` that have a value, in their order.
    made: Vec<u32>,
    writers: usize,
    /// Acked writes.
    pub acked: u64,
    /// Writes that found, or made, a sibling.
    pub races: u64,
}

impl<C: Clone> Ledger<C> {
    /// Of the run of this number.
    pub fn of(run: u64) -> Ledger<C> {
        let (keys, made) = (Vec::new(), Vec::new());
        Ledger { run, keys, prepared: 0, settled: 0, made, writers: 0, acked: 0, races: 0 }
    }

    /// The name of a value that is written before the load begins.
    pub fn first_name(&self) -> Name {
        Name { run: self.run, sequence: 0 }
    }

    /// The next key is there with this value, known by this context.
    pub fn add(&mut self, context: C, first: Option<Name>) {
        let entry = Entry { sequence: 0, state: State::Acked, covers: Sequences::new() };
        let known = Some((context, SmallVec::from_slice(&[0])));
        let live = SmallVec::from_iter([entry]);
        self.keys.push(Held { first, last: 0, acks: 0, writers: 0, known, live });
        (self.prepared, self.settled) = (self.keys.len(), self.keys.len());
    }

    /// How many keys there are, new ones included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The index of the key made `ago` before the last one known to be there.
    pub fn latest(&self, ago: u64) -> usize {
        let ago = usize::try_from(ago).unwrap_or(usize::MAX);
        match self.made.len().checked_sub(ago.saturating_add(1)) {
            Some(place) => self.made[place] as usize,
            None => (self.prepared + self.made.len()).saturating_sub(1).saturating_sub(ago),
        }
    }

    /// The run that made this key, if it is a new one: its name says so, since what another run
    /// made under the same name would be a value of somebody else.
    pub fn maker(&self, key: usize) -> Option<u64> {
        (key >= self.prepared).then_some(self.run)
    }

    /// Makes room for keys up to this one, new and without a value.
    pub fn reach(&mut self, key: usize) {
        while self.keys.len() <= key {
            let live = SmallVec::new();
            self.keys.push(Held { first: None, last: 0, acks: 0, writers: 0, known: None, live });
        }
    }

    /// Whether an operation that writes this key is to be done or under way.
    pub fn is_busy(&self, key: usize) -> bool {
        self.keys[key].writers > 0
    }

    /// An operation that writes this key is to be done.
    pub fn take(&mut self, key: usize) {
        self.keys[key].writers += 1;
        self.writers += 1;
    }

    /// It was done.
    pub fn release(&mut self, key: usize) {
        self.keys[key].writers -= 1;
        self.writers -= 1;
    }

    /// Whether as many such operations are under way as there are keys.
    pub fn is_full(&self) -> bool {
        self.writers >= self.keys.len()
    }

    /// Whether the key must be read before it is written.
    pub fn must_read(&self, key: usize) -> bool {
        let held = &self.keys[key];
        held.known.is_none() && held.last > 0
    }

    /// A read of the key begins.
    pub fn look(&self, key: usize) -> Looking {
        Looking { key, acks: self.keys[key].acks }
    }

    /// What a read saw.
    pub fn saw(&mut self, looking: Looking, context: &C, names: impl Iterator<Item = Name>) {
        let run = self.run;
        let held = &mut self.keys[looking.key];
        let covers: Sequences = names.filter_map(|name| held.sequence_of(run, name)).collect();
        // A read that began too early, or that asked too few replicas, knows less than the last ack.
        let less = |(_, known): &(C, Sequences)| !known.iter().all(|one| covers.contains(one));
        if held.known.as_ref().is_some_and(|known| held.acks != looking.acks || less(known)) {
            return;
        }
        held.known = Some((context.clone(), covers));
    }

    /// A write of the key begins, after what is known.
    pub fn begin(&mut self, key: usize) -> Begun<C> {
        let held = &mut self.keys[key];
        held.last += 1;
        let name = Name { run: self.run, sequence: held.last };
        let (context, covers) = match &held.known {
            Some((context, covers)) => (Some(context.clone()), covers.clone()),
            None => (None, Sequences::new()),
        };
        let (sequence, state) = (held.last, State::UnderWay);
        held.live.push(Entry { sequence, state, covers: covers.clone() });
        Begun { key, name, context, covers }
    }

    /// It was acked; `alone`: the coordinator knows no other value of the key.
    pub fn acked(&mut self, begun: &Begun<C>, context: C, alone: bool) {
        self.acked += 1;
        self.races += u64::from(!alone);
        let held = &mut self.keys[begun.key];
        held.acks += 1;
        let sequence = begun.name.sequence;
        let replaced = held.replaced_by(&begun.covers);
        held.live.retain(|entry| !replaced.contains(&entry.sequence));
        if let Some(entry) = held.live.iter_mut().find(|entry| entry.sequence == sequence) {
            entry.state = State::Acked;
            entry.covers.clear();
        }
        held.known = alone.then(|| (context, SmallVec::from_slice(&[sequence])));
        self.settle();
    }

    /// Goes on over new keys that are there, or that will not be made any more.
    fn settle(&mut self) {
        while let Some(held) = self.keys.get(self.settled).filter(|held| held.is_settled()) {
            if held.acks > 0 {
                // Keys are bounded far below that by the memory they take.
                self.made.push(u32::try_from(self.settled).unwrap_or(u32::MAX));
            }
            self.settled += 1;
        }
    }

    /// It was refused and is never stored.
    pub fn refused(&mut self, begun: &Begun<C>) {
        let held = &mut self.keys[begun.key];
        held.live.retain(|entry| entry.sequence != begun.name.sequence);
        self.settle();
    }

    /// It failed, and may be stored all the same.
    pub fn in_doubt(&mut self, begun: &Begun<C>) {
        let held = &mut self.keys[begun.key];
        held.known = None;
        let sequence = begun.name.sequence;
        if let Some(entry) = held.live.iter_mut().find(|entry| entry.sequence == sequence) {
            entry.state = State::InDoubt;
        }
        self.settle();
    }

    /// Whether this load wrote the key.
    pub fn is_written(&self, key: usize) -> bool {
        self.keys[key].last > 0
    }

    /// Judges what was found of a key, when nothing of it is under way.
    pub fn judge(&self, key: usize, found: &[Option<Name>]) -> Judgement {
        let held = &self.keys[key];
        let mut judgement = Judgement::default();
        let mut there = Sequences::new();
        for name in found {
            match name.and_then(|name| held.sequence_of(self.run, name)) {
                Some(sequence) if held.live.iter().any(|entry| entry.sequence == sequence) => {
                    there.push(sequence);
                }
                Some(_) => judgement.resurrected += 1,
                None => judgement.foreign += 1,
            }
        }
        // What is there, and what it replaced on its way: all that may be gone.
        let accounted = held.replaced_by(&there);
        let must = |entry: &&Entry| entry.state == State::Acked;
        let gone = |entry: &&Entry| !accounted.contains(&entry.sequence);
        let lost = held.live.iter().filter(must).filter(gone).count() as u64;
        match judgement.foreign {
            0 => judgement.lost = lost,
            1.. => judgement.unjudged = u64::from(lost > 0),
        }
        judgement
    }
}

impl<C> Held<C> {
    /// Whether it was written with an ack, or all its writes ended without one.
    fn is_settled(&self) -> bool {
        let under_way = |entry: &Entry| entry.state == State::UnderWay;
        self.acks > 0 || (self.last > 0 && !self.live.iter().any(under_way))
    }

    /// These writes and all that they replaced, directly or through others that nothing acked has
    /// replaced: what a write in doubt covers is covered by whatever covers that write.
    fn replaced_by(&self, writes: &Sequences) -> Sequences {
        let mut all = writes.clone();
        let mut next = 0;
        while let Some(&sequence) = all.get(next) {
            next += 1;
            let covers = self.live.iter().filter(|entry| entry.sequence == sequence);
            for covered in covers.flat_map(|entry| &entry.covers) {
                if !all.contains(covered) {
                    all.push(*covered);
                }
            }
        }
        all
    }

    /// The write of this run, or the first value, that a name is of.
    fn sequence_of(&self, run: u64, name: Name) -> Option<u32> {
        match (name.run == run && name.sequence <= self.last, self.first == Some(name)) {
            (_, true) => Some(0),
            (true, false) => Some(name.sequence),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests;
