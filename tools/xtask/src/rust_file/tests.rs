use super::*;

fn paths_of(text: &str) -> Vec<String> {
    RustFile::parse("x.rs", text).paths.iter().map(PathUse::text).collect()
}

#[test]
fn grouped_imports_are_unfolded() {
    let paths = paths_of("use std::{fs as f, net::{UdpSocket, *}, io::{self}};");
    assert_eq!(paths, ["use", "std::fs", "std::net::UdpSocket", "std::net::*", "std::io"]);
}

#[test]
fn comments_and_strings_hold_no_paths() {
    let text = "/// std::fs\n// tokio\nconst A: &str = \"std::fs\"; /* HashMap */";
    assert_eq!(paths_of(text), ["const", "A", "str"]);
}

#[test]
fn macro_bodies_are_code_and_macro_calls_are_marked() {
    let file = RustFile::parse("x.rs", "fn f() { vec![std::fs::read]; a != b; }");
    assert!(file.paths.iter().any(|path| path.text() == "std::fs::read"));
    let macros: Vec<_> = file.paths.iter().filter(|path| path.is_macro).collect();
    assert_eq!(macros.len(), 1);
    assert_eq!(macros[0].text(), "vec");
}

#[test]
fn functions_are_measured_to_their_own_brace() {
    let text = "fn a(\n) -> B<{ 1 }> {\n\n}\ntrait T { fn no_body(); }\ntype F = fn(u8);";
    let functions = RustFile::parse("x.rs", text).functions;
    let want = Function { name: "a".to_owned(), first_line: 1, line_count: 4 };
    assert_eq!(functions, [want]);
}

#[test]
fn test_modules_cover_their_lines_only() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}";
    let file = RustFile::parse("x.rs", text);
    let tested: Vec<_> = (1..=6).filter(|line| file.is_test_line(*line)).collect();
    assert_eq!(tested, [2, 3, 4, 5]);
}

#[test]
fn a_test_attribute_without_braces_does_not_reach_the_next_item() {
    let text = "#[cfg(test)]\nmod tests;\nfn c() {\n}";
    let file = RustFile::parse("x.rs", text);
    assert!(!file.is_test_line(3));
}

#[test]
fn what_does_not_lex_says_where() {
    assert_eq!(RustFile::parse("x.rs", "fn a() {}\n}").lex_error_line, Some(2));
}
