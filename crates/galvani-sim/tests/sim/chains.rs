//! Long runs of writes to one key: as many siblings as there are writers, and none if there is one.
//!
//! Real lanes in a quiet world, each write through another coordinator than the one before, with a
//! node that crashes now and then; the oracles look on. Sources: riak_test `sibling_explosion`;
//! the cases V2 and V3 of `docs/cases.md`.

use galvani_sim::Script;

/// Rounds of the client that is alone.
const CHAIN: usize = 1_000;
/// Rounds of the two that do not see each other's last write.
const PINGPONG: usize = 200;

fn cluster() -> Script {
    let mut script = Script::new();
    assert_eq!(script.execute("cluster nodes=3 n=3"), "ok");
    assert_eq!(script.execute("put a k v0"), "done, values here: 1");
    script
}

#[test]
fn rmw_chain() {
    let mut script = cluster();
    for round in 1..=CHAIN {
        let (reads, writes) = (round % 3, (round + 1) % 3);
        let read = script.execute(&format!("get a k via=n{reads}"));
        assert_eq!(read, format!("v{}", round - 1), "round {round}");
        let wrote = script.execute(&format!("put a k v{round} ctx=k via=n{writes}"));
        assert_eq!(wrote, "done, values here: 1", "round {round}");
        if round % 100 == 0 {
            // It is back as another incarnation.
            script.execute(&format!("crash n{writes}"));
            script.execute(&format!("start n{writes}"));
            script.execute("wait 3000");
        }
    }
    assert_eq!(script.execute("get a k r=all"), format!("v{CHAIN}"));
}

#[test]
fn pingpong_stale_ctx() {
    let mut script = cluster();
    script.execute("get a k");
    for round in 1..=PINGPONG {
        let (writer, other) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
        // The other one's next write is by this, and does not know of the write that follows here.
        let seen = script.execute(&format!("get {other} k r=all via=n{}", round % 3));
        assert!(seen.split(" | ").count() <= 2, "round {round}: {seen}");
        let put = format!("put {writer} k v{round} ctx=k via=n{}", (round + 1) % 3);
        let expected = if round == 1 { 1 } else { 2 };
        assert_eq!(script.execute(&put), format!("done, values here: {expected}"), "round {round}");
    }
    let last = script.execute("get a k r=all");
    assert_eq!(last, format!("v{} | v{PINGPONG}", PINGPONG - 1), "one of each client");
}
