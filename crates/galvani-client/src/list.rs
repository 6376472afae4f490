//! The keys of a bucket, page by page, over all partitions.
//!
//! Keys are spread by hash, so a listing asks every partition; a few are asked at once. Keys ascend
//! within a partition and come in no order between partitions. Keys written or deleted meanwhile
//! may or may not be seen; a key that is there all the time is seen exactly once.

use crate::BoxFuture;
use crate::call::{Plan, run};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::race::first;
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::ids::Partition;
use galvani_model::limits::{KEY_BYTES_MAX, LIST_PAGE_MAX};
use galvani_model::request::{Quorum, ReadOptions};
use galvani_wire::{Message, message};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// A listing under way. Nothing is sent before the first [`List::next_page`].
///
/// ```no_run
/// # async fn f(db: galvani_client::Client) -> galvani_client::Result<()> {
/// let mut carts = db.list("cart/");
/// while let Some(page) = carts.next_page().await? {
///     for listed in page.keys {
///         println!("{:?} has {} value(s)", listed.key, listed.values);
///     }
/// }
/// # Ok(()) }
/// ```
#[must_use = "a listing does nothing until its pages are asked for"]
pub struct List {
    client: Client,
    bucket: Result<BucketName>,
    prefix: Bytes,
    options: ReadOptions,
    page_keys: u16,
    timeout: Option<Duration>,
    /// What is left to ask; `None` before the first page.
    todo: Option<VecDeque<Piece>>,
    flights: Vec<Flight>,
}

/// Some keys of one partition, ascending; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The partition they are in.
    pub partition: Partition,
    /// The keys.
    pub keys: Vec<ListedKey>,
}

/// A key that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedKey {
    /// The key.
    pub key: Bytes,
    /// How many values it has; more than one: siblings.
    pub values: u32,
}

/// The rest of one partition.
#[derive(Clone, Debug)]
struct Piece {
    partition: Partition,
    after: Option<Bytes>,
}

type Flight = BoxFuture<'static, (Piece, Result<message::Page>)>;

impl List {
    pub(crate) fn new(client: Client, bucket: Result<BucketName>, prefix: Bytes) -> List {
        let options = ReadOptions { r: client.shared.settings.r, ..ReadOptions::default() };
        let timeout = client.timeout;
        List {
            client,
            bucket,
            prefix,
            options,
            page_keys: LIST_PAGE_MAX as u16,
            timeout,
            todo: None,
            flights: Vec::new(),
        }
    }

    /// Replicas that must answer for each partition. Default: the client's, else the bucket's.
    pub fn r(mut self, r: impl Into<Quorum>) -> List {
        self.options.r = Some(r.into());
        self
    }

    /// Owners only, no stand-ins.
    pub fn strict(mut self) -> List {
        self.options.strict = true;
        self
    }

    /// Most keys on a page, 1 to 1000, which is the default. Other numbers are brought in there.
    pub fn page_keys(mut self, most: u16) -> List {
        self.page_keys = most.clamp(1, LIST_PAGE_MAX as u16);
        self
    }

    /// The time each request for a page has, 1 ms to 60 s. Default: the client's.
    pub fn timeout(mut self, each_request: Duration) -> List {
        self.timeout = Some(each_request);
        self
    }

    /// The next page that is there, or `None` after the last. After an error it may be called
    /// again: what failed is asked anew and nothing is left out. Cancel safe.
    pub async fn next_page(&mut self) -> Result<Option<Page>> {
        let bucket = self.bucket.clone()?;
        if self.prefix.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        if self.todo.is_none() {
            let partitions = 0..self.client.cluster().layout.partitions();
            let pieces = partitions.map(|at| Piece { partition: Partition(at), after: None });
            self.todo = Some(pieces.collect());
        }
        loop {
            self.take_off(&bucket)?;
            if self.flights.is_empty() {
                return Ok(None);
            }
            let (_, (piece, outcome)) = first(&mut self.flights).await;
            let todo = self.todo.get_or_insert_default();
            let page = match outcome {
                Ok(page) => page,
                Err(error) => {
                    todo.push_front(piece);
                    return Err(error);
                }
            };
            let partition = piece.partition;
            if let Some(after) = page.next_after {
                if piece.after.as_ref().is_some_and(|before| *before >= after) {
                    let what = "a page does not go on where the last one ended".to_owned();
                    return Err(Error::new("list", bucket.as_str(), ErrorKind::Protocol { what }));
                }
                let after = Some(Bytes::copy_from_slice(&after));
                todo.push_front(Piece { partition, after });
            }
            if !page.keys.is_empty() {
                let keys = page.keys.into_iter();
                // Copied: all keys of a page share one large buffer.
                let keys = keys
                    .map(|(key, values)| ListedKey { key: Bytes::copy_from_slice(&key), values });
                return Ok(Some(Page { partition, keys: keys.collect() }));
            }
        }
    }

    /// Keeps [`AT_ONCE`] requests under way.
    fn take_off(&mut self, bucket: &BucketName) -> Result<()> {
        let todo = self.todo.get_or_insert_default();
        while self.flights.len() < AT_ONCE && !todo.is_empty() {
            let deadline = self.client.shared.deadline("list", self.timeout)?;
            let Some(piece) = todo.pop_front() else { break };
            let client = self.client.clone();
            let list = message::List {
                bucket: bucket.clone(),
                partition: piece.partition,
                prefix: self.prefix.clone(),
                after: piece.after.clone(),
                limit: self.page_keys,
                options: self.options,
                timeout_ms: 0,
            };
            self.flights.push(Box::pin(async move {
                let shared = &client.shared;
                let directory = shared.directory_with(&list.bucket, deadline).await;
                let plan = Plan {
                    op: "list",
                    subject: &|| subject(&list),
                    bucket: Some(&list.bucket),
                    route: directory.route_partition(list.partition, &list.bucket, shared.place()),
                    deadline,
                    write: None,
                    changes: false,
                    hedge: false,
                    make: &|_| {
                        let timeout_ms = deadline.server_ms();
                        Message::List(message::List { timeout_ms, ..list.clone() })
                    },
                    accept: |message| match message {
                        Message::Listed(page) => Ok(page),
                        other => Err(Box::new(other)),
                    },
                };
                let outcome = run(shared, plan).await;
                (piece, outcome)
            }));
        }
        Ok(())
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.todo.as_ref().map(VecDeque::len);
        f.debug_struct("List")
            .field("bucket", &self.bucket)
            .field("partitions_left", &left)
            .finish()
    }
}

fn subject(list: &message::List) -> String {
    format!("{} {}", list.bucket, list.partition)
}

/// Partitions asked at once: enough to hide round trips, too few to fill a node's queue.
const AT_ONCE: usize = 8;
