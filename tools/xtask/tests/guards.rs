//! The table of guards is true of the sources, so that a run of it says something.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use xtask::guards::{Verdict, table, verdict, without};
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
