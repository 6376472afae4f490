//! From options and contexts to a connected client.
//!
//! `--server` and `--identity` go before the context, which is `--context`, `--ctx` or
//! `GALVANI_CONTEXT`, else the selected one. Connecting has a deadline; the block that tells of a
//! failure knows whether the context's local cluster runs.

use crate::args::Global;
use crate::args::data::InBucket;
use crate::args::line::Line;
use crate::context::State;
use crate::dev;
use crate::names::{Names, Past};
use crate::output::Output;
use crate::report::client::{About, Retype};
use crate::report::mistakes::{self, LocalCluster};
use crate::report::{Report, client};
use galvani_client::{Bucket, Client, ClusterView, ErrorKind, Quorum};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// What is left of the time of a command that is one call.
    pub(crate) time: TimeLeft,
}

/// The one deadline of a call that takes several requests: connect, read, write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLeft {
    until: Instant,
}

impl TimeLeft {
    /// All of it, from now on.
    pub(crate) fn of(timeout: Duration) -> TimeLeft {
        TimeLeft { until: Instant::now() + timeout }
    }

    /// What the next request has; at least the millisecond that a request must have.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Time that somebody else spent does not count.
    pub(crate) fn extend(&mut self, spent: Duration) {
        self.until += spent;
    }
}

impl App {
    /// The time one request has.
    pub(crate) fn timeout(&self) -> Duration {
        self.global.timeout.unwrap_or(TIMEOUT)
    }

    /// Connects within the time of one request; what is left of it is for what follows.
    pub(crate) async fn connect(&self) -> Result<Session, Report> {
        let time = TimeLeft::of(self.timeout());
        let mut session = self.connect_with(self.timeout(), RETRIES).await?;
        session.client = session.client.with_timeout(time.left());
        Ok(Session { time, ..session })
    }

    /// Connects; each request has `timeout` for itself, and so many retries within it.
    pub(crate) async fn connect_with(
        &self,
        timeout: Duration,
        retries: u8,
    ) -> Result<Session, Report> {
        let target = self.target()?;
        if !target.identity.join("cert.pem").is_file() {
            return Err(mistakes::no_identity(Some(&target.identity)));
        }
        let builder = match &self.global.via {
            Some(node) => Client::builder().only(node),
            None => Client::builder(),
        };
        let connected = builder
            .seed(format!("galvani://{}", target.seeds.join(",")))
            .identity_dir(&target.identity)
            .timeout(timeout)
            .connect_timeout(timeout)
            .retries(retries)
            .connect()
            .await;
        match connected {
            Ok(client) => {
                let time = TimeLeft::of(timeout);
                Ok(Session { client, context: target.context, time })
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::Unreachable { detail } => {
                    let local = target.dev_dir.as_deref().map(dev::local_cluster);
                    let local = local.unwrap_or(LocalCluster::Unknown);
                    let cluster = self.global.cluster(self.context.as_deref());
                    mistakes::no_server(detail, target.context.as_deref(), local, &cluster)
                }
                _ => client::report(&error, &self.connecting()),
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

    /// What every command of this run is about.
    pub(crate) fn about(&self) -> About {
        About {
            cluster: self.global.cluster(self.context.as_deref()),
            local: self.global.server.is_empty() && self.is_local(),
            timeout: self.timeout(),
            ..About::default()
        }
    }

    /// A line with the options that hold for every command.
    pub(crate) fn again(&self, line: Line) -> Line {
        line.with_all(&self.global.cluster(self.context.as_deref())).with_all(&self.global.manner())
    }

    /// What the nodes of a cluster are called, also those that have left it.
    pub(crate) fn names<'a>(&self, view: &'a ClusterView) -> Names<'a> {
        Names::of(view, Past::of(self, self.local_dir()))
    }

    fn is_local(&self) -> bool {
        self.local_dir().is_some()
    }

    /// The directory of the context's cluster, if it is a local one.
    fn local_dir(&self) -> Option<PathBuf> {
        let name = self.context_name().ok().flatten()?;
        self.state.context(&name).ok().flatten()?.dev_dir
    }

    fn connecting(&self) -> Retype {
        let line = self.again(Line::new("status"));
        Retype { command: "connect", subject: String::new(), line, about: self.about() }
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
            (None, _) | (_, None) => Err(mistakes::no_cluster_selected(&self.state.names()?)),
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

/// Time of one request unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Retries of one request within its time.
pub(crate) const RETRIES: u8 = 2;
