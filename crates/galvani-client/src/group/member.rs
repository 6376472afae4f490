//! A member of a group, as its consumer sees it: it waits for deliveries and says what came of each.
//!
//! The work is done by a task of its own (`driver.rs`); a [`Member`] and its [`Delivery`]s only talk to
//! it. A member that is dropped without [`Member::leave`] is gone as if its process had been killed:
//! others take over once its lease has run out.

use crate::error::{Error, ErrorKind, Result};
use crate::feed::Event;
use galvani_model::ids::{RequestId, Shard};
use std::fmt;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A member of a group.
///
/// ```no_run
/// # async fn f(db: galvani_client::Client) -> galvani_client::Result<()> {
/// let mut member = db.group("billing").bucket("orders").join().await?;
/// while let Some(delivery) = member.next().await {
///     let delivery = delivery?;
///     match bill(&delivery.event).await {
///         Ok(()) => delivery.ack(),
///         Err(why) => delivery.nak_because(why, None),
///     }
/// }
/// # async fn bill(_: &galvani_client::Event) -> Result<(), String> { Ok(()) }
/// # Ok(()) }
/// ```
pub struct Member {
    id: RequestId,
    deliveries: mpsc::Receiver<Result<Delivery>>,
    told: mpsc::UnboundedSender<Told>,
    task: JoinHandle<()>,
}

/// What a consumer says.
#[derive(Debug)]
pub(crate) enum Told {
    Taken(Shard, u64),
    Ack(Shard, u64),
    Nak { shard: Shard, number: u64, delay: Option<Duration>, why: String },
    Term { shard: Shard, number: u64, why: String },
    Leave(oneshot::Sender<Result<()>>),
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Member {
    pub(crate) fn new(
        id: RequestId,
        deliveries: mpsc::Receiver<Result<Delivery>>,
        told: mpsc::UnboundedSender<Told>,
        task: JoinHandle<()>,
    ) -> Member {
        Member { id, deliveries, told, task }
    }

    /// The name it has in the group.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// The next event of the shards that are this member's for now; `None` once it cannot go on, or the
    /// client is closed. An error tells of a shard that stands still ([`ErrorKind::GroupHalted`]), and
    /// then others still flow; or why the member cannot go on, and then it is the last.
    /// May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        let delivery = self.deliveries.recv().await?;
        if let Ok(delivery) = &delivery {
            // From here on it is held. If the member has ended, so has the delivery.
            let _ = self.told.send(Told::Taken(delivery.shard, delivery.number));
        }
        Some(delivery)
    }

    /// Leaves the group: takes nothing in any more, waits until what is held is done with or given
    /// back, no longer than that may be held, keeps its positions, and gives up its shards, which others
    /// take over at once. An error tells that positions could not be kept: what was acknowledged since
    /// they last were is delivered again.
    pub async fn leave(mut self) -> Result<()> {
        // What nobody has taken out goes back.
        self.deliveries.close();
        while self.deliveries.try_recv().is_ok() {}
        let (reply, left) = oneshot::channel();
        let gone = || Error::new("leave group", "", ErrorKind::Closed);
        self.told.send(Told::Leave(reply)).map_err(|_| gone())?;
        left.await.map_err(|_| gone())?
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An event that was handed to this consumer, until it says what came of it. Dropped without a word, it
/// is delivered again once it has been held for too long, here or by another member.
#[must_use = "an event that is not acknowledged comes again"]
pub struct Delivery {
    /// The event. An [`Event::Gap`] tells of writes that are gone; it is acknowledged like any other.
    pub event: Event,
    /// How often it has been delivered, with this time: 1 at first. What members before this one did counts
    /// as far as they could keep it.
    pub attempt: u32,
    /// Whether it comes from the dead letters, because an operator asked for that.
    pub retried: bool,
    shard: Shard,
    number: u64,
    told: mpsc::UnboundedSender<Told>,
}

impl Delivery {
    pub(crate) fn new(
        event: Event,
        attempt: u32,
        retried: bool,
        (shard, number): (Shard, u64),
        told: mpsc::UnboundedSender<Told>,
    ) -> Delivery {
        Delivery { event, attempt, retried, shard, number, told }
    }

    /// The consumer is done with it. The group does not deliver it again once that is kept, which it is
    /// within a second or so, and before the member leaves.
    pub fn ack(self) {
        self.tell(Told::Ack(self.shard, self.number));
    }

    /// The consumer could not deal with it: it comes again after `delay`, or after a pause that grows
    /// with every attempt; after the last attempt the group gives it up.
    pub fn nak(self, delay: Option<Duration>) {
        self.nak_because("not acknowledged", delay);
    }

    /// The same, and why: what a dead letter says.
    pub fn nak_because(self, why: impl fmt::Display, delay: Option<Duration>) {
        let (shard, number, why) = (self.shard, self.number, why.to_string());
        self.tell(Told::Nak { shard, number, delay, why });
    }

    /// The consumer gives it up: the group does what it does after the last attempt, at once.
    pub fn term(self, why: impl fmt::Display) {
        let (shard, number, why) = (self.shard, self.number, why.to_string());
        self.tell(Told::Term { shard, number, why });
    }

    /// The consumer still works on it: it may hold it for the whole time again.
    pub fn progress(&self) {
        self.tell(Told::Taken(self.shard, self.number));
    }

    fn tell(&self, told: Told) {
        // If the member has ended, the event comes again through another.
        let _ = self.told.send(told);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("event", &self.event)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
