//! The plain targets from their text to the result: files and commands.
//!
//! What is special about each is tested beside its code.

mod support;

use galvani_relay::{Reason, Relay, Retry, Settings, Target};
use std::fs;
use std::time::Duration;
use support::{assert_all_once_in_order, events, settings};

fn lines_of(path: &std::path::Path) -> Vec<Vec<u8>> {
    fs::read(path)
        .unwrap()
        .split_inclusive(|b| *b == b'\n')
        .map(|l| l.trim_ascii().to_vec())
        .collect()
}

#[tokio::test]
async fn a_file_has_all_events_in_the_order_of_the_feed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sent = events("e", 5000, 7);
    let target: Target = format!("file:{}", path.display()).parse().unwrap();
    let (first, second) = sent.split_at(3000);
    for part in [first, second] {
        let mut relay = Relay::open(target.clone(), settings()).await.unwrap();
        let done = relay.deliver(part.to_vec()).await.unwrap();
        assert_eq!((done.events, done.duplicates), (part.len(), 0));
        let taken = Relay::open(target.clone(), settings()).await.err().expect("it is locked");
        assert!(taken.to_string().contains("another relay"), "{taken}");
    }
    let bodies: Vec<_> = sent.iter().map(|event| event.body.to_vec()).collect();
    assert_eq!(lines_of(&path), bodies);
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_an_error_at_once() {
    let target: Target = "file:/no/such/folder/events.jsonl".parse().unwrap();
    let error = Relay::open(target, Settings::default()).await.err().expect("there is no folder");
    assert!(error.to_string().starts_with("cannot open file:/no/such/folder"), "{error}");
}

#[tokio::test]
async fn a_command_is_run_until_it_succeeds_in_the_order_of_each_key() {
    let folder = tempfile::tempdir().unwrap();
    // Every event fails once: its first run leaves a mark.
    let script = r#"cd "$0" || exit 9
        test -e "$GALVANI_EVENT_ID" || { : > "$GALVANI_EVENT_ID"; exit 1; }
        read -r line && printf '%s\n' "$line" >> "all""#;
    let argv = ["sh", "-c", script, folder.path().to_str().unwrap()].map(String::from);
    let target = Target::command(argv.to_vec()).unwrap();
    let mut relay = Relay::open(target, settings()).await.unwrap();
    let sent = events("e", 40, 8);
    let done = relay.deliver(sent.clone()).await.unwrap();
    assert_eq!(done.retried, 40);
    assert_all_once_in_order(&lines_of(&folder.path().join("all")), &sent);
}

#[tokio::test]
async fn a_command_that_never_succeeds_is_given_up_by_name() {
    let target = Target::command(["sh", "-c", "exit 3"].map(String::from).to_vec()).unwrap();
    let first = Duration::from_millis(1);
    let retry = Retry { first, tries_max: Some(3), ..Retry::default() };
    let mut relay = Relay::open(target, Settings { retry, ..settings() }).await.unwrap();
    let error = relay.deliver(events("e", 1, 1)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("event e-0#0 (orders) was not delivered to command sh"), "{text}");
    assert!(text.contains("exit status: 3"), "{text}");
    assert!(matches!(error.reason, Reason::GaveUp { tries: 3, .. }));
    assert_eq!(relay.figures().read().retried, 2);
}
