//! The programs under test: `galvani`, built once for each test process with the tests' own profile, and
//! the client's examples.
//!
//! They go to the target directory that the running test came from, so `CARGO_TARGET_DIR` and
//! `--release` mean what they say. A build that is fresh costs well under a second.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The path of the `galvani` binary: the one that `GALVANI_UNDER_TEST` names, so that a long run goes on
/// with it whatever becomes of the sources, or the one that is built.
pub fn galvani() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os("GALVANI_UNDER_TEST") {
        Some(path) => PathBuf::from(path),
        None => build("galvani", &["--package", "galvani", "--bin", "galvani"]),
    })
}

/// The path of an example of the client. `cargo test --workspace` has built it; if it is not there, or is
/// older than what it is made of, it is built.
pub fn example(name: &str) -> PathBuf {
    let (profile_dir, _) = profile();
    let built = profile_dir.join("examples").join(name);
    let changed = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let sources = ["client/src", "client/examples", "model/src", "wire/src", "transport/src"];
    let newest = sources.map(|of| newest_in(&crates.join(format!("galvani-{of}"))));
    match changed(&built) {
        Some(at) if newest.iter().all(|source| *source <= at) => built,
        Some(_) | None => build(name, &["--package", "galvani-client", "--example", name]),
    }
}

/// When the last change was made to a file in `dir` or below it.
fn newest_in(dir: &Path) -> SystemTime {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let changed = |entry: std::fs::DirEntry| match entry.path() {
        path if path.is_dir() => newest_in(&path),
        path => path.metadata().and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
    };
    entries.flatten().map(changed).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The folder TARGET/PROFILE that this program is of, and the profile's name.
fn profile() -> (PathBuf, String) {
    // TARGET/PROFILE/deps/THIS_TEST, or TARGET/PROFILE/THIS_PROGRAM
    let test = std::env::current_exe().expect("a test knows its own file");
    let dir = test.parent().expect("a file is in a folder");
    let profile_dir = if dir.ends_with("deps") { dir.parent() } else { Some(dir) };
    let profile_dir = profile_dir.expect("cargo runs tests from TARGET/PROFILE/deps");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => panic!("{} names no profile", profile_dir.display()),
    };
    (profile_dir.to_owned(), profile.to_owned())
}

/// Builds the program `name`, which these words name to cargo.
fn build(name: &str, what: &[&str]) -> PathBuf {
    let (profile_dir, profile) = profile();
    let target_dir = profile_dir.parent().expect("a profile's folder is in the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells this test of its own package is not for the build scripts of others: they
    // would see a change and run again.
    for (name, _) in std::env::vars_os() {
        if let Some("CARGO_PKG" | "CARGO_MANIFEST") = name.to_str().and_then(first_two_words) {
            cargo.env_remove(name);
        }
    }
    let built = cargo
        .arg("build")
        .args(what)
        .args(["--profile", &profile])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(built.status.success(), "{name} does not build: {}", built.status);
    let text = String::from_utf8_lossy(&built.stdout);
    let executable = text.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name)
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
