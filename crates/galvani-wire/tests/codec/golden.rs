//! Every message of a protocol number has the bytes that it had when the number was given.
//!
//! `tests/golden/galvani-N.txt` has a line for each message of `all_messages`: its kind, its name and
//! its frame in hexadecimal. Nodes and clients of one number meet whatever builds they are, so what
//! is in a landed file stays: a message that changes, and a new one, take the next number (the ALPN
//! in `galvani-transport`), and the next file. `GALVANI_GOLDEN=write` writes the file of this number.

#![allow(clippy::disallowed_methods, reason = "a test that reads a file of the repository")]

use super::{all_messages, bytes_of};
use galvani_transport::protocol;
use galvani_wire::Message;
use galvani_wire::codec::{DecodeError, Frame};
use std::fs;
use std::path::{Path, PathBuf};

/// The id that every frame of the file carries.
const ID: u64 = 0x0102_0304_0506_0708;

fn path() -> PathBuf {
    let name = format!("tests/golden/{}.txt", protocol().replace('/', "-"));
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn line(message: &Message) -> String {
    let frame = bytes_of(ID, false, message);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {} {hex}", message.kind(), message.name())
}

fn frame(line: &str) -> Vec<u8> {
    let hex = line.split(' ').nth(2).expect("kind, name, frame");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn messages_have_the_bytes_of_their_protocol_number() {
    let now: Vec<String> = all_messages().iter().map(line).collect();
    let path = path();
    if std::env::var_os("GALVANI_GOLDEN").is_some_and(|it| it == "write") {
        fs::write(&path, now.join("\n") + "\n").expect("written");
    }
    let kept = fs::read_to_string(&path);
    let kept = kept.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    for (kept, now) in kept.lines().zip(&now) {
        assert_eq!(kept, now, "these bytes are another protocol: docs/decisions/0015-versions.md");
    }
    assert_eq!(kept.lines().count(), now.len(), "messages of {}", path.display());
}

#[test]
fn frames_of_the_protocol_number_are_read_as_they_were_meant() {
    let kept = fs::read_to_string(path()).expect("it is in the repository");
    for (line, message) in kept.lines().zip(all_messages()) {
        let decoded = Frame::decode(frame(line).into());
        let expected = Frame { id: ID, forwarded: false, message };
        assert_eq!(decoded, Ok(expected), "{line}");
    }
}

/// There is no field, flag or kind that a build may pass over: within a number all know the same.
#[test]
fn fields_flags_and_kinds_of_another_number_are_refused() {
    let kept = fs::read_to_string(path()).expect("it is in the repository");
    let refused = |frame: Vec<u8>| Frame::decode(frame.into()).expect_err("of another number");
    for line in kept.lines() {
        let mut flagged = frame(line);
        flagged[1] |= 2;
        assert!(matches!(refused(flagged), DecodeError::Unknown { flags: 2, .. }), "{line}");
        let mut unknown = frame(line);
        unknown[0] = 255;
        assert!(matches!(refused(unknown), DecodeError::Unknown { kind: 255, .. }), "{line}");
        let mut longer = frame(line);
        // A struct of up to 14 fields, with one more.
        if let Some(head @ 0x90..=0x9e) = longer.get(14).copied() {
            let bytes = u32::from_le_bytes([longer[10], longer[11], longer[12], longer[13]]);
            longer[14] = head + 1;
            longer.insert(14 + bytes as usize, 0);
            longer[10..14].copy_from_slice(&(bytes + 1).to_le_bytes());
            assert!(matches!(refused(longer), DecodeError::Header { .. }), "{line}");
        }
    }
}
