//! Building an earlier revision of this repository, for `cargo xtask upgrade`.
//!
//! The revision comes out of git into `target/upgrade/HASH/source` and is built there with a target
//! folder of its own, so neither the work tree nor its builds are touched. A program that was built
//! before is used again. What is done with it is in `cluster-tests/src/bin/upgrade.rs`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds `galvani` of the revision (a name that git knows); the program's path. Why not, else: nothing
/// but files below `target/upgrade` was written.
pub fn build(root: &Path, cargo: &OsStr, revision: &str) -> Result<PathBuf, String> {
    let commit = commit_of(root, revision)?;
    let dir = root.join("target/upgrade").join(&commit);
    let (source, target) = (dir.join("source"), dir.join("target"));
    let program = target.join("debug/galvani");
    if program.exists() {
        println!("upgrade: {revision} is built already: {}", program.display());
        return Ok(program);
    }
    unpack(root, &commit, &source)?;
    println!("upgrade: builds {revision} ({commit})");
    let words = ["build", "--locked", "--package", "galvani", "--bin", "galvani"];
    let mut build = Command::new(cargo);
    build.args(words).arg("--target-dir").arg(&target).current_dir(&source);
    forget_package(&mut build);
    let built = build.status().map_err(|error| format!("cargo does not start: {error}"))?;
    match built.success() && program.exists() {
        true => Ok(program),
        false => Err(format!("{revision} does not build in {}: {built}", source.display())),
    }
}

/// What cargo tells this chore of its own package is not for the build scripts of others.
pub(crate) fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG") || text.starts_with("CARGO_MANIFEST") {
            command.env_remove(&name);
        }
    }
}

fn commit_of(root: &Path, revision: &str) -> Result<String, String> {
    let name = format!("{revision}^{{commit}}");
    let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &name];
    let asked = Command::new("git").args(words).current_dir(root).output();
    let asked = asked.map_err(|error| format!("git does not start: {error}"))?;
    let commit = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    match asked.status.success() && !commit.is_empty() {
        true => Ok(commit),
        false => Err(format!(
            "git knows no revision {revision:?} here: a shallow clone has no earlier ones \
             (git fetch --unshallow)"
        )),
    }
}

fn unpack(root: &Path, commit: &str, source: &Path) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    fs::create_dir_all(source).map_err(|error| failed(&source.display().to_string(), error))?;
    let mut archive = Command::new("git")
        .args(["archive", "--format=tar", commit])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed("git archive", error))?;
    let stdout = archive.stdout.take().expect("it is a pipe");
    let unpacked = Command::new("tar").args(["-x", "-C"]).arg(source).stdin(stdout).status();
    let archived = archive.wait().map_err(|error| failed("git archive", error))?;
    let unpacked = unpacked.map_err(|error| failed("tar", error))?;
    match archived.success() && unpacked.success() {
        true => Ok(()),
        false => Err(format!("{commit} does not come out of git: {archived}, tar {unpacked}")),
    }
}

#[cfg(test)]
mod tests {
    use super::build;
    use std::path::Path;

    #[test]
    fn a_revision_that_is_not_there_is_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let refused = build(&root, "cargo".as_ref(), "no-such-revision").expect_err("not there");
        assert!(refused.contains("no-such-revision"), "{refused}");
        let option = build(&root, "cargo".as_ref(), "--all").expect_err("an option is no revision");
        assert!(option.contains("--all"), "{option}");
    }
}
