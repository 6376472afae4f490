//! A member's round through the store, every second or so: its heartbeat, what it buries and keeps,
//! then how the others are, and what is new.
//!
//! It is one future that owns what it needs; the driver goes on handing out events meanwhile, and makes
//! of the report what it makes. The order matters: a shard is given up only in a heartbeat after the one
//! round that kept its position, and dead letters are listed after the bell was heard.

use super::names::{LetterName, Pile};
use super::record::{Beat, Letter, Roster, Spec, Tries};
use super::store::{GroupStore, Listed, all};
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use galvani_model::feed::Cursor;
use galvani_model::ids::{RequestId, Shard};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// What a round is to do.
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) beat: Beat,
    pub(crate) beat_after: Context,
    pub(crate) fingerprint: u64,
    pub(crate) bury: Vec<Burial>,
    /// Attempts of each shard where they have changed.
    pub(crate) tries: Vec<(Shard, Tries)>,
    /// Dead letters that were dealt with.
    pub(crate) erase: BTreeSet<LetterName>,
    /// What is not to be delivered again any more.
    pub(crate) unmark: BTreeSet<Pile>,
    pub(crate) keep: Vec<(Shard, Cursor, Context)>,
    /// Members that have been gone for long.
    pub(crate) strike: BTreeSet<RequestId>,
    pub(crate) load: BTreeSet<Shard>,
    /// Shards whose dead letters matter.
    pub(crate) mine: BTreeSet<Shard>,
    /// The bell as it was heard last; `None`: look whatever it says.
    pub(crate) bell: Option<u64>,
}

/// An event that goes to the dead letters.
pub(crate) struct Burial {
    pub(crate) shard: Shard,
    pub(crate) number: u64,
    pub(crate) name: LetterName,
    pub(crate) letter: Letter,
}

/// What came of a round.
pub(crate) struct Report {
    pub(crate) number: u64,
    pub(crate) started: Instant,
    pub(crate) beat: Result<Context>,
    pub(crate) buried: Vec<(Shard, u64, Result<()>)>,
    /// Whether the attempts of each shard were kept.
    pub(crate) tried: Vec<(Shard, bool)>,
    /// What is to be erased again.
    pub(crate) not_erased: BTreeSet<LetterName>,
    pub(crate) not_unmarked: BTreeSet<Pile>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) seen: Result<Seen>,
}

/// A position that was to be kept.
pub(crate) struct Kept {
    pub(crate) shard: Shard,
    /// Where it was put.
    pub(crate) resets: u32,
    /// What it is merged with, if another member kept one too, and what was written.
    pub(crate) outcome: Result<(Option<Cursor>, Context)>,
}

/// How the group is.
pub(crate) struct Seen {
    pub(crate) roster: Roster,
    pub(crate) beats: BTreeMap<RequestId, Option<Beat>>,
    pub(crate) news: Option<News>,
    pub(crate) loaded: Vec<(Shard, Option<Cursor>, Context)>,
    /// Attempts that are kept of what was loaded.
    pub(crate) tries: BTreeMap<Shard, Tries>,
}

/// What is new since the bell was heard last.
pub(crate) struct News {
    pub(crate) spec: Option<Spec>,
    pub(crate) listed: Listed,
    /// Dead letters of this member's shards that are to be delivered again.
    pub(crate) again: Vec<(Pile, Vec<(LetterName, Letter)>)>,
}

/// Goes the round.
pub(crate) async fn run(store: GroupStore, job: Job) -> Report {
    let started = Instant::now();
    let beat = store.beat(&job.beat, &job.beat_after).await;
    let bury = |burial: Burial| {
        let store = store.clone();
        async move {
            let buried = store.bury(&burial.name, &burial.letter).await;
            (burial.shard, burial.number, buried)
        }
    };
    let buried = all(job.bury, bury).await;
    let (not_erased, not_unmarked) = erase(&store, job.erase, job.unmark).await;
    let fingerprint = job.fingerprint;
    let keep = |(shard, cursor, context): (Shard, Cursor, Context)| {
        let store = store.clone();
        async move {
            let outcome = store.keep(fingerprint, shard, &cursor, &context).await;
            Kept { shard, resets: cursor.resets, outcome }
        }
    };
    let kept = all(job.keep, keep).await;
    let note = |(shard, tries): (Shard, Tries)| {
        let store = store.clone();
        async move {
            let kept = store.keep_tries(shard, &tries).await;
            if let Err(error) = &kept {
                tracing::debug!(%error, %shard, "attempts could not be kept");
            }
            (shard, kept.is_ok())
        }
    };
    // After the positions: of what they cover no attempt is kept any more.
    let tried = all(job.tries, note).await;
    let looking = Looking {
        me: job.beat.id,
        strike: job.strike,
        load: job.load,
        mine: job.mine,
        bell: job.bell,
    };
    let seen = look(&store, looking).await;
    let number = job.number;
    Report { number, started, beat, buried, tried, not_erased, not_unmarked, kept, seen }
}

async fn erase(
    store: &GroupStore,
    letters: BTreeSet<LetterName>,
    marks: BTreeSet<Pile>,
) -> (BTreeSet<LetterName>, BTreeSet<Pile>) {
    let letter = |name: LetterName| {
        let store = store.clone();
        async move { store.erase(&name.key()).await.is_err().then_some(name) }
    };
    let letters = all(letters.into_iter().collect(), letter).await.into_iter().flatten().collect();
    let mark = |pile: Pile| {
        let store = store.clone();
        async move { store.erase(&pile.mark()).await.is_err().then_some(pile) }
    };
    let marks = all(marks.into_iter().collect(), mark).await.into_iter().flatten().collect();
    (letters, marks)
}

struct Looking {
    me: RequestId,
    strike: BTreeSet<RequestId>,
    load: BTreeSet<Shard>,
    mine: BTreeSet<Shard>,
    bell: Option<u64>,
}

async fn look(store: &GroupStore, looking: Looking) -> Result<Seen> {
    let Looking { me, strike, load, mine, bell } = looking;
    let mut roster = store.roster().await?;
    if !roster.members.contains(&me) || !strike.is_empty() {
        let change = |roster: &mut Roster| {
            roster.members.retain(|it| !strike.contains(it));
            roster.members.insert(me);
        };
        store.change_roster(change).await?;
        change(&mut roster);
    }
    let others = roster.members.iter().copied().filter(|it| *it != me).collect();
    let beats = store.beats(others).await?;
    // Whoever takes a shard over must know what is parked in it before it hands anything out.
    let news = match bell != Some(roster.bell) || !load.is_empty() {
        true => Some(news(store, &mine).await?),
        false => None,
    };
    let position = |shard| {
        let store = store.clone();
        async move {
            match store.position(shard).await {
                Ok((cursor, context)) => Ok(Some((shard, cursor, context))),
                Err(error) if matches!(error.kind(), ErrorKind::GroupDamaged { .. }) => Err(error),
                // Others are begun with meanwhile; this one is tried again.
                Err(_) => Ok(None),
            }
        }
    };
    let loaded = all(load.into_iter().collect(), position).await;
    let loaded = loaded.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten();
    let loaded: Vec<_> = loaded.collect();
    let shards: BTreeSet<Shard> = loaded.iter().map(|(shard, ..)| *shard).collect();
    let tries = match shards.is_empty() {
        true => BTreeMap::new(),
        false => store.tries(&shards).await?,
    };
    Ok(Seen { roster, beats, news, loaded, tries })
}

async fn news(store: &GroupStore, mine: &BTreeSet<Shard>) -> Result<News> {
    let spec = store.spec().await?;
    let listed = store.letters().await?;
    let mut again = Vec::new();
    for pile in &listed.marks {
        if !mine.contains(&pile.shard) {
            continue;
        }
        let names = listed.letters.iter().filter(|it| it.pile == *pile).cloned().collect();
        let read = |name: LetterName| {
            let store = store.clone();
            async move { Ok(store.letter(&name).await?.map(|letter| (name, letter))) }
        };
        let read = all(names, read).await.into_iter().collect::<Result<Vec<_>>>()?;
        let mut letters: Vec<(LetterName, Letter)> = read.into_iter().flatten().collect();
        letters.sort_by(|(a, _), (b, _)| a.cmp(b));
        again.push((*pile, letters));
    }
    Ok(News { spec, listed, again })
}
