//! Errors as text, their size, and doubt.
//!
//! Whatever is added here is asserted of the type that callers see.

use super::{Applied, Error, ErrorKind, Trace, worse};
use galvani_model::ids::RequestId;
use galvani_wire::failure::QuorumKind;
use std::time::Duration;

#[test]
fn an_error_is_one_full_line() {
    let kind = ErrorKind::Quorum {
        what: QuorumKind::W,
        need: 3,
        got: 2,
        n: 3,
        after: Duration::from_millis(1960),
        detail: "n3 unreachable".to_owned(),
    };
    let trace = Trace { request_id: Some(RequestId(0xab)), ..Trace::default() };
    let error = Error::new("put", "cart/42", kind).with_trace(trace);
    assert_eq!(
        error.to_string(),
        "put cart/42: w=3 not reached, 2 of 3 acked in 2.0 s: n3 unreachable \
         (request 000000000000000000000000000000ab)"
    );
}

#[test]
fn an_error_is_small_enough_to_return_everywhere() {
    assert!(size_of::<Error>() <= 104);
}

#[test]
fn doubt_never_shrinks() {
    let maybe = |acks| Applied::Maybe { acks };
    assert_eq!(worse(Applied::No, Applied::No), Applied::No);
    assert_eq!(worse(maybe(0), Applied::No), maybe(0));
    assert_eq!(worse(Applied::No, maybe(1)), maybe(1));
    assert_eq!(worse(maybe(2), maybe(1)), maybe(2));
}
