//! Everything public is documented, and every file says what it is.
//!
//! Public items are rustc's business: the `missing_docs` lint. This check makes sure that the lint
//! is on, that every crate takes it, and that no source turns it off. Module headers (`//!`) are
//! counted here: one line at least, more for longer files; files of tests need none.

use toml::Value;

use crate::rust_file::RustFile;
use crate::tree::Tree;
use crate::violation::Violation;
use crate::workspace::{Workspace, table_at};

/// Files with more lines than this need a header of [`LONG_FILE_HEADER_LINES`].
const LONG_FILE_LINES: usize = 80;
/// Header lines of a long file.
const LONG_FILE_HEADER_LINES: usize = 3;

const RULE: &str = "docs";

/// Checks lints in manifests, and headers and lint switches in sources.
pub fn check(tree: &Tree, workspace: &Workspace, out: &mut Vec<Violation>) {
    let lint = table_at(&workspace.root, &["workspace", "lints", "rust"])
        .and_then(|rust| rust.get("missing_docs"))
        .and_then(|lint| lint.get("level").unwrap_or(lint).as_str());
    if !matches!(lint, Some("warn" | "deny" | "forbid")) {
        out.push(Violation::new(
            RULE,
            "Cargo.toml",
            1,
            "the lint missing_docs is off",
            "write missing_docs = \"warn\" under [workspace.lints.rust]",
        ));
    }
    for member in &workspace.members {
        let lints = member.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(Value::as_bool) != Some(true) {
            out.push(Violation::new(
                RULE,
                &member.manifest_path,
                1,
                format!("the crate `{}` does not take the workspace's lints", member.name),
                "write [lints] workspace = true",
            ));
        }
    }
    for file in tree.rust_files() {
        check_switches(file, out);
        check_header(file, out);
    }
}

fn check_switches(file: &RustFile, out: &mut Vec<Violation>) {
    for attribute in &file.attributes {
        let first = attribute.words.first().map(String::as_str);
        let switches = matches!(first, Some("allow" | "expect" | "cfg_attr"));
        if switches && attribute.words.iter().any(|word| word == "missing_docs") {
            out.push(Violation::new(
                RULE,
                &file.path,
                attribute.line,
                "the lint missing_docs is switched off",
                "document the items instead",
            ));
        }
    }
}

fn check_header(file: &RustFile, out: &mut Vec<Violation>) {
    if file.is_test_file() {
        return;
    }
    let need = if file.lines.len() > LONG_FILE_LINES { LONG_FILE_HEADER_LINES } else { 1 };
    // A script's first line (`#!`) and blank lines may stand before the header.
    let mut lines = file.lines.iter().skip_while(|line| line.is_empty() || line.starts_with("#!/"));
    let have = lines.by_ref().take_while(|line| line.trim_start().starts_with("//!")).count();
    if have < need {
        out.push(Violation::new(
            RULE,
            &file.path,
            1,
            format!("the header has {have} lines, {need} are needed"),
            "open the file with //! lines: what it is, what it never does, what to read next",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::brief;

    const ROOT: &str = "[workspace]\nmembers = [\"crates/*\"]\n\
                        [workspace.lints.rust]\nmissing_docs = \"warn\"";
    const MEMBER: &str = "[package]\nname = \"a\"\n[lints]\nworkspace = true";

    fn found(root: &str, member: &str, path: &str, source: &str) -> Vec<String> {
        let files = [("Cargo.toml", root), ("crates/a/Cargo.toml", member), (path, source)];
        let tree = Tree::from_files(files);
        let mut out = Vec::new();
        let workspace = Workspace::read(&tree, &mut out);
        check(&tree, &workspace, &mut out);
        brief(&out)
    }

    #[test]
    fn a_documented_crate_passes() {
        assert_eq!(found(ROOT, MEMBER, "crates/a/src/lib.rs", "//! What it is.\n"), [""; 0]);
    }

    #[test]
    fn a_lint_that_is_off_is_found() {
        let root = ROOT.replace("warn", "allow");
        assert_eq!(found(&root, MEMBER, "x.txt", ""), ["1: the lint missing_docs is off"]);
        assert_eq!(
            found(ROOT, "[package]\nname = \"a\"", "x.txt", ""),
            ["1: the crate `a` does not take the workspace's lints"]
        );
        let source = "//! A.\n\n#![allow(missing_docs)]";
        assert_eq!(
            found(ROOT, MEMBER, "crates/a/src/lib.rs", source),
            ["3: the lint missing_docs is switched off"]
        );
    }

    #[test]
    fn a_missing_or_short_header_is_found_except_in_tests() {
        let path = "crates/a/src/lib.rs";
        let missing = "1: the header has 0 lines, 1 are needed";
        assert_eq!(found(ROOT, MEMBER, path, "fn f() {}"), [missing]);
        let long = format!("//! One line.\n{}", "// filler\n".repeat(LONG_FILE_LINES));
        let short = "1: the header has 1 lines, 3 are needed";
        assert_eq!(found(ROOT, MEMBER, path, &long), [short]);
        assert_eq!(found(ROOT, MEMBER, "crates/a/src/b/tests.rs", "fn f() {}"), [""; 0]);
        assert_eq!(found(ROOT, MEMBER, "crates/a/tests/b.rs", "fn f() {}"), [""; 0]);
    }
}
