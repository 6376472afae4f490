//! The measurement of the feed, made so short that its figures mean nothing: that it measures all ways,
//! and that what it calls followed was followed.
//!
//! The figures themselves are in `docs/performance.md`.

use galvani_cluster_tests::feed_cost::{Settings, Way, measure};
use std::time::Duration;

#[test]
fn every_way_has_its_turns_and_the_consumer_is_shown_what_was_acked() {
    let brief = Duration::from_millis(300);
    let settings =
        Settings { rounds: 2, turn: brief, writers: 8, keys: 200, value: 100, lag: brief * 3 };
    let cost = measure(&settings);
    println!("{cost}");
    for way in Way::ALL {
        let turns = &cost.turns[&way];
        assert_eq!(turns.len(), settings.rounds);
        assert!(turns.iter().all(|turn| turn.puts > 0.0 && turn.cpu > 0.0), "{way}: {turns:?}");
    }
    let (acked, shown) = cost.followed;
    assert!(acked > 0 && shown >= acked, "{shown} of {acked} shown");
    for lag in &cost.lags {
        // One that was sent again is shown by either of its names; none is missing.
        let acked = lag.puts * settings.lag.as_secs_f64();
        assert!(lag.sorted.len() > 10, "{} of some {acked} shown", lag.sorted.len());
    }
    assert_eq!(cost.to_string().matches("| new_and_old |").count(), 1);
}
