//! The tests of the simulator as one program: seeds, planted bugs, scenarios, chains of writes.
//!
//! The longest of them takes one core for minutes; as one program the others have the other core meanwhile.
//! One module: `cargo test -p galvani-sim --test sim mutants`. Next to read: `seeds.rs`, `mutants.rs`.

mod chains;
mod mutants;
mod scenarios;
mod seeds;
