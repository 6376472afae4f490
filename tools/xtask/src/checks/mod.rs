//! All house rules, one file each.
//!
//! A check is a function from the [`Tree`] (and the [`Workspace`], where manifests matter) to
//! violations. It looks at every file of its kind and stops at nothing, so one run shows all.
//! To add a rule: a file here with a test that plants a violation, and a line in [`tidy`].

pub mod cases;
pub mod docs;
pub mod floors;
pub mod machine_paths;
pub mod paths;
pub mod purity;
pub mod size;
pub mod sleeps;
pub mod style;

use crate::tree::Tree;
use crate::violation::Violation;
use crate::workspace::Workspace;

/// Runs every check; the violations come sorted by file and line.
pub fn tidy(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    let workspace = Workspace::read(tree, &mut found);
    floors::check(&workspace, &mut found);
    purity::check(tree, &workspace, &mut found);
    docs::check(tree, &workspace, &mut found);
    size::check(tree, &mut found);
    style::check(tree, &mut found);
    sleeps::check(tree, &mut found);
    paths::check(tree, &workspace, &mut found);
    machine_paths::check(tree, &mut found);
    cases::check(tree, &mut found);
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small trees for the checks' tests.

    use crate::tree::Tree;
    use crate::violation::Violation;
    use crate::workspace::Workspace;

    /// A workspace of `manifests`: pairs of a folder under `crates/` and what follows `[package]`.
    pub(crate) fn workspace_of(manifests: &[(&str, &str)]) -> Workspace {
        let root = "[workspace]\nmembers = [\"crates/*\"]".to_owned();
        let mut files = vec![("Cargo.toml".to_owned(), root)];
        for (name, rest) in manifests {
            let text = format!("[package]\nname = \"{name}\"\n{rest}");
            files.push((format!("crates/{name}/Cargo.toml"), text));
        }
        let mut found = Vec::new();
        let workspace = Workspace::read(&Tree::from_files(files), &mut found);
        assert_eq!(found, []);
        workspace
    }

    /// What was found, as `line: what`, in order.
    pub(crate) fn brief(found: &[Violation]) -> Vec<String> {
        found.iter().map(|v| format!("{}: {}", v.line, v.what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_reports_every_rule_that_is_broken() {
        let member = "[package]\nname = \"galvani-model\"\n\
                      [dependencies]\ngalvani-node = \"1\"\ntokio = \"1\"";
        let long_line = format!("//! {}", "x".repeat(size::COLUMNS_MAX));
        // Put together here, or this file would break the rule itself.
        let page = format!("[gone](gone.md) and\n(/{}/a)", "root");
        let tree = Tree::from_files([
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]"),
            ("crates/galvani-model/Cargo.toml", member),
            ("crates/galvani-model/src/lib.rs", "use a::*;"),
            ("crates/galvani-model/src/long.rs", long_line.as_str()),
            ("crates/galvani-model/tests/a.rs", "fn f() { std::thread::sleep(D); }"),
            ("docs/a.md", page.as_str()),
        ]);
        let mut rules: Vec<&str> = tidy(&tree).iter().map(|violation| violation.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let all = ["docs", "floors", "machine_paths", "paths", "purity", "size", "sleeps", "style"];
        assert_eq!(rules, all);
    }
}
