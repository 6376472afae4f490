//! A read.
//!
//! Nothing is sent before it is awaited. Next to read: `answer.rs` for what comes back.

use crate::BoxFuture;
use crate::answer::Read;
use crate::bucket::subject;
use crate::call::{Plan, run};
use crate::client::{Client, Shared};
use crate::deadline::Deadline;
use crate::error::Result;
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions};
use galvani_wire::{Message, message};
use std::future::IntoFuture;
use std::time::Duration;

/// A read that has not been sent. Await it.
#[derive(Clone, Debug)]
#[must_use = "requests do nothing until awaited"]
pub struct Get {
    client: Client,
    key: Result<Key>,
    options: ReadOptions,
    timeout: Option<Duration>,
}

impl Get {
    pub(crate) fn new(client: Client, key: Result<Key>) -> Get {
        let options = ReadOptions { r: client.shared.settings.r, ..ReadOptions::default() };
        let timeout = client.timeout;
        Get { client, key, options, timeout }
    }

    /// Asks only the first `n` replicas of the preference list, 1 to the bucket's n.
    pub fn n(mut self, n: u8) -> Get {
        self.options.n = Some(n);
        self
    }

    /// Answers needed. Default: the client's, else the bucket's.
    pub fn r(mut self, r: impl Into<Quorum>) -> Get {
        self.options.r = Some(r.into());
        self
    }

    /// Of those, how many must come from owners of the key.
    pub fn pr(mut self, pr: impl Into<Quorum>) -> Get {
        self.options.pr = Some(pr.into());
        self
    }

    /// Owners only, no stand-ins.
    pub fn strict(mut self) -> Get {
        self.options.strict = true;
        self
    }

    /// Answers only once r replicas hold what is returned: those that lack it are repaired first. With
    /// r a majority, no later read of a majority shows anything older. Costs a round trip where
    /// replicas differ, nothing where they agree. Default: replicas are repaired after the answer.
    pub fn blocking_repair(mut self) -> Get {
        self.options.blocking_repair = true;
        self
    }

    /// The time the whole call has, 1 ms to 60 s. Default: the client's.
    pub fn timeout(mut self, whole_call: Duration) -> Get {
        self.timeout = Some(whole_call);
        self
    }
}

impl IntoFuture for Get {
    type Output = Result<Read>;
    type IntoFuture = BoxFuture<'static, Result<Read>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let key = self.key?;
            let shared = &self.client.shared;
            let deadline = shared
                .deadline("get", self.timeout)
                .map_err(|error| error.within("get", subject(&key)))?;
            read(shared, "get", &key, self.options, deadline).await
        })
    }
}

/// Reads `key` until `deadline`; errors name the operation `op`.
pub(crate) async fn read(
    shared: &Shared,
    op: &'static str,
    key: &Key,
    options: ReadOptions,
    deadline: Deadline,
) -> Result<Read> {
    let directory = shared.directory_with(key.bucket(), deadline).await;
    let plan = Plan {
        op,
        subject: &|| subject(key),
        bucket: Some(key.bucket()),
        route: directory.route(key, shared.place()),
        deadline,
        write: None,
        changes: false,
        hedge: true,
        make: &|_| {
            let timeout_ms = deadline.server_ms();
            Message::Get(message::Get { key: key.clone(), options, timeout_ms })
        },
        accept: |message| match message {
            Message::GetDone(done) => Ok(done),
            other => Err(Box::new(other)),
        },
    };
    let done = run(shared, plan).await?;
    if directory.is_contradicted(key, &done.answers) {
        shared.stale.notify_one();
    }
    Ok(Read::of(done, subject(key), &directory))
}
