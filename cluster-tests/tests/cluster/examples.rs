//! The client's examples as programs: killed in the middle, started again, and right in the end.
//!
//! `crates/galvani-client/examples` runs here as it would run anywhere: a process for each service, SIGKILL,
//! a new process. What docs/recipes shows of them is what they are.

use galvani_client::{
    BucketProps, Client, Context, Cursor, Dot, Event, FeedToken, Op, Shard, Start,
};
use galvani_cluster_tests::command::Running;
use galvani_cluster_tests::{Cluster, Ran, binary, until};
use galvani_model::version::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// How many customers have orders.
const CUSTOMERS: u64 = 24;

/// An example that is to be run against this cluster.
fn example(cluster: &Cluster, name: &str, words: &[&str]) -> Command {
    let seeds: Vec<String> = cluster.nodes().iter().map(|node| node.addr.to_string()).collect();
    let url = format!("galvani://{}?identity={}", seeds.join(","), cluster.identity().display());
    let mut command = Command::new(binary::example(name));
    command.arg(url).args(words).current_dir(cluster.scratch());
    command
}

fn begin(cluster: &Cluster, name: &str, words: &[&str]) -> Running {
    Running::start(&mut example(cluster, name, words), b"")
}

/// What it prints: the words of each line.
fn shown(cluster: &Cluster, name: &str) -> Vec<Vec<String>> {
    let ran = Ran::of(&mut example(cluster, name, &["show"]), b"").expect(0);
    ran.text().lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Orders of customers, each order placed, changed twice, and one of five then deleted.
async fn order(client: Client, orders: std::ops::Range<u64>) {
    let bucket = client.bucket("orders");
    for n in orders {
        for customer in 0..CUSTOMERS {
            let key = format!("c{customer:02}/{n}");
            let mut seen = Context::default();
            for amount in [n, n + 100, n + 1000] {
                let put = bucket.put(key.clone(), amount.to_string()).after(&seen);
                seen = put.send().await.expect("a quorum is up").context;
            }
            if n % 5 == 0 {
                bucket.delete(key).after(&seen).send().await.expect("a quorum is up");
            }
        }
    }
}

/// What the data say: how many orders each customer has, and for how much.
fn totals(cluster: &Cluster, client: &Client) -> BTreeMap<String, (u64, u64)> {
    cluster.block_on(async {
        let bucket = client.bucket("orders");
        let mut totals: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut list = bucket.list("");
        while let Some(page) = list.next_page().await.expect("all are up") {
            for listed in page.keys {
                let read = bucket.get(listed.key.clone()).strict().await.expect("all are up");
                let Some(value) = read.one().expect("one writer has no siblings") else { continue };
                let amount: u64 = String::from_utf8_lossy(&value).parse().expect("a number");
                let key = String::from_utf8_lossy(&listed.key).into_owned();
                let customer = key.split('/').next().expect("a customer").to_owned();
                let (orders, total) = totals.entry(customer).or_default();
                (*orders, *total) = (*orders + 1, *total + amount);
            }
        }
        totals
    })
}

fn model(cluster: &Cluster) -> BTreeMap<String, (u64, u64)> {
    let number = |word: &String| word.parse().expect("a number");
    let row = |line: Vec<String>| (line[0].clone(), (number(&line[1]), number(&line[2])));
    shown(cluster, "read_model").into_iter().map(row).collect()
}

/// Red if the position is kept before the rows, or if what a write replaced goes on counting.
#[test]
fn a_read_model_that_is_killed_at_any_moment_is_what_the_data_are() {
    const ROUNDS: u64 = 5;
    let cluster = Cluster::start();
    let client = cluster.client();
    let made = client.create_bucket("orders", BucketProps::with_copies(3));
    cluster.block_on(made).expect("all are up");
    let first_row = || {
        let row = async { client.bucket("orders-by-customer").get("customer/c00").await };
        // Nobody has made the bucket at first.
        let read = cluster.block_on(row);
        read.map_or_else(|_| Vec::new(), |read| read.values().cloned().collect::<Vec<_>>())
    };
    let mut writing = Vec::new();
    for round in 0..ROUNDS {
        let orders = order(client.clone(), round * 3..(round + 1) * 3);
        writing.push(cluster.runtime().spawn(orders));
        let (before, running) = (first_row(), begin(&cluster, "read_model", &["run"]));
        until("the first row of a batch to be written", || {
            if first_row() != before { Ok(()) } else { Err(before.clone()) }
        });
        // Between two rows, most likely.
        drop(running);
    }
    let running = begin(&cluster, "read_model", &["run"]);
    for writing in writing {
        cluster.block_on(writing).expect("written");
    }
    let data = totals(&cluster, &client);
    assert_eq!(data["c07"].0, 12, "one of five is deleted");
    until("the model to be what the data are", || {
        let model = model(&cluster);
        if model == data { Ok(()) } else { Err((model, data.clone())) }
    });
    // A second one takes over, and the first sees that.
    let second = begin(&cluster, "read_model", &["run"]);
    cluster.block_on(order(client.clone(), 100..102));
    running.finish().expect(1).says(&["a later run has taken over"]);
    let data = totals(&cluster, &client);
    until("the model to be what the data are", || {
        let model = model(&cluster);
        if model == data { Ok(()) } else { Err((model, data.clone())) }
    });
    drop(second);
}

/// The write that placed an order.
async fn placed(client: &Client, key: &str) -> (Shard, Dot) {
    let feed = client.feed().bucket("orders").prefix(key.to_owned()).from(Start::Beginning);
    let mut feed = feed.subscribe().await.expect("all are up");
    loop {
        // wait: for the write, which is there; the feed fails if it cannot go on
        match feed.next().await.expect("a feed goes on").expect("a feed goes on") {
            Event::Changed(change) if change.op == Op::Put => {
                return (change.source.shard, change.source.dot);
            }
            _ => {}
        }
    }
}

/// The position that the read model keeps, as if it had not seen one write and all others.
async fn forget_one(client: &Client, (shard, dot): (Shard, Dot)) {
    let bucket = client.bucket("orders-by-customer");
    let read = bucket.get("position").await.expect("all are up");
    let kept = read.one().expect("one program keeps it").expect("it is kept");
    let line = kept.iter().position(|byte| *byte == b'\n').expect("a first line") + 1;
    let mut token = FeedToken::from_bytes(&kept[line..]).expect("a position");
    let delivered = token.cursors[&shard].delivered();
    assert!(delivered.contains(dot), "the model has seen it");
    let all = delivered.ranges().flat_map(|range| {
        (range.first..=range.last).map(move |counter| Dot { origin: range.origin, counter })
    });
    let one = |dot: Dot| Range { origin: dot.origin, first: dot.counter, last: dot.counter };
    let without = Cursor::at(all.filter(|it| *it != dot).map(one).collect());
    token.cursors.insert(shard, without);
    let altered = [&kept[..line], &token.to_bytes()].concat();
    bucket.put("position", altered).after(&read).send().await.expect("all are up");
}

/// Red if a write is applied again because it comes again: of an order that was deleted since, alone.
#[test]
fn a_write_that_comes_to_the_read_model_again_and_alone_changes_nothing() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let orders = client.bucket("orders");
    cluster.block_on(async {
        let props = BucketProps::with_copies(3);
        client.create_bucket("orders", props).await.expect("all are up");
        let put = orders.put("c00/gone", "5").blind().send().await.expect("all are up");
        orders.delete("c00/gone").after(&put.context).send().await.expect("all are up");
    });
    // Both come together, and the position is kept after both.
    let first = begin(&cluster, "read_model", &["run"]);
    let gone = cluster.block_on(placed(&client, "c00/gone"));
    until("the position to be kept", || {
        let read = async { client.bucket("orders-by-customer").get("position").await };
        let read = cluster.block_on(read).map_err(|error| error.to_string())?;
        let kept = read.one().ok().flatten().ok_or("none")?;
        let line = kept.iter().position(|byte| *byte == b'\n').ok_or("no line")? + 1;
        let token = FeedToken::from_bytes(&kept[line..]).map_err(|error| error.to_string())?;
        let cursor = token.cursors.get(&gone.0).ok_or("not begun")?;
        if cursor.delivered().contains(gone.1) { Ok(()) } else { Err("not seen".to_owned()) }
    });
    drop(first);
    cluster.block_on(forget_one(&client, gone));
    let _second = begin(&cluster, "read_model", &["run"]);
    // What is written now comes with the one that comes again, or after it.
    cluster.block_on(async {
        for number in 0..400 {
            let key = format!("c02/{number}");
            orders.put(key, "1").blind().send().await.expect("all are up");
        }
    });
    until("the model to have all that is new", || {
        let model = model(&cluster);
        if model.get("c02") == Some(&(400, 400)) { Ok(()) } else { Err(model) }
    });
    assert_eq!(model(&cluster).get("c00"), None, "the order that was deleted stays so");
}

/// How each order must end: state, stock, payment.
fn end_of(n: u32) -> [&'static str; 3] {
    match (n % 5, n % 3) {
        (0, _) => ["cancelled", "sold-out", "-"],
        (_, 0) => ["cancelled", "released", "refused"],
        _ => ["completed", "held", "charged"],
    }
}

#[test]
fn orders_are_completed_or_compensated_whatever_service_is_killed() {
    const ORDERS: u32 = 60;
    const SERVICES: [&str; 3] = ["orders", "stock", "payment"];
    let cluster = Cluster::start();
    let start = |service: &str| begin(&cluster, "order_saga", &["run", service]);
    let place = |from: u32, to: u32| {
        let words = ["place", &from.to_string(), &to.to_string()];
        Ran::of(&mut example(&cluster, "order_saga", &words), b"").expect(0);
    };
    place(0, 1);
    let mut running: BTreeMap<&str, Running> = BTreeMap::new();
    for service in SERVICES {
        running.insert(service, start(service));
    }
    let ended = || {
        let orders = shown(&cluster, "order_saga");
        let is_over = |line: &&Vec<String>| ["completed", "cancelled"].contains(&&*line[1]);
        orders.iter().filter(is_over).count()
    };
    let mut placed = 1;
    for (service, to) in SERVICES.iter().zip([ORDERS / 3, ORDERS * 2 / 3, ORDERS]) {
        let before = ended();
        place(placed, to);
        placed = to;
        until("orders to end", || if ended() > before { Ok(()) } else { Err(before) });
        // Amid those that it has not dealt with; its shards are free when its lease has run out.
        drop(running.remove(service));
        running.insert(service, start(service));
    }
    let expected: BTreeMap<String, [&str; 3]> =
        (0..ORDERS).map(|n| (format!("o{n}"), end_of(n))).collect();
    until("every order to be completed or compensated", || {
        let of = |line: Vec<String>| (line[0].clone(), line[1..].to_vec());
        let now: BTreeMap<_, _> = shown(&cluster, "order_saga").into_iter().map(of).collect();
        let is = |(id, end): (&String, &[&str; 3])| now.get(id).is_some_and(|now| now == end);
        let left: Vec<_> =
            expected.iter().filter(|it| !is(*it)).map(|(id, _)| now.get(id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for (service, mut running) in running {
        assert!(!running.has_ended(), "{service} goes on");
    }

    // What was told of each, once or more: one end, never both.
    let feed = ["feed", "--topic", "saga.done", "--from", "start", "--until", "now", "-o", "jsonl"];
    let told = cluster.run(&feed).expect(0);
    let mut ends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in told.text().lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let word = |name: &str| event[name].as_str().expect("text").to_owned();
        ends.entry(word("emit_key")).or_default().insert(word("payload"));
    }
    let one = |(id, [state, ..]): (&String, &[&str; 3])| (id.clone(), [(*state).to_owned()].into());
    assert_eq!(ends, expected.iter().map(one).collect());
}

/// Red if a service does again what it has done because it is asked again, whatever came since.
#[test]
fn everything_told_once_more_changes_no_order() {
    const ORDERS: u32 = 30;
    let cluster = Cluster::start();
    let words = ["place", "0", &ORDERS.to_string()];
    Ran::of(&mut example(&cluster, "order_saga", &words), b"").expect(0);
    let mut running = begin(&cluster, "order_saga", &["run"]);
    let expected: BTreeSet<(String, Vec<String>)> =
        (0..ORDERS).map(|n| (format!("o{n}"), end_of(n).map(str::to_owned).into())).collect();
    let as_expected = || {
        let lines = shown(&cluster, "order_saga").into_iter();
        let now: BTreeSet<_> = lines.map(|line| (line[0].clone(), line[1..].to_vec())).collect();
        let left: Vec<_> = now.difference(&expected).cloned().collect();
        if now == expected { Ok(()) } else { Err(left) }
    };
    until("every order to be completed or compensated", as_expected);
    let told = |topic: &str| {
        let words = ["feed", "--topic", topic, "--from", "start", "--until", "now", "-o", "jsonl"];
        cluster.run(&words).expect(0).text().lines().count()
    };
    // Each step is told again, and by that what follows from it.
    for (group, asked, answers) in [
        ("saga-stock", "saga.stock", "saga.answers"),
        ("saga-payment", "saga.payment", "saga.answers"),
        ("saga-orders", "saga.answers", "saga.done"),
    ] {
        let (asked, before) = (told(asked), told(answers));
        cluster.run(&["group", "reset", group, "--to", "start"]).expect(0);
        let least = if group == "saga-orders" { 0 } else { asked };
        until(&format!("{group} to answer all of it again"), || {
            let now = told(answers);
            if now >= before + least { Ok(()) } else { Err((before, least, now)) }
        });
        until(&format!("{group} to be done with all of it"), || {
            let shown = cluster.run(&["group", "show", group, "-o", "json"]).expect(0);
            let shown = shown.json("galvani.group/1");
            let done = shown["behind"] == 0 && shown["resets"] == 1 && shown["dead_letters"] == 0;
            if done { Ok(()) } else { Err(shown["behind"].clone()) }
        });
    }
    assert!(!running.has_ended(), "it goes on");
    as_expected().unwrap_or_else(|wrong| panic!("changed by what came again: {wrong:?}"));
}

#[test]
fn what_the_recipes_show_is_what_the_programs_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = |path: &str| std::fs::read_to_string(root.join(path)).expect("the file is there");
    for (page, program) in [("read-model", "read_model"), ("order-saga", "order_saga")] {
        let page = text(&format!("docs/recipes/{page}.md"));
        let code = text(&format!("crates/galvani-client/examples/{program}.rs"));
        let blocks: Vec<&str> = page
            .split("```rust\n")
            .skip(1)
            .map(|rest| rest.split_once("```").expect("a block ends").0)
            .collect();
        assert!(blocks.len() >= 3, "{page}");
        for block in blocks {
            assert!(code.contains(block), "{program}.rs has no\n{block}");
        }
    }
}
