//! The table of guards is true of the sources, so that a run of it says something.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use xtask::guards::{Verdict, program_of, table, verdict, without};
use xtask::repository_root;

#[test]
fn every_guard_stands_where_the_table_says_and_its_test_is_there() {
    let root = repository_root(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("inside it");
    let guards = table(&root).expect("a table");
    assert!(guards.len() >= 20, "{}", guards.len());
    let names: BTreeSet<&str> = guards.iter().map(|guard| guard.name.as_str()).collect();
    assert_eq!(names.len(), guards.len(), "each has a name of its own");
    let mut sources = Vec::new();
    read_into(&mut sources, &root.join("crates"));
    for guard in &guards {
        let source = fs::read_to_string(root.join(&guard.file)).expect("its file");
        let taken_out =
            without(&source, guard).unwrap_or_else(|why| panic!("{}: {why}", guard.name));
        assert_ne!(taken_out, source, "{}", guard.name);
        let declared = format!("fn {}(", guard.test);
        let package = format!("crates/{}/", guard.package);
        let there =
            |(path, text): &(String, String)| path.contains(&package) && text.contains(&declared);
        assert!(sources.iter().any(there), "{}: no test {}", guard.name, guard.test);
    }
}

#[test]
fn only_a_test_that_ran_and_failed_has_noticed() {
    let (ok, failed) = ("running 1 test\ntest a::b ... ok\n", "test a::b ... FAILED\n");
    assert_eq!(verdict(true, ok), Verdict::Missed);
    assert_eq!(verdict(false, failed), Verdict::Noticed);
    assert_eq!(verdict(false, "error: could not compile"), Verdict::Unknown);
    assert_eq!(verdict(true, "running 0 tests\n"), Verdict::Unknown);
}

fn read_into(sources: &mut Vec<(String, String)>, dir: &Path) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            read_into(sources, &path);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            sources.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn the_program_that_a_test_is_in_is_known_by_what_ran() {
    let names = "   Compiling x\n     Running unittests src/lib.rs (target/debug/deps/x-0)\n     \
                 Running tests/lane/main.rs (target/debug/deps/lane-0)\n   Doc-tests x\n";
    let none = "\nrunning 0 tests\n\ntest result: ok. 0 passed\n";
    let one = "\nrunning 1 test\ntest put::goes ... ok\n\ntest result: ok. 1 passed\n";
    let words = |parts: &[&str]| program_of(&parts.concat(), names);
    assert_eq!(words(&[one, none, none]), ["--lib"]);
    assert_eq!(words(&[none, one, none]), ["--test", "lane"]);
    assert!(words(&[none, none, one]).is_empty(), "examples of the pages have no name");
    assert!(words(&[one, one, none]).is_empty(), "it is in two");
    assert!(words(&[none, none, none]).is_empty());
}
