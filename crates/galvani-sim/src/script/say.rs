//! Answers in words, for scenarios.

use galvani_model::version::Kind;
use galvani_wire::Message;
use galvani_wire::failure::AppliedOutcome;
use galvani_wire::view::Counters;

/// An answer to a client.
pub(crate) fn answer(message: &Message) -> String {
    match message {
        Message::PutDone(done) => format!("done, values here: {}", done.siblings),
        Message::GetDone(done) => {
            let siblings = done.siblings.iter();
            let mut values: Vec<String> =
                siblings.map(|sibling| value(sibling.kind, &sibling.value)).collect();
            values.sort_unstable();
            list(&values)
        }
        Message::Failed(failed) => {
            let applied = match failed.applied {
                AppliedOutcome::No => "never stored".into(),
                AppliedOutcome::Maybe { acks } => format!("perhaps stored, acks: {acks}"),
            };
            format!("failed: {:?}; {applied}", failed.failure)
        }
        other => other.name().into(),
    }
}

/// A version's value.
pub(crate) fn value(kind: Kind, bytes: &[u8]) -> String {
    match kind {
        Kind::Put => String::from_utf8_lossy(bytes).into_owned(),
        Kind::Delete => "(deleted)".into(),
        Kind::Emit => "(events)".into(),
    }
}

/// Values side by side.
pub(crate) fn list(values: &[String]) -> String {
    if values.is_empty() { "(absent)".into() } else { values.join(" | ") }
}

/// The figures that say what became of writes, as far as they are not zero.
pub(crate) fn counters(all: &Counters) -> String {
    let shown = [
        ("duplicates", all.duplicates),
        ("repairs_sent", all.repairs_sent),
        ("retries_recognised", all.retries_recognised),
        ("lww_discarded", all.lww_discarded),
        ("incarnations", all.incarnations),
    ];
    let shown: Vec<String> = shown
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    if shown.is_empty() { "(all zero)".into() } else { shown.join(" ") }
}
