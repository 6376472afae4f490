//! Faults set on purpose, as messages: their bounds, and how they add up.
//!
//! Next to read: `main.rs`, which sends them there and back.

use crate::bytes_of;
use galvani_model::ids::NodeId;
use galvani_wire::Message;
use galvani_wire::codec::{DecodeError, Frame};
use galvani_wire::message::{FAULT_LINKS_MAX, SetFaults};
use galvani_wire::view::{LinkDelay, LinkFaults};

pub(crate) fn link_faults() -> Vec<LinkFaults> {
    let cut = LinkFaults { cut_out: true, ..LinkFaults::none(NodeId(2)) };
    let delay = Some(LinkDelay { micros: 50_000, jitter_micros: 20_000 });
    let bad =
        LinkFaults { cut_in: true, loss_ppm: Some(50_000), delay, ..LinkFaults::none(NodeId(3)) };
    vec![cut, bad]
}

#[test]
fn faults_out_of_bounds_are_refused() {
    let link = LinkFaults::none(NodeId(2));
    let delay = |micros, jitter_micros| Some(LinkDelay { micros, jitter_micros });
    let set = |link: LinkFaults, count| SetFaults { heal: false, links: vec![link; count] };
    for (faults, accepted) in [
        (set(LinkFaults { loss_ppm: Some(1_000_000), ..link.clone() }, 1), true),
        (set(LinkFaults { loss_ppm: Some(1_000_001), ..link.clone() }, 1), false),
        (set(LinkFaults { delay: delay(10_000_000, 10_000_000), ..link.clone() }, 1), true),
        (set(LinkFaults { delay: delay(10_000_001, 0), ..link.clone() }, 1), false),
        (set(LinkFaults { delay: delay(5, 6), ..link.clone() }, 1), false),
        (set(link.clone(), FAULT_LINKS_MAX), true),
        (set(link.clone(), FAULT_LINKS_MAX + 1), false),
    ] {
        let decoded = Frame::decode(bytes_of(1, false, &Message::SetFaults(faults)));
        assert_eq!(decoded.is_ok(), accepted, "{decoded:?}");
        assert!(accepted || decoded == Err(DecodeError::Faults));
    }
}

#[test]
fn faults_add_up_and_newer_numbers_take_the_place_of_older_ones() {
    let [mut cut, bad] = <[LinkFaults; 2]>::try_from(link_faults()).expect("two");
    cut.add(&bad);
    assert_eq!(cut, LinkFaults { node: NodeId(2), cut_out: true, ..bad.clone() });
    cut.add(&LinkFaults { loss_ppm: Some(7), ..LinkFaults::none(NodeId(2)) });
    let expected = LinkFaults { node: NodeId(2), cut_out: true, loss_ppm: Some(7), ..bad };
    assert_eq!(cut, expected);
    let delay = Some(LinkDelay { micros: 0, jitter_micros: 0 });
    cut.add(&LinkFaults { loss_ppm: Some(0), delay, ..LinkFaults::none(NodeId(2)) });
    assert_eq!((cut.loss_ppm, cut.delay), (None, None));
}
