//! What mutants do to messages on their way.
//!
//! Without a mutant everything passes untouched; no message is made up but where a mutant says so.
//! Next to read: `mutant.rs`.

use crate::ledger::Ledger;
use crate::mutant::Mutant;
use galvani_model::request::WriteOptions;
use galvani_model::version::{Dot, DotSet, Range};
use galvani_protocol::ASKS_PER_OP;
use galvani_wire::Message;
use galvani_wire::failure::AppliedOutcome;
use galvani_wire::message::{Comparison, HintsPulled, Pulled, Replicated};

/// Where a datagram's kind stands, and the one that tells a node that it is held for down.
const KIND_AT: usize = 51;
const YOU_ARE_DOWN: u8 = 10;
/// Asks below this id are answered to nobody: repairs.
const FIRST_OPERATION_ASK: u64 = ASKS_PER_OP;

/// An ask as it leaves, or `None` if it never does.
pub(crate) fn ask(mutant: Option<Mutant>, id: u64, mut message: Message) -> Option<Message> {
    if mutant == Some(Mutant::KeepsHints) && matches!(message, Message::HintsWait(_)) {
        return None;
    }
    if let Message::Replicate(replicate) = &mut message {
        if mutant == Some(Mutant::DropsRepairs) && id < FIRST_OPERATION_ASK {
            return None;
        }
        if mutant == Some(Mutant::DropsPast) {
            replicate.head.past = DotSet::new();
        }
        if mutant == Some(Mutant::ForgetsExpiry) {
            replicate.head.expires_ms = 0;
        }
    }
    Some(message)
}

/// Whether a datagram never leaves.
pub(crate) fn datagram(mutant: Option<Mutant>, bytes: &[u8]) -> bool {
    mutant == Some(Mutant::NeverTellsTheDown) && bytes.get(KIND_AT) == Some(&YOU_ARE_DOWN)
}

/// The answer that is made up instead of sending an ask.
pub(crate) fn instead(mutant: Option<Mutant>, id: u64, message: &Message) -> Option<Message> {
    let lie = mutant == Some(Mutant::AcksForOthers) && id >= FIRST_OPERATION_ASK;
    match message {
        Message::Replicate(_) if lie => Some(Message::Replicated(Replicated { result: Ok(false) })),
        _ => None,
    }
}

/// An answer as it leaves.
pub(crate) fn answer(mutant: Option<Mutant>, message: Message) -> Message {
    match (mutant, message) {
        (Some(Mutant::PlainContexts), Message::Fetched(Ok(mut held))) => {
            held.seen = without_holes(&held.seen);
            Message::Fetched(Ok(held))
        }
        (Some(Mutant::OneSibling), Message::Fetched(Ok(mut held))) if held.versions.len() > 1 => {
            held.versions.truncate(1);
            let live = held.versions[0].dots.clone();
            let rows = held.heads.into_iter().zip(held.values);
            let kept = rows.filter(|(head, _)| live.contains(&head.dot));
            (held.heads, held.values) = kept.unzip();
            Message::Fetched(Ok(held))
        }
        (Some(Mutant::DropsPulled), Message::Pulled(Ok(_))) => {
            Message::Pulled(Ok(Pulled::default()))
        }
        (Some(Mutant::KeepsHints), Message::HintsPulled(Ok(_))) => {
            let (shards, records) = (Vec::new(), Pulled::default());
            Message::HintsPulled(Ok(HintsPulled { page: 1, shards, records }))
        }
        (Some(Mutant::LeavesLost), Message::SliceIs(Ok(mut slice))) => {
            slice.keys.clear();
            Message::SliceIs(Ok(slice))
        }
        (Some(Mutant::CollectsEarly), Message::Clocks(Ok(mut said))) => {
            for clock in said.clocks.iter_mut().flatten() {
                let origins: Vec<_> = clock.ranges().map(|range| range.origin).collect();
                for origin in origins {
                    clock.insert_range(Range { origin, first: 1, last: u64::MAX >> 1 });
                }
            }
            Message::Clocks(Ok(said))
        }
        (Some(Mutant::AlwaysEqual), Message::Compared(Ok(mut compared))) => {
            compared.shards.fill(Comparison::Equal);
            Message::Compared(Ok(compared))
        }
        (Some(Mutant::AsksNobody | Mutant::TrustsCopies), Message::Known(mut known)) => {
            known.counters.fill(0);
            Message::Known(known)
        }
        (Some(Mutant::SaysNo), Message::Failed(mut failed)) => {
            failed.applied = AppliedOutcome::No;
            Message::Failed(failed)
        }
        (_, message) => message,
    }
}

/// An answer as it leaves while the layout changes.
pub(crate) fn on_layouts(mutant: Option<Mutant>, mut message: Message) -> Message {
    match (mutant, &mut message) {
        (Some(Mutant::SkipsCopying), Message::Progress(progress)) => progress.left = 0,
        (Some(Mutant::SkipsCopying), Message::Pulled(Ok(pulled))) => *pulled = Pulled::default(),
        _ => {}
    }
    message
}

/// Clocks as they leave, where what tombstones replace is claimed with them.
pub(crate) fn clocks(mutant: Option<Mutant>, ledger: &Ledger, mut message: Message) -> Message {
    if let (Some(Mutant::HalfProof), Message::Clocks(Ok(said))) = (mutant, &mut message) {
        for clock in said.clocks.iter_mut().flatten() {
            let had = clock.clone();
            for (origin, base, cloud) in ledger.replaced_in(&had) {
                if base > 0 {
                    clock.insert_range(Range { origin, first: 1, last: base });
                }
                for &counter in cloud {
                    clock.insert(Dot::new(origin, counter));
                }
            }
        }
    }
    message
}

/// What a write wants as its coordinator is told.
pub(crate) fn options(mutant: Option<Mutant>, options: WriteOptions) -> WriteOptions {
    match mutant {
        Some(Mutant::CountsStandIns) => WriteOptions { pw: None, strict: false, ..options },
        _ => options,
    }
}

/// The ask of another replica that this ack is counted for as well.
pub(crate) fn second_ack(mutant: Option<Mutant>, id: u64, message: &Message) -> Option<u64> {
    let ack = matches!(message, Message::Replicated(Replicated { result: Ok(_) }));
    (mutant == Some(Mutant::DuplicateAcks) && ack && id >= FIRST_OPERATION_ASK)
        .then_some(if id.is_multiple_of(FIRST_OPERATION_ASK) { id + 1 } else { id - 1 })
}

/// A plain version vector: everything up to the highest counter of each origin.
fn without_holes(seen: &DotSet) -> DotSet {
    let mut plain = DotSet::new();
    for (origin, _, _) in seen.iter() {
        plain.insert_through(origin, seen.max_counter(origin));
    }
    plain
}
