//! Asking the cluster for another layout: which nodes there are, and who owns what.
//!
//! The members decide; this only asks one of them, and another when it does not answer. What comes back
//! is where the change begins, not that it is over: that the view of the cluster tells.
//! Next to read: `admin.rs`. Source: `galvani-protocol/src/layout/`.

use crate::call::{Plan, run};
use crate::client::Client;
use crate::error::Result;
use galvani_model::placement::{Layout, LayoutState, Pace};
use galvani_wire::Message;
use galvani_wire::layout::{ChangeLayout, Wish};
use std::sync::Arc;

impl Client {
    /// Begins a change to `next`, which must have been made from the cluster's current layout, as it was
    /// in the epoch `after` ([`ClusterView::epoch`](crate::ClusterView)): where something was decided
    /// since, nothing is done. Asking again for a layout that is on its way, or there, is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LayoutRefused`](crate::ErrorKind::LayoutRefused) if it was made from another layout
    /// than the current one, another change is under way, a bucket keeps more copies than there would
    /// be nodes, or the epoch is another one.
    /// [`ErrorKind::JoinerUnfit`](crate::ErrorKind::JoinerUnfit) if a node that would join cannot.
    pub async fn begin_layout(
        &self,
        next: Arc<Layout>,
        after: u64,
        pace: Pace,
    ) -> Result<LayoutState> {
        self.change_layout("change the layout", Wish::Begin { next, after, pace }).await
    }

    /// Lets the new owners of the change that began with an epoch copy at another pace, or pause. It is
    /// decided like the change itself, and outlives restarts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LayoutRefused`](crate::ErrorKind::LayoutRefused) if it is over, or done with copying.
    pub async fn pace_layout(&self, begun: u64, pace: Pace) -> Result<LayoutState> {
        self.change_layout("pace the change of the layout", Wish::Pace { begun, pace }).await
    }

    /// Gives up the change that began with an epoch ([`LayoutChange::begun`](crate::LayoutChange)), if it is
    /// still under way: not once new owners answer reads. Another change goes on.
    pub async fn abort_layout(&self, begun: u64) -> Result<LayoutState> {
        self.change_layout("give up the change of the layout", Wish::Abort { begun }).await
    }

    async fn change_layout(&self, op: &'static str, wish: Wish) -> Result<LayoutState> {
        let deadline = self.shared.deadline(op, self.timeout)?;
        let directory = self.shared.directory();
        let plan = Plan {
            op,
            subject: &String::new,
            bucket: None,
            route: directory.any(self.shared.zone()),
            deadline,
            write: None,
            changes: true,
            hedge: false,
            make: &|_| {
                let (wish, timeout_ms) = (wish.clone(), deadline.server_ms());
                Message::ChangeLayout(Box::new(ChangeLayout { wish, timeout_ms }))
            },
            accept: |message| match message {
                Message::LayoutChanged(state) => Ok(*state),
                other => Err(Box::new(other)),
            },
        };
        let state = run(&self.shared, plan).await?;
        // The view is only how the client finds its way: the change has begun either way.
        let route = self.shared.directory().any(self.shared.zone());
        let _ = self.shared.refresh("describe", route, deadline).await;
        Ok(state)
    }

    /// Looks at the cluster anew.
    pub async fn look(&self) -> Result<Arc<galvani_wire::view::ClusterView>> {
        let deadline = self.shared.deadline("describe", self.timeout)?;
        let route = self.shared.directory().any(self.shared.zone());
        self.shared.refresh("describe", route, deadline).await
    }
}
