//! Pure crates stay pure: no clock, randomness, sockets, files, threads or hash-map order.
//!
//! Manifests go by a list of what is allowed, so a new dependency is a decision, not an accident.
//! Sources go by a list of names; imports are where most of them show. The `clippy.toml` of each
//! pure crate bans the same things by resolved path.

use crate::rust_file::{PathUse, RustFile};
use crate::tree::Tree;
use crate::violation::Violation;
use crate::workspace::{Kind, Workspace};

/// A pure crate and the outside crates it may use.
#[derive(Debug)]
pub struct PureCrate {
    /// Its package name.
    pub name: &'static str,
    /// Crates from outside the workspace that it may depend on.
    pub allowed: &'static [&'static str],
}

/// The pure crates. All of these outside crates compute and do nothing else.
pub const PURE: &[PureCrate] = &[
    PureCrate {
        name: "galvani-model",
        allowed: &[
            "bytes",
            "serde",
            "serde_bytes",
            "siphasher",
            "smallvec",
            "thiserror",
            "xxhash-rust",
        ],
    },
    PureCrate {
        name: "galvani-wire",
        allowed: &["bytes", "rmp-serde", "serde", "serde_bytes", "smallvec", "thiserror"],
    },
    PureCrate {
        name: "galvani-protocol",
        allowed: &[
            "bytes",
            "foca",
            "rand_core",
            "serde",
            "siphasher",
            "smallvec",
            "thiserror",
            "xxhash-rust",
        ],
    },
    PureCrate {
        name: "galvani-sim",
        // clap and serde_json serve the runner in `src/bin`.
        allowed: &["bytes", "clap", "serde", "serde_json", "thiserror", "xxhash-rust"],
    },
];

/// What the tests of pure crates may use besides.
const ALLOWED_IN_TESTS: &[&str] = &["proptest", "rmp-serde", "serde_json"];

/// Names that have no business in a pure crate, wherever they stand in a path.
const WORDS: &[&str] = &[
    "tokio",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
    "HashMap",
    "HashSet",
    "RandomState",
    "thread_rng",
    "getrandom",
];

/// Paths that have no business in a pure crate, and whether the runner may name them.
const PATHS: &[(&[&str], bool)] = &[
    (&["time", "Instant"], true),
    (&["Instant", "now"], true),
    (&["std", "fs"], false),
    (&["std", "thread"], true),
    (&["std", "process"], true),
    (&["std", "env"], true),
];

/// Programs that drive the pure code from outside: they have arguments, a clock and threads.
const RUNNERS: &str = "crates/galvani-sim/src/bin/";

const RULE: &str = "purity";

/// Checks manifests and sources of the [`PURE`] crates.
pub fn check(tree: &Tree, workspace: &Workspace, out: &mut Vec<Violation>) {
    for pure in PURE {
        check_manifest(workspace, pure, out);
        check_clippy(tree, workspace, pure, out);
        let sources = format!("crates/{}/src/", pure.name);
        for file in tree.rust_files().filter(|file| file.path.starts_with(&sources)) {
            check_source(file, out);
        }
    }
}

fn check_manifest(workspace: &Workspace, pure: &PureCrate, out: &mut Vec<Violation>) {
    let Some(member) = workspace.member(pure.name) else {
        return;
    };
    for dependency in workspace.dependencies(member) {
        let package = dependency.package.as_str();
        let allowed = workspace.member(package).is_some()
            || pure.allowed.contains(&package)
            || dependency.kind == Kind::Dev && ALLOWED_IN_TESTS.contains(&package);
        if !allowed {
            out.push(Violation::new(
                RULE,
                &member.manifest_path,
                dependency.line,
                format!("the pure crate `{}` depends on `{package}`", pure.name),
                "take the effect in as an argument; or, if the crate only computes, allow it in \
                 tools/xtask/src/checks/purity.rs",
            ));
        }
    }
}

/// The clippy bans are one text in as many copies as there are pure crates.
fn check_clippy(tree: &Tree, workspace: &Workspace, pure: &PureCrate, out: &mut Vec<Violation>) {
    let Some(member) = workspace.member(pure.name) else {
        return;
    };
    let path = format!("{}/clippy.toml", member.dir);
    let example = format!("crates/{}/clippy.toml", PURE[0].name);
    if tree.text(&path).is_none() || tree.text(&path) != tree.text(&example) {
        let what = format!("the pure crate `{}` lacks the bans of the others", pure.name);
        let remedy = format!("make it a copy of {example}");
        out.push(Violation::new(RULE, &path, 1, what, remedy));
    }
}

fn check_source(file: &RustFile, out: &mut Vec<Violation>) {
    let runner = file.path.starts_with(RUNNERS);
    for path in &file.paths {
        if let Some(banned) = banned_name(path, runner) {
            out.push(Violation::new(
                RULE,
                &file.path,
                path.line,
                format!("`{banned}` in a pure crate"),
                remedy_for(&banned),
            ));
        }
    }
}

fn banned_name(path: &PathUse, runner: bool) -> Option<String> {
    if let Some(word) = WORDS.iter().find(|word| path.mentions(&[word])) {
        // A runner measures how long it ran.
        let clock = runner && *word == "SystemTime";
        return (!clock).then(|| (*word).to_owned());
    }
    let banned =
        PATHS.iter().find(|(wanted, for_runner)| path.mentions(wanted) && !(runner && *for_runner));
    banned.map(|(wanted, _)| wanted.join("::"))
}

fn remedy_for(banned: &str) -> &'static str {
    match banned {
        "HashMap" | "HashSet" | "RandomState" => "use BTreeMap or BTreeSet: their order is fixed",
        "time::Instant" | "Instant::now" | "SystemTime" => "take `now` in as an argument",
        "thread_rng" | "getrandom" => "take randomness in as an argument",
        _ => "leave it to the driver (crates/galvani-node) and take the result in as an input",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{brief, workspace_of};

    fn in_source(path: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let workspace = workspace_of(&[]);
        check(&Tree::from_files([(path, text)]), &workspace, &mut out);
        brief(&out)
    }

    fn in_manifest(name: &str, manifest: &str) -> Vec<String> {
        let pure = PURE.iter().find(|pure| pure.name == name).expect("the tests name pure crates");
        let mut out = Vec::new();
        check_manifest(&workspace_of(&[(name, manifest)]), pure, &mut out);
        brief(&out)
    }

    #[test]
    fn every_banned_name_is_found_in_code() {
        let planted = [
            ("use tokio::sync::mpsc;", "tokio"),
            ("use std::time::{Duration, Instant};", "time::Instant"),
            ("fn f() { Instant::now(); }", "Instant::now"),
            ("use std::time; fn f() { time::SystemTime::now(); }", "SystemTime"),
            ("use std::net::{SocketAddr, UdpSocket};", "UdpSocket"),
            ("use std::net::TcpStream;", "TcpStream"),
            ("use std::fs;", "std::fs"),
            ("fn f() { std::thread::yield_now(); }", "std::thread"),
            ("fn f() { std::process::exit(1); }", "std::process"),
            ("fn f() { ::std::env::args(); }", "std::env"),
            ("type T = std::collections::HashMap<u8, u8>;", "HashMap"),
            ("use std::collections::{BTreeMap, HashSet};", "HashSet"),
            ("fn f() { let r = rand::thread_rng(); }", "thread_rng"),
            ("fn f() { vec![getrandom::u64()]; }", "getrandom"),
        ];
        for (text, banned) in planted {
            let want = format!("1: `{banned}` in a pure crate");
            assert_eq!(in_source("crates/galvani-model/src/a.rs", text), [want], "{text}");
        }
    }

    #[test]
    fn comments_strings_and_addresses_are_fine() {
        let text = "//! No HashMap.\n/// Not `std::fs`.\nconst A: &str = \"tokio\";\n\
                    use std::net::{IpAddr, SocketAddr};\nuse core::time::Duration;";
        assert_eq!(in_source("crates/galvani-wire/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn other_crates_and_the_runner_may_have_a_clock() {
        let text = "use std::time::Instant; use std::{env, process, thread};";
        assert_eq!(in_source("crates/galvani-node/src/a.rs", text), [""; 0]);
        assert_eq!(in_source("crates/galvani-sim/src/bin/sim.rs", text), [""; 0]);
        assert_eq!(in_source("crates/galvani-sim/src/world.rs", text).len(), 4);
        let files = "use std::fs; use std::collections::HashMap;";
        assert_eq!(in_source("crates/galvani-sim/src/bin/sim.rs", files).len(), 2);
    }

    #[test]
    fn only_allowed_dependencies_pass() {
        assert_eq!(in_manifest("galvani-model", "[dependencies]\nbytes = \"1\""), [""; 0]);
        assert_eq!(
            in_manifest("galvani-model", "[dependencies]\ntokio.workspace = true"),
            ["4: the pure crate `galvani-model` depends on `tokio`"]
        );
        assert_eq!(in_manifest("galvani-sim", "[dependencies.rand]\nversion = \"1\"").len(), 1);
        let tests_only = "[dev-dependencies]\nproptest = \"1\"";
        assert_eq!(in_manifest("galvani-protocol", tests_only), [""; 0]);
        let not_in_tests_only = "[dependencies]\nproptest = \"1\"";
        assert_eq!(in_manifest("galvani-protocol", not_in_tests_only).len(), 1);
    }

    #[test]
    fn every_pure_crate_has_the_same_clippy_bans() {
        let workspace = workspace_of(&[("galvani-model", ""), ("galvani-sim", "")]);
        let model = ("crates/galvani-model/clippy.toml", "bans");
        let found = |sim: (&'static str, &'static str)| {
            let mut out = Vec::new();
            check(&Tree::from_files([model, sim]), &workspace, &mut out);
            brief(&out)
        };
        let lacks = "1: the pure crate `galvani-sim` lacks the bans of the others";
        assert_eq!(found(("crates/galvani-sim/clippy.toml", "bans")), [""; 0]);
        assert_eq!(found(("crates/galvani-sim/clippy.toml", "fewer")), [lacks]);
        assert_eq!(found(("elsewhere", "bans")), [lacks]);
    }
}
