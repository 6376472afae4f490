//! From options and contexts to a connected client.
//!
//! `--server` and `--identity` go before the context, which is `--context`, `--ctx` or
//! `GALVANI_CONTEXT`, else the selected one. Connecting has a deadline; the block that tells of a
//! failure knows whether the context's local cluster runs.

use crate::args::Global;
use crate::args::data::InBucket;
use crate::context::State;
use crate::dev;
use crate::output::Output;
use crate::report::client::Retype;
use crate::report::mistakes::{self, LocalCluster};
use crate::report::{Report, client};
use galvani_client::{Bucket, Client, ErrorKind, Quorum};
use std::path::PathBuf;
use std::time::Duration;

/// What every command works with.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) out: Output,
    pub(crate) global: Global,
    /// `--context` before the command.
    pub(crate) context: Option<String>,
    pub(crate) state: State,
}

/// Where a cluster is and who asks.
struct Target {
    seeds: Vec<String>,
    identity: PathBuf,
    context: Option<String>,
    dev_dir: Option<PathBuf>,
}

/// A connected client and the context it came from.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) context: Option<String>,
}

impl App {
    /// The time one request has.
    pub(crate) fn timeout(&self) -> Duration {
        self.global.timeout.unwrap_or(TIMEOUT)
    }

    /// Connects with the timeout of one request.
    pub(crate) async fn connect(&self) -> Result<Session, Report> {
        self.connect_with(self.timeout(), RETRIES).await
    }

    /// Connects; each request has `timeout`, and so many retries within it.
    pub(crate) async fn connect_with(
        &self,
        timeout: Duration,
        retries: u8,
    ) -> Result<Session, Report> {
        let target = self.target()?;
        if !target.identity.join("cert.pem").is_file() {
            return Err(mistakes::no_identity(Some(&target.identity)));
        }
        let connected = Client::builder()
            .seed(format!("galvani://{}", target.seeds.join(",")))
            .identity_dir(&target.identity)
            .timeout(timeout)
            .connect_timeout(self.timeout().max(CONNECT_LEAST))
            .retries(retries)
            .connect()
            .await;
        match connected {
            Ok(client) => Ok(Session { client, context: target.context }),
            Err(error) => Err(match error.kind() {
                ErrorKind::Unreachable { detail } => {
                    let local = target.dev_dir.as_deref().map(dev::local_cluster);
                    let local = local.unwrap_or(LocalCluster::Unknown);
                    mistakes::no_server(detail, target.context.as_deref(), local)
                }
                _ => client::report(&error, &connecting()),
            }),
        }
    }

    /// The name of the context that commands use, if any.
    pub(crate) fn context_name(&self) -> Result<Option<String>, Report> {
        match self.context.as_ref().or(self.global.ctx.as_ref()) {
            Some(name) => Ok(Some(name.clone())),
            None => self.state.selected(),
        }
    }

    fn target(&self) -> Result<Target, Report> {
        let name = self.context_name()?;
        let context = match &name {
            Some(name) => match self.state.context(name)? {
                Some(context) => Some(context),
                None if self.global.server.is_empty() => {
                    return Err(mistakes::no_such_context(name, &self.state.names()?));
                }
                None => None,
            },
            None => None,
        };
        let identity = self.global.identity.clone();
        let identity = identity.or_else(|| Some(context.as_ref()?.identity.clone()));
        if !self.global.server.is_empty() {
            let identity = identity.ok_or_else(|| mistakes::no_identity(None))?;
            let seeds = self.global.server.clone();
            return Ok(Target { seeds, identity, context: None, dev_dir: None });
        }
        match (context, identity) {
            (Some(context), Some(identity)) => Ok(Target {
                seeds: context.seeds,
                identity,
                context: name,
                dev_dir: context.dev_dir,
            }),
            (None, _) | (_, None) => Err(mistakes::no_cluster_selected()),
        }
    }
}

impl Session {
    /// The bucket a command works on.
    pub(crate) fn bucket(&self, bucket: &InBucket) -> Bucket {
        self.client.bucket(bucket.bucket.as_str())
    }

    /// n, r and w of a request on `bucket` as numbers: what is asked, else the bucket's. `None`:
    /// the bucket is not known, or they can never be met; then a server says so.
    pub(crate) fn numbers(
        &self,
        bucket: &InBucket,
        n: Option<u8>,
        r: Option<Quorum>,
        w: Option<Quorum>,
    ) -> Option<(u8, u8, u8)> {
        let view = self.client.cluster();
        let props = view.buckets.get(&bucket.bucket)?;
        let n = n.unwrap_or(props.n).min(props.n);
        Some((n, r.unwrap_or(props.r).resolve(n)?, w.unwrap_or(props.w).resolve(n)?))
    }

    /// Says once per context that reads may miss writes, if they may.
    pub(crate) fn note_overlap(
        &self,
        app: &App,
        bucket: &InBucket,
        n: Option<u8>,
        r: Option<Quorum>,
        w: Option<Quorum>,
    ) {
        let Some((n, r, w)) = self.numbers(bucket, n, r, w) else { return };
        let Some(context) = &self.context else { return };
        if r + w <= n && !app.out.quiet && app.state.first_remark(context) {
            app.out.note(&mistakes::overlap_note(r, w, n));
        }
    }
}

fn connecting() -> Retype {
    Retype { command: "connect", subject: String::new(), typed: "galvani".to_owned() }
}

/// Time of one request unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time to connect, at least: a handshake takes longer than a request.
const CONNECT_LEAST: Duration = Duration::from_secs(1);
/// Retries of one request within its time.
const RETRIES: u8 = 2;
