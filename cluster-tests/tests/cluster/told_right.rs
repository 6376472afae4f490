//! What errors tell: nothing was applied when nothing was sent, and suggestions that work.

use galvani_cluster_tests::Cluster;

#[test]
fn a_write_that_met_no_server_says_in_json_that_it_was_never_applied() {
    let cluster = Cluster::start();
    cluster.stop_all();
    for words in [
        &["put", "k", "v"][..],
        &["put", "k", "v", "--blind"],
        &["del", "k"],
        &["del", "--prefix", "k", "--yes"],
        &["update", "k", "--", "cat"],
    ] {
        let words = [words_before_tail(words), &["-o", "json", "--timeout", "300ms"], tail(words)];
        let error = cluster.run(&words.concat()).expect(8).json("galvani.error/1");
        assert_eq!(error["applied"], "no", "{error}");
    }
    let read = cluster.run(&["get", "k", "-o", "json", "--timeout", "300ms"]).expect(8);
    assert!(read.json("galvani.error/1").get("applied").is_none(), "it is no write: {read}");
}

#[test]
fn the_cluster_suggested_beside_one_that_exists_has_ports_of_its_own() {
    let cluster = Cluster::start();
    let ran = cluster.run(&["dev", "-d", "-n", "5"]).expect(5).is_three_part_error();
    ran.says(&["galvani dev -n 5 -d --name dev-5 --ports auto"]);
}

fn words_before_tail<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    words.split(|word| *word == "--").next().unwrap_or_default()
}

fn tail<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    let at = words.iter().position(|word| *word == "--");
    at.map_or(&[], |at| &words[at..])
}
