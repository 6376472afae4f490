//! What nodes are called, also those that are no members any more.
//!
//! A fault, a hint or a value may name a node that has left. Then layouts of the past tell its name, as
//! far as this machine has kept some: in the plans, and in the file of a local cluster. They are read
//! only when there is such a node. Next to read: `commands/cluster/plan/kept.rs`.

use crate::commands::cluster::plan::kept::Plans;
use crate::connect::App;
use galvani_client::{ClusterView, Layout, Member, NodeId};
use galvani_node::cluster_file::ClusterFile;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names for the nodes of one view of a cluster.
pub(crate) struct Names<'a> {
    view: &'a ClusterView,
    past: Past,
    /// Who has left, once somebody asked.
    former: OnceCell<BTreeMap<NodeId, String>>,
}

/// Where layouts of the past are.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    plans: Plans,
    /// The directory of the cluster, if it is a local one.
    local: Option<PathBuf>,
}

impl Past {
    /// What this machine has kept; `local` is the directory of the cluster, if it is a local one.
    pub(crate) fn of(app: &App, local: Option<PathBuf>) -> Past {
        Past { plans: Plans::of(&app.state), local }
    }

    /// All that can be read: a file that cannot be costs a name and nothing else.
    fn layouts(&self) -> Vec<Layout> {
        let plans = self.plans.all().unwrap_or_default();
        let mut layouts: Vec<Layout> =
            plans.into_iter().flat_map(|plan| [plan.from, plan.layout]).collect();
        let file = self.local.as_ref().map(|dir| ClusterFile::load(&dir.join("cluster.json")));
        layouts.extend(file.and_then(Result::ok).map(|file| file.layout.as_ref().clone()));
        layouts
    }
}

impl<'a> Names<'a> {
    pub(crate) fn of(view: &'a ClusterView, past: Past) -> Names<'a> {
        Names { view, past, former: OnceCell::new() }
    }

    /// What people call it: its name, or that it was a member and how its id begins.
    pub(crate) fn word(&self, id: NodeId) -> String {
        if let Some(member) = self.member(id) {
            return member.name().to_owned();
        }
        match self.former(id) {
            // Another node has that name now.
            Some(name) if self.members().any(|member| member.name() == name) => {
                format!("the former {name} ({})", id.short())
            }
            Some(name) => name.to_owned(),
            None => format!("a former member ({})", id.short()),
        }
    }

    /// The same for scripts: its name if that is no other node's, else how its id begins.
    pub(crate) fn key(&self, id: NodeId) -> String {
        let name = self.member(id).map(Member::name).or_else(|| {
            self.former(id).filter(|name| self.members().all(|member| member.name() != *name))
        });
        name.map_or_else(|| id.short(), str::to_owned)
    }

    /// The word for a node that the client calls so: by its name, or by how its id begins where it
    /// knows no name.
    pub(crate) fn told(&self, name: &str) -> String {
        let is_id = name.len() == SHORT && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id || self.members().any(|member| member.name() == name) {
            return name.to_owned();
        }
        match self.all_former().keys().find(|id| id.short() == name) {
            Some(id) => self.word(*id),
            None => format!("a former member ({name})"),
        }
    }

    /// A member by the layout, or by the change that is under way.
    fn member(&self, id: NodeId) -> Option<&Member> {
        self.members().find(|member| member.id() == id)
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        let change = self.view.change.iter().flat_map(|change| [&change.old, &change.new]);
        std::iter::once(&self.view.layout).chain(change).flat_map(|layout| layout.members())
    }

    fn former(&self, id: NodeId) -> Option<&str> {
        self.all_former().get(&id).map(String::as_str)
    }

    fn all_former(&self) -> &BTreeMap<NodeId, String> {
        self.former.get_or_init(|| {
            let layouts = self.past.layouts();
            let same = layouts.iter().filter(|layout| layout.cluster() == self.view.cluster);
            let members = same.flat_map(|layout| layout.members());
            members.map(|member| (member.id(), member.name().to_owned())).collect()
        })
    }
}

/// Digits of a short id.
const SHORT: usize = 12;

#[cfg(test)]
mod tests {
    use super::{Names, Past};
    use crate::commands::cluster::plan::kept::{KeptPlan, Plans};
    use crate::context::State;
    use galvani_client::{ClusterView, Layout, Member, NodeId};
    use galvani_model::ids::ClusterId;
    use galvani_model::placement::WEIGHT_NORMAL;
    use std::collections::BTreeMap;

    /// A layout of one copy with these members.
    fn layout(cluster: u128, version: u64, members: &[(u128, &str)]) -> Layout {
        let member = |(index, (id, name)): (usize, &(u128, &str))| {
            let lanes = vec![format!("127.0.0.1:{}", 7000 + index).parse().expect("an address")];
            Member::new(NodeId(*id), *name, "z", WEIGHT_NORMAL, lanes).expect("a member")
        };
        let members = members.iter().enumerate().map(member).collect();
        Layout::compute(ClusterId(cluster), version, 16, 1, members).expect("a layout")
    }

    #[test]
    fn who_has_left_keeps_its_name_where_the_past_is_known() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plans = Plans::of(&State::at(dir.path()));
        let (left, unknown) = (NodeId(7 << 100), NodeId(9 << 100));
        let before = layout(5, 1, &[(1, "n1"), (left.0, "n7")]);
        let after = layout(5, 2, &[(1, "n1")]);
        plans.keep(&KeptPlan::new("dev", "forget".into(), &before, after)).expect("kept");
        let foreign = layout(6, 1, &[(1, "n1"), (unknown.0, "other")]);
        plans.keep(&KeptPlan::new("x", "x".into(), &foreign, foreign.clone())).expect("kept");
        let view = |members: &[(u128, &str)]| ClusterView {
            cluster: ClusterId(5),
            name: "dev".into(),
            node: NodeId(1),
            layout: layout(5, 3, members).into(),
            epoch: 3,
            change: None,
            buckets: BTreeMap::new(),
        };
        let past = Past { plans, local: None };
        let now = view(&[(1, "n1"), (2, "n2")]);
        let names = Names::of(&now, past.clone());
        assert_eq!((names.word(NodeId(1)), names.key(NodeId(1))), ("n1".into(), "n1".into()));
        assert_eq!((names.word(left), names.key(left)), ("n7".into(), "n7".into()));
        let short = unknown.short();
        assert_eq!(names.word(unknown), format!("a former member ({short})"));
        assert_eq!(names.key(unknown), short);
        let told = ["n2", &left.short(), &short].map(|name| names.told(name));
        assert_eq!(told, ["n2", "n7", &format!("a former member ({short})")]);
        // Another node was given the name.
        let now = view(&[(1, "n1"), (3, "n7")]);
        let names = Names::of(&now, past);
        assert_eq!(names.word(left), format!("the former n7 ({})", left.short()));
        assert_eq!((names.key(left), names.key(NodeId(3))), (left.short(), "n7".into()));
    }
}
