//! `hint_flood` (H7), in short: a node is down under full load for longer than hints have room.

use galvani_cluster_tests::flood::{Settings, run};
use std::time::Duration;

#[test]
fn hint_flood_stays_within_its_bound_is_told_and_loses_nothing() {
    let report = run(&Settings {
        down: Duration::from_secs(6),
        around: Duration::from_secs(1),
        writers: 8,
        value: 1_000,
        cap: 512 << 10,
        sample: Duration::from_millis(200),
    });
    println!("{report}");
    assert_eq!(report.violations(), [] as [String; 0]);
    // It came to the bound: a little more would not have fitted.
    assert!(report.bytes_max() > 450 << 10, "{} bytes", report.bytes_max());
    assert!(report.drained.0 > 0, "nothing was left to deliver");
    // Who needs the stand-in gets it while there is room, and is told when there is none; those
    // who do not go on all the time.
    let probes = &report.probes;
    assert!(probes.by_stand_in > 0 && probes.refused > 0, "{probes:?}");
    assert_eq!(probes.refused_and_stored_by_two, probes.refused, "{probes:?}");
    for phase in &report.phases {
        assert!(phase.acked > 0, "{phase:?}");
    }
}
