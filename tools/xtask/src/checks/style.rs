//! What may not be in the code: unfinished pieces, debugging leftovers, stray output, globs.
//!
//! Libraries log through `tracing`; only programs, examples, tests, benches and build scripts may
//! print. Glob imports hide where a name comes from; a test module may take its parent's.

use crate::checks::floors;
use crate::rust_file::{PathUse, RustFile};
use crate::tree::Tree;
use crate::violation::Violation;

const RULE: &str = "style";
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln"];
/// Crates on this floor are programs and tests.
const PROGRAMS_FLOOR: u8 = 6;

/// Checks every Rust source.
pub fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for file in tree.rust_files() {
        for path in &file.paths {
            if let Some((what, remedy)) = fault_of(file, path) {
                out.push(Violation::new(RULE, &file.path, path.line, what, remedy));
            }
        }
        for attribute in &file.attributes {
            let first = attribute.words.first().map(String::as_str);
            let ignores = match first {
                Some("ignore") => true,
                Some("cfg_attr") => attribute.words.iter().any(|word| word == "ignore"),
                Some(_) | None => false,
            };
            if ignores {
                let what = "a test is ignored";
                let remedy = "make it pass, or remove it and say why";
                out.push(Violation::new(RULE, &file.path, attribute.line, what, remedy));
            }
        }
    }
}

fn fault_of(file: &RustFile, path: &PathUse) -> Option<(String, &'static str)> {
    let last = path.segments.last()?.as_str();
    if path.is_macro && UNFINISHED.contains(&last) {
        return Some((format!("`{last}!` in the code"), "finish it or take it out"));
    }
    if path.is_macro && PRINTING.contains(&last) && !may_print(file, path.line) {
        let remedy = "return the text, or log it through tracing";
        return Some((format!("`{last}!` in a library"), remedy));
    }
    let parent_in_tests = path.segments == ["super", "*"] && file.is_test_line(path.line);
    if last == "*" && !parent_in_tests {
        let what = format!("the glob import `{}`", path.text());
        return Some((what, "name what is imported"));
    }
    None
}

fn may_print(file: &RustFile, line: usize) -> bool {
    let inside = match file.path.strip_prefix("crates/").and_then(|rest| rest.split_once('/')) {
        // Everything that is not under `crates/` is a tool, a test or a bench.
        None => return true,
        Some((name, _)) if floors::floor_of(name) == Some(PROGRAMS_FLOOR) => return true,
        Some((_, inside)) => inside,
    };
    let program = ["examples/", "benches/", "src/bin/", "src/main.rs", "build.rs"];
    program.iter().any(|place| inside.starts_with(place)) || file.is_test_line(line)
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

    const LIBRARY: &str = "crates/galvani-node/src/a.rs";

    #[test]
    fn unfinished_code_is_found_even_in_tests() {
        for name in UNFINISHED {
            let text = format!("fn f() {{\n    std::{name}!(1) }}");
            assert_eq!(found("crates/a/tests/b.rs", &text), [format!("2: `{name}!` in the code")]);
        }
        assert_eq!(found(LIBRARY, "// todo!()\nfn todo() { todo(); a!=b; }"), [""; 0]);
    }

    #[test]
    fn libraries_do_not_print_and_programs_do() {
        let text = "fn f() { println!(\"x\"); }";
        assert_eq!(found(LIBRARY, text), ["1: `println!` in a library"]);
        for path in [
            "crates/galvani/src/cli/put.rs",
            "crates/galvani-sim/src/bin/sim.rs",
            "crates/galvani-client/examples/hello.rs",
            "crates/galvani-client/tests/round_trip.rs",
            "tools/xtask/src/main.rs",
            "benches/benches/codec.rs",
        ] {
            assert_eq!(found(path, text), [""; 0], "{path}");
        }
        let in_tests = "#[cfg(test)]\nmod tests {\n fn f() { println!(\"x\"); }\n}";
        assert_eq!(found(LIBRARY, in_tests), [""; 0]);
    }

    #[test]
    fn ignored_tests_are_found() {
        let ignored = ["2: a test is ignored"];
        assert_eq!(found(LIBRARY, "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), ignored);
        assert_eq!(found(LIBRARY, "#[test]\n#[cfg_attr(miri, ignore)]\nfn f() {}"), ignored);
    }

    #[test]
    fn globs_are_found_except_the_parent_in_tests() {
        assert_eq!(found(LIBRARY, "use a::b::*;"), ["1: the glob import `a::b::*`"]);
        assert_eq!(found(LIBRARY, "pub use a::{c, d::*};"), ["1: the glob import `a::d::*`"]);
        assert_eq!(found(LIBRARY, "use super::*;").len(), 1);
        let in_tests = "#[cfg(test)]\nmod tests {\n use super::*;\n use a::*;\n}";
        assert_eq!(found(LIBRARY, in_tests), ["4: the glob import `a::*`"]);
        assert_eq!(found("crates/a/src/b/tests.rs", "use super::*;"), [""; 0]);
    }
}
