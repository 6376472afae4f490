//! Contexts: which clusters this machine knows, each a small file with servers and an identity.
//!
//! They live in the state directory: `$GALVANI_STATE`, else `$XDG_STATE_HOME/galvani`, else
//! `~/.local/state/galvani`. Files are replaced whole, so a reader never sees half of one. Nothing
//! here talks to a cluster; see `connect.rs`.

use crate::exit::Exit;
use crate::report::Report;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Schema of a context file.
const SCHEMA: &str = "galvani.context/1";
/// Largest file that is read, in bytes: a context of 1024 servers fits.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Folder of plans: no cluster may be named so.
const PLANS: &str = "plans";

/// Selected contexts of the past that are remembered.
const SELECTED_KEPT: usize = 16;

/// How to reach one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    schema: String,
    /// Servers, `host:port` each.
    pub(crate) seeds: Vec<String>,
    /// Directory with `ca.pem`, `cert.pem` and `key.pem`.
    pub(crate) identity: PathBuf,
    /// The files of a local cluster, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dev_dir: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(seeds: Vec<String>, identity: PathBuf, dev_dir: Option<PathBuf>) -> Context {
        Context { schema: SCHEMA.to_owned(), seeds, identity, dev_dir }
    }
}

/// The directory of contexts and local clusters.
#[derive(Clone, Debug)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    /// Where the environment says.
    pub(crate) fn locate() -> Result<State, Report> {
        let var =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = var("GALVANI_STATE")
            .or_else(|| Some(var("XDG_STATE_HOME")?.join("galvani")))
            .or_else(|| Some(var("HOME")?.join(".local/state/galvani")));
        let root = root.ok_or_else(|| {
            Report::new(Exit::Usage, "no place for state: HOME is not set")
                .next("try", "export GALVANI_STATE=DIR")
        })?;
        let root = std::path::absolute(&root).unwrap_or(root);
        Ok(State { root })
    }

    /// In this directory, whatever the environment says.
    pub(crate) fn at(root: &Path) -> State {
        State { root: root.to_owned() }
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the files of the local cluster `name` are unless said otherwise.
    pub(crate) fn dev_dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where plans of other layouts are kept.
    pub(crate) fn plans_dir(&self) -> PathBuf {
        self.root.join(PLANS)
    }

    /// The context `name`, or `None` if there is none.
    pub(crate) fn context(&self, name: &str) -> Result<Option<Context>, Report> {
        check_name(name)?;
        read_json(&self.file(name))
    }

    /// Writes a context.
    pub(crate) fn save(&self, name: &str, context: &Context) -> Result<(), Report> {
        check_name(name)?;
        write_json(&self.file(name), context)
    }

    /// Forgets a context; if it was the selected one, the one before it is again. False: there was
    /// none.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Report> {
        check_name(name)?;
        if self.selected()?.as_deref() == Some(name) {
            let before = self.selected_before()?;
            let back = before.iter().rev().find(|old| *old != name && self.file(old).is_file());
            match back {
                Some(old) => self.write_selected(old)?,
                None => drop(removed(&self.root.join("contexts/selected"))?),
            }
        }
        removed(&self.noted(name))?;
        removed(&self.file(name))
    }

    /// The names of all contexts, in order.
    pub(crate) fn names(&self) -> Result<Vec<String>, Report> {
        let folder = self.root.join("contexts");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_report(&folder, &error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".json").map(str::to_owned)
        };
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// The selected context's name.
    pub(crate) fn selected(&self) -> Result<Option<String>, Report> {
        let path = self.root.join("contexts/selected");
        match fs::read_to_string(&path) {
            Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_report(&path, &error)),
        }
    }

    /// Selects a context.
    pub(crate) fn select(&self, name: &str) -> Result<(), Report> {
        check_name(name)?;
        if let Some(old) = self.selected()?.filter(|old| old != name) {
            let mut before = self.selected_before()?;
            before.retain(|one| *one != old && one != name);
            before.push(old);
            let from = before.len().saturating_sub(SELECTED_KEPT);
            let text = before[from..].join("\n");
            write_whole(&self.root.join("contexts/before"), format!("{text}\n").as_bytes())?;
        }
        self.write_selected(name)
    }

    fn write_selected(&self, name: &str) -> Result<(), Report> {
        write_whole(&self.root.join("contexts/selected"), format!("{name}\n").as_bytes())
    }

    /// Contexts that were selected before, the last one last; some may be gone.
    fn selected_before(&self) -> Result<Vec<String>, Report> {
        let path = self.root.join("contexts/before");
        match fs::read_to_string(&path) {
            Ok(names) => {
                let names = names.lines().filter(|name| check_name(name).is_ok());
                Ok(names.map(str::to_owned).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(io_report(&path, &error)),
        }
    }

    /// Whether this is the first remark of its kind for a context; remembers that it was made.
    pub(crate) fn first_remark(&self, name: &str) -> bool {
        let path = self.noted(name);
        check_name(name).is_ok() && !path.exists() && write_whole(&path, b"").is_ok()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join("contexts").join(format!("{name}.json"))
    }

    fn noted(&self, name: &str) -> PathBuf {
        self.root.join("contexts").join(format!("{name}.told-overlap"))
    }
}

/// A name that can be part of a path: 1 to 32 of a-z 0-9 - and _, as cluster names are.
pub(crate) fn check_name(name: &str) -> Result<(), Report> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let taken = ["contexts", PLANS].contains(&name);
    match (1..=32).contains(&name.len()) && name.bytes().all(ok) && !taken {
        true => Ok(()),
        false => Err(Report::new(
            Exit::Usage,
            format!("{name:?} is not a cluster name: 1 to 32 of a-z 0-9 - _"),
        )),
    }
}

/// Reads a small JSON file; `None` if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Report> {
    read_json_up_to(path, FILE_BYTES_MAX)
}

/// The same with at most so many bytes.
pub(crate) fn read_json_up_to<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
) -> Result<Option<T>, Report> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_report(path, &error)),
    };
    if length > bytes_max {
        return Err(Report::unexpected(format!("{}: too large", path.display())));
    }
    let text = fs::read(path).map_err(|error| io_report(path, &error))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| Report::unexpected(format!("{}: {error}", path.display())))
}

/// Replaces a JSON file whole.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Report> {
    let mut text = serde_json::to_vec_pretty(value).expect("our own types encode to JSON");
    text.push(b'\n');
    write_whole(path, &text)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Report> {
    let wrote = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let mut file = fs::File::create(&part)?;
        file.write_all(bytes)?;
        drop(file);
        fs::rename(&part, path)
    };
    wrote().map_err(|error| io_report(path, &error))
}

/// Removes a file; false: there was none.
pub(crate) fn removed(path: &Path) -> Result<bool, Report> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_report(path, &error)),
    }
}

/// What the system said about a file.
pub(crate) fn io_report(path: &Path, error: &io::Error) -> Report {
    Report::unexpected(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Context, State, check_name};

    #[test]
    fn contexts_are_kept_selected_and_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = State::at(dir.path());
        assert_eq!(state.names().expect("none yet"), Vec::<String>::new());
        assert_eq!(state.context("dev").expect("none yet"), None);
        let context = Context::new(vec!["127.0.0.1:7070".into()], "/x/client".into(), None);
        state.save("dev", &context).expect("saved");
        state.save("prod", &context).expect("saved");
        state.select("dev").expect("selected");
        assert_eq!(state.context("dev").expect("there"), Some(context));
        assert_eq!(state.names().expect("two"), ["dev", "prod"]);
        assert_eq!(state.selected().expect("one").as_deref(), Some("dev"));
        assert!(state.first_remark("dev"));
        assert!(!state.first_remark("dev"));
        assert!(state.remove("dev").expect("removed"));
        assert!(!state.remove("dev").expect("gone"));
        assert_eq!(state.selected().expect("none"), None);
    }

    #[test]
    fn the_context_before_is_selected_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = State::at(dir.path());
        let context = Context::new(vec!["127.0.0.1:7070".into()], "/x/client".into(), None);
        for name in ["dev", "gone", "try"] {
            state.save(name, &context).expect("saved");
            state.select(name).expect("selected");
        }
        assert!(state.remove("gone").expect("not the selected one"));
        assert_eq!(state.selected().expect("one").as_deref(), Some("try"));
        assert!(state.remove("try").expect("the selected one"));
        assert_eq!(state.selected().expect("one").as_deref(), Some("dev"));
        assert!(state.remove("dev").expect("the last one"));
        assert_eq!(state.selected().expect("none"), None);
    }

    #[test]
    fn names_cannot_leave_their_folder() {
        for name in ["", "..", "a/b", "A", "contexts", "plans", &"x".repeat(33)] {
            assert_eq!(check_name(name).expect_err(name).exit.code(), 2, "{name}");
        }
    }
}
