//! `galvani wait`: scripts wait for what they need, and are told why it does not come.

use galvani_cluster_tests::Cluster;

#[test]
fn what_is_waited_for_comes_or_is_named() {
    let cluster = Cluster::with(&["-n", "4"]);
    cluster.run(&["wait", "--for", "ready", "--for", "settled"]).expect(0);
    cluster.kill("n4");
    cluster.run(&["wait", "--for", "up=3"]).expect(0);
    let short = ["--patience", "400ms"];
    let in_vain = |what: &str| {
        let words = [&["wait", "--for", what][..], &short].concat();
        cluster.run(&words).expect(7).is_three_part_error()
    };
    in_vain("up=4").says(&["3 of 4 nodes answer", "galvani wait --for up=4 --patience 400ms"]);
    in_vain("node=n4:up").says(&["node=n4:up"]);
    // Nobody knows what a silent node holds.
    in_vain("hints=0").says(&["n4 does not answer"]);
    in_vain("settled").says(&["n4 does not answer"]);

    // n4 owns three of four keys: for some of these others stand in.
    for number in 0..12 {
        cluster.run(&["put", &format!("k{number}"), "v", "--blind", "-w", "3"]).expect(0);
    }
    let wait = cluster.begin(&["wait", "--for", "node=n4:up", "--for", "hints=0", "-o", "json"]);
    cluster.start_node("n4");
    let waited = wait.finish().expect(0).json("galvani.wait/1");
    assert_eq!(waited["for"][1], "hints=0", "{waited}");
    assert!(waited["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{waited}");
    cluster.run(&["wait", "--for", "settled"]).expect(0);
    let read = cluster.run(&["get", "k0", "-r", "3"]).expect(0);
    assert_eq!(read.text(), "v\n");

    // Clients reach it, the others do not: hints wait for it, and it may lack anything.
    cluster.run(&["dev", "cut", "n4|n1,n2,n3"]).expect(0);
    for number in 0..12 {
        cluster.run(&["put", &format!("k{number}"), "w", "--blind", "-w", "3"]).expect(0);
    }
    in_vain("hints=0").says(&["wait for n4"]);
    cluster.run(&["wait", "--for", "hints=0", "--for", "behind=0", "--but", "n4"]).expect(0);
    let words = ["wait", "--for", "hints=0", "--but", "n1", "--patience", "400ms"];
    cluster.run(&words).expect(7).says(&["wait for n4", "--for hints=0 --but n1"]);
}

#[test]
fn what_can_never_be_is_refused_at_once() {
    let cluster = Cluster::start();
    for (what, but) in [("settled", "n9"), ("ready", "n1")] {
        let ran = cluster.run(&["wait", "--for", what, "--but", but]).expect(2);
        ran.is_three_part_error().says(&[&format!("--but {but}"), "galvani status"]);
    }
    for what in ["up=9", "node=n9:up"] {
        let ran = cluster.run(&["wait", "--for", what, "--patience", "50s"]).expect(2);
        ran.is_three_part_error().says(&["can never be", "galvani status"]);
    }
}

#[test]
fn a_cluster_that_starts_is_waited_for_and_one_that_does_not_is_told_of() {
    let cluster = Cluster::start();
    cluster.stop_all();
    let words = ["wait", "--for", "ready", "--patience", "300ms"];
    cluster.run(&words).expect(8).is_three_part_error().says(&["any server to answer"]);
    let wait = cluster.begin(&["wait", "--for", "ready", "--timeout", "50s"]);
    cluster.start_all();
    let ran = wait.finish().expect(0);
    assert!(ran.text().starts_with("ready after "), "{ran}");
    cluster.run(&["wait", "--for", "healthy"]).expect(2).says(&["settled"]);
    cluster.run(&["wait"]).expect(2).says(&["--for"]);
}
