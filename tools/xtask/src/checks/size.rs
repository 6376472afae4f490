//! Files, functions and lines stay short enough to read.
//!
//! Past the limits is a violation. The aims are lower; [`over_aim`] lists what lies between, for
//! `cargo xtask tidy --verbose`.

use crate::rust_file::RustFile;
use crate::tree::Tree;
use crate::violation::Violation;

/// Most lines of a file.
pub const FILE_LINES_MAX: usize = 600;
/// Lines of a file that we aim for.
pub const FILE_LINES_AIM: usize = 400;
/// Most lines of a function, from `fn` to its closing brace.
pub const FUNCTION_LINES_MAX: usize = 100;
/// Lines of a function that we aim for.
pub const FUNCTION_LINES_AIM: usize = 70;
/// Most columns of a line. The formatter wraps code at 100; what it cannot break gets ten more.
pub const COLUMNS_MAX: usize = 110;

const RULE: &str = "size";

/// Checks every Rust source against the limits.
pub fn check(tree: &Tree, out: &mut Vec<Violation>) {
    for file in tree.rust_files() {
        if let Some(line) = file.lex_error_line {
            let what = "the lexer stops here";
            out.push(Violation::new(RULE, &file.path, line, what, "make it compile first"));
        }
        check_lengths(file, FILE_LINES_MAX, FUNCTION_LINES_MAX, out);
        check_columns(file, out);
    }
}

/// What is within the limits and over the aims.
pub fn over_aim(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.rust_files() {
        check_lengths(file, FILE_LINES_AIM, FUNCTION_LINES_AIM, &mut found);
    }
    found
}

fn check_lengths(file: &RustFile, lines: usize, function: usize, out: &mut Vec<Violation>) {
    if file.lines.len() > lines {
        let what = format!("the file has {} lines, more than {lines}", file.lines.len());
        let remedy = "split it by concern; long tests go to a tests.rs of their own";
        out.push(Violation::new(RULE, &file.path, 1, what, remedy));
    }
    for found in file.functions.iter().filter(|found| found.line_count > function) {
        let (name, count) = (&found.name, found.line_count);
        let what = format!("`{name}` has {count} lines, more than {function}");
        let remedy = "branch here and move the leaves to functions of their own";
        out.push(Violation::new(RULE, &file.path, found.first_line, what, remedy));
    }
}

fn check_columns(file: &RustFile, out: &mut Vec<Violation>) {
    for (index, line) in file.lines.iter().enumerate() {
        let columns = line.chars().count();
        let breakable = !line.contains("://") && !file.has_string_on(index + 1);
        if columns > COLUMNS_MAX && breakable {
            let what = format!("the line has {columns} columns, more than {COLUMNS_MAX}");
            out.push(Violation::new(RULE, &file.path, index + 1, what, "break it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::brief;

    fn found(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        check(&Tree::from_files([("a.rs", text)]), &mut out);
        brief(&out)
    }

    fn function_of(lines: usize) -> String {
        format!("\nfn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    #[test]
    fn files_may_be_as_long_as_the_limit_and_no_longer() {
        let line = "// x\n";
        assert_eq!(found(&line.repeat(FILE_LINES_MAX)), [""; 0]);
        assert_eq!(
            found(&line.repeat(FILE_LINES_MAX + 1)),
            ["1: the file has 601 lines, more than 600"]
        );
    }

    #[test]
    fn functions_may_be_as_long_as_the_limit_and_no_longer() {
        assert_eq!(found(&function_of(FUNCTION_LINES_MAX)), [""; 0]);
        assert_eq!(
            found(&function_of(FUNCTION_LINES_MAX + 1)),
            ["2: `long` has 101 lines, more than 100"]
        );
    }

    #[test]
    fn aims_are_reported_apart_from_limits() {
        let tree = Tree::from_files([("a.rs", function_of(FUNCTION_LINES_AIM + 1))]);
        assert_eq!(brief(&over_aim(&tree)), ["2: `long` has 71 lines, more than 70"]);
    }

    #[test]
    fn long_lines_are_found_outside_strings_and_addresses() {
        let filler = "x".repeat(COLUMNS_MAX);
        let at_line_two = ["2: the line has 113 columns, more than 110"];
        assert_eq!(found(&format!("\n// {filler}")), at_line_two);
        assert_eq!(found(&format!("const A: &str = \"{filler}\";")), [""; 0]);
        assert_eq!(found(&format!("const A: &str = \"\n{filler}\n\";")), [""; 0]);
        assert_eq!(found(&format!("// https://{filler}")), [""; 0]);
        assert_eq!(found(&format!("\n/// {}", "x".repeat(109))), at_line_two);
    }

    #[test]
    fn what_is_not_rust_is_found() {
        assert_eq!(found("fn f() {\n"), ["1: the lexer stops here"]);
    }
}
