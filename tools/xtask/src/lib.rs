//! The house rules of this repository, as code.
//!
//! [`tidy`] reads manifests, sources and pages through a [`Tree`] and returns every [`Violation`]
//! it finds; it never changes a file and never runs a compiler. Each rule lives in one file under
//! `checks/`, and each has tests that plant a violation and see it found.
//! Next to read: `tree.rs`, `rust_file.rs`, then `checks/mod.rs`.

pub mod callgrind;
pub mod checks;
pub mod guards;
pub mod rust_file;
pub mod tree;
pub mod upgrade;
pub mod violation;
pub mod workspace;

use std::path::{Path, PathBuf};

pub use crate::checks::tidy;
pub use crate::tree::Tree;
pub use crate::violation::Violation;

/// The repository root: the nearest folder, from `start` upwards, whose `Cargo.toml` opens a
/// workspace. `None` when there is none.
pub fn repository_root(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .find(|dir| {
            std::fs::read_to_string(dir.join("Cargo.toml"))
                .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
        })
        .map(Path::to_path_buf)
}
