//! The page of named cases tells of tests that are there, under the names that it gives.
//!
//! In `docs/cases.md` every word in backticks of a column headed `name` is the beginning of a test
//! function's name, of a scenario's file or of a file of tests; of a column headed `mutant` it is the name of
//! one. A test that is renamed or taken away makes the page wrong, and this check says where.

use crate::tree::Tree;
use crate::violation::Violation;

/// The page.
const PAGE: &str = "docs/cases.md";
/// Where mutants have their names.
const MUTANTS: &str = "crates/galvani-sim/src/mutant.rs";

const RULE: &str = "cases";

/// Checks the page, if there is one.
pub fn check(tree: &Tree, out: &mut Vec<Violation>) {
    let Some(page) = tree.text(PAGE) else { return };
    let mut heads: Vec<&str> = Vec::new();
    for (index, line) in page.lines().enumerate() {
        if !line.starts_with('|') {
            heads.clear();
            continue;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if heads.is_empty() {
            heads = cells;
            continue;
        }
        for (head, cell) in heads.iter().zip(cells) {
            for name in in_backticks(cell) {
                let missing = match *head {
                    "name" if !is_there(tree, name) => "no test and no scenario",
                    "mutant" if !is_mutant(tree, name) => "no mutant",
                    _ => continue,
                };
                let what = format!("{missing} is called `{name}`");
                let mend = "name what there is, or write it";
                out.push(Violation::new(RULE, PAGE, index + 1, what, mend));
            }
        }
    }
}

fn is_mutant(tree: &Tree, name: &str) -> bool {
    tree.text(MUTANTS).is_some_and(|text| text.contains(&format!("\"{name}\"")))
}

fn in_backticks(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a test function, a scenario or a file of tests has a name that begins so.
fn is_there(tree: &Tree, name: &str) -> bool {
    let function = format!("fn {name}");
    let is_test = |text: &str| {
        let mut marked = false;
        text.lines().any(|line| {
            let line = line.trim();
            let found = marked && line.trim_start_matches("async ").starts_with(&function);
            // Attributes may follow each other.
            marked = line.starts_with("#[test]")
                || line.starts_with("#[tokio::test")
                || marked && line.starts_with("#[");
            found
        })
    };
    tree.texts().any(|(path, text)| {
        let file = path.rsplit('/').next().unwrap_or(path);
        let of_tests = path.contains("/tests/") || path.contains("/scenarios/");
        of_tests && file.starts_with(name) || path.ends_with(".rs") && is_test(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::brief;

    #[test]
    fn names_without_a_test_are_found_and_other_columns_are_free() {
        let page = "| case | name | beside it |\n|---|---|---|\n| A | `torn_tail`, `old_hint` | `gone` |\n\
                    | B | `merge_laws` | |\n| C | `vanished`, `mended`, `loss` | |\n\n| case | test |\n| D | `free` |\n\n\
                    | guard | mutant | name |\n|---|---|---|\n| E | `kept`, `lost` | `torn_tail` |\n";
        let mut out = Vec::new();
        check(
            &Tree::from_files([
                ("docs/cases.md", page),
                ("crates/a/src/b/tests.rs", "#[test]\nfn torn_tail_at_any_byte() {}"),
                ("crates/a/scenarios/old_hint_vs_gc.txt", ""),
                ("crates/a/tests/merge_laws.rs", ""),
                ("crates/a/src/mended.rs", ""),
                ("crates/a/src/loss.rs", "#[inline]\nfn loss() {}\n#[test]\nfn another() {}"),
                ("crates/galvani-sim/src/mutant.rs", "Kept => \"kept\","),
            ]),
            &mut out,
        );
        let expected = [
            "5: no test and no scenario is called `vanished`",
            "5: no test and no scenario is called `mended`",
            "5: no test and no scenario is called `loss`",
            "12: no mutant is called `lost`",
        ];
        assert_eq!(brief(&out), expected);
    }
}
