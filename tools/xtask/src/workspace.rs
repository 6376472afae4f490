//! The workspace's manifests: members, their dependencies, and where each is written.
//!
//! Only what the rules ask about is read; nothing here resolves versions or features. Manifests
//! that cannot be read become violations, so a check sees only those that can.

use toml::{Table, Value};

use crate::tree::Tree;
use crate::violation::Violation;

/// The root manifest and every member's.
#[derive(Debug)]
pub struct Workspace {
    /// The root `Cargo.toml`.
    pub root: Table,
    /// The members, in the order the root lists them.
    pub members: Vec<Member>,
}

/// One crate of the workspace.
#[derive(Debug)]
pub struct Member {
    /// The package name.
    pub name: String,
    /// The crate's folder, relative to the repository root.
    pub dir: String,
    /// The path of its manifest.
    pub manifest_path: String,
    /// Its manifest.
    pub manifest: Table,
    text: String,
}

/// Whether a dependency is part of the crate or only of its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[dependencies]` and `[build-dependencies]`.
    Normal,
    /// `[dev-dependencies]`.
    Dev,
}

/// One dependency of one member.
#[derive(Debug)]
pub struct Dependency {
    /// The package depended on, whatever it is called locally.
    pub package: String,
    /// Whether only the tests see it.
    pub kind: Kind,
    /// Where the manifest says so.
    pub line: usize,
}

impl Workspace {
    /// Reads the manifests of `tree`; what cannot be read is added to `out` and left out.
    pub fn read(tree: &Tree, out: &mut Vec<Violation>) -> Self {
        let root = read_manifest(tree, "Cargo.toml", out).unwrap_or_default();
        let mut members = Vec::new();
        let patterns = table_at(&root, &["workspace"]).and_then(|t| t.get("members"));
        for pattern in patterns.and_then(Value::as_array).into_iter().flatten() {
            let Some(pattern) = pattern.as_str() else {
                continue;
            };
            let dirs = match pattern.strip_suffix("/*") {
                Some(dir) => {
                    let names = tree.folders_with(dir, "Cargo.toml").into_iter();
                    names.map(|name| format!("{dir}/{name}")).collect()
                }
                None => vec![pattern.to_owned()],
            };
            members.extend(dirs.into_iter().filter_map(|dir| read_member(tree, dir, out)));
        }
        Self { root, members }
    }

    /// The member called `name`.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Every dependency of `member`, those of single targets included.
    pub fn dependencies(&self, member: &Member) -> Vec<Dependency> {
        let mut found = Vec::new();
        self.collect(member, &member.manifest, &mut found);
        let targets = member.manifest.get("target").and_then(Value::as_table);
        for target in targets.into_iter().flat_map(|t| t.values()).filter_map(Value::as_table) {
            self.collect(member, target, &mut found);
        }
        found
    }

    fn collect(&self, member: &Member, table: &Table, found: &mut Vec<Dependency>) {
        let sections = [
            ("dependencies", Kind::Normal),
            ("build-dependencies", Kind::Normal),
            ("dev-dependencies", Kind::Dev),
        ];
        for (section, kind) in sections {
            let entries = table.get(section).and_then(Value::as_table);
            for (key, value) in entries.into_iter().flatten() {
                let package = self.package_of(key, value);
                found.push(Dependency { package, kind, line: member.line_of_key(section, key) });
            }
        }
    }

    /// The package behind `key`, which a `package = ".."` here or in the root may rename.
    fn package_of(&self, key: &str, value: &Value) -> String {
        let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
        let shared = table_at(&self.root, &["workspace", "dependencies"]).and_then(|t| t.get(key));
        let declared = if inherited { shared } else { Some(value) };
        let renamed = declared.and_then(|v| v.get("package")).and_then(Value::as_str);
        renamed.unwrap_or(key).to_owned()
    }
}

impl Member {
    /// The line of `key` under a section whose header ends in `section`; 1 if it cannot be told.
    pub fn line_of_key(&self, section: &str, key: &str) -> usize {
        let mut inside = false;
        for (index, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[') {
                let header = header.trim_end_matches(']');
                inside = header.rsplit('.').next() == Some(section);
                if header.ends_with(&format!("{section}.{key}")) {
                    return index + 1;
                }
            } else if inside
                && let Some(rest) = line.trim_start_matches('"').strip_prefix(key)
                && rest.starts_with([' ', '.', '=', '"'])
            {
                return index + 1;
            }
        }
        1
    }
}

/// The table found by following `keys` down from `table`.
pub fn table_at<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Table> {
    keys.iter().try_fold(table, |table, key| table.get(*key)?.as_table())
}

fn read_member(tree: &Tree, dir: String, out: &mut Vec<Violation>) -> Option<Member> {
    let manifest_path = format!("{dir}/Cargo.toml");
    let manifest = read_manifest(tree, &manifest_path, out)?;
    let name = table_at(&manifest, &["package"])
        .and_then(|package| package.get("name"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let text = tree.text(&manifest_path).unwrap_or_default().to_owned();
    Some(Member { name, dir, manifest_path, manifest, text })
}

fn read_manifest(tree: &Tree, path: &str, out: &mut Vec<Violation>) -> Option<Table> {
    let problem = match tree.text(path) {
        None => "the manifest is missing".to_owned(),
        Some(text) => match text.parse::<Table>() {
            Ok(table) => return Some(table),
            Err(error) => format!("the manifest is not TOML: {}", error.message()),
        },
    };
    out.push(Violation::new("manifest", path, 1, problem, "write a valid Cargo.toml"));
    None
}
