//! The program under test: built once for each test process, with the tests' own profile.
//!
//! It goes to the target directory that the running test came from, so `CARGO_TARGET_DIR` and
//! `--release` mean what they say. A build that is fresh costs well under a second.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The path of the `galvani` binary.
pub fn galvani() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    // TARGET/PROFILE/deps/THIS_TEST, or TARGET/PROFILE/THIS_PROGRAM
    let test = std::env::current_exe().expect("a test knows its own file");
    let dir = test.parent().expect("a file is in a folder");
    let profile_dir = if dir.ends_with("deps") { dir.parent() } else { Some(dir) };
    let profile_dir = profile_dir.expect("cargo runs tests from TARGET/PROFILE/deps");
    let target_dir = profile_dir.parent().expect("a profile's folder is in the target folder");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => panic!("{} names no profile", profile_dir.display()),
    };
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells this test of its own package is not for the build scripts of others: they
    // would see a change and run again.
    for (name, _) in std::env::vars_os() {
        if let Some("CARGO_PKG" | "CARGO_MANIFEST") = name.to_str().and_then(first_two_words) {
            cargo.env_remove(name);
        }
    }
    let built = cargo
        .args(["build", "--package", "galvani", "--bin", "galvani", "--profile", profile])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(built.status.success(), "galvani does not build: {}", built.status);
    let text = String::from_utf8_lossy(&built.stdout);
    let executable = text.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "galvani")
            .then(|| message["executable"].as_str().map(PathBuf::from))
            .flatten()
    });
    executable.expect("cargo names the executable it built")
}

/// `CARGO_PKG_NAME` -> `CARGO_PKG`.
fn first_two_words(name: &str) -> Option<&str> {
    let (end, _) = name.match_indices('_').nth(1)?;
    Some(&name[..end])
}
