use super::{Cli, Command, Format};
use crate::args::bench::BenchCommand;
use crate::args::cluster::NodeArg;
use crate::args::dev::{DevCommand, Ports};
use clap::{CommandFactory, Parser};
use galvani_load::workload::Mix;
use galvani_model::request::Quorum;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn put_takes_quorums_as_words_and_numbers() {
    let cli = parse("galvani put k v -n 3 -w all --pw majority --dw 1 --strict -o json");
    let cli = cli.expect("valid");
    assert_eq!(cli.global.output, Format::Json);
    let Command::Put(put) = cli.command else { panic!("put") };
    assert_eq!(put.write.w, Some(Quorum::All));
    assert_eq!(put.write.pw, Some(Quorum::Majority));
    assert_eq!(put.write.dw, Some(Quorum::Exactly(1)));
    assert_eq!((put.copies.n, put.copies.strict), (Some(3), true));
}

#[test]
fn a_context_before_the_command_is_a_cluster_and_after_put_a_token() {
    let cli = parse("galvani --context prod put k v --context AQID").expect("valid");
    assert_eq!(cli.context.as_deref(), Some("prod"));
    let Command::Put(put) = cli.command else { panic!("put") };
    assert_eq!(put.context.as_deref(), Some("AQID"));
    let cli = parse("galvani get k --ctx prod").expect("valid");
    assert_eq!(cli.global.ctx.as_deref(), Some("prod"));
}

#[test]
fn keys_are_any_bytes() {
    let key = OsString::from_vec(vec![0xff, b'/', 0xfe]);
    let cli = Cli::try_parse_from(["galvani".into(), "get".into(), key]).expect("valid");
    let Command::Get(get) = cli.command else { panic!("get") };
    assert_eq!(get.key.as_ref(), [0xff, b'/', 0xfe]);
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let long = format!("galvani get {}", "k".repeat(1025));
    for line in [
        "galvani",
        "galvani nothing",
        "galvani put k",
        "galvani put k v -w 0",
        "galvani put k v -w 8",
        "galvani put k v -w two",
        "galvani put k v --blind --context x",
        "galvani put k v --take 1",
        "galvani get",
        "galvani get k -b UPPER",
        "galvani get k -n 0",
        "galvani get k --timeout 61s",
        "galvani get k -o yaml",
        "galvani del",
        "galvani del k --prefix p",
        "galvani update k",
        "galvani dev -n 0",
        "galvani dev --ports 0",
        "galvani dev --ports 70000",
        "galvani bench put --count 10 --duration 1s",
        "galvani bench put --value -1",
        "galvani bench put --rate 0",
        "galvani bench put --rate 10 --count 5",
        "galvani bench put --rate 10 --overload",
        "galvani bench sweep --slo put.p99",
        "galvani bench compare a b --fail-if put.p99",
        "galvani cluster create --name c --dir d",
        "galvani cluster create --name c --dir d --node n1=host:1",
        "galvani completions klingon",
        long.as_str(),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn dev_starts_or_commands() {
    let Command::Dev(dev) =
        parse("galvani dev -d -n 5 --ports auto --zones a,b").expect("ok").command
    else {
        panic!("dev")
    };
    assert_eq!((dev.up.detach, dev.up.n, dev.up.ports), (true, Some(5), Some(Ports::Auto)));
    assert_eq!(dev.up.zones, ["a", "b"]);
    let Command::Dev(dev) = parse("galvani dev kill n3 --dir d").expect("ok").command else {
        panic!("dev")
    };
    let Some(DevCommand::Kill(one)) = dev.command else { panic!("kill") };
    assert_eq!(one.node, "n3");
}

#[test]
fn nodes_of_real_hosts_have_lanes_on_ports_in_a_row() {
    let node: NodeArg = "n1=10.0.0.5:7070,zone=eu-1a,lanes=3,weight=50".parse().expect("valid");
    let lanes: Vec<String> = node.lanes().iter().map(ToString::to_string).collect();
    assert_eq!(lanes, ["10.0.0.5:7070", "10.0.0.5:7071", "10.0.0.5:7072"]);
    assert_eq!((node.zone.as_str(), node.weight), ("eu-1a", 50));
    let v6: NodeArg = "n2=[fd00::2]:7070".parse().expect("valid");
    assert_eq!(v6.lanes().len(), 1);
    for text in
        ["n1", "n1=", "n1=a:1", "n1=1.2.3.4:0", "n1=1.2.3.4:65535,lanes=2", "n1=1.2.3.4:1,x=1"]
    {
        assert!(text.parse::<NodeArg>().is_err(), "{text}");
    }
}

#[test]
fn a_workload_of_bench_is_a_word_or_an_option() {
    let mix = |line: &str| {
        let Command::Bench(bench) = parse(line).expect(line).command else { panic!("bench") };
        match bench.command {
            Some(BenchCommand::Run(run)) => run.mix(),
            None => bench.run.mix(),
            Some(other) => panic!("{other:?}"),
        }
    };
    let a = Mix::ycsb('a');
    for line in ["galvani bench a", "galvani bench run a", "galvani bench run -W a --rate 20k"] {
        assert_eq!(mix(line), a, "{line}");
    }
    assert_eq!(mix("galvani bench"), Some(Mix::plain(50)));
    assert_eq!(mix("galvani bench mix --reads 90"), Some(Mix::plain(90)));
    assert_eq!(mix("galvani bench e"), None);
    assert!(parse("galvani bench a -W b").is_err());
}

#[test]
fn commands_on_nodes_are_written_as_they_were_typed() {
    use crate::args::cluster::Cluster;
    use crate::args::node::Node;
    let line = |text: &str| {
        let line = match parse(text).expect(text).command {
            Command::Dev(dev) => match dev.command.expect("a verb") {
                DevCommand::Add(add) => add.line(),
                DevCommand::Rm(rm) => rm.line(),
                DevCommand::Restart(restart) => restart.line(),
                other => panic!("{other:?}"),
            },
            Command::Cluster(Cluster::Apply(apply)) => apply.line(),
            Command::Node(Node::Drain(leave)) => leave.line("node drain"),
            Command::Node(Node::Forget(forget)) => {
                forget.leave.line("node forget").flag("--yes", forget.yes)
            }
            Command::Cluster(Cluster::Pause(paced)) => paced.line("cluster pause"),
            Command::Cluster(Cluster::Resume(paced)) => paced.line("cluster resume"),
            Command::Cluster(Cluster::Abort(abort)) => abort.line(),
            other => panic!("{other:?}"),
        };
        line.to_string()
    };
    for text in [
        "galvani dev restart --rolling",
        "galvani dev restart --name other n2",
        "galvani dev add",
        "galvani dev add -n 2",
        "galvani dev add n7 --zones b",
        "galvani dev add --name other --replace n3",
        "galvani dev rm n4 n5 --yes",
        "galvani cluster apply 7f3a --wait --wait-timeout 5m",
        "galvani cluster apply 7f3a --max-rate 20971520",
        "galvani cluster pause",
        "galvani cluster resume 7f3a",
        "galvani cluster abort 7f3a",
        "galvani node drain n4 --wait-timeout 10m",
        "galvani node forget n4 --yes",
    ] {
        let mut words: Vec<String> = line(text).split(' ').map(str::to_owned).collect();
        let mut typed: Vec<String> = text.split(' ').map(str::to_owned).collect();
        words.sort();
        typed.sort();
        assert_eq!(words, typed, "{text}");
    }
    for text in [
        "galvani dev add n7 -n 2",
        "galvani dev add --replace n3 -n 2",
        "galvani dev rm",
        "galvani cluster apply",
        "galvani cluster apply 7f3a --wait-timeout 5m",
        "galvani node drain",
        "galvani cluster invite --node n4=10.0.0.8:7070",
    ] {
        assert_eq!(parse(text).expect_err(text).exit_code(), 2, "{text}");
    }
}
