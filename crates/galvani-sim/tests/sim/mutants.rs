//! The test of the tests: each planted bug is caught within its number of seeds, by its oracle.

use core::ops::RangeInclusive;
use galvani_sim::{Mutant, RunOptions, run_seed};

/// Seeds one of which must catch a mutant: about three times what was measured when it was planted,
/// or where the first one is far out, the seeds around it.
fn seeds_for(mutant: Mutant) -> RangeInclusive<u64> {
    match mutant {
        Mutant::AlwaysEqual => 1..=100,
        Mutant::PlainContexts => 1..=40,
        Mutant::DropsRepairs
        | Mutant::ForgetsRequests
        | Mutant::KeepsOrigins
        | Mutant::TornBatches => 1..=20,
        Mutant::CollectsEarly => 1..=60,
        Mutant::KeepsOriginsAfterCrash => 1..=100,
        Mutant::AsksNobody | Mutant::TrustsCopies => 1_868..=1_878,
        Mutant::IgnoresDigests => 1_333..=1_343,
        Mutant::IgnoresRecords => 3_400..=3_410,
        Mutant::IgnoresContexts => 4_974..=5_002,
        Mutant::StaleClocks => 50..=58,
        Mutant::IgnoresChecksums => 325..=360,
        Mutant::DamageIsAbsence => 1..=40,
        Mutant::NeverMends => 1..=60,
        Mutant::RevivesOrigins => 1..=20,
        Mutant::FeedReorders | Mutant::FeedSkips | Mutant::FeedRepeats => 1..=10,
        Mutant::LosesCommits
        | Mutant::EffectsFirst
        | Mutant::NeverFsyncs
        | Mutant::DuplicateAcks
        | Mutant::OneSibling
        | Mutant::NewWritePerRetry
        | Mutant::SaysNo
        | Mutant::StaleDigest
        | Mutant::LastWriterWins
        | Mutant::DropsPast
        | Mutant::DropsPulled
        | Mutant::HoldsNothing
        | Mutant::ReleasesEarly
        | Mutant::SkipsConfirming
        | Mutant::ForgetsExpiry
        | Mutant::TrimsLive
        | Mutant::AcksForOthers => 1..=10,
        Mutant::ShowsExpired => 1..=10,
        Mutant::TrimsWithoutProof => 1..=150,
        Mutant::TrimsTombstones => 15..=30,
        Mutant::LosesHints => 68..=77,
        Mutant::HalfProof => 235..=242,
        Mutant::LeavesLost => 55..=60,
        Mutant::CountsStandIns => 1..=10,
        Mutant::RepairsWithoutEnd => 1..=20,
        Mutant::AgesInSilence => 568..=576,
        Mutant::KeepsHints => 266..=272,
        Mutant::SkipsCopying => 3_168..=3_175,
        Mutant::AnswersAtOnce => 1..=110,
        Mutant::ForgetsVotes => 205..=215,
        Mutant::NeverTellsTheDown | Mutant::KeepsDown => 1..=120,
        Mutant::TrustsTheDate => 1..=20,
        Mutant::TakesEverythingOn | Mutant::HoldsEverything => 1..=80,
        Mutant::HoardsHints => 1..=20,
    }
}

/// The oracles that may catch a mutant: being caught by accident proves nothing.
fn oracles_for(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::FeedReorders => &["feed_order"],
        Mutant::FeedSkips => &["feed_loses_nothing"],
        Mutant::FeedRepeats => &["feed_shows_once"],
        Mutant::ForgetsRequests | Mutant::TrustsTheDate => {
            &["equal_clock_equal_digest", "convergence", "no_acked_write_lost", "no_resurrection"]
        }
        Mutant::KeepsOrigins => &["one_dot_one_record", "dense_own_counter"],
        Mutant::KeepsOriginsAfterCrash | Mutant::AsksNobody | Mutant::TrustsCopies => {
            &["one_dot_one_record", "dense_own_counter"]
        }
        // The lane itself refuses a dot that it has, and stops.
        Mutant::IgnoresContexts => &["one_dot_one_record", "dense_own_counter", "no_panic"],
        Mutant::IgnoresDigests | Mutant::IgnoresRecords => &["amnesia_is_noticed"],
        Mutant::StaleClocks => {
            &["rows_add_up", "one_dot_one_record", "no_panic", "equal_clock_equal_digest"]
        }
        Mutant::RevivesOrigins => &["one_dot_one_record", "no_panic"],
        Mutant::IgnoresChecksums | Mutant::DamageIsAbsence => &[
            "rows_add_up",
            "causality",
            "read_your_quorum",
            "convergence",
            "equal_clock_equal_digest",
        ],
        Mutant::NeverMends => &["mends", "comes_to_rest"],
        Mutant::LosesCommits => &["durable_at_ack", "dense_own_counter", "commit_before_send"],
        Mutant::EffectsFirst => &["durable_at_ack"],
        Mutant::NeverFsyncs | Mutant::HoldsNothing => &["durable_at_ack", "handed_over_durably"],
        Mutant::ReleasesEarly => &["handed_over_durably"],
        Mutant::LosesHints | Mutant::KeepsHints => &["hints_alone_deliver"],
        Mutant::HalfProof => &["collected_by_proof"],
        Mutant::LeavesLost => &["equal_clock_equal_digest", "convergence"],
        Mutant::CountsStandIns => &["durable_at_ack"],
        Mutant::RepairsWithoutEnd => &["bounded_repairs"],
        Mutant::AgesInSilence => &["stillness_accuses_nobody"],
        Mutant::SkipsConfirming => &["monotone_reads"],
        Mutant::CollectsEarly => &["collected_by_proof"],
        Mutant::TrimsLive | Mutant::TrimsWithoutProof | Mutant::TrimsTombstones => {
            &["trimmed_by_proof"]
        }
        Mutant::SkipsCopying | Mutant::AnswersAtOnce => &["read_your_quorum"],
        Mutant::ForgetsVotes => &["one_layout_an_epoch"],
        Mutant::NeverTellsTheDown | Mutant::KeepsDown => &["liveness_recovers"],
        Mutant::TakesEverythingOn | Mutant::HoldsEverything | Mutant::HoardsHints => {
            &["bounded_queues"]
        }
        Mutant::ShowsExpired => &["shown_until_its_end"],
        Mutant::ForgetsExpiry => &["one_dot_one_record"],
        Mutant::DuplicateAcks | Mutant::AcksForOthers => &["durable_at_ack"],
        Mutant::TornBatches => &["rows_add_up", "one_dot_one_record", "no_panic", "durable_at_ack"],
        Mutant::PlainContexts => &["causality", "read_your_quorum", "monotone_reads"],
        Mutant::OneSibling => &["causality"],
        Mutant::NewWritePerRetry => &["no_false_sibling", "causality"],
        Mutant::SaysNo => &["denied_stays_absent"],
        Mutant::StaleDigest => &["rows_add_up", "equal_clock_equal_digest"],
        Mutant::LastWriterWins => &["vanish"],
        Mutant::DropsPast => &["one_dot_one_record"],
        Mutant::DropsRepairs | Mutant::DropsPulled | Mutant::AlwaysEqual => &["convergence"],
    }
}

#[test]
fn every_mutant_is_caught_by_its_oracle() {
    let mut survivors = Vec::new();
    for &mutant in Mutant::ALL {
        let options = RunOptions { mutant: Some(mutant), ..RunOptions::default() };
        let caught = seeds_for(mutant).find_map(|seed| {
            let broken = run_seed(seed, options).violation?.oracle;
            oracles_for(mutant).contains(&broken).then_some((seed, broken))
        });
        match caught {
            Some((seed, oracle)) => println!("{mutant}: seed {seed}, {oracle}"),
            None => survivors.push(mutant.name()),
        }
    }
    assert!(survivors.is_empty(), "not caught by their oracles: {survivors:?}");
}
