//! What marks one logical write: a request id, and the client's own hybrid time.
//!
//! Both are made once per write and carried by all its attempts; servers know a retry by them. The
//! id is laid out like a version 7 UUID (RFC 9562, section 5.7): milliseconds, then randomness.

use galvani_model::hlc::Hlc;
use galvani_model::ids::RequestId;
use galvani_transport::Network;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes stamps; time never goes back within one.
#[derive(Debug)]
pub(crate) struct Stamper {
    network: Network,
    last: AtomicU64,
}

/// One write's marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) rid: RequestId,
    pub(crate) issued: Hlc,
}

impl Stamper {
    pub(crate) fn new(network: Network) -> Stamper {
        Stamper { network, last: AtomicU64::new(0) }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let now_ms = self.network.unix_ms();
        let random = self.network.random_u128();
        Stamp { rid: request_id(now_ms, random), issued: self.tick(now_ms) }
    }

    fn tick(&self, now_ms: u64) -> Hlc {
        let tick = |last: u64| Hlc(last).tick(Hlc::default(), now_ms);
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(tick(last).0))
            .expect("the update always has a value");
        tick(last)
    }
}

fn request_id(now_ms: u64, random: u128) -> RequestId {
    let time = u128::from(now_ms & ((1 << 48) - 1)) << 80;
    let version = 7 << 76;
    let variant = 0b10 << 62;
    let high = (random >> 64 & 0xfff) << 64;
    let low = random & ((1 << 62) - 1);
    RequestId(time | version | high | variant | low)
}

#[cfg(test)]
mod tests {
    use super::{Stamper, request_id};
    use galvani_transport::Network;
    use std::collections::BTreeSet;

    #[test]
    fn ids_say_when_and_carry_version_and_variant() {
        let id = request_id(0x0123_4567_89ab, u128::MAX);
        assert_eq!(id.to_string(), "0123456789ab7fffbfffffffffffffff");
        assert_eq!(request_id(1, 0).to_string(), "00000000000170008000000000000000");
    }

    #[test]
    fn stamps_differ_and_their_time_only_rises() {
        let stamper = Stamper::new(Network::os());
        let stamps: Vec<_> = (0..1_000).map(|_| stamper.stamp()).collect();
        assert!(stamps.is_sorted_by(|a, b| a.issued < b.issued));
        let ids: BTreeSet<_> = stamps.iter().map(|stamp| stamp.rid).collect();
        assert_eq!(ids.len(), stamps.len());
    }
}
