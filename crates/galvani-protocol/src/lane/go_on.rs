//! Operations that end in another one: a retry of a write, once the other owners have been asked for it.
//!
//! The write begins then as if it came now: it may be refused, sent on, or taken back with the tick.
//! Next to read: `retried.rs`, `route.rs`.

use super::Lane;
use crate::effect::Now;
use crate::route;
use crate::table::Op;
use galvani_model::store::Store;
use galvani_wire::Message;

impl Lane {
    /// Operation `last` is over: what comes after it begins, under a number of its own.
    pub(super) fn go_on(&mut self, last: u64, over: Op, now: Now, store: &mut dyn Store) {
        let Op::Retried(retried, _) = over else { return };
        // It may be of this tick itself: if the tick fails its client is told once.
        self.started.retain(|(op, _)| *op != last);
        let (from, forwarded, put) = retried.into_put(now.micros);
        let op = self.table.next_id();
        self.started.push((op, from));
        let message = Message::Put(put);
        let started =
            self.with(now, store, |ctx, _| route::start(ctx, op, from, forwarded, message));
        if let Some(started) = started {
            self.table.insert(op, started);
        }
    }
}
