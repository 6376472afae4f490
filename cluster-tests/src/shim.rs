//! Libraries that are loaded before the C library and change what a node is told of its machine.
//!
//! Disks that fail or hold a sync, clocks that go another way: each test brings the C source of its own and
//! gives the library to one node (`LD_PRELOAD`), never to the test. Built where Rust is, since Rust links
//! with a C compiler. Next to read: `tests/cluster/{fsync_eio,ack_before_fsync,clocks}.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source` into a library in `dir`. Panics with what the compiler says.
#[track_caller]
pub fn compile(dir: &Path, source: &str) -> PathBuf {
    let (text, library) = (dir.join("shim.c"), dir.join("shim.so"));
    fs::write(&text, source).expect("a scratch directory is writable");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&text)
        .arg("-ldl")
        .output()
        .expect("there is a C compiler: Rust links with it");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}
