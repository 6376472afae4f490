//! Tests wait for conditions, they do not sleep and hope.
//!
//! A pause inside a loop that polls a condition until a deadline is fine, and says so: a comment
//! that starts with `// wait:` on the same line or just above names the condition.

use crate::rust_file::RustFile;
use crate::tree::Tree;
use crate::violation::Violation;

const RULE: &str = "sleeps";
const MARK: &str = "// wait:";

/// Checks all test code.
pub fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for file in tree.rust_files() {
        for path in &file.paths {
            let sleeps = path.mentions(&["thread", "sleep"]) || path.mentions(&["time", "sleep"]);
            if sleeps && file.is_test_line(path.line) && !is_explained(file, path.line) {
                out.push(Violation::new(
                    RULE,
                    &file.path,
                    path.line,
                    format!("`{}` in a test", path.text()),
                    "poll a condition until a deadline, and name it in a comment `// wait: ..`",
                ));
            }
        }
    }
}

/// True if `line` (counted from 1), or the block of comments right above it, bears the mark.
fn is_explained(file: &RustFile, line: usize) -> bool {
    let here = line - 1;
    let above = file.lines[..here].iter().rev().map(|line| line.trim_start());
    file.lines[here].contains(MARK)
        || above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::brief;

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        check(&Tree::from_files([(path, text)]), &mut out);
        brief(&out)
    }

    const TEST: &str = "crates/a/tests/b.rs";

    #[test]
    fn a_bare_sleep_in_a_test_is_found() {
        let text = "fn f() {\n    std::thread::sleep(D);\n}";
        assert_eq!(found(TEST, text), ["2: `std::thread::sleep` in a test"]);
        assert_eq!(found("cluster-tests/src/lib.rs", text).len(), 1);
        let imported = "use tokio::time::{sleep, Duration};";
        assert_eq!(found(TEST, imported), ["1: `tokio::time::sleep` in a test"]);
        let inline = format!("#[cfg(test)]\nmod tests {{\n{text}\n}}");
        assert_eq!(found("crates/a/src/b.rs", &inline).len(), 1);
    }

    #[test]
    fn a_sleep_that_names_its_condition_passes() {
        let same = "fn f() { thread::sleep(D); // wait: until the file is there\n}";
        let above = "fn f() {\n    // wait: until the file is there,\n    // or a second is over\n    \
                     thread::sleep(D);\n}";
        assert_eq!(found(TEST, same), [""; 0]);
        assert_eq!(found(TEST, above), [""; 0]);
    }

    #[test]
    fn code_that_is_no_test_may_pause() {
        assert_eq!(found("crates/a/src/b.rs", "fn f() { thread::sleep(D); }"), [""; 0]);
    }
}
