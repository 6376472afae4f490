//! Plans that are kept: one file each in the folder `plans` of the state directory.
//!
//! A file holds the layout that was planned on, the one that was planned, and the request. It is
//! named by the plan's id, which is the content of the planned layout: planning the same again
//! writes the same file. A file that is not what its name says is refused.

use crate::context::{State, io_report, read_json_up_to, removed, write_json};
use crate::exit::Exit;
use crate::report::Report;
use galvani_model::placement::Layout;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Schema of a plan's file.
const SCHEMA: &str = "galvani.plan_file/1";
/// Largest file that is read, in bytes: two layouts of 1024 nodes with 64 lanes each.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A layout that was planned, on which one, and what for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptPlan {
    schema: String,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The command that asked for it.
    pub(crate) request: String,
    /// What one replica of a partition took on disk then, if any node said so.
    pub(crate) bytes_per_replica: Option<u64>,
    /// The layout the plan was made on.
    pub(crate) from: Layout,
    /// The layout that was planned: what an apply commits.
    pub(crate) layout: Layout,
}

impl KeptPlan {
    /// A plan without an estimate of bytes.
    pub(crate) fn new(cluster: &str, request: String, from: &Layout, layout: Layout) -> KeptPlan {
        KeptPlan {
            schema: SCHEMA.to_owned(),
            cluster: cluster.to_owned(),
            request,
            bytes_per_replica: None,
            from: from.clone(),
            layout,
        }
    }

    /// With what a replica takes on disk.
    pub(crate) fn with_estimate(self, bytes_per_replica: Option<u64>) -> KeptPlan {
        KeptPlan { bytes_per_replica, ..self }
    }

    /// What people call it: the beginning of the planned layout's id.
    pub(crate) fn id(&self) -> String {
        self.layout.id().short()
    }
}

/// The folder of plans.
#[derive(Clone, Debug)]
pub(crate) struct Plans {
    dir: PathBuf,
}

impl Plans {
    /// Those of this state directory.
    pub(crate) fn of(state: &State) -> Plans {
        Plans { dir: state.plans_dir() }
    }

    /// Writes a plan; the same plan again is no change.
    pub(crate) fn keep(&self, plan: &KeptPlan) -> Result<(), Report> {
        write_json(&self.file(&plan.id()), plan)
    }

    /// The plan whose id is, or begins with, `id`.
    pub(crate) fn find(&self, id: &str) -> Result<KeptPlan, Report> {
        let id = self.resolve(id)?;
        self.read(&id)?.ok_or_else(|| self.unknown(&id))
    }

    /// Removes such a plan; its whole id.
    pub(crate) fn forget(&self, id: &str) -> Result<String, Report> {
        let id = self.resolve(id)?;
        removed(&self.file(&id))?;
        Ok(id)
    }

    /// All plans, in the order of the layouts they were made on, then of their ids.
    pub(crate) fn all(&self) -> Result<Vec<KeptPlan>, Report> {
        let mut plans = Vec::new();
        for id in self.ids()? {
            plans.extend(self.read(&id)?);
        }
        plans.sort_by_key(|plan| (plan.cluster.clone(), plan.from.version(), plan.id()));
        Ok(plans)
    }

    fn read(&self, id: &str) -> Result<Option<KeptPlan>, Report> {
        let path = self.file(id);
        let Some(plan): Option<KeptPlan> = read_json_up_to(&path, FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        let wrong = |what: String| {
            Report::unexpected(format!("{}: {what}", path.display()))
                .next("forget it", format!("galvani cluster plan drop {id}"))
        };
        match plan.schema == SCHEMA {
            true if plan.id() == id => Ok(Some(plan)),
            true => Err(wrong(format!("the layout in it is {}", plan.id()))),
            false => Err(wrong(format!("{:?} is not {SCHEMA}", plan.schema))),
        }
    }

    /// The one kept id that begins with `text`; a layout's whole id will do too.
    fn resolve(&self, text: &str) -> Result<String, Report> {
        let ids = self.ids()?;
        let fits = |id: &&String| id.starts_with(text) || text.len() == 32 && text.starts_with(*id);
        let fitting: Vec<&String> = ids.iter().filter(fits).collect();
        match fitting.as_slice() {
            [] => Err(self.unknown(text)),
            _ if text.is_empty() => Err(self.unknown(text)),
            [one] => Ok((*one).clone()),
            several => {
                let several: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
                Err(Report::new(Exit::Usage, format!("{text:?} begins several plans"))
                    .why(several.join(" "))
                    .next("see", "galvani cluster plan list"))
            }
        }
    }

    fn unknown(&self, id: &str) -> Report {
        Report::new(Exit::NotFound, format!("no plan {id:?} is kept in {}", self.dir.display()))
            .field("kind", "no_plan")
            .why("a plan is kept where it was made; made again it has the same id")
            .next("see", "galvani cluster plan list")
    }

    fn ids(&self) -> Result<Vec<String>, Report> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_report(&self.dir, &error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| io_report(&self.dir, &error))?.path();
            ids.extend(id_of(&path));
        }
        ids.sort();
        Ok(ids)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

/// The id that a file is named by.
fn id_of(path: &Path) -> Option<String> {
    let id = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let digits = id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| id.to_owned())
}
