//! How many requests a second each client identity may send to one lane.
//!
//! Off unless the configuration says so. A bucket of tokens for each certificate, whatever number of
//! links and processes it has: one greedy client is refused, the others notice nothing. Asked after
//! the permission and before the lane. Next to read: `lane_loop.rs`.

use galvani_model::limits::Limits;
use galvani_protocol::budget::Budget;
use galvani_transport::PeerIdentity;
use galvani_wire::Message;
use std::collections::HashMap;

/// Identities whose buckets are kept; of more, those that were silent longest are forgotten, and
/// start with a full bucket. Each needs a certificate, and about 200 bytes.
const IDENTITIES_MAX: usize = 1_024;

/// The buckets of one lane.
#[derive(Debug)]
pub(crate) struct ClientRates {
    per_second: u32,
    burst: u32,
    buckets: HashMap<PeerIdentity, Bucket>,
    refused: u64,
}

#[derive(Debug)]
struct Bucket {
    budget: Budget,
    used_at: u64,
}

impl ClientRates {
    pub(crate) fn new(limits: &Limits) -> ClientRates {
        let per_second = limits.client_requests_per_second;
        let burst = match limits.client_requests_burst {
            0 => per_second,
            burst => burst,
        };
        ClientRates { per_second, burst, buckets: HashMap::new(), refused: 0 }
    }

    /// Whether a request may be done now; if not, when to come again, in milliseconds. Only what
    /// costs a lane work is counted.
    pub(crate) fn take(
        &mut self,
        who: &PeerIdentity,
        message: &Message,
        now_micros: u64,
    ) -> Result<(), u32> {
        let counts = matches!(
            message,
            Message::Put(_) | Message::Get(_) | Message::List(_) | Message::Explain(_)
        );
        if self.per_second == 0 || who.is_node() || !counts {
            return Ok(());
        }
        if !self.buckets.contains_key(who) {
            self.make_room();
            let budget = Budget::with_burst(self.per_second, self.burst);
            self.buckets.insert(who.clone(), Bucket { budget, used_at: now_micros });
        }
        let bucket = self.buckets.get_mut(who).expect("it was there, or was put there");
        bucket.used_at = now_micros;
        if bucket.budget.take(now_micros) {
            return Ok(());
        }
        self.refused += 1;
        let wait_ms = bucket.budget.wait_micros().div_ceil(1_000);
        Err(u32::try_from(wait_ms).unwrap_or(u32::MAX))
    }

    /// Requests refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    fn make_room(&mut self) {
        if self.buckets.len() < IDENTITIES_MAX {
            return;
        }
        let oldest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.used_at);
        if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
            self.buckets.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientRates, IDENTITIES_MAX};
    use galvani_model::limits::Limits;
    use galvani_transport::{PeerIdentity, Role};
    use galvani_wire::Message;
    use galvani_wire::message::List;

    fn rates(per_second: u32, burst: u32) -> ClientRates {
        ClientRates::new(&Limits {
            client_requests_per_second: per_second,
            client_requests_burst: burst,
            ..Limits::default()
        })
    }

    fn client(name: &str) -> PeerIdentity {
        PeerIdentity::Client { name: name.into(), role: Role::ReadWrite }
    }

    fn list() -> Message {
        Message::List(List {
            bucket: galvani_model::bucket::BucketName::default_bucket(),
            partition: galvani_model::ids::Partition(0),
            after: None,
            prefix: bytes::Bytes::new(),
            limit: 1,
            options: galvani_model::request::ReadOptions::default(),
            timeout_ms: 1_000,
        })
    }

    #[test]
    fn a_greedy_client_is_held_to_its_rate_and_told_when_to_come_again() {
        let mut rates = rates(10, 3);
        let taken = |rates: &mut ClientRates, who: &str, at| {
            (0..100).filter(|_| rates.take(&client(who), &list(), at).is_ok()).count()
        };
        assert_eq!(taken(&mut rates, "greedy", 0), 3);
        assert_eq!(rates.take(&client("greedy"), &list(), 40_000), Err(60));
        assert_eq!(rates.take(&client("modest"), &list(), 40_000), Ok(()), "it is another's");
        assert_eq!(rates.take(&client("greedy"), &list(), 100_000), Ok(()));
        assert_eq!(rates.refused(), 98);
    }

    #[test]
    fn nodes_questions_about_the_cluster_and_a_rate_of_0_are_free() {
        let mut off = rates(0, 0);
        assert!((0..10_000).all(|_| off.take(&client("a"), &list(), 0).is_ok()));
        let mut one = rates(1, 1);
        let node = PeerIdentity::Node { id: [1; 16] };
        assert!((0..100).all(|_| one.take(&node, &list(), 0).is_ok()));
        assert!((0..100).all(|_| one.take(&client("a"), &Message::Status, 0).is_ok()));
        assert!(one.buckets.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_silent_longest() {
        let mut rates = rates(1, 0);
        for number in 0..IDENTITIES_MAX as u64 {
            let _ = rates.take(&client(&number.to_string()), &list(), number);
        }
        let _ = rates.take(&client("0"), &list(), 5_000);
        let _ = rates.take(&client("new"), &list(), 6_000);
        assert_eq!(rates.buckets.len(), IDENTITIES_MAX);
        assert!(
            rates.take(&client("0"), &list(), 6_000).is_err(),
            "it is known, and has none left"
        );
        assert!(!rates.buckets.contains_key(&client("1")));
    }
}
