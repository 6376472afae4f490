//! States of a layout: what may follow what, and that quorums of neighbouring epochs overlap.

use super::*;
use crate::ids::ClusterId;

fn member(number: u8) -> Member {
    let address = SocketAddr::from(([10, 0, 0, number], 7000));
    Member::new(NodeId(u128::from(number)), format!("n{number}"), "a", 100, vec![address])
        .expect("a member")
}

fn layout(version: u64, nodes: impl IntoIterator<Item = u8>) -> Arc<Layout> {
    let members = nodes.into_iter().map(member).collect();
    Arc::new(Layout::compute(ClusterId(3), version, 64, 3, members).expect("a layout"))
}

#[test]
fn a_change_goes_through_its_phases_and_ends_with_the_new_layout() {
    let founding = LayoutState::founding(layout(1, 1..=3));
    let copying = founding.begin(layout(2, 1..=5)).expect("it follows");
    let switching = copying.advance().expect("it goes on");
    let done = switching.advance().expect("it ends");
    let epochs = [&founding, &copying, &switching, &done].map(LayoutState::epoch);
    assert_eq!(epochs, [1, 2, 3, 4]);
    assert_eq!(done.current().version(), 2);
    assert_eq!(done.transition(), None);
    assert_eq!((copying.reading().version(), switching.reading().version()), (1, 2));
    assert_eq!(done.advance(), Err(StateError::NotChanging));
    assert_eq!(switching.abort(), Err(StateError::TooLate));
    let aborted = copying.abort().expect("not too late");
    assert_eq!((aborted.epoch(), aborted.current().version()), (3, 1));
    for (from, to) in [(&founding, &copying), (&copying, &switching), (&switching, &done)] {
        assert!(from.may_become(to));
        assert!(!to.may_become(from));
    }
    assert!(copying.may_become(&aborted));
    assert!(!founding.may_become(&switching), "a phase is left out");
    assert!(!switching.may_become(&aborted));
    let version = copying.begin(layout(2, 1..=4));
    assert_eq!(version, Err(StateError::Changing { version: 2, begun: 2 }));
    assert_eq!(
        founding.begin(layout(3, 1..=4)),
        Err(StateError::NotNext { made_after: 2, version: 1 })
    );
}

/// Every quorum of reads meets every quorum of writes, within an epoch and with that before.
#[test]
fn quorums_of_neighbouring_epochs_overlap() {
    let founding = LayoutState::founding(layout(1, 1..=4));
    let copying = founding.begin(layout(2, 3..=7)).expect("it follows");
    let switching = copying.advance().expect("it goes on");
    let done = switching.advance().expect("it ends");
    let states = [founding, copying, switching, done];
    for partition in (0..64).map(Partition) {
        let shard = Shard { partition, n: 3 };
        for pair in states.windows(2) {
            for (reads, writes) in [(0, 0), (0, 1), (1, 1), (1, 0)] {
                // New owners have caught up with what was written before, and old ones are fenced
                // off after: neither is a matter of the sets.
                let later = pair[reads].epoch() == 3 && pair[writes].epoch() == 2;
                let (reads, writes) = (pair[reads].owners(shard), pair[writes].write_sets(shard));
                let sets = [Some(writes.0), writes.1];
                let overlaps = sets.into_iter().flatten().any(|set| set == reads);
                assert!(overlaps || later || pair[0].epoch() == 3, "{shard}: {pair:?}");
            }
        }
    }
}

#[test]
fn whoever_is_new_or_comes_earlier_has_to_catch_up() {
    let founding = LayoutState::founding(layout(1, 1..=4));
    let copying = founding.begin(layout(2, 2..=6)).expect("it follows");
    let (mut fresh, mut moved) = (0, 0);
    for shard in (0..64).flat_map(|p| [1, 2, 3].map(|n| Shard { partition: Partition(p), n })) {
        assert_eq!(founding.incoming(NodeId(2), shard), None);
        let (old, new) =
            (founding.owners(shard), copying.transition().expect("it is").next.owners(shard));
        for (place, &node) in new.iter().enumerate() {
            let incoming = copying.incoming(node, shard);
            match old.iter().position(|&owner| owner == node) {
                Some(before) if before <= place => assert_eq!(incoming, None),
                before => {
                    let incoming = incoming.expect("it has to catch up");
                    assert_eq!(incoming.fresh, before.is_none());
                    assert!(
                        !incoming.sources.contains(&node)
                            && incoming.sources.len() + 1 >= old.len()
                    );
                    fresh += usize::from(before.is_none());
                    moved += usize::from(before.is_some());
                }
            }
            assert!(copying.is_replica(node, shard));
        }
        let replicas = copying.replicas(shard);
        assert!(old.iter().chain(&new).all(|node| replicas.contains(node)));
        assert!(copying.fallbacks(shard).all(|node| !replicas.contains(&node)));
        assert_eq!(copying.fallbacks(shard).count() + replicas.len(), 6);
    }
    assert!(fresh > 0 && moved > 0, "both were met: {fresh} {moved}");
    assert_eq!(copying.members().count(), 6);
}

#[test]
fn a_change_goes_on_at_another_pace_and_an_epoch_may_be_over_without_one() {
    let state = LayoutState::founding(layout(1, 1..=3));
    let again = state.again();
    assert_eq!((again.epoch(), again.current()), (2, state.current()));
    assert!(state.may_become(&again) && !again.may_become(&state));
    let pace = Pace { paused: true, bytes_per_second: 7 };
    assert_eq!(state.at_pace(pace), Err(StateError::NotChanging));
    let begun = state.begin_at(layout(2, 1..=4), pace).expect("it follows");
    assert!(state.may_become(&begun), "at whatever pace it begins");
    let faster = begun.at_pace(Pace::default()).expect("it is copying");
    assert!(begun.may_become(&faster) && !state.may_become(&faster));
    assert_eq!(faster.transition().map(|it| (it.begun, it.phase)), Some((2, Phase::Copying)));
    let switching = faster.advance().expect("it goes on");
    assert_eq!(switching.at_pace(pace), Err(StateError::TooLate));
    assert!(switching.may_become(&switching.again()));
}
