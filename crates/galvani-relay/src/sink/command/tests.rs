//! Commands: what they are given, and what their end means.

use super::CommandSink;
use crate::outgoing::Outgoing;
use crate::sink::{Failure, Sent, Sink};
use std::fs;
use std::time::Duration;
use tokio::time::timeout;

fn shell(script: &str) -> CommandSink {
    CommandSink::new(["sh", "-c", script].map(String::from).to_vec())
}

fn event() -> Outgoing {
    let mut event = Outgoing::new("r#0".into(), "orders".into(), "k 1".into(), "{\"a\":1}".into());
    event.attributes.push(("written-at".into(), "noon".into()));
    event
}

#[tokio::test]
async fn it_is_given_the_event_and_its_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seen");
    let script = format!(
        "cat > {0}; echo \"$GALVANI_EVENT_ID $GALVANI_TOPIC $GALVANI_KEY $GALVANI_WRITTEN_AT\" >> {0}",
        path.display()
    );
    assert_eq!(shell(&script).send(&[event()]).await, Sent::one(false));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\nr#0 orders k 1 noon\n");
}

#[tokio::test]
async fn its_exit_status_decides_and_input_need_not_be_read() {
    let mut large = event();
    large.body = vec![b'x'; 1 << 20].into();
    assert_eq!(shell("exit 0").send(&[large]).await, Sent::one(false));
    let failed = shell("exit 3").send(&[event()]).await;
    assert_eq!(failed, Sent::failed(Failure::passing("exit status: 3")));
    let missing = CommandSink::new(vec!["./no-such-program".into()]).send(&[event()]).await;
    assert!(matches!(missing.failure, Some(Failure::Unusable { .. })), "{missing:?}");
}

#[tokio::test]
async fn a_command_that_is_given_up_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let sink = shell(&format!("echo $$ > {}.new; mv {0}.new {0}; exec sleep 1000", path.display()));
    let events = [event()];
    let mut send = Box::pin(sink.send(&events));
    let pid: u32 = loop {
        // wait: the command has told its number.
        let ended = timeout(Duration::from_millis(20), &mut send).await;
        assert!(ended.is_err(), "{ended:?}");
        if let Ok(text) = fs::read_to_string(&path) {
            break text.trim().parse().unwrap();
        }
    };
    drop(send);
    let ended = || {
        let status = fs::read_to_string(format!("/proc/{pid}/stat"));
        // Not collected yet is ended, too.
        status.map_or(true, |stat| stat.contains(") Z "))
    };
    let all = async {
        while !ended() {
            // wait: the command is gone, within the deadline below.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), all).await.expect("the command goes on");
}
