//! Requests that come to a lane: whether a client's is taken on, and what begins with it.
//!
//! A retry of a write begins twice: it asks the other owners for the write first, and goes on as if it came
//! then: it may be refused, sent on, or taken back with the tick. Next to read: `route.rs`, `retried.rs`.

use super::Lane;
use crate::admission::Turned;
use crate::effect::{Now, ReplyTo};
use crate::route::{self, Came};
use crate::table::Op;
use galvani_model::store::Store;
use galvani_wire::Message;
use galvani_wire::failure::Failure;

impl Lane {
    /// A request of a client begins an operation, unless the lane is full or stops; another node is answered
    /// at once.
    pub(super) fn on_request(
        &mut self,
        from: ReplyTo,
        forwarded: bool,
        message: Message,
        now: Now,
        store: &mut dyn Store,
    ) {
        let from_client = matches!(
            message,
            Message::Put(_)
                | Message::Get(_)
                | Message::List(_)
                | Message::Explain(_)
                | Message::CreateBucket(_)
                | Message::ChangeLayout(_)
        );
        if from_client {
            let op = self.table.next_id();
            self.started.push((op, from));
            let turned = self.turned(&message);
            let started = self.with(now, store, |ctx, stopping| {
                let refusal = if stopping {
                    Some(Failure::Stopping)
                } else {
                    turned.map(|Turned { retry_after_ms }| Failure::Overloaded { retry_after_ms })
                };
                match refusal {
                    Some(failure) => {
                        ctx.refuse(from, op, failure);
                        None
                    }
                    None => {
                        let came = Came { from, forwarded, looked: false };
                        route::start(ctx, op, came, message)
                    }
                }
            });
            if let Some(started) = started {
                self.table.insert(op, started);
            }
        } else {
            self.with(now, store, |ctx, _| route::serve_peer(ctx, from, message));
        }
    }

    /// Why a client's request is not taken on, if it is not: nothing was done for it then.
    fn turned(&mut self, message: &Message) -> Option<Turned> {
        let left = match route::timeout_of(message) {
            0 => u64::MAX,
            left_ms => u64::from(left_ms) * 1_000,
        };
        let turned = match self.table.held() >= self.config.limits.held_bytes {
            true => Some(self.admission.turned()),
            false => self.admission.admit(self.table.waiting(), left).err(),
        };
        self.counters.turned_away += u64::from(turned.is_some());
        turned
    }

    /// Operation `last` is over: what comes after it begins, under a number of its own.
    pub(super) fn go_on(&mut self, last: u64, over: Op, now: Now, store: &mut dyn Store) {
        let Op::Retried(retried, _) = over else { return };
        // It may be of this tick itself: if the tick fails its client is told once.
        self.started.retain(|(op, _)| *op != last);
        let (came, put) = retried.into_put(now.micros);
        let op = self.table.next_id();
        self.started.push((op, came.from));
        let message = Message::Put(put);
        let started = self.with(now, store, |ctx, _| route::start(ctx, op, came, message));
        if let Some(started) = started {
            self.table.insert(op, started);
        }
    }
}
