//! What the feed promises: nothing left out, each write once, causal order per key unless marked late,
//! nothing that never was, and completeness up to the moment that it names.
//!
//! Source: algorithms 4.2, F1 to F5; `docs/guarantees.md`, section 8.

use crate::world::World;
use galvani_model::feed::Visibility;
use galvani_wire::feed::{FeedEvent, FeedState};
use std::collections::{BTreeMap, BTreeSet};

/// Whether an event is a record that some node committed, as it was; by quorum, one that most owners
/// have, or had before they lost their disks.
pub(crate) fn is_true(world: &World, consumer: usize, event: &FeedEvent) -> Result<(), String> {
    let this = &world.consumers.all[consumer];
    let dot = event.head.dot;
    let Some(entry) = world.ledger.entry(dot) else {
        return Err(format!("{dot} is shown and was committed by nobody"));
    };
    if entry.shard != this.shard || entry.record.head != event.head {
        return Err(format!("{dot} is shown as {:?}, it is {:?}", event.head, entry.record.head));
    }
    if event.values.first() != Some(&entry.record.value) {
        return Err(format!("{dot} is shown with another value"));
    }
    if this.visibility == Visibility::Quorum {
        let has = |node: usize| {
            let node = &world.nodes[node];
            node.clock_on_disk(this.shard).contains(dot) || node.lost_data_at.is_some()
        };
        // A gateway that has not heard of the last change goes by the owners before it.
        let most = |owners: &Vec<usize>| {
            owners.iter().filter(|&&node| has(node)).count() > owners.len() / 2
        };
        if !world.recent_owners(this.shard).iter().any(most) {
            return Err(format!("{dot} is shown by quorum, and no majority of owners has it"));
        }
    }
    Ok(())
}

/// Whether a consumer has been shown every write that was acknowledged before the moment that its
/// gateway says its feed is complete through, by as many owners as the bucket asks for that still
/// have it.
pub(crate) fn is_complete_through(
    world: &mut World,
    gateway: usize,
    consumer: usize,
    state: &FeedState,
) -> Result<(), String> {
    let clock = &world.nodes[gateway];
    let was_wrong = clock.set_from.is_some() || clock.clock.has_strayed();
    if state.complete_through_ms == 0 || was_wrong {
        return Ok(());
    }
    let ahead_ms = world.clock_ms(gateway) as i64 - world.wall_ms() as i64;
    let world_ms = state.complete_through_ms.saturating_add_signed(-ahead_ms);
    let this = &world.consumers.all[consumer];
    // While the layout changes a write is acknowledged by the old owners and the new ones, stand-ins
    // counted: what the gateway hears of are those that it knows.
    let (first, second) = world.nodes[gateway].layout.write_sets(this.shard);
    let sets = [Some(first), second].into_iter().flatten();
    let sets: Vec<Vec<usize>> =
        sets.map(|set| set.iter().map(|id| world.by_id[id]).collect()).collect();
    for (number, write) in world.history.writes.iter().enumerate() {
        let info = &world.keys[write.key];
        let before = write.acked_at.is_some_and(|at| world.wall_at(at) < world_ms);
        // Of a bucket that is half made a node may know nothing, nor what it asks for.
        let known = world.nodes[gateway].buckets.contains_key(info.key.bucket());
        if info.shard != this.shard || !before || write.options.n.is_some() || !known {
            continue;
        }
        let needed = info.props.w.resolve(info.props.n).unwrap_or(info.props.n);
        let having = |set: &[usize]| set.iter().filter(|it| write.holders.contains(it)).count();
        if sets.iter().any(|set| having(set) < usize::from(needed)) {
            continue;
        }
        // A page that was made before its gateway heard of the bucket counts with a majority: what asks for
        // less was not foreseen.
        let heard_of = world.nodes[gateway].heard_of.get(info.key.bucket());
        let foreseen = usize::from(needed) > usize::from(info.props.n) / 2;
        if !foreseen && heard_of.is_some_and(|&at_ms| state.now_ms <= at_ms) {
            world.coverage.add("feed.unforeseen", 1);
            continue;
        }
        if !write.dots.iter().any(|&dot| this.cursor.delivered().contains(dot)) {
            return Err(format!(
                "consumer {consumer} is complete through {world_ms}, write {number} {:?} was acked \
                 before, {:?} have it",
                write.dots, write.holders
            ));
        }
    }
    world.coverage.add("feed.complete_through", 1);
    Ok(())
}

/// Whether a consumer was shown all that any owner has, or was told that it is gone.
pub(crate) fn saw_all(world: &World, consumer: usize) -> Result<(), String> {
    let this = &world.consumers.all[consumer];
    let shown: BTreeSet<_> = this.shown.iter().map(|shown| shown.dot).collect();
    for id in world.layout.owners(this.shard) {
        let clock = world.nodes[world.by_id[&id]].clock_on_disk(this.shard);
        for range in clock.ranges() {
            for counter in range.first..=range.last {
                let dot = galvani_model::version::Dot::new(range.origin, counter);
                if !shown.contains(&dot) && !this.gone.contains(dot) {
                    let at =
                        if this.cursor.delivered().contains(dot) { "passed over" } else { "left" };
                    return Err(format!("{}: {dot} was never shown ({at})", this.shard));
                }
            }
        }
    }
    Ok(())
}

/// Whether no write was shown twice.
pub(crate) fn saw_each_once(world: &World, consumer: usize) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match world.consumers.all[consumer].shown.iter().find(|shown| !seen.insert(shown.dot)) {
        Some(again) => Err(format!("{} was shown twice", again.dot)),
        None => Ok(()),
    }
}

/// Whether no write came after one that replaces it, unless it was marked late.
pub(crate) fn saw_in_order(world: &World, consumer: usize) -> Result<(), String> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for shown in &world.consumers.all[consumer].shown {
        let Some(entry) = world.ledger.entry(shown.dot) else { continue };
        let head = &entry.record.head;
        let earlier = by_key.entry(&head.key).or_default();
        let before = |other: &&&galvani_model::version::RecordHead| other.past.contains(shown.dot);
        if let Some(later) = earlier.iter().find(before)
            && !shown.late
        {
            return Err(format!("{} was shown after {}, which replaces it", shown.dot, later.dot));
        }
        earlier.push(head);
    }
    Ok(())
}
