//! What a read shows was written to that key, is not denied, stands once, and its context covers it.
//!
//! Also: nothing shown replaces anything else shown. What a read misses is asked in `overlap.rs`,
//! what its context claims in `claims.rs`.

use crate::world::{World, context_key};
use galvani_model::hlc::Hlc;
use galvani_model::version::{Context, Dot, DotSet, Kind};
use galvani_wire::message::{GetDone, Sibling};
use std::collections::BTreeMap;

/// What a reader saw.
pub(crate) struct Seen {
    /// The logical writes shown, and their dots as shown.
    pub(crate) writes: BTreeMap<usize, Dot>,
    pub(crate) context: DotSet,
    pub(crate) hlc_max: Hlc,
}

type Broken = (&'static str, String);

/// Checks the answer of a read.
pub(crate) fn check(world: &mut World, read: usize, done: &GetDone) -> Result<Seen, Broken> {
    let key = world.history.reads[read].key;
    let info = &world.keys[key];
    let context = Context::open(&done.context, &info.key, &context_key())
        .map_err(|error| ("causality", format!("read {read}: its context: {error}")))?;
    let mut writes = BTreeMap::new();
    for sibling in &done.siblings {
        let write = written(world, read, key, sibling)?;
        if !context.seen.contains(sibling.dot) {
            let what = format!("read {read} shows {} and does not cover it", sibling.dot);
            return Err(("causality", what));
        }
        if writes.insert(write, sibling.dot).is_some() {
            return Err(("no_false_sibling", format!("read {read} shows write {write} twice")));
        }
        if world.history.is_denied(write) || world.history.writes[write].impossible {
            let what = format!("read {read} shows write {write}, which was never stored");
            return Err(("denied_stays_absent", what));
        }
    }
    replaced_by_each_other(world, read, &writes)?;
    if world.keys[key].is_lww() && writes.len() > 1 {
        return Err(("lww_keeps_one", format!("read {read} shows {writes:?}")));
    }
    let hlc_max = done.siblings.iter().map(|sibling| sibling.hlc).max().unwrap_or_default();
    Ok(Seen { writes, context: context.seen, hlc_max })
}

/// The write that a sibling is, or what is wrong with it.
fn written(world: &World, read: usize, key: usize, sibling: &Sibling) -> Result<usize, Broken> {
    let dot = sibling.dot;
    let Some(entry) = world.ledger.entry(dot) else {
        return Err(("invention", format!("read {read} shows {dot}, which no node committed")));
    };
    let Some(write) = entry.write else {
        return Err(("invention", format!("read {read} shows {dot}, which no client wrote")));
    };
    let asked = &world.history.writes[write];
    // When it has ended `expiry.rs` knows; then it is told as a tombstone.
    let ended = asked.expires_ms > 0 && sibling.kind == Kind::Delete && sibling.value.is_empty();
    let as_written = asked.kind == sibling.kind && asked.value == sibling.value;
    if asked.key != key || !(as_written || ended) {
        return Err(("invention", format!("read {read} shows {dot} other than it was written")));
    }
    let traced = world.history.write_of(world.seed, &sibling.value);
    let traceable = !world.clients.is_empty() && sibling.kind == Kind::Put && !world.by_script();
    if traceable && traced != Some(write) {
        return Err(("invention", format!("read {read}: the value of {dot} names another write")));
    }
    Ok(write)
}

/// No shown version may replace another shown one by a dot that is shown.
fn replaced_by_each_other(
    world: &mut World,
    read: usize,
    writes: &BTreeMap<usize, Dot>,
) -> Result<(), Broken> {
    for (&write, &dot) in writes {
        for (&other, &by) in writes.iter().filter(|(other, _)| **other != write) {
            let past = &world.ledger.entry(by).expect("shown, so known").record.head.past;
            if past.contains(dot) {
                let what =
                    format!("read {read} shows write {write} beside {other}, which replaced it");
                return Err(("no_false_sibling", what));
            }
            // Replaced by another dot of the same write: known once replicas exchange logs, unless
            // every disk that had that dot has lost it.
            let aliases = &world.history.writes[write].dots;
            let replaced: Vec<Dot> =
                aliases.iter().copied().filter(|&alias| past.contains(alias)).collect();
            if !replaced.is_empty() {
                world.coverage.add("reads.stale_alias", 1);
                let kept = replaced.iter().any(|&alias| is_held(world, read, alias));
                if world.history.reads[read].last && kept {
                    let what =
                        format!("read {read} shows write {write} again, replaced by {other}");
                    return Err(("no_resurrection", what));
                }
            }
        }
    }
    Ok(())
}

/// Whether any owner of the key still has a dot.
fn is_held(world: &World, read: usize, dot: Dot) -> bool {
    let info = &world.keys[world.history.reads[read].key];
    info.owners.iter().any(|&node| world.nodes[node].clock_on_disk(info.shard).contains(dot))
}
