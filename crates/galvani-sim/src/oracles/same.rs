//! After the last fault all owners of a shard have equal objects: convergence.

use crate::world::World;
use galvani_model::ids::WriteId;
use galvani_model::version::{Dot, Kind, Object};

/// Whether a key's owners agree. With `exact` on the objects; else on the writes that are live
/// once every replica's knowledge is put together, which is as far as read repair alone can go.
pub(crate) fn check(world: &mut World, key: usize, exact: bool) -> Result<(), String> {
    let info = world.keys[key].clone();
    let mut objects = Vec::new();
    for &node in &info.owners {
        objects.push((node, world.nodes[node].object_on_disk(info.shard, &info.key)));
    }
    if objects.windows(2).all(|pair| versions(&pair[0].1) == versions(&pair[1].1)) {
        return Ok(());
    }
    let mut live = Vec::new();
    for (node, object) in &objects {
        live.push((*node, live_writes(world, object, &objects)));
    }
    if !exact && live.windows(2).all(|pair| pair[0].1 == pair[1].1) {
        world.coverage.add("converged.stale_alias_left", 1);
        return Ok(());
    }
    let show: Vec<String> = objects
        .iter()
        .map(|(node, object)| {
            let dots: Vec<_> = object.versions().iter().map(|version| &version.dots).collect();
            format!("node {node}: {dots:?}")
        })
        .collect();
    Err(format!("{} differs: {}", info.key, show.join("; ")))
}

/// What equal replicas must agree on: the writes and their dots. Who minted the first dot that came
/// may differ, for it is for people.
/// Tombstones and values that expire are each replica's own affair: `buried.rs` asks for them.
fn versions(object: &Object) -> Vec<(WriteId, &[Dot])> {
    let values = object.versions().iter().filter(|version| version.is_lasting());
    values.map(|version| (version.write, version.dots.as_slice())).collect()
}

/// The writes of an object that nothing any of `all` holds replaces, by whatever dot.
fn live_writes(world: &World, object: &Object, all: &[(usize, Object)]) -> Vec<Option<usize>> {
    let pasts = all.iter().flat_map(|(_, object)| object.versions());
    let write_of = |dot| world.ledger.entry(dot).and_then(|entry| entry.write);
    let mut live: Vec<Option<usize>> = object
        .versions()
        .iter()
        .filter(|version| version.is_lasting() || version.kind == Kind::Delete)
        .map(|version| write_of(version.dots[0]))
        .filter(|write| {
            let Some(number) = write else { return true };
            let dots = &world.history.writes[*number].dots;
            let replaces = |by: &galvani_model::version::Version| {
                write_of(by.dots[0]) != *write && crate::ledger::covers_any(&by.past, dots)
            };
            !pasts.clone().any(replaces)
        })
        .collect();
    live.sort_unstable();
    live
}
