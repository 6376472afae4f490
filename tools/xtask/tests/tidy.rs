//! The repository itself keeps the house rules.

use std::path::Path;

use xtask::{Tree, repository_root, tidy};

#[test]
fn the_repository_keeps_the_house_rules() {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this for tests");
    let root = repository_root(Path::new(&here)).expect("the crate lies in a workspace");
    let tree = Tree::load(&root).expect("every file of the repository can be read");
    assert!(tree.rust_files().count() > 0, "no sources under {}", root.display());
    let found = tidy(&tree);
    let listing: String = found.iter().map(|violation| format!("{violation}\n")).collect();
    assert!(found.is_empty(), "{} violations:\n{listing}", found.len());
}
