//! Pages do not point at what is not there.
//!
//! Checked in the README and all pages under `docs/`: relative links, and everything in backticks
//! that looks like a path of this repository. The README's facts that are stated elsewhere too (the
//! test command, the Rust version) must be the same there. Fenced blocks are examples, not links.

use toml::Value;

use crate::tree::Tree;
use crate::violation::Violation;
use crate::workspace::{Workspace, table_at};

const RULE: &str = "paths";
const README: &str = "README.md";
const CI_SCRIPT: &str = ".ci/run";
/// What a path of this repository starts with.
const TOP_LEVEL: &[&str] =
    &["crates/", "docs/", "tools/", "cluster-tests/", "benches/", ".ci/", ".cargo/"];

/// Checks the pages and the README's facts.
pub fn check(tree: &Tree, workspace: &Workspace, out: &mut Vec<Violation>) {
    for (path, text) in tree.texts() {
        let is_page = path == README || path.starts_with("docs/");
        if is_page && path.ends_with(".md") {
            check_page(tree, path, text, out);
        }
    }
    match tree.text(README) {
        Some(text) => {
            check_test_command(tree, text, out);
            check_rust_version(workspace, text, out);
        }
        None => out.push(Violation::new(RULE, README, 1, "there is no README", "write one")),
    }
}

fn check_page(tree: &Tree, page: &str, text: &str, out: &mut Vec<Violation>) {
    for (line, content) in lines_outside_fences(text) {
        let links = link_targets(content).into_iter().map(|target| resolve(page, target));
        let paths = code_spans(content).into_iter().flat_map(repository_paths);
        for path in links.flatten().chain(paths) {
            if !tree.contains(&path) {
                out.push(Violation::new(
                    RULE,
                    page,
                    line,
                    format!("`{path}` does not exist"),
                    "correct the path or remove it",
                ));
            }
        }
    }
}

fn check_test_command(tree: &Tree, readme: &str, out: &mut Vec<Violation>) {
    let commands = fenced_lines(readme).map(|(line, content)| {
        let content = content.trim().trim_start_matches("$ ");
        (line, content.split(" #").next().unwrap_or_default().trim())
    });
    let found = commands.into_iter().find(|(_, command)| command.starts_with("cargo test"));
    let Some((line, command)) = found else {
        let what = "no fenced block has a line `cargo test ..`";
        out.push(Violation::new(RULE, README, 1, what, "say how to run the tests"));
        return;
    };
    let script = tree.text(CI_SCRIPT).unwrap_or_default();
    if !script.lines().any(|have| ends_with_command(have.trim(), command)) {
        let what = format!("{CI_SCRIPT} does not run `{command}`");
        let remedy = "make the README and the script name the same command";
        out.push(Violation::new(RULE, README, line, what, remedy));
    }
}

/// True if `line` runs exactly `command`, perhaps through a function that reports the step.
fn ends_with_command(line: &str, command: &str) -> bool {
    !line.starts_with('#')
        && line
            .strip_suffix(command)
            .is_some_and(|before| before.is_empty() || before.ends_with(' '))
}

fn check_rust_version(workspace: &Workspace, readme: &str, out: &mut Vec<Violation>) {
    let declared = table_at(&workspace.root, &["workspace", "package"])
        .and_then(|package| package.get("rust-version"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    for (index, line) in readme.lines().enumerate() {
        for stated in stated_rust_versions(line) {
            if stated != declared {
                let what = format!("Rust {stated} here, rust-version {declared} in Cargo.toml");
                let remedy = "make them the same";
                out.push(Violation::new(RULE, README, index + 1, what, remedy));
            }
        }
    }
}

/// The versions `1.x` that follow the word Rust in `line`.
fn stated_rust_versions(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in ["Rust ", "rustc ", "Rust-", "rust-version = \""] {
        for (at, _) in line.match_indices(word) {
            let rest = &line[at + word.len()..];
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let version = rest[..end].trim_end_matches('.');
            if version.starts_with("1.") {
                found.push(version);
            }
        }
    }
    found
}

/// The lines of `text` with their numbers, and whether each lies inside a fenced block.
fn lines_with_fences(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        if is_fence {
            fenced = !fenced;
        }
        (!is_fence).then_some((index + 1, line, fenced))
    })
}

fn lines_outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    lines_with_fences(text).filter(|(_, _, fenced)| !fenced).map(|(line, text, _)| (line, text))
}

fn fenced_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    lines_with_fences(text).filter(|(_, _, fenced)| *fenced).map(|(line, text, _)| (line, text))
}

/// The pieces of `line` between single backticks.
fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// What `[text](target)` points at; images too.
fn link_targets(line: &str) -> Vec<&str> {
    let openings = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    openings.filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

/// The path from the root that a link on `page` points at; `None` for the web and for anchors.
fn resolve(page: &str, target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => page.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The repository paths that the code span names: none if it is something else, several if it has
/// alternatives in braces. Crate folders may be named without `crates/`.
fn repository_paths(span: &str) -> Vec<String> {
    let path = span.split("::").next().unwrap_or_default();
    let path = path.split(':').next().unwrap_or_default();
    let full = if path.starts_with("galvani-") && path.contains('/') {
        format!("crates/{path}")
    } else {
        path.to_owned()
    };
    let known = TOP_LEVEL.iter().any(|top| full.starts_with(top));
    let plain = full.chars().all(|c| c.is_ascii_alphanumeric() || "/._-{},".contains(c));
    if known && plain { unfold_braces(&full) } else { Vec::new() }
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn unfold_braces(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| {
        let (inner, tail) = rest.split_once('}')?;
        Some((head, inner, tail))
    });
    match parts {
        None => vec![path.to_owned()],
        Some((head, inner, tail)) => inner
            .split(',')
            .flat_map(|choice| unfold_braces(&format!("{head}{}{tail}", choice.trim())))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
