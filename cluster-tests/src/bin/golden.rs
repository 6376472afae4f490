//! `golden`: packs the data directory of this build's format into `golden/`, once for each format.
//!
//! A directory that is there already is left alone: builds that are out there wrote such ones. To
//! make another for a format that has never landed, remove it first. See `golden.rs` of the library.

use galvani_cluster_tests::golden::{Golden, path_of};
use galvani_storage::dir::FORMAT_VERSION;
use std::process::ExitCode;

fn main() -> ExitCode {
    let path = path_of(FORMAT_VERSION);
    if path.exists() {
        eprintln!(
            "error  {} is there already\n       it is what builds of format {FORMAT_VERSION} left: it stays\n  see  docs/decisions/0015-versions.md",
            path.display()
        );
        return ExitCode::from(5);
    }
    let path = Golden::make(FORMAT_VERSION);
    let bytes = std::fs::metadata(&path).map_or(0, |it| it.len());
    println!("{}: {bytes} bytes", path.display());
    ExitCode::SUCCESS
}
