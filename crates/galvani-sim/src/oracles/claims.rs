//! A context names only what its reader saw or what was replaced for it, and nothing more.
//!
//! A write that a context covers although its reader neither got it nor got something that
//! replaced it would be deleted unseen by the next write. Source: algorithms 2.3, INV-5.

use crate::ledger::covers_any;
use crate::oracles::reads::Seen;
use crate::world::{World, context_key};
use galvani_model::hlc::Hlc;
use galvani_model::version::{Context, Dot, DotSet};
use galvani_wire::message::PutDone;

/// Checks the context of a read.
pub(crate) fn after_read(world: &World, read: usize, seen: &Seen) -> Result<(), String> {
    let key = world.history.reads[read].key;
    for &dot in world.ledger.dots_of(key) {
        let entry = world.ledger.entry(dot).expect("listed by the ledger itself");
        let Some(write) = entry.write else { continue };
        if !seen.context.contains(dot) || seen.writes.contains_key(&write) {
            continue;
        }
        if !is_over(world, write, dot, &seen.context, seen.hlc_max) {
            return Err(format!(
                "read {read}: the context covers {dot} (write {write}), which was neither shown \
                 nor replaced by anything it covers"
            ));
        }
    }
    Ok(())
}

/// Whether a context of this time may cover a dot of a write that its holder has not seen: something that it
/// covers has replaced that write or outranks it, or it is proven dead.
fn is_over(world: &World, write: usize, dot: Dot, context: &DotSet, hlc: Hlc) -> bool {
    let asked = &world.history.writes[write];
    let in_context = |by| context.contains(by);
    let ledger = &world.ledger;
    let replaced = ledger.replaced_by(asked.key, Some(write), &asked.dots, &in_context).is_some();
    let issued = ledger.entry(dot).map(|entry| entry.record.head.hlc);
    let outranked = world.keys[asked.key].is_lww() && issued.is_some_and(|issued| hlc >= issued);
    replaced || outranked || ledger.is_buried(&asked.dots)
}

/// Checks the context of a write's answer: the write, its own past, and nothing more of the key that was not
/// replaced for its author.
pub(crate) fn after_write(world: &World, write: usize, done: &PutDone) -> Result<(), String> {
    let asked = &world.history.writes[write];
    let key = &world.keys[asked.key].key;
    let context = Context::open(&done.context, key, &context_key())
        .map_err(|error| format!("the context of write {write} does not open: {error}"))?;
    let mut exact: DotSet = asked.past.clone();
    exact.insert(done.dot);
    if !context.seen.includes(&exact) {
        return Err(format!("write {write}: context {} lacks some of {exact}", context.seen));
    }
    // To tell it more briefly adds what lies in between, never a name or a number beyond.
    let ends = |seen: &DotSet| -> Vec<_> {
        seen.iter().map(|(origin, ..)| (origin, seen.max_counter(origin))).collect()
    };
    if ends(&context.seen) != ends(&exact) {
        return Err(format!("write {write}: context {} goes beyond {exact}", context.seen));
    }
    let dated = world.ledger.entry(done.dot).map(|entry| entry.record.head.hlc);
    if dated.is_some_and(|hlc| hlc != context.hlc) {
        return Err(format!("write {write} is of {dated:?}, its context of {:?}", context.hlc));
    }
    for &dot in world.ledger.dots_of(asked.key) {
        let entry = world.ledger.entry(dot).expect("listed by the ledger itself");
        let Some(other) = entry.write else { continue };
        let dots = &world.history.writes[other].dots;
        if !context.seen.contains(dot) || covers_any(&exact, dots) {
            continue;
        }
        if !is_over(world, other, dot, &context.seen, context.hlc) {
            return Err(format!(
                "write {write}: its context covers {dot} (write {other}), which its author had not \
                 seen and nothing has replaced"
            ));
        }
    }
    if !asked.dots.contains(&done.dot) || !covers_any(&context.seen, &asked.dots) {
        return Err(format!("write {write} is answered with the dot of another: {}", done.dot));
    }
    Ok(())
}
