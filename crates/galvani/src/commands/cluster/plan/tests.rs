//! Plans that are worked out, shown, kept and found again, without a cluster.

use super::kept::{KeptPlan, Plans};
use super::shown::{document, page};
use super::{buckets_fit, changes, refused};
use crate::args::cluster::Cluster;
use crate::args::plan::Plan;
use crate::args::{Cli, Command};
use crate::context::State;
use crate::report::Report;
use clap::Parser;
use galvani_client::BucketProps;
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::placement::{Layout, Member};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// n1, n2, .. in these zones.
fn layout(zones: &[&str], n: u8) -> Layout {
    let member = |(index, zone): (usize, &&str)| {
        let lanes = vec![([10, 0, 0, index as u8 + 1], 7401).into()];
        let id = NodeId((index as u128 + 1) << 80);
        Member::new(id, format!("n{}", index + 1), *zone, 100, lanes).expect("valid")
    };
    let members = zones.iter().enumerate().map(member).collect();
    Layout::compute(ClusterId(9), 14, 64, n, members).expect("feasible")
}

fn parsed(request: &str) -> Plan {
    let line = format!("galvani cluster plan {request}");
    let cli = Cli::try_parse_from(line.split_whitespace()).expect("valid");
    let Command::Cluster(Cluster::Plan(plan)) = cli.command else { panic!("a plan") };
    plan
}

fn plan_on(layout: &Layout, request: &str) -> Result<KeptPlan, Report> {
    let request = parsed(request);
    let changes = changes(layout, &request, &[])?;
    let next = layout.changed(&changes).map_err(|error| refused(layout, &changes, &error))?;
    Ok(KeptPlan::new("prod", request.line().to_string(), layout, next))
}

const ID: &str = "00000000000000000000000000000077";

#[test]
fn a_page_shows_what_each_node_owns_what_moves_and_the_least_there_is() {
    let now = layout(&["a", "b", "c"], 3);
    let request = format!("add n4@a={ID}@10.0.0.9:7401");
    let plan = plan_on(&now, &request).expect("possible").with_estimate(Some(1 << 20));
    let page = page(&plan, &now.moves(&plan.layout), false);
    let expected = format!(
        "plan {id}  of cluster prod  on layout v14  (the same request on it is the same plan)\n\
         node  zone  owns now  after   replicas in  out  data in  out\n\
         n1    a     33.3 %    16.7 %  -            32   -        32 MiB\n\
         n2    b     33.3 %    33.3 %  -            -    -        -\n\
         n3    c     33.3 %    33.3 %  -            -    -        -\n\
         n4    a     0.0 %     16.7 %  32           -    32 MiB   -\n\
         balance   the fullest node has 1.33 of its share   copies of a partition in distinct zones\n\
         forced    zone a has 2 nodes and may hold 1 copy of every partition: less than its weights ask for\n\
         forced    zone b has 1 node and must hold 1 copy of every partition: more than its weights ask for\n\
         forced    zone c has 1 node and must hold 1 copy of every partition: more than its weights ask for\n\
         moves     32 of 192 replicas, the fewest there are   about 32 MiB (an estimate, from the disk in use)\n\
         kept      galvani cluster plan show {id}",
        id = plan.id()
    );
    assert_eq!(page, expected);
}

#[test]
fn a_long_page_is_cut_and_says_how_to_see_the_rest() {
    let now = layout(&["a"; 30], 3);
    let plan = plan_on(&now, "remove n30").expect("possible");
    let moves = now.moves(&plan.layout);
    let short = page(&plan, &moves, false);
    assert!(short.contains("... 6 nodes more: galvani cluster plan show"), "{short}");
    assert!(short.contains(" --all\n") && short.contains("bytes not known"), "{short}");
    let long = page(&plan, &moves, true);
    assert!(long.contains("n30   a (leaves)") && !long.contains("more:"), "{long}");
}

#[test]
fn a_plan_that_moves_nothing_and_brings_copies_together_says_so() {
    let now = layout(&["a", "b", "c"], 3);
    let plan = plan_on(&now, "zone n1=b").expect("possible").with_estimate(Some(1));
    let page = page(&plan, &now.moves(&plan.layout), false);
    assert!(page.contains("UP TO 2 copies of a partition in one zone, 1 now"), "{page}");
    assert!(page.contains("moves     none of 192 replicas\n"), "{page}");
}

#[test]
fn a_document_has_every_figure_and_null_where_nothing_is_known() {
    let now = layout(&["a", "a", "a", "a"], 3);
    let plan = plan_on(&now, &format!("replace n2 n9={ID}@10.0.0.9:7401")).expect("possible");
    let document = document(&plan, &now.moves(&plan.layout));
    let field = |name: &str| document[name].clone();
    assert_eq!((field("schema"), field("moved")), ("galvani.plan/1".into(), 48.into()));
    assert_eq!((field("lower_bound"), field("replicas")), (48.into(), 192.into()));
    assert_eq!((field("on_version"), field("version")), (14.into(), 15.into()));
    assert!(field("bytes_estimate").is_null());
    assert_eq!(field("layout"), plan.layout.id().to_string());
    let nodes = field("nodes");
    let told: Vec<String> = nodes
        .as_array()
        .expect("nodes")
        .iter()
        .map(|n| format!("{} {} {} {} {}", n["name"], n["leaves"], n["joins"], n["in"], n["out"]))
        .collect();
    let expected = [
        r#""n1" false false 0 0"#,
        r#""n2" true false 0 48"#,
        r#""n3" false false 0 0"#,
        r#""n4" false false 0 0"#,
        r#""n9" false true 48 0"#,
    ];
    assert_eq!(told, expected);
    let changed = field("partitions");
    let changed = changed.as_array().expect("partitions");
    assert_eq!(changed.len(), 48);
    let swapped = |change: &Value| change["in"] == json!(["n9"]) && change["out"] == json!(["n2"]);
    assert!(changed.iter().all(swapped));
}

#[test]
fn the_same_request_is_the_same_plan() {
    let now = layout(&["a", "b", "c", "a"], 3);
    let one = plan_on(&now, "reweigh n1=200 n2=50").expect("possible");
    let other = plan_on(&now, "reweigh n1=200 n2=50").expect("possible");
    assert_eq!(one, other);
    assert_eq!(one.id(), one.layout.id().short());
    let turned = plan_on(&now, "reweigh n2=50 n1=200").expect("possible");
    assert_eq!(one.id(), turned.id());
}

#[test]
fn what_cannot_be_planned_says_why_and_what_there_is() {
    let now = layout(&["a", "b", "c"], 3);
    let refusal = |request: &str| {
        let report = plan_on(&now, request).expect_err(request);
        (report.exit.code(), report.to_string())
    };
    let cases = [
        ("remove n7", 2, "no node is named \"n7\"\n       nodes there are: n1 n2 n3"),
        ("zone n7=a", 2, "no node is named \"n7\""),
        ("replace n7 n8", 2, "no node is named \"n7\""),
        ("add n4@a", 2, "nothing is known of node n4\n       no node applies to be a member now"),
        ("remove n3", 5, "n=3 copies need 3 nodes, there are 2\n       each copy"),
        ("remove n3 n3", 5, "node n3 is named twice"),
        ("reweigh n1=100", 5, "nothing would change: layout v14 is that already"),
        ("zone n1=UP", 5, "\"UP\" is not a zone name"),
    ];
    for (request, exit, text) in cases {
        let (code, report) = refusal(request);
        assert!(code == exit && report.contains(text), "{request}: {code} {report}");
    }
    let with_place = [
        (
            format!("add n4={ID}@10.0.0.9:7401"),
            2,
            "in which zone is node n4?\n       zones there are: a b c\n  say  n4@a",
        ),
        (format!("add n4@Z={ID}@10.0.0.9:7401"), 2, "\"Z\" is not a zone name"),
        (format!("add n4@a={ID}@10.0.0.1:7401"), 5, "two lanes have the address 10.0.0.1:7401"),
        (format!("add n1@a={ID}@10.0.0.9:7401"), 5, "a node has the name of another only if"),
        (format!("replace n1 n4@b={ID}@10.0.0.9:7401"), 5, "leave zone and weight out"),
        (
            format!("add n9@a={}@10.0.0.9:7401", now.members()[0].id()),
            5,
            "node n1 (00000000000100000000000000000000) is in the layout already",
        ),
    ];
    for (request, exit, text) in with_place {
        let (code, report) = refusal(&request);
        assert!(code == exit && report.contains(text), "{request}: {code} {report}");
    }
    let now = layout(&["a", "a", "b", "b", "b"], 4);
    let small = plan_on(&now, "remove n1").expect_err("one node for two copies").to_string();
    assert!(small.contains("a zone has too few nodes"), "{small}");
    assert!(small.contains("nodes after the change: a 1 node, b 3 nodes"), "{small}");
}

#[test]
fn buckets_with_more_copies_than_nodes_would_be_are_not_left_behind() {
    let now = layout(&["a", "a", "a", "a"], 3);
    let next = plan_on(&now, "remove n1").expect("possible").layout;
    let of = |n| BTreeMap::from([("wide".parse().expect("a name"), BucketProps::with_copies(n))]);
    assert!(buckets_fit(&of(3), &next).is_ok());
    let report = buckets_fit(&of(4), &next).expect_err("three nodes");
    assert_eq!(report.exit.code(), 5);
    assert!(report.to_string().contains("bucket wide keeps n=4 copies, 3 nodes would be"));
}

#[test]
fn plans_are_kept_found_by_a_beginning_and_forgotten() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plans = Plans::of(&State::at(dir.path()));
    assert_eq!(plans.all().expect("none yet"), []);
    assert_eq!(plans.find("7f").expect_err("none yet").exit.code(), 3);
    let now = layout(&["a", "b", "c", "a"], 3);
    let one = plan_on(&now, "remove n4").expect("possible").with_estimate(Some(5));
    let other = plan_on(&now, "reweigh n4=50").expect("possible");
    for plan in [&one, &other, &one] {
        plans.keep(plan).expect("kept");
    }
    assert_eq!(plans.all().expect("two").len(), 2);
    for id in [one.id(), one.id()[..8].to_owned(), one.layout.id().to_string()] {
        assert_eq!(plans.find(&id).expect("kept"), one);
    }
    assert_eq!(plans.find("").expect_err("all of them").exit.code(), 3);
    assert_eq!(plans.forget(&other.id()).expect("kept"), other.id());
    assert_eq!(plans.forget(&other.id()).expect_err("gone").exit.code(), 3);
    // A file that is not what its name says.
    let path = |id: &str| dir.path().join("plans").join(format!("{id}.json"));
    std::fs::copy(path(&one.id()), path("000000000000")).expect("copied");
    let wrong = plans.find("000000000000").expect_err("another layout").to_string();
    assert!(wrong.contains(&format!("the layout in it is {}", one.id())), "{wrong}");
    let text = std::fs::read_to_string(path(&one.id())).expect("there");
    std::fs::write(path(&one.id()), text.replace("\"partitions\": 64", "\"partitions\": 63"))
        .expect("written");
    assert!(plans.find(&one.id()).is_err());
}
