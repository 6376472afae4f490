//! The files of the repository, read once, as the checks see them.
//!
//! A `Tree` holds what git tracks plus what it would track (new files that are not ignored), so a
//! rule goes red before the commit. Without git (an unpacked archive) it walks the folders instead.
//! Tests build small trees in memory with [`Tree::from_files`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rust_file::RustFile;

/// Text files by path relative to the root, and the paths of all other files.
#[derive(Debug, Default)]
pub struct Tree {
    texts: BTreeMap<String, String>,
    rust: BTreeMap<String, RustFile>,
    paths: Vec<String>,
}

impl Tree {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// Any file that exists but cannot be read, and a root that cannot be listed.
    pub fn load(root: &Path) -> io::Result<Self> {
        let listed = match list_with_git(root) {
            Some(paths) => paths,
            None => list_by_walking(root)?,
        };
        let mut files = Vec::new();
        for path in listed {
            let full = root.join(&path);
            // Git also lists files deleted since the last commit, and links to folders.
            if full.is_file() {
                files.push((path, std::fs::read(full)?));
            }
        }
        Ok(Self::from_bytes(files))
    }

    /// A tree of the given `(path, text)` pairs.
    pub fn from_files<P: Into<String>, T: Into<String>>(
        files: impl IntoIterator<Item = (P, T)>,
    ) -> Self {
        Self::from_bytes(files.into_iter().map(|(path, text)| (path.into(), text.into().into())))
    }

    fn from_bytes(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let mut tree = Self::default();
        for (path, bytes) in files {
            tree.paths.push(path.clone());
            // What is not UTF-8 is data, not text: it has a path and no lines.
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            if path.ends_with(".rs") {
                tree.rust.insert(path.clone(), RustFile::parse(&path, &text));
            }
            tree.texts.insert(path, text);
        }
        tree.paths.sort();
        let declared: Vec<String> =
            tree.rust.values().flat_map(RustFile::test_module_paths).collect();
        for path in declared {
            if let Some(file) = tree.rust.get_mut(&path) {
                file.mark_as_test_module();
            }
        }
        tree
    }

    /// The text of the file at `path`, if it is there and is text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// All text files, by path.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// All Rust sources, by path.
    pub fn rust_files(&self) -> impl Iterator<Item = &RustFile> {
        self.rust.values()
    }

    /// True if `path` is a file of the tree or a folder that holds one. A trailing slash is allowed.
    pub fn contains(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty()
            || self.paths.iter().any(|have| {
                have.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }

    /// The names of the folders directly under `dir` that hold a file called `name`.
    pub fn folders_with(&self, dir: &str, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for path in &self.paths {
            let Some(rest) = path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            if let Some((folder, file)) = rest.split_once('/')
                && file == name
            {
                found.push(folder.to_owned());
            }
        }
        found
    }
}

fn list_with_git(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "-z"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let listing = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> =
        listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    // An empty listing means that `root` lies inside someone else's repository, or in none.
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

fn list_by_walking(root: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if entry.file_name() != "target" && entry.file_name() != ".git" {
                    folders.push(entry.path());
                }
            } else if kind.is_file()
                && let Ok(relative) = entry.path().strip_prefix(root)
                && let Some(text) = relative.to_str()
            {
                found.push(text.replace('\\', "/"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_count_as_present_and_prefixes_of_names_do_not() {
        let tree = Tree::from_files([("crates/model/src/lib.rs", "")]);
        assert!(tree.contains("crates/model"));
        assert!(tree.contains("crates/model/src/lib.rs"));
        assert!(!tree.contains("crates/mod"));
        assert!(!tree.contains("crates/model/src/other.rs"));
    }

    #[test]
    fn a_module_declared_for_tests_only_is_a_test_file_wherever_it_lies() {
        let tree = Tree::from_files([
            ("a/src/lib.rs", "#[cfg(test)]\npub(crate) mod support;\nmod real;"),
            ("a/src/support.rs", ""),
            ("a/src/real.rs", "#[cfg(test)]\nuse a::b;\n#[cfg(test)]\nmod twin;"),
            ("a/src/real/twin.rs", ""),
            ("a/src/b.rs", ""),
        ]);
        let tests = tree.rust_files().filter(|file| file.is_test_file());
        let paths: Vec<&str> = tests.map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a/src/real/twin.rs", "a/src/support.rs"]);
    }

    #[test]
    fn walking_finds_files_and_leaves_build_output_alone() {
        let root = std::env::temp_dir().join(format!("xtask-walk-{}", std::process::id()));
        for file in ["a/b.txt", "target/c.txt", ".git/d.txt"] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("the path has a folder"))
                .expect("a folder under the temporary one can be made");
            std::fs::write(path, "x").expect("a file in a fresh folder can be written");
        }
        let listed = list_by_walking(&root);
        std::fs::remove_dir_all(&root).expect("the test's own folder can be removed");
        assert_eq!(listed.expect("the folder can be listed"), ["a/b.txt"]);
    }
}
