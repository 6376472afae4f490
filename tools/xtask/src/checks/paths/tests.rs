use super::*;
use crate::checks::testing::brief;

const ROOT: &str = "[workspace]\nmembers = []\n[workspace.package]\nrust-version = \"1.95\"";
const README_TEXT: &str = "# A\n```sh\n$ cargo test --all # all of it\n```\n";

fn found(page: &str, text: &str) -> Vec<String> {
    found_with_script(page, text, "step tests cargo test --all\n")
}

fn found_with_script(page: &str, text: &str, script: &str) -> Vec<String> {
    let mut files = vec![
        ("Cargo.toml", ROOT),
        ("crates/galvani-model/src/dot.rs", "//! Dots."),
        ("docs/decisions/README.md", "Decisions."),
        (CI_SCRIPT, script),
        (README, README_TEXT),
    ];
    files.retain(|(path, _)| *path != page);
    files.push((page, text));
    let tree = Tree::from_files(files);
    let mut out = Vec::new();
    let workspace = Workspace::read(&tree, &mut out);
    check(&tree, &workspace, &mut out);
    brief(&out)
}

#[test]
fn paths_that_exist_pass() {
    let text = "See `crates/galvani-model/src/dot.rs`, `galvani-model/src/dot.rs:3`, `docs/`,\n\
                `crates/galvani-model/src/dot.rs::Dot`, [why](decisions/README.md#index),\n\
                [up](../README.md), [web](https://example.org/docs/none.md) and [here](#here).";
    assert_eq!(found("docs/ARCHITECTURE.md", text), [""; 0]);
}

#[test]
fn a_path_in_backticks_that_is_not_there_is_found() {
    assert_eq!(
        found("docs/ARCHITECTURE.md", "a\n`crates/galvani-model/src/{dot,gone}.rs`"),
        ["2: `crates/galvani-model/src/gone.rs` does not exist"]
    );
    assert_eq!(
        found("docs/a.md", "`galvani-wire/src/`"),
        ["1: `crates/galvani-wire/src/` does not exist"]
    );
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    assert_eq!(found("docs/a.md", "[x](gone.md)"), ["1: `docs/gone.md` does not exist"]);
    assert_eq!(found("docs/a.md", "[x](../gone.md)"), ["1: `gone.md` does not exist"]);
}

#[test]
fn placeholders_and_fenced_examples_are_left_alone() {
    let text = "`crates/<name>/src` and `docs/*.md`\n```\n`crates/none.rs` [x](none.md)\n```\n";
    assert_eq!(found("docs/a.md", text), [""; 0]);
}

#[test]
fn the_script_must_run_the_readmes_test_command() {
    let differs = "3: .ci/run does not run `cargo test --all`";
    for script in ["", "cargo test --all --locked\n", "# cargo test --all\n"] {
        assert_eq!(found_with_script(README, README_TEXT, script), [differs], "{script}");
    }
    assert_eq!(found_with_script(README, README_TEXT, "  cargo test --all\n"), [""; 0]);
    let without = "1: no fenced block has a line `cargo test ..`";
    assert_eq!(found(README, "# A\n`cargo test --all`"), [without]);
}

#[test]
fn the_readmes_rust_version_must_be_the_manifests() {
    let text = format!("{README_TEXT}Needs Rust 1.94.\n");
    assert_eq!(found(README, &text), ["5: Rust 1.94 here, rust-version 1.95 in Cargo.toml"]);
    let text = format!("{README_TEXT}Needs Rust 1.95 or later.\n");
    assert_eq!(found(README, &text), [""; 0]);
}
