//! All tests with real processes, and those of real nodes in memory, as one program.
//!
//! One program links once, and a test that waits leaves its core to another; as sixty programs they cost
//! seconds of linking each, and ran one by one. A module is a concern; each test starts the cluster it needs
//! and shares nothing with others. One module: `cargo test -p galvani-cluster-tests --test cluster power::`.
//! Next to read: `galvani_cluster_tests::cluster`, the helpers of all of them.

mod ack_before_fsync;
mod anti_entropy;
mod bench;
mod bitflip;
mod certificates;
mod chaos;
mod cli;
mod clocks;
mod clones;
mod crashes;
mod crowd;
mod deletes;
mod disk;
mod examples;
mod explain;
mod faults;
mod feed;
mod feed_cost;
mod feed_group;
mod feed_words;
mod flood;
mod fsync_eio;
mod golden;
mod group_deaths;
mod groups;
mod handoff;
mod harness;
mod hostile_peers;
mod isolate_one;
mod join;
mod lagged;
mod liveness;
mod membership;
mod memnet;
mod memnet_cases;
mod overload;
mod patience;
mod power;
mod quorums;
mod refill;
mod relay;
mod repair;
mod retries;
mod returns;
mod rolling;
mod siblings;
mod sigstop_60s;
mod told_right;
mod torn_tail;
mod tour;
mod trim;
mod ttl;
mod unknown_not_failed;
mod wait;
mod wrong_input;
