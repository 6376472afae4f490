//! A short run of everything that breaks, with the verdict of the whole history.

use galvani_cluster_tests::chaos::{Fault, Settings, run};
use std::time::Duration;

#[test]
fn kill9_storm_loses_and_invents_nothing() {
    let settings = Settings {
        seed: 23,
        nodes: 3,
        clients: 12,
        time: Duration::from_secs(20),
        think: Duration::from_millis(60),
        beat: Some(Duration::from_secs(2)),
        faults: vec![Fault::Kill],
        first: Vec::new(),
    };
    let report = run(&settings);
    println!("{report}");
    assert!(report.passed(), "{report}");
    let kills = report.faults.get(&Fault::Kill).copied();
    assert!(kills >= Some(5), "hardly any kill: {report}");
    assert!(report.acked > 200, "hardly any load: {report}");
}

#[test]
fn half_a_minute_of_random_faults_loses_and_invents_nothing() {
    let settings = Settings {
        seed: 22,
        nodes: 5,
        clients: 24,
        time: Duration::from_secs(30),
        // A debug build shares its cores with other tests.
        think: Duration::from_millis(60),
        faults: Fault::ALL.to_vec(),
        beat: None,
        first: vec![Fault::Full, Fault::Flip, Fault::Wipe],
    };
    let report = run(&settings);
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert!(report.acked > 300 && report.tally.reads > 200, "hardly any load: {report}");
    let kinds = report.faults.len();
    assert!(kinds >= 3, "hardly any faults: {report}");
    // Which row the byte is of, and whether a write meets the full disk in time, is chance: `bitflip.rs`
    // and `disk.rs` have both for certain.
    assert!(report.faults.contains_key(&Fault::Flip), "no byte was flipped: {report}");
    assert!(report.faults.contains_key(&Fault::Wipe), "no disk was lost: {report}");
    assert!(report.judged > 100, "hardly any read had to show anything: {report}");
    // Where no small file system can be mounted this was said, and under `CI` it failed.
    assert!(report.left_out || report.faults.contains_key(&Fault::Full), "no full disk: {report}");
}
