//! Groups of consumers over real nodes: members that die, late positions, events that cannot be dealt
//! with.

use galvani_client::{
    BucketName, Client, Delivery, ErrorKind, Event, GroupBuilder, GroupConsumer, LetterChoice,
    OnPoison, Start,
};
use galvani_cluster_tests::{Cluster, until};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GROUP: &str = "billing";
const LEASE: Duration = Duration::from_secs(5);

/// What consumers were given, in the order in which they were.
#[derive(Clone, Debug)]
struct Seen {
    member: usize,
    write: Write,
    late: bool,
    /// The same write had another name when it was delivered before.
    again: bool,
}

/// A key and a version of it. Not its dot: a write that was sent again may have two.
type Write = (String, u64);

type Log = Arc<Mutex<Vec<Seen>>>;

fn group(client: &Client) -> GroupBuilder {
    client.group(GROUP).bucket("default").prefix("k").lease(LEASE)
}

fn seen(member: usize, delivery: &Delivery) -> Seen {
    let Event::Changed(change) = &delivery.event else { panic!("{:?}", delivery.event) };
    let value = change.value.as_ref().expect("the bucket shows values");
    Seen {
        member,
        write: (
            String::from_utf8_lossy(&change.source.key).into_owned(),
            String::from_utf8_lossy(value).parse().expect("a number"),
        ),
        late: change.source.late,
        again: change.source.dup_of.is_some(),
    }
}

/// Acknowledges everything, until it is dropped.
async fn consume(mut consumer: GroupConsumer, member: usize, log: Log) {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.expect("the group goes on");
        log.lock().expect("no test panics with it").push(seen(member, &delivery));
        delivery.ack();
    }
}

/// Stores versions of keys, of each one after the other.
async fn write(client: &Client, keys: Range<usize>, versions: Range<u64>) -> BTreeSet<Write> {
    let mut acked = BTreeSet::new();
    for key in keys {
        let key = format!("k{key}");
        let mut context = galvani_client::Context::default();
        for version in versions.clone() {
            let put = client.put(key.clone(), version.to_string()).after(&context);
            context = put.send().await.expect("a quorum is up").context;
            acked.insert((key.clone(), version));
        }
    }
    acked
}

fn writes(log: &Log) -> BTreeSet<Write> {
    log.lock().expect("no test panics with it").iter().map(|it| it.write.clone()).collect()
}

fn until_seen(what: &str, log: &Log, acked: &BTreeSet<Write>) {
    until(what, || {
        let seen = writes(log);
        let missing = acked.iter().filter(|write| !seen.contains(*write)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} of {} missing", acked.len())) }
    });
}

#[test]
fn what_is_acknowledged_is_delivered_though_a_member_dies_and_only_its_own_comes_again() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let log: Log = Arc::default();
    let mut tasks = Vec::new();
    for member in 0..3 {
        let joined = cluster.block_on(group(&client).join()).expect("joined");
        tasks.push(cluster.runtime().spawn(consume(joined, member, log.clone())));
    }
    let mut acked = cluster.block_on(write(&client, 0..150, 0..3));
    until_seen("everything to be delivered to three", &log, &acked);
    let status = until("three members to share the shards", || {
        let status = cluster.block_on(client.group_status(GROUP)).expect("there");
        let all =
            status.members.len() == 3 && status.members.iter().all(|it| !it.shards.is_empty());
        if all { Ok(status) } else { Err(status.members) }
    });
    assert!(status.members.iter().all(|it| it.shards.len() < status.shards.len() / 2));
    let before = log.lock().expect("whole").len();

    // It dies while more is written: nobody hears of it.
    let writing = {
        let client = client.clone();
        cluster.runtime().spawn(async move { write(&client, 150..300, 0..3).await })
    };
    until("the third to be given something more", || {
        let log = log.lock().expect("whole");
        let given = log[before..].iter().filter(|it| it.member == 2).count();
        if given > 20 { Ok(()) } else { Err(given) }
    });
    tasks.remove(2).abort();
    acked.extend(cluster.block_on(writing).expect("written"));
    until_seen("everything to be delivered to two", &log, &acked);

    let log = log.lock().expect("whole").clone();
    let (mut given, mut duplicates) = (BTreeMap::<&Write, usize>::new(), 0);
    let mut order: BTreeMap<&str, u64> = BTreeMap::new();
    for one in &log {
        if let Some(first) = given.insert(&one.write, one.member) {
            duplicates += 1;
            let known = first == 2 || one.again;
            assert!(known, "{one:?} was given to member {first} before, which lives");
            continue;
        }
        let (key, version) = &one.write;
        let last = order.entry(key).or_default();
        assert!(*last <= *version || one.late, "{one:?} after {last}");
        *last = *version;
    }
    assert_eq!(given.into_keys().cloned().collect::<BTreeSet<_>>(), acked);
    println!("{} events, {duplicates} delivered twice", acked.len());
    assert!(duplicates < log.len() / 2, "what it had kept does not come again: {duplicates}");

    for task in tasks {
        task.abort();
    }
}

/// Acknowledges everything until it has seen all of `expected`, and leaves.
async fn work_off(mut member: GroupConsumer, expected: &BTreeSet<Write>, log: &Log) {
    while !writes(log).is_superset(expected) {
        let delivery = member.next().await.expect("it goes on").expect("an event");
        log.lock().expect("whole").push(seen(0, &delivery));
        delivery.ack();
    }
    member.leave().await.expect("in order");
}

/// Red if a position replaces another instead of being merged with it.
#[test]
fn group_zombie_commit_harmless() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let groups = client.bucket("feed.groups");
    let log: Log = Arc::default();
    let member = cluster.block_on(group(&client).from(Start::Beginning).join()).expect("joined");
    let first = cluster.block_on(write(&client, 0..20, 0..1));
    cluster.block_on(work_off(member, &first, &log));
    // What a member that is no more had read: it hangs, and comes back when all is over.
    let at = format!("{GROUP}/at/");
    let old = cluster.block_on(async {
        let (mut list, mut old) = (groups.list(at), Vec::new());
        while let Some(page) = list.next_page().await.expect("all are up") {
            for listed in page.keys {
                let read = groups.get(listed.key.clone()).await.expect("all are up");
                old.push((listed.key, read));
            }
        }
        old
    });
    assert!(!old.is_empty(), "positions are kept");
    let member = cluster.block_on(group(&client).join()).expect("joined");
    let second = cluster.block_on(write(&client, 20..60, 0..1));
    let log: Log = Arc::default();
    cluster.block_on(work_off(member, &second, &log));
    assert_eq!(writes(&log), second, "nothing of before");
    cluster.block_on(async {
        for (key, read) in old {
            let value = read.one().expect("one").expect("there");
            groups.put(key, value).after(&read).send().await.expect("all are up");
        }
    });
    let member = cluster.block_on(group(&client).join()).expect("joined");
    let third = cluster.block_on(write(&client, 60..70, 0..1));
    let log: Log = Arc::default();
    let task = cluster.runtime().spawn(consume(member, 0, log.clone()));
    until_seen("what is new", &log, &third);
    assert_eq!(writes(&log), third, "nothing of before");
    task.abort();

    // A position that cannot be read is an error, and not a beginning.
    let broken = cluster.block_on(async {
        let put = groups.put(format!("{GROUP}/at/7/3"), "no position");
        put.blind().send().await.expect("all are up");
        let mut member = group(&client).join().await.expect("joined");
        member.next().await.expect("it says why it ends").expect_err("it cannot begin")
    });
    let ErrorKind::GroupDamaged { key, .. } = broken.kind() else { panic!("{broken}") };
    assert_eq!(key, &format!("{GROUP}/at/7/3"));
}

/// Takes events and refuses those of key `bad` for as long as `fails` says.
async fn refuse(mut member: GroupConsumer, log: Log, fails: Arc<Mutex<bool>>) {
    while let Some(delivery) = member.next().await {
        let delivery = delivery.expect("the group goes on");
        let seen = seen(0, &delivery);
        if seen.write.0 == "k0" && *fails.lock().expect("whole") {
            delivery.nak_because("no such account", Some(Duration::ZERO));
            continue;
        }
        log.lock().expect("whole").push(seen);
        delivery.ack();
    }
}

/// Red if parking a key is only skipping one event.
#[test]
fn group_poison_event_parks_key_until_its_letters_are_retried_or_dropped() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let (log, fails): (Log, _) = (Arc::default(), Arc::new(Mutex::new(true)));
    let builder = group(&client).max_deliver(3).on_poison(OnPoison::ParkKey);
    let member = cluster.block_on(builder.join()).expect("joined");
    let task = cluster.runtime().spawn(refuse(member, log.clone(), fails.clone()));
    let bad = cluster.block_on(write(&client, 0..1, 0..4));
    let good = cluster.block_on(write(&client, 1..30, 0..2));
    until_seen("all other keys", &log, &good);
    assert!(writes(&log).is_disjoint(&bad));
    let letters = until("all events of the key to be dead letters", || {
        let letters = cluster.block_on(client.dead_letters(GROUP)).expect("there");
        if letters.len() == bad.len() { Ok(letters) } else { Err(letters) }
    });
    let attempts: Vec<u32> = letters.iter().map(|letter| letter.attempts).collect();
    assert_eq!(attempts, [3, 0, 0, 0]);
    assert_eq!(letters[0].error, "no such account");
    let status = cluster.block_on(client.group_status(GROUP)).expect("there");
    assert_eq!((status.dead_letters, status.parked_keys), (4, 1));

    // It still fails: they stay where they are.
    let default = BucketName::default_bucket();
    let choice = LetterChoice::Key(default, "k0".into());
    let retry = |choice: &LetterChoice| {
        cluster.block_on(client.retry_dead_letters(GROUP, choice)).expect("there")
    };
    assert_eq!(retry(&choice), 4);
    until("the retry to be over", || {
        let letters = cluster.block_on(client.dead_letters(GROUP)).expect("there");
        let over = letters.len() == 4 && letters.iter().all(|letter| !letter.retried);
        if over { Ok(()) } else { Err(letters) }
    });
    *fails.lock().expect("whole") = false;
    let newer = {
        let client = client.clone();
        cluster.runtime().spawn(async move { write(&client, 0..1, 4..5).await })
    };
    let newer = cluster.block_on(newer).expect("written");
    assert!(retry(&LetterChoice::Event(letters[2].id.clone())) >= 4);
    let all: BTreeSet<Write> = bad.union(&newer).cloned().collect();
    until_seen("the letters, and what came after", &log, &all);
    let log = log.lock().expect("whole").clone();
    let of_key = log.iter().filter(|it| bad.contains(&it.write) && !it.again);
    let order: Vec<u64> = of_key.map(|it| it.write.1).collect();
    assert_eq!(order, [0, 1, 2, 3], "in the order of their writes, each once");
    until("no dead letters", || {
        let letters = cluster.block_on(client.dead_letters(GROUP)).expect("there");
        if letters.is_empty() { Ok(()) } else { Err(letters) }
    });
    task.abort();
}

#[test]
fn shards_change_hands_without_anything_being_delivered_twice() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let log: Log = Arc::default();
    let first = cluster.block_on(group(&client).join()).expect("joined");
    let first = cluster.runtime().spawn(consume(first, 0, log.clone()));
    let writing = {
        let client = client.clone();
        cluster.runtime().spawn(async move { write(&client, 0..300, 0..2).await })
    };
    let second = cluster.block_on(group(&client).join()).expect("joined");
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let taking = {
        let log = log.clone();
        cluster.runtime().spawn(async move {
            let mut second = second;
            tokio::pin!(left);
            loop {
                tokio::select! {
                    _ = &mut left => return second.leave().await,
                    delivery = second.next() => {
                        let delivery = delivery.expect("it goes on").expect("an event");
                        log.lock().expect("whole").push(seen(1, &delivery));
                        delivery.ack();
                    }
                }
            }
        })
    };
    until("the second to have its share", || {
        let given = log.lock().expect("whole").iter().filter(|it| it.member == 1).count();
        if given > 20 { Ok(()) } else { Err(given) }
    });
    leave.send(()).expect("it waits for that");
    cluster.block_on(taking).expect("no panic").expect("it leaves in order");
    let acked = cluster.block_on(writing).expect("written");
    until_seen("everything", &log, &acked);
    let log = log.lock().expect("whole").clone();
    let again = log.len() - acked.len();
    let known = log.iter().filter(|it| it.again).count();
    assert_eq!(again, known, "only what has two names comes twice");
    let status = cluster.block_on(client.group_status(GROUP)).expect("there");
    assert_eq!(status.members.len(), 1, "who left is a member no more");
    first.abort();
}

/// Red if a shard is taken before whoever has it has given it up.
#[test]
fn what_one_member_holds_is_not_given_to_another_that_joins() {
    const EVENTS: usize = 60;
    let cluster = Cluster::start();
    let client = cluster.client();
    let mut first = cluster.block_on(group(&client).join()).expect("joined");
    let acked = cluster.block_on(write(&client, 0..EVENTS, 0..1));
    let (log, mut held): (Log, Vec<Delivery>) = (Arc::default(), Vec::new());
    while held.len() < acked.len() {
        let next = cluster.block_on(first.next()).expect("it goes on").expect("an event");
        held.push(next);
    }
    let second = cluster.block_on(group(&client).join()).expect("joined");
    let second = cluster.runtime().spawn(consume(second, 1, log.clone()));
    let shares = || {
        let status = cluster.block_on(client.group_status(GROUP)).expect("there");
        let of = |it: &galvani_client::GroupMember| it.shards.len();
        let mut shares: Vec<usize> = status.members.iter().map(of).collect();
        shares.sort_unstable();
        (shares, status.shards.len())
    };
    // What nothing is held of changes hands at once.
    until("the second to have some shards", || match shares() {
        (shares, _) if shares.len() == 2 && shares[0] > 20 => Ok(()),
        (shares, _) => Err(shares),
    });
    assert_eq!(writes(&log), BTreeSet::new(), "all of it is held");
    held.into_iter().for_each(Delivery::ack);
    until("the second to have its share", || match shares() {
        (shares, all) if shares[0] * 5 > all * 2 => Ok(()),
        (shares, _) => Err(shares),
    });
    let more = cluster.block_on(write(&client, EVENTS..EVENTS + 40, 0..1));
    until("the second to be given something", || {
        if writes(&log).is_empty() { Err(()) } else { Ok(()) }
    });
    assert!(writes(&log).is_subset(&more), "nothing of what was acknowledged to the first");
    second.abort();
}

/// Red if a member goes on after its lease has run out: others may have its shards by then.
#[test]
fn a_member_that_cannot_say_that_it_lives_delivers_nothing_until_it_can() {
    const EVENTS: usize = 400;
    let cluster = Cluster::start();
    let client = cluster.client();
    let builder = group(&client).lease(Duration::from_secs(2));
    let mut member = cluster.block_on(builder.join()).expect("joined");
    let acked = cluster.block_on(write(&client, 0..EVENTS, 0..1));
    let log: Log = Arc::default();
    let pace = Duration::from_millis(15);
    let take = |member: &mut GroupConsumer, most: usize| {
        cluster.block_on(async {
            for _ in 0..most {
                let next = tokio::time::timeout(Duration::from_secs(2), member.next());
                let Ok(delivery) = next.await else { return false };
                let delivery = delivery.expect("it goes on").expect("an event");
                log.lock().expect("whole").push(seen(0, &delivery));
                delivery.ack();
                // wait: a consumer takes its time, so that the lease runs out before it is through
                tokio::time::sleep(pace).await;
            }
            true
        })
    };
    assert!(take(&mut member, 20), "events flow");
    cluster.kill("n2");
    cluster.kill("n3");
    assert!(!take(&mut member, 2 * EVENTS), "it stops");
    let given = writes(&log).len();
    assert!(given < EVENTS, "{given} of {EVENTS} although no heartbeat could be written");
    cluster.start_node("n2");
    cluster.start_node("n3");
    until("the rest to be delivered", || {
        take(&mut member, 50);
        let left = acked.difference(&writes(&log)).count();
        if left == 0 { Ok(()) } else { Err(left) }
    });
    // With its client it ends, and says so.
    cluster.block_on(async {
        client.close().await;
        let patience = Duration::from_secs(30);
        let ends = tokio::time::timeout(patience, async {
            let error = loop {
                match member.next().await.expect("it says why first") {
                    Ok(delivery) => delivery.ack(),
                    Err(error) => break error,
                }
            };
            (error, member.next().await.is_none())
        });
        let (closed, over) = ends.await.expect("it ends");
        assert_eq!((closed.kind(), over), (&ErrorKind::Closed, true), "{closed}");
    });
}

#[test]
fn a_group_is_seen_and_led_from_the_command_line() {
    let cluster = Cluster::start();
    let client = cluster.client();
    assert!(cluster.run(&["group", "list"]).expect(0).text().starts_with("group"));
    cluster.run(&["group", "show", GROUP]).expect(3).is_three_part_error().says(&["group list"]);
    let (log, fails): (Log, _) = (Arc::default(), Arc::new(Mutex::new(true)));
    let builder = group(&client).max_deliver(2).on_poison(OnPoison::Halt);
    let member = cluster.block_on(builder.join()).expect("joined");
    let other = cluster.block_on(client.group(GROUP).prefix("x").join());
    let error = other.expect_err("it follows something else").to_string();
    assert!(error.contains("keys \"k\"") && error.contains("keys \"x\""), "{error}");
    let consumer = {
        let (log, fails) = (log.clone(), fails.clone());
        cluster.runtime().spawn(async move {
            let mut member = member;
            let mut halted = 0;
            while let Some(delivery) = member.next().await {
                let Ok(delivery) = delivery else {
                    halted += 1;
                    continue;
                };
                let seen = seen(0, &delivery);
                if seen.write.0 == "k-stop" {
                    return (member.leave().await, halted);
                }
                if seen.write.0 == "k0" && *fails.lock().expect("whole") {
                    delivery.nak(Some(Duration::ZERO));
                    continue;
                }
                log.lock().expect("whole").push(seen);
                delivery.ack();
            }
            panic!("it goes on");
        })
    };
    let bad = cluster.block_on(write(&client, 0..1, 0..2));
    let good = cluster.block_on(write(&client, 1..40, 0..1));
    let shown = until("the shard to stand still", || {
        let shown = cluster.run(&["group", "show", GROUP, "-o", "json"]).expect(0);
        let shown = shown.json("galvani.group/1");
        let shards = shown["shards"].as_array().expect("shards").clone();
        let halted = shards.iter().filter(|shard| shard["halted"] == true).count();
        if halted == 1 && shown["dead_letters"] == 1 { Ok(shown) } else { Err(shown) }
    });
    assert_eq!(shown["members"].as_array().map(Vec::len), Some(1), "{shown}");
    cluster.run(&["group", "show", GROUP, "--shards"]).expect(0).text();
    until("the status to say so", || {
        let status = cluster.run(&["status"]).expect(0);
        let line = status.text().lines().find(|line| line.starts_with("group        billing: "));
        let line = line.map(str::to_owned).ok_or_else(|| status.to_string())?;
        let says = ["1 shard HALTED", "1 dead letter", "1 member"];
        if says.iter().all(|part| line.contains(part)) { Ok(()) } else { Err(line) }
    });
    let status = until("the status to have read the groups", || {
        let status = cluster.run(&["status", "-o", "json"]).expect(0).json("galvani.status/1");
        if status["groups"].is_array() { Ok(status) } else { Err(status["groups"].clone()) }
    });
    let group = &status["groups"][0];
    assert_eq!((&group["name"], &group["parked_keys"]), (&GROUP.into(), &0.into()), "{group}");
    let stands = |shard: &&serde_json::Value| shard["halted"] == true;
    assert_eq!(group["shards"].as_array().expect("shards").iter().filter(stands).count(), 1);
    assert!(group.get("seconds_to_truncation").is_some(), "{group}");
    assert_eq!(status["nodes"][0]["feed_keep_ms"], 86_400_000);
    let listed = cluster.run(&["group", "dlq", "list", GROUP, "-o", "json"]).expect(0);
    let listed = listed.json("galvani.group.dlq/1");
    let letter = &listed["letters"][0];
    assert_eq!((&letter["key"], &letter["attempts"]), (&"k0".into(), &2.into()), "{listed}");
    assert_eq!(letter["event"]["value"], "0", "the whole event is kept");
    cluster.run(&["group", "dlq", "drop", GROUP, "0.0"]).expect(3).is_three_part_error();

    *fails.lock().expect("whole") = false;
    let id = letter["id"].as_str().expect("a name").to_owned();
    cluster.run(&["group", "dlq", "retry", GROUP, &id]).expect(0);
    let all: BTreeSet<Write> = bad.union(&good).cloned().collect();
    until_seen("what stood still", &log, &all);
    // Back to the beginning: all of it again.
    log.lock().expect("whole").clear();
    cluster.run(&["group", "reset", GROUP, "--to", "start"]).expect(0);
    until_seen("everything again", &log, &all);
    cluster.run(&["group", "delete", GROUP]).expect(2).is_three_part_error().says(&["--yes"]);
    let delete = ["group", "delete", GROUP, "--yes"];
    cluster.run(&delete).expect(2).says(&["live members"]);
    cluster.run(&["put", "k-stop", "1", "--blind"]).expect(0);
    let (left, halted) = cluster.block_on(consumer).expect("no panic");
    left.expect("in order");
    assert_eq!(halted, 1, "it was told of the shard that stood still");
    cluster.run(&delete).expect(0);
    let groups = cluster.run(&["group", "list", "-o", "json"]).expect(0).json("galvani.groups/1");
    assert_eq!(groups["groups"].as_array().map(Vec::len), Some(0), "{groups}");
}
