//! Every line that is suggested is parsed again, by a shell's rules and by the real parser.

use crate::args::data::ReadQuorum;
use crate::args::line::Line;
use crate::args::{Cli, Command, bucket::BucketCommand};
use crate::report::client::{About, Failure, Retype, block};
use crate::report::{Report, mistakes};
use bytes::Bytes;
use clap::Parser;
use galvani_client::{Applied, BucketName, ErrorKind, Quorum, QuorumKind};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// The words of a line by the rules of a POSIX shell, and `$''`.
fn words(line: &str) -> Vec<OsString> {
    let (mut words, mut word) = (Vec::new(), None::<Vec<u8>>);
    let mut rest = line.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b' ' => words.extend(word.take()),
            b'\'' => {
                let quoted = rest.by_ref().take_while(|byte| *byte != b'\'');
                word.get_or_insert_default().extend(quoted);
            }
            b'\\' => word.get_or_insert_default().extend(rest.next()),
            b'$' if rest.next_if_eq(&b'\'').is_some() => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().expect("a closing quote") {
                        b'\'' => break,
                        b'\\' => word.push(match rest.next().expect("an escape") {
                            b'n' => b'\n',
                            b't' => b'\t',
                            b'r' => b'\r',
                            b'x' => {
                                let digits = [rest.next(), rest.next()].map(|digit| {
                                    char::from(digit.expect("two digits")).to_digit(16)
                                });
                                let [high, low] = digits.map(|digit| digit.expect("hex"));
                                (high * 16 + low) as u8
                            }
                            other => other,
                        }),
                        other => word.push(other),
                    }
                }
            }
            other => {
                assert!(!b"\"`$&|;<>()*?#~".contains(&other), "not plain: {line}");
                word.get_or_insert_default().push(other);
            }
        }
    }
    words.extend(word);
    words.into_iter().map(OsString::from_vec).collect()
}

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn line_of(command: &Command) -> Line {
    match command {
        Command::Put(args) => args.line(),
        Command::Get(args) => args.line(),
        Command::Del(args) => args.line(),
        Command::Update(args) => args.line(),
        Command::Ls(args) => args.line(),
        Command::Import(args) => args.line(),
        Command::Export(args) => args.line(),
        Command::Bench(args) => args.run.line("bench"),
        Command::Dev(args) => args.up.line(),
        Command::Wait(args) => args.line(),
        Command::Bucket(args) => match &args.command {
            BucketCommand::Create(create) => create.line(),
            other => panic!("{other:?} is not typed again"),
        },
        other => panic!("{other:?} is not typed again"),
    }
}

#[test]
fn what_was_typed_comes_back_with_all_its_options() {
    for line in [
        "galvani put k v",
        "galvani put k v -w 1 -n 2 --pw one --dw all --strict -r 2 --pr 1 -b shop",
        "galvani put 'a b' 'it'\\''s' --blind --context-out 'new context'",
        "galvani put k - --context AQID",
        "galvani put k @f --context=-file",
        "galvani put k --take 2 -r all",
        "galvani put -w 2 -- -k --v",
        "galvani put $'\\xff\\n' ''",
        "galvani get k --siblings table --context-out f -r all --pr 2 -n 3 --strict",
        "galvani get -- --help",
        "galvani del a 'b c' -w all --pw 1 -b shop",
        "galvani del --prefix=-tmp/ --yes",
        "galvani del k --context AQID",
        "galvani update 'cart 42' --exact -w 2 -r 2 -b shop -- jq -rs '[.[].value]|unique'",
        "galvani update k --ttl 1m30s -- cat",
        "galvani update k --ttl none -- cat",
        "galvani ls",
        "galvani ls 'a b' --conflicts --limit 10 --keys-only -r 2 --strict -b shop",
        "galvani ls -- -x",
        "galvani import 'a b.jsonl' -c 8 --blind --skip 7 --failed f --max-failures 3 -w 2 \
         --patience 1m30s -r 1 -b shop",
        "galvani import - --patience 1s500ms",
        "galvani export - --prefix 'a b' -c 8 --patience 2m -r all --strict -n 2 -b shop",
        "galvani bench put -c 64 --keys 128 --value 100 --count 10 --warmup 0s -w 2 -b shop",
        "galvani bench mix --duration 1m5s --reads 90 -r 1",
        "galvani bench get -c 500 --rate 2000 --duration 5s",
        "galvani bench mix --overload --duration 5s",
        "galvani bench d --seed 9 --no-check --distribution zipfian --save 'a b' --hlog h --html p --ycsb-output y",
        "galvani wait --for ready --for node=n3:up --for hints=0 --patience 1m30s",
        "galvani bucket create logs -n 5 -r one -w 2 --policy lww --max-value 4MiB",
        "galvani dev -d -n 5 --zones a,b --ports auto --lanes 2 --durability fsync --name x \
         --dir 'a b' --ephemeral",
    ] {
        let cli = parse(line);
        let again = line_of(&cli.command).to_string();
        let told = format!("{line}\n{again}");
        assert_eq!(format!("{:?}", parse(&again).command), format!("{:?}", cli.command), "{told}");
    }
}

#[test]
fn options_for_every_command_come_back_too() {
    let cli = parse(
        "galvani --context prod get k --server a:1,b:2 --identity 'my id' --timeout 1s500ms -o json \
         -q -v --via n2",
    );
    let line = line_of(&cli.command);
    let line = line.with_all(&cli.global.cluster(cli.context.as_deref()));
    let line = line.with_all(&cli.global.manner());
    let again = parse(&line.to_string()).global;
    assert_eq!(again.ctx.as_deref(), Some("prod"));
    let same = format!("{:?}", crate::args::Global { ctx: None, ..again });
    assert_eq!(same, format!("{:?}", cli.global));
}

/// Keys that a shell or the parser might take for something else.
fn keys() -> Vec<Bytes> {
    let keys: [&'static [u8]; 11] = [
        b"greeting",
        b"a b",
        b"it's",
        b"\"quoted\"",
        b"$HOME `id` $(id)",
        b"-w",
        b"--",
        b"*",
        b"a\nb",
        b"\xff\x00'1",
        "schl\u{fc}ssel".as_bytes(),
    ];
    keys.map(Bytes::from_static).to_vec()
}

fn kinds() -> Vec<ErrorKind> {
    let (after, detail) = (Duration::from_secs(2), || "n3 no answer".to_owned());
    let mut kinds = Vec::new();
    for what in [QuorumKind::R, QuorumKind::W, QuorumKind::Pr, QuorumKind::Pw, QuorumKind::Dw] {
        for got in [0, 1, 2] {
            kinds.push(ErrorKind::Quorum { what, need: 3, got, n: 3, after, detail: detail() });
            kinds.push(ErrorKind::ReplicasDown { what, need: 3, up: got, n: 3, detail: detail() });
        }
        kinds.push(ErrorKind::QuorumTooLarge { what, asked: Quorum::Exactly(5), n: 3 });
    }
    kinds.extend([
        ErrorKind::TooManyCopies { asked: 5, n: 3 },
        ErrorKind::Timeout { after, detail: detail() },
        ErrorKind::Conflict { siblings: 2 },
        ErrorKind::Unreachable { detail: detail() },
        ErrorKind::Tls { detail: detail() },
        ErrorKind::Identity { what: detail() },
        ErrorKind::ConnectionLost { detail: detail() },
        ErrorKind::Overloaded { retry_after: after },
        ErrorKind::RateLimited { retry_after: after },
        ErrorKind::NoOwnerReachable,
        ErrorKind::Stopping,
        ErrorKind::TooLarge { size: 5 << 20, limit: 1 << 20 },
        ErrorKind::TooLarge { size: 17 << 20, limit: 1 << 20 },
        ErrorKind::UnknownBucket { bucket: "shop".to_owned() },
        ErrorKind::BucketExists,
        ErrorKind::NodeDown { node: "n3".to_owned() },
        ErrorKind::ContextForged,
        ErrorKind::ContextOtherKey,
        ErrorKind::ContextMalformed,
        ErrorKind::TooManySiblings { count: 101, limit: 100 },
        ErrorKind::ClockAhead { ahead: after },
        ErrorKind::NotPermitted,
        ErrorKind::FaultsNotAllowed,
        ErrorKind::Protocol { what: detail() },
        ErrorKind::Closed,
    ]);
    kinds
}

/// What a report says to type next, where it is one of our commands.
fn next(report: &Report) -> Vec<String> {
    let json = report.to_json("x");
    let all = json["next"].as_array().expect("a list").iter();
    let all: Vec<String> = all.map(|one| one.as_str().expect("text").to_owned()).collect();
    let ours = |line: &String| line.starts_with("galvani ");
    let others: Vec<&String> = all.iter().filter(|line| !ours(line)).collect();
    assert!(others.iter().all(|line| line.starts_with("timedatectl ")), "{others:?}");
    all.into_iter().filter(|line| ours(line) && !line.starts_with("galvani help")).collect()
}

#[test]
fn every_suggestion_can_be_pasted_and_means_the_same_key_bucket_and_cluster() {
    for key in keys() {
        for local in [true, false] {
            let about = About {
                cluster: vec![("--ctx", Some(b"prod".to_vec()))],
                local,
                timeout: Duration::from_secs(2),
                bucket: Some("shop".parse().expect("a name")),
                key: Some(key.clone()),
            };
            for (command, value) in [("put", Some("it's a 'value'")), ("get", None), ("del", None)]
            {
                let line = about.on_key(command).with("-n", 3);
                let line = match value {
                    Some(value) => line.place(value).with("-w", 3).with("--dw", 3),
                    None => line.with("-r", 3),
                };
                let retype =
                    Retype { command, subject: "x".to_owned(), line, about: about.clone() };
                for kind in kinds() {
                    let write = command != "get";
                    let applied = Applied::No;
                    let failure = Failure { kind: &kind, applied, answers: &[], write };
                    // A read quorum of a get, a write quorum of a put: others are never refused.
                    if !concerns(&kind, command) {
                        continue;
                    }
                    next(&block(&failure, &retype)).iter().for_each(|line| check(line, &key));
                }
                next(&mistakes::no_such_sibling(3, 2, &about)).iter().for_each(|l| check(l, &key));
                next(&mistakes::no_context(&about)).iter().for_each(|line| check(line, &key));
                for text in [
                    mistakes::kept_as_sibling(2, &about),
                    mistakes::written_meanwhile(2, &about),
                    mistakes::many_siblings(30, &about),
                ] {
                    let (_, line) = text.rsplit_once("  see  ").expect("a command");
                    check(line, &key);
                }
            }
            let get = about.on_key("get").with("-r", 2).with("-o", "json");
            let get = Retype { command: "get", subject: "x".to_owned(), line: get, about };
            let asked = ReadQuorum { r: Some(Quorum::Exactly(2)), pr: None };
            let report = mistakes::siblings_block(&[], &get, &asked);
            let lines = next(&report);
            // The command of an update stands behind the dashes that such a key would need.
            assert_eq!(lines.len(), if key.starts_with(b"-") { 2 } else { 3 }, "{lines:?}");
            lines.iter().for_each(|line| check(line, &key));
        }
    }
}

fn concerns(kind: &ErrorKind, command: &str) -> bool {
    let what = match kind {
        ErrorKind::Quorum { what, .. }
        | ErrorKind::ReplicasDown { what, .. }
        | ErrorKind::QuorumTooLarge { what, .. } => *what,
        // No context is given to a get, and nothing is too large to be read or deleted.
        ErrorKind::ContextForged | ErrorKind::ContextOtherKey | ErrorKind::ContextMalformed => {
            return command != "get";
        }
        _ => return true,
    };
    match what {
        QuorumKind::R | QuorumKind::Pr => command == "get",
        QuorumKind::W | QuorumKind::Pw | QuorumKind::Dw => command != "get",
    }
}

/// It parses, nothing in it is a placeholder, and it is about the key it should be.
fn check(line: &str, key: &Bytes) {
    for placeholder in ["CMD", "NODE", "NAME", "FILE", "DIR", "VALUE", "KEY", "(", ".."] {
        let bare = words(line).iter().any(|word| word.to_str() == Some(placeholder));
        assert!(!bare, "{line}");
    }
    let cli = parse(line);
    assert_eq!(cli.global.ctx.as_deref() == Some("prod"), !is_everywhere(&cli.command), "{line}");
    let (about, bucket): (&Bytes, &BucketName) = match &cli.command {
        Command::Put(args) => (&args.key, &args.bucket.bucket),
        Command::Get(args) => (&args.key, &args.bucket.bucket),
        Command::Update(args) => (&args.key, &args.bucket.bucket),
        Command::Del(args) => (&args.keys[0], &args.bucket.bucket),
        Command::Status(_)
        | Command::Bucket(_)
        | Command::Dev(_)
        | Command::Ctx(_)
        | Command::Version => return,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(about, key, "{line}");
    assert!(matches!(bucket.as_str(), "shop" | "large"), "{line}");
}

/// Commands that are about no cluster.
fn is_everywhere(command: &Command) -> bool {
    matches!(command, Command::Version | Command::Ctx(_))
}
