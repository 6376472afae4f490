//! One event on its way out.
//!
//! The relay looks at the id and the order key only; all else is the target's. What the body says is
//! up to the caller. Next to read: `courier.rs`.

use bytes::Bytes;

/// An event that is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name, the same whenever it is delivered: the target knows a duplicate by it. Printable
    /// ASCII without spaces, or webhooks and NATS refuse it.
    pub id: String,
    /// Events with equal order keys are delivered one after the other, in the order given.
    pub order_key: Bytes,
    /// The topic or bucket.
    pub subject: String,
    /// The key it is about; may be empty.
    pub key: Bytes,
    /// What is delivered: one line of JSON without a line end.
    pub body: Bytes,
    /// What else the target is told, as pairs of name and value: headers of a webhook or a NATS
    /// message, fields of a stream entry, `GALVANI_NAME` in the environment of a command. Names are
    /// 1 to 64 of `a-z 0-9 -`; values are printable ASCII. [`Relay::deliver`](crate::Relay::deliver)
    /// refuses others.
    pub attributes: Vec<(String, String)>,
}

impl Outgoing {
    /// An event without attributes, ordered by its subject and key.
    pub fn new(id: String, subject: String, key: Bytes, body: Bytes) -> Outgoing {
        let order_key = [subject.as_bytes(), &[0], &key].concat().into();
        Outgoing { id, order_key, subject, key, body, attributes: Vec::new() }
    }

    /// Why it cannot go out, if it cannot.
    pub(crate) fn fault(&self) -> Option<String> {
        let printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX || !printable(&self.id) {
            return Some(format!("its id is not 1 to {ID_BYTES_MAX} of printable ASCII"));
        }
        if self.body.contains(&b'\n') {
            return Some("its body is more than one line".into());
        }
        let named = |name: &str| {
            let may = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=64).contains(&name.len()) && name.bytes().all(may)
        };
        let valued = |value: &str| value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let bad = self.attributes.iter().find(|(name, value)| !named(name) || !valued(value));
        bad.map(|(name, _)| {
            format!("its attribute {name:?} is not a name of a-z 0-9 - with a printable value")
        })
    }
}

/// Longest id. Redis keeps each for its window, NATS in memory.
const ID_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Outgoing {
        Outgoing::new("e#1".into(), "orders".into(), "k".into(), "{}".into())
    }

    #[test]
    fn subject_and_key_cannot_be_shifted_into_each_other() {
        let a = Outgoing::new("1".into(), "ab".into(), "c".into(), "{}".into());
        let b = Outgoing::new("2".into(), "a".into(), "bc".into(), "{}".into());
        assert_ne!(a.order_key, b.order_key);
    }

    #[test]
    fn what_would_break_a_header_or_a_line_is_named() {
        assert_eq!(event().fault(), None);
        assert!(Outgoing { id: "a b".into(), ..event() }.fault().unwrap().contains("id"));
        assert!(Outgoing { id: String::new(), ..event() }.fault().is_some());
        assert!(Outgoing { body: "{}\n{}".into(), ..event() }.fault().unwrap().contains("line"));
        let with = |name: &str, value: &str| Outgoing {
            attributes: vec![(name.into(), value.into())],
            ..event()
        };
        assert_eq!(with("written-at", "12 May").fault(), None);
        assert!(with("Host", "x").fault().unwrap().contains("Host"));
        assert!(with("x", "a\r\nb: c").fault().is_some());
    }
}
