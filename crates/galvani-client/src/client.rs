//! The client: a cheap handle on shared state, and what can be asked of it.
//!
//! Each method only makes a request; nothing is sent before it is awaited. A background task keeps
//! the view of the cluster fresh and ends with the last handle. Next to read: `bucket.rs`, which
//! makes the requests, and `call.rs`, which runs them.

use crate::Sibling;
use crate::bucket::Bucket;
use crate::builder::{Builder, Settings};
use crate::call::{Plan, run};
use crate::deadline::Deadline;
use crate::directory::{Directory, Place, Route};
use crate::error::{Error, Result};
use crate::feed::FeedBuilder;
use crate::get::Get;
use crate::group::GroupBuilder;
use crate::hedge::{Hedges, Hedging};
use crate::list::List;
use crate::net::Net;
use crate::put::{ContextNotChosen, Put};
use crate::retry::{Budget, jittered};
use crate::stamp::Stamper;
use crate::update::{Merge, Update};
use crate::view::{Value, View};
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_wire::{ClusterView, Message};
use parking_lot::RwLock;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A handle on a cluster. Clones share links, view and retry budget; any number may be used from
/// any task at once. The last one dropped closes the links.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    /// The time of calls through this handle, instead of the settings'.
    pub(crate) timeout: Option<Duration>,
}

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) net: Net,
    pub(crate) settings: Settings,
    pub(crate) budget: Budget,
    pub(crate) hedging: Hedging,
    pub(crate) stamper: Stamper,
    pub(crate) stale: Arc<Notify>,
    directory: RwLock<Directory>,
    refresher: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

impl Client {
    /// Connects with the defaults of [`Client::builder`]. One seed is enough: the others are learnt
    /// from it. Fails within 5 s, naming every seed tried and why.
    ///
    /// `url` is `galvani://host:port,host:port`; the port may be left out (7070). The identity
    /// comes from `?identity=DIR` at its end, else from the environment's `GALVANI_IDENTITY`.
    pub async fn connect(url: impl AsRef<str>) -> Result<Client> {
        Client::builder().seed(url).connect().await
    }

    /// The settings of a client, to be chosen before it connects.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(
        net: Net,
        settings: Settings,
        stale: Arc<Notify>,
        view: ClusterView,
    ) -> Client {
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| Shared {
            stamper: Stamper::new(net.links.network.clone()),
            net,
            settings,
            budget: Budget::of_retries(),
            hedging: Hedging::new(),
            directory: RwLock::new(Directory::new(view)),
            refresher: tokio::spawn(keep_fresh(weak.clone(), stale.clone())),
            stale,
        });
        Client { shared, timeout: None }
    }

    /// A handle on the same links whose calls have this time, 1 ms to 60 s, unless they say
    /// otherwise.
    #[must_use = "the handle it is called on stays as it is"]
    pub fn with_timeout(&self, whole_call: Duration) -> Client {
        Client { shared: self.shared.clone(), timeout: Some(whole_call) }
    }

    /// Reads `key` of bucket `default`.
    pub fn get(&self, key: impl Into<Bytes>) -> Get {
        self.default_bucket().get(key)
    }

    /// Writes `key` of bucket `default`, once it is said what it replaces: see [`Put`].
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put<ContextNotChosen> {
        self.default_bucket().put(key, value)
    }

    /// Deletes `key` of bucket `default`, once it is said what it replaces: see [`Put`].
    pub fn delete(&self, key: impl Into<Bytes>) -> Put<ContextNotChosen> {
        self.default_bucket().delete(key)
    }

    /// Reads `key`, merges, and writes under the context read; see [`Update`].
    pub fn update<'a, F>(&self, key: impl Into<Bytes>, merge: F) -> Update<'a, F>
    where
        F: Fn(Vec<Sibling>) -> Merge + Send + Sync + 'a,
    {
        self.default_bucket().update(key, merge)
    }

    /// A typed window on the keys that start with `prefix`: codec and resolver set once.
    pub fn view<T: Value>(&self, prefix: impl Into<Bytes>) -> View<T> {
        self.default_bucket().view(prefix)
    }

    /// The keys of bucket `default` that start with `prefix`, page by page; see [`List`].
    pub fn list(&self, prefix: impl Into<Bytes>) -> List {
        self.default_bucket().list(prefix)
    }

    /// The change feed; see [`crate::Feed`].
    pub fn feed(&self) -> FeedBuilder {
        FeedBuilder::new(self.clone())
    }

    /// The group of consumers `name`, to be joined; see [`crate::GroupConsumer`].
    pub fn group(&self, name: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(self.clone(), name.into())
    }

    /// The bucket `name`. It need not exist yet; whether it does is found out by requests.
    pub fn bucket(&self, name: impl AsRef<str>) -> Bucket {
        Bucket::new(self.clone(), name.as_ref().parse())
    }

    /// The cluster as this client knows it now: nodes, owners, buckets. Asks nobody.
    pub fn cluster(&self) -> Arc<ClusterView> {
        self.shared.directory().view().clone()
    }

    /// How many reads were asked of a second node because the first took long, by all clones together.
    pub fn hedges(&self) -> Hedges {
        self.shared.hedging.figures()
    }

    /// Delivers what was sent, closes all links and waits for that, at most a second. Requests of
    /// every clone fail from now on. Dropping the last clone closes too, without waiting.
    pub async fn close(&self) {
        self.shared.net.close().await;
    }

    fn default_bucket(&self) -> Bucket {
        Bucket::new(self.clone(), Ok(BucketName::default_bucket()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.cluster();
        f.debug_struct("Client").field("cluster", &view.name).field("layout", &view.layout).finish()
    }
}

impl Shared {
    pub(crate) fn directory(&self) -> Directory {
        self.directory.read().clone()
    }

    /// The time a request has, or why `timeout` cannot be one.
    pub(crate) fn deadline(&self, op: &'static str, timeout: Option<Duration>) -> Result<Deadline> {
        let timeout = timeout.unwrap_or(self.settings.timeout);
        crate::builder::check_timeout(timeout)
            .map(|()| Deadline::after(timeout))
            .map_err(|kind| Error::new(op, "", kind))
    }

    /// Asks the nodes of `route` for the view and takes it over unless it is older.
    pub(crate) async fn refresh(
        &self,
        op: &'static str,
        route: Route,
        deadline: Deadline,
    ) -> Result<Arc<ClusterView>> {
        let plan = Plan {
            op,
            subject: &String::new,
            bucket: None,
            route,
            deadline,
            write: None,
            changes: false,
            hedge: false,
            make: &|_| Message::Describe,
            accept: |message| match message {
                Message::Described(view) => Ok(view),
                other => Err(Box::new(other)),
            },
        };
        let view = *run(self, plan).await?;
        let mut directory = self.directory.write();
        if directory.may_become(&view) {
            *directory = Directory::new(view);
        }
        Ok(directory.view().clone())
    }

    /// A directory that knows `bucket` if the cluster does: one more look at it, else as it is.
    pub(crate) async fn directory_with(
        &self,
        bucket: &BucketName,
        deadline: Deadline,
    ) -> Directory {
        let directory = self.directory();
        if directory.knows_bucket(bucket) {
            return directory;
        }
        let route = directory.any(self.zone());
        // Not knowing better is no failure: the server that is asked knows whether it exists.
        let _ = self.refresh("describe", route, deadline).await;
        self.directory()
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.settings.place.zone.as_deref()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.settings.place
    }
}

/// Looks at the cluster anew whenever something suggests that the view is old.
async fn keep_fresh(shared: Weak<Shared>, stale: Arc<Notify>) {
    loop {
        stale.notified().await;
        // What comes together is answered together, and a restless cluster is not asked at once
        // by all its clients.
        let pause = match shared.upgrade() {
            Some(shared) => jittered(&shared.net.links.network, REFRESH_PAUSE / 2, REFRESH_PAUSE),
            None => return,
        };
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        let route = shared.directory().any(shared.zone());
        let deadline = Deadline::after(REFRESH_TIMEOUT);
        if let Err(error) = shared.refresh("describe", route, deadline).await {
            tracing::debug!(%error, "the view of the cluster stays as it is");
        }
    }
}

/// Least and most time between two looks at the cluster, less half.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);
