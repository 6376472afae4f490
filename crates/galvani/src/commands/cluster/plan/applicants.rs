//! Nodes that are no members and say how they would be: what a plan takes from them.
//!
//! A node whose cluster file does not name it tells the members who and where it is; they list it in
//! their status. A request that names such a node needs no more than its name. Nothing is asked here.

use crate::args::plan::NewNode;
use crate::exit::Exit;
use crate::report::Report;
use galvani_client::Member;

/// The node with what it says of itself, where the request does not say so.
pub(super) fn filled(node: &NewNode, known: &[Member]) -> Result<NewNode, Report> {
    if node.place.is_some() {
        return Ok(node.clone());
    }
    let found = named(node, known)?;
    Ok(NewNode {
        zone: node.zone.clone().or_else(|| Some(found.zone().to_owned())),
        weight: node.weight.or(Some(found.weight())),
        ..placed(node, found)
    })
}

/// The same for one that takes the place of `old`: in its zone, with its weight.
pub(super) fn in_place_of(
    old: &Member,
    node: &NewNode,
    known: &[Member],
) -> Result<NewNode, Report> {
    if node.place.is_some() {
        return Ok(node.clone());
    }
    let found = named(node, known)?;
    if node.zone.is_none() && found.zone() != old.zone() {
        let (name, zone, old_zone) = (&node.name, found.zone(), old.zone());
        let what = format!("cluster plan: {name} says it is in zone {zone}");
        let so = NewNode { zone: Some(old_zone.to_owned()), ..node.clone() };
        return Err(Report::new(Exit::Refused, what)
            .why(format!("{} is in zone {old_zone}, and so is who takes its place", old.name()))
            .why("nothing was changed, no plan was kept")
            .next(
                "either",
                format!("galvani cluster plan add {name}, and then remove {}", old.name()),
            )
            .next("or say", format!("galvani cluster plan replace {} {so}", old.name())));
    }
    Ok(placed(node, found))
}

fn placed(node: &NewNode, found: &Member) -> NewNode {
    NewNode { place: Some((found.id(), found.lanes().to_vec())), ..node.clone() }
}

/// The one that calls itself so.
fn named<'a>(node: &NewNode, known: &'a [Member]) -> Result<&'a Member, Report> {
    let name = &node.name;
    let mut found = known.iter().filter(|member| member.name() == name);
    let report = match (found.next(), found.next()) {
        (Some(one), None) => return Ok(one),
        (Some(one), Some(other)) => {
            let what = format!("cluster plan: several nodes that apply are called {name}");
            Report::new(Exit::Usage, what)
                .why(format!("{} at {}", one.id(), one.lanes()[0]))
                .why(format!("{} at {}", other.id(), other.lanes()[0]))
        }
        (None, _) => {
            let what = format!("cluster plan: nothing is known of node {name}");
            Report::new(Exit::Usage, what).why(words(known)).why(
                "a node applies by running with an identity of this cluster and a [join] section",
            )
        }
    };
    Err(report
        .next("make one", "galvani help cluster invite")
        .next("or say", format!("{name}=ID@IP:PORT"))
        .next("see", "galvani status"))
}

fn words(known: &[Member]) -> String {
    let words: Vec<String> =
        known.iter().map(|it| format!("{} (zone {})", it.name(), it.zone())).collect();
    match words.as_slice() {
        [] => "no node applies to be a member now".to_owned(),
        words => format!("nodes that apply now: {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{filled, in_place_of};
    use crate::args::plan::NewNode;
    use galvani_client::{Member, NodeId};

    fn member(id: u128, name: &str, zone: &str) -> Member {
        let lanes = vec![([10, 0, 0, 8], 7070 + id as u16).into()];
        Member::new(NodeId(id), name, zone, 200, lanes).expect("valid")
    }

    fn new(text: &str) -> NewNode {
        text.parse().expect(text)
    }

    #[test]
    fn a_name_is_enough_for_a_node_that_applies() {
        let known = [member(7, "n4", "d")];
        let node = filled(&new("n4"), &known).expect("known");
        assert_eq!((node.zone.as_deref(), node.weight), (Some("d"), Some(200)));
        assert_eq!(node.place, Some((NodeId(7), known[0].lanes().to_vec())));
        let node = filled(&new("n4@a*50"), &known).expect("known");
        assert_eq!((node.zone.as_deref(), node.weight), (Some("a"), Some(50)));
    }

    #[test]
    fn a_node_that_nobody_knows_is_refused_with_those_that_apply() {
        let told = filled(&new("n9"), &[member(7, "n4", "d")]).expect_err("unknown").to_string();
        assert!(told.contains("apply now: n4 (zone d)") && told.contains("invite"), "{told}");
        let told = filled(&new("n9"), &[]).expect_err("unknown").to_string();
        assert!(told.contains("no node applies"), "{told}");
        let two = [member(7, "n4", "d"), member(8, "n4", "d")];
        let told = filled(&new("n4"), &two).expect_err("which").to_string();
        assert!(told.contains("10.0.0.8:7077") && told.contains("10.0.0.8:7078"), "{told}");
    }

    #[test]
    fn who_takes_a_place_takes_its_zone_or_is_told_so() {
        let old = member(1, "n1", "a");
        let known = [member(7, "n4", "d"), member(8, "n5", "a")];
        assert_eq!(in_place_of(&old, &new("n5"), &known).expect("same zone").zone, None);
        let told = in_place_of(&old, &new("n4"), &known).expect_err("another zone").to_string();
        assert!(told.contains("replace n1 n4@a"), "{told}");
        let said = in_place_of(&old, &new("n4@a"), &known).expect("said so");
        assert_eq!((said.zone.as_deref(), said.weight), (Some("a"), None));
    }
}
