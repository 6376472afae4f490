//! Crates look down only: a crate may depend on workspace crates of strictly lower floors.
//!
//! Tests (`[dev-dependencies]`) may look anywhere as long as no circle comes of it. The floors are
//! those of `docs/ARCHITECTURE.md`; a new crate gets its line in [`FLOORS`] first.

use crate::violation::Violation;
use crate::workspace::{Kind, Member, Workspace};

/// Every crate of the workspace and its floor.
pub const FLOORS: &[(&str, u8)] = &[
    ("galvani-model", 1),
    ("galvani-load", 1),
    ("galvani-brokers", 1),
    ("galvani-wire", 2),
    ("galvani-protocol", 3),
    ("galvani-storage", 3),
    ("galvani-transport", 4),
    ("galvani-relay", 4),
    ("galvani-sim", 4),
    ("galvani-lagged", 4),
    ("galvani-node", 5),
    ("galvani-client", 5),
    ("galvani", 6),
    ("galvani-cluster-tests", 6),
    ("galvani-benches", 6),
    ("galvani-peers", 6),
    ("xtask", 6),
];

const RULE: &str = "floors";

/// The floor of the crate called `name`, if it has one.
pub fn floor_of(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(have, _)| *have == name).map(|(_, floor)| *floor)
}

/// Checks every manifest against [`FLOORS`], and all dependencies together for circles.
pub fn check(workspace: &Workspace, out: &mut Vec<Violation>) {
    for member in &workspace.members {
        match floor_of(&member.name) {
            Some(floor) => check_member(workspace, member, floor, out),
            None => out.push(Violation::new(
                RULE,
                &member.manifest_path,
                1,
                format!("the crate `{}` has no floor", member.name),
                "give it one in tools/xtask/src/checks/floors.rs and docs/ARCHITECTURE.md",
            )),
        }
    }
    for member in &workspace.members {
        check_circles(workspace, member, out);
    }
}

fn check_member(workspace: &Workspace, member: &Member, floor: u8, out: &mut Vec<Violation>) {
    for dependency in workspace.dependencies(member) {
        let Some(below) = floor_of(&dependency.package) else {
            continue;
        };
        if dependency.kind == Kind::Normal && below >= floor {
            let (name, package) = (&member.name, &dependency.package);
            out.push(Violation::new(
                RULE,
                &member.manifest_path,
                dependency.line,
                format!("`{name}` (floor {floor}) depends on `{package}` (floor {below})"),
                "depend on lower floors only: move the shared type down",
            ));
        }
    }
}

/// Reports `start` if following dependencies of any kind from it leads back to it.
fn check_circles(workspace: &Workspace, start: &Member, out: &mut Vec<Violation>) {
    let mut seen: Vec<&str> = Vec::new();
    let mut waiting = vec![start];
    while let Some(member) = waiting.pop() {
        for dependency in workspace.dependencies(member) {
            let Some(next) = workspace.member(&dependency.package) else {
                continue;
            };
            if next.name == start.name {
                out.push(Violation::new(
                    RULE,
                    &member.manifest_path,
                    dependency.line,
                    format!("`{}` closes a circle of dependencies", dependency.package),
                    "move the test that needs it to a higher crate",
                ));
            } else if !seen.contains(&next.name.as_str()) {
                seen.push(&next.name);
                waiting.push(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{brief, workspace_of};

    fn found(manifests: &[(&str, &str)]) -> Vec<String> {
        let mut out = Vec::new();
        check(&workspace_of(manifests), &mut out);
        brief(&out)
    }

    #[test]
    fn looking_down_is_fine() {
        let manifests = [
            ("galvani-model", ""),
            ("galvani-wire", "[dependencies]\ngalvani-model.workspace = true"),
        ];
        assert_eq!(found(&manifests), [""; 0]);
    }

    #[test]
    fn looking_up_or_sideways_is_found_at_its_line() {
        let up = [("galvani-wire", "[dependencies]\nserde = \"1\"\ngalvani-node = \"*\"")];
        assert_eq!(found(&up), ["5: `galvani-wire` (floor 2) depends on `galvani-node` (floor 5)"]);
        let sideways = [("galvani-protocol", "[build-dependencies]\ngalvani-storage.path = \"x\"")];
        assert_eq!(found(&sideways).len(), 1);
    }

    #[test]
    fn a_renamed_or_target_specific_dependency_is_still_seen() {
        let manifest = "[target.'cfg(unix)'.dependencies]\n\
                        n = { package = \"galvani-node\", version = \"1\" }";
        assert_eq!(found(&[("galvani-model", manifest)]).len(), 1);
    }

    #[test]
    fn tests_may_look_up_unless_a_circle_comes_of_it() {
        let protocol = ("galvani-protocol", "[dev-dependencies]\ngalvani-sim.path = \"x\"");
        let alone = [protocol, ("galvani-sim", "")];
        assert_eq!(found(&alone), [""; 0]);
        let sim = ("galvani-sim", "[dependencies]\ngalvani-protocol.path = \"x\"");
        assert!(found(&[protocol, sim]).iter().all(|what| what.ends_with("of dependencies")));
        assert_eq!(found(&[protocol, sim]).len(), 2);
    }

    #[test]
    fn a_crate_without_a_floor_is_found() {
        assert_eq!(found(&[("extra", "")]), ["1: the crate `extra` has no floor"]);
    }
}
