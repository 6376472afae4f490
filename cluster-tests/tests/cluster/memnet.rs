//! Real nodes on a network in memory and a clock that is stood still: many seeds are clean, one seed
//! is always the same run, and bugs that are put in are found.

use galvani_cluster_tests::chaos::What;
use galvani_cluster_tests::memnet::nemesis::Fault;
use galvani_cluster_tests::memnet::{Plant, Report, Settings, run};
use std::time::Duration;

const TIME: Duration = Duration::from_secs(5);

fn seed(seed: u64, plant: Option<Plant>) -> Report {
    run(Settings { seed, time: TIME, plant, only: None })
}

/// Runs seeds two at a time, as there are two cores at least.
fn seeds(seeds: std::ops::Range<u64>) -> Vec<Report> {
    let half = |odd: u64| {
        let mine = seeds.clone().filter(move |number| number % 2 == odd);
        move || mine.map(|number| seed(number, None)).collect::<Vec<_>>()
    };
    let other = std::thread::spawn(half(1));
    let mut reports = half(0)();
    reports.extend(other.join().expect("a run does not panic"));
    reports
}

/// N5, N6, N8 and P3 of the list of cases among them: links that flap, loss and duplicates, restarts
/// behind links that stay half open, nodes that stand still.
#[test]
fn many_seeds_are_clean() {
    let reports = seeds(1..15);
    let failed: Vec<String> =
        reports.iter().filter(|report| !report.passed()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let acked: usize = reports.iter().map(|report| report.acked).sum();
    assert!(acked > 4_000, "{acked} acked writes prove little");
    let mut kinds: Vec<_> = reports.iter().flat_map(|report| report.faults.keys()).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), Fault::ALL.len(), "every kind of fault came: {kinds:?}");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_datagram() {
    for number in [3, 4] {
        let (one, two) = (seed(number, None), seed(number, None));
        assert_eq!(one.log, two.log);
        assert_eq!(one.traffic, two.traffic, "seed {number}");
        assert_eq!((one.acked, one.tally.reads), (two.acked, two.tally.reads));
        assert_eq!(one.converged, two.converged);
    }
    assert_ne!(seed(3, None).traffic.hash, seed(4, None).traffic.hash);
}

/// What the first of some seeds that finds `plant` says of it.
fn found(plant: Plant) -> Vec<What> {
    let runs = (1..40).map(|number| seed(number, Some(plant)));
    let found = runs.into_iter().find(|report| !report.passed());
    let found = found.unwrap_or_else(|| panic!("{plant:?} was not found"));
    println!("{found}");
    found.violations.iter().map(|violation| violation.what).collect()
}

/// N8 `half_open_after_restart`.
#[test]
fn half_open_after_restart_links_are_found() {
    let what = found(Plant::HalfOpen);
    assert!(what.iter().any(|what| matches!(what, What::NotEqual | What::Late)), "{what:?}");
}

#[test]
fn a_cut_that_stays_is_found() {
    let what = found(Plant::CutStays);
    assert!(what.contains(&What::NotEqual), "{what:?}");
}

#[test]
fn disks_that_lie_are_found() {
    let what = found(Plant::DisksLie);
    let lost = [What::Lost, What::Missed, What::CameBack, What::NotEqual, What::NeverWritten];
    assert!(what.iter().any(|what| lost.contains(what)), "{what:?}");
}

#[test]
fn a_lost_disk_that_is_not_noticed_is_found() {
    let what = found(Plant::LossUnnoticed);
    let lost = [What::Missed, What::CameBack, What::Lost];
    assert!(what.iter().any(|what| lost.contains(what)), "{what:?}");
}

/// A copy of a node's disk that runs beside it: one of the two ends, and nothing is lost.
#[test]
fn cloned_data_dir_one_of_the_two_ends() {
    let only = Some(Fault::Copy);
    let copies = |seed| run(Settings { seed, time: TIME, plant: None, only });
    let reports: Vec<Report> = (1..7).map(copies).collect();
    let failed: Vec<String> =
        reports.iter().filter(|report| !report.passed()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let told = |words: &str| {
        let lines = reports.iter().flat_map(|report| &report.log);
        lines.filter(|line| line.contains(words)).count()
    };
    let runs: u32 = reports.iter().flat_map(|report| report.faults.values()).sum();
    let (copy, original) = (told("has yielded"), told("yields to its copy"));
    assert!(copy > 2 && original > 2, "{copy} {original} of {runs}");
    assert!(copy + original >= runs as usize * 9 / 10, "{copy} {original} of {runs}");
}
