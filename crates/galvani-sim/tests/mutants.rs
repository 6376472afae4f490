//! The test of the tests: each planted bug is caught within its number of seeds, by its oracle.

use galvani_sim::{Mutant, RunOptions, run_seed};

/// Seeds within which a mutant must be caught: about three times what was measured when it was
/// planted, and never fewer than ten.
fn seeds_for(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::AlwaysEqual => 60,
        Mutant::PlainContexts => 40,
        Mutant::DropsRepairs
        | Mutant::ForgetsRequests
        | Mutant::KeepsOrigins
        | Mutant::TornBatches => 20,
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
        | Mutant::AcksForOthers => 10,
    }
}

/// The oracles that may catch a mutant: being caught by accident proves nothing.
fn oracles_for(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        Mutant::ForgetsRequests => {
            &["equal_clock_equal_digest", "convergence", "no_acked_write_lost", "no_resurrection"]
        }
        Mutant::KeepsOrigins => &["one_dot_one_record", "dense_own_counter"],
        Mutant::LosesCommits => &["durable_at_ack", "dense_own_counter", "commit_before_send"],
        Mutant::EffectsFirst | Mutant::NeverFsyncs => &["durable_at_ack"],
        Mutant::DuplicateAcks | Mutant::AcksForOthers => &["durable_at_ack"],
        Mutant::TornBatches => &["rows_add_up", "one_dot_one_record", "no_panic"],
        Mutant::PlainContexts => &["causality", "read_your_quorum"],
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
        let seeds = seeds_for(mutant);
        let caught = (1..=seeds).find_map(|seed| {
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
