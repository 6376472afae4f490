//! Nothing in the repository names a folder of the machine it was written on.

use crate::tree::Tree;
use crate::violation::Violation;

/// Top-level folders that hold somebody's checkout and no user's files.
const FOLDERS: &[&str] = &["work", "root", "farm"];

const RULE: &str = "machine_paths";

/// Checks every text file.
pub fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for (path, text) in tree.texts() {
        for (index, line) in text.lines().enumerate() {
            if let Some(folder) = FOLDERS.iter().find(|folder| names_folder(line, folder)) {
                out.push(Violation::new(
                    RULE,
                    path,
                    index + 1,
                    format!("a path under the machine's folder `{folder}`"),
                    "write a path relative to the repository",
                ));
            }
        }
    }
}

/// True if `line` has an absolute path under `folder`.
fn names_folder(line: &str, folder: &str) -> bool {
    let wanted = format!("/{folder}/");
    line.match_indices(&wanted).any(|(at, _)| {
        // In `src/work/a.rs` the slash belongs to a relative path.
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::brief;

    #[test]
    fn absolute_paths_are_found_and_relative_ones_are_not() {
        for folder in FOLDERS {
            let text = format!("src/{folder}/a\n../{folder}/a\nsee `/{folder}/a`\n");
            let mut out = Vec::new();
            check(&Tree::from_files([("docs/a.md", text)]), &mut out);
            assert_eq!(brief(&out), [format!("3: a path under the machine's folder `{folder}`")]);
        }
    }
}
