//! Settings of a client, and how it connects.
//!
//! All seeds are tried at once and again until one describes its cluster or the time is up; the
//! error then lists each of them. A certificate that is not accepted is final for its seed. Next to
//! read: `client.rs`.

use crate::client::Client;
use crate::directory::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{Fault, Links, Net};
use crate::race::first;
use crate::request::Request;
use crate::retry::jittered;
use crate::seeds;
use galvani_model::limits::{TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX};
use galvani_model::request::Quorum;
use galvani_transport::pki::Identity;
use galvani_transport::{BindError, Config, Network};
use galvani_wire::{ClusterView, Message};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// What a client is to be like. Wrong settings are told of by [`Builder::connect`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    seeds: Vec<String>,
    identity: Credentials,
    connect_timeout: Duration,
    network: Network,
    settings: Settings,
}

/// What requests inherit.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) r: Option<Quorum>,
    pub(crate) w: Option<Quorum>,
    pub(crate) timeout: Duration,
    pub(crate) place: Place,
    pub(crate) retries: u8,
}

#[derive(Clone, Debug)]
enum Credentials {
    /// The url or the environment says where.
    Elsewhere,
    Dir(PathBuf),
    Given(Box<Identity>),
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            seeds: Vec::new(),
            identity: Credentials::Elsewhere,
            connect_timeout: CONNECT_TIMEOUT,
            network: Network::os(),
            settings: Settings {
                r: None,
                w: None,
                timeout: Duration::from_millis(u64::from(TIMEOUT_MS_DEFAULT)),
                place: Place::default(),
                retries: RETRIES,
            },
        }
    }
}

impl Builder {
    /// Adds the seeds of a url, `galvani://host:port,host:port`. One that answers is enough.
    pub fn seed(mut self, url: impl AsRef<str>) -> Builder {
        self.seeds.push(url.as_ref().to_owned());
        self
    }

    /// Answers a read needs unless it says otherwise. Default: what the bucket says.
    pub fn r(mut self, r: impl Into<Quorum>) -> Builder {
        self.settings.r = Some(r.into());
        self
    }

    /// Acks a write needs unless it says otherwise. Default: what the bucket says.
    pub fn w(mut self, w: impl Into<Quorum>) -> Builder {
        self.settings.w = Some(w.into());
        self
    }

    /// The time a whole call has, retries included. 1 ms to 60 s, default 2 s.
    pub fn timeout(mut self, whole_call: Duration) -> Builder {
        self.settings.timeout = whole_call;
        self
    }

    /// How long [`Builder::connect`] tries. 1 ms to 60 s, default 5 s.
    pub fn connect_timeout(mut self, whole: Duration) -> Builder {
        self.connect_timeout = whole;
        self
    }

    /// The zone this client is in: owners there are asked first.
    pub fn zone(mut self, zone: impl Into<String>) -> Builder {
        self.settings.place.zone = Some(zone.into());
        self
    }

    /// Sends every request on a key to the node `name` and to no other: it coordinates what it owns
    /// and sends on the rest. For looking at a cluster with the eyes of one node; such a client is
    /// only as available as that node.
    pub fn only(mut self, name: impl Into<String>) -> Builder {
        self.settings.place.only = Some(name.into());
        self
    }

    /// Most retries of one call, 0 to 10, default 2. All calls together get one retry for ten
    /// calls, and a small reserve.
    pub fn retries(mut self, most: u8) -> Builder {
        self.settings.retries = most;
        self
    }

    /// The directory with `ca.pem`, `cert.pem` and `key.pem` to prove who this client is. Goes
    /// before `?identity=DIR` in the url, which goes before the environment's `GALVANI_IDENTITY`.
    pub fn identity_dir(mut self, dir: impl Into<PathBuf>) -> Builder {
        self.identity = Credentials::Dir(dir.into());
        self
    }

    /// The identity itself, instead of a directory.
    pub fn identity(mut self, identity: Identity) -> Builder {
        self.identity = Credentials::Given(Box::new(identity));
        self
    }

    /// The network instead of the operating system's, with its clock and its randomness.
    pub fn network(mut self, network: Network) -> Builder {
        self.network = network;
        self
    }

    /// Connects and learns the cluster from the first seed that answers. Must be called inside a
    /// tokio runtime with I/O and time enabled, which must live as long as the client.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`] for a setting out of bounds, [`ErrorKind::Identity`] for an identity
    /// that is not there or no good, [`ErrorKind::Tls`] if a seed and this client do not trust each
    /// other and no other answered, else
    /// [`ErrorKind::Unreachable`] with every seed and why.
    pub async fn connect(self) -> Result<Client> {
        let told = self.seeds.join(",");
        let fail = |kind| Error::new("connect", told.as_str(), kind);
        let deadline = Instant::now() + self.connect_timeout.min(TIMEOUT_MAX);
        self.check().map_err(fail)?;
        let (hosts, named_dir) = self.hosts().map_err(fail)?;
        let identity = self.credentials(named_dir).await.map_err(fail)?;
        let seeds = timeout_at(deadline, resolve(&hosts)).await.map_err(|_| {
            let detail = format!("{} (name not resolved in time)", hosts.join(", "));
            fail(ErrorKind::Unreachable { detail })
        })?;
        let (bind, config) = socket_for(&seeds, self.network.clone());
        let stale = Arc::new(Notify::new());
        let net = Net::start(bind, &identity, config, stale.clone())
            .map_err(|error| fail(kind_of_bind(&error)))?;
        match describe_any(&net.links, seeds, deadline).await {
            Ok(view) if self.has_no_node(&view) => {
                let node = self.settings.place.only.unwrap_or_default();
                Err(fail(setting(format!("the cluster has no node {node}"))))
            }
            Ok(view) => Ok(Client::start(net, self.settings, stale, view)),
            Err(kind) => {
                // In what is left of the time; dropping closes too.
                let _ = timeout_at(deadline, net.close()).await;
                Err(fail(kind))
            }
        }
    }

    fn check(&self) -> Result<(), ErrorKind> {
        check_timeout(self.settings.timeout)?;
        check_timeout(self.connect_timeout)?;
        match self.settings.retries {
            0..=RETRIES_MAX => Ok(()),
            more => Err(setting(format!("retries is {more}, the limit is {RETRIES_MAX}"))),
        }
    }

    /// Whether it is to ask only a node that is not there.
    fn has_no_node(&self, view: &ClusterView) -> bool {
        let only = self.settings.place.only.as_deref();
        only.is_some_and(|name| view.layout.member_named(name).is_none())
    }

    fn hosts(&self) -> Result<(Vec<String>, Option<PathBuf>), ErrorKind> {
        let (mut hosts, mut identity) = (Vec::new(), None);
        for url in &self.seeds {
            let seeds = seeds::parse(url).map_err(setting)?;
            hosts.extend(seeds.hosts);
            identity = seeds.identity.or(identity);
        }
        match hosts.is_empty() {
            true => Err(setting("no seed: say Builder::seed(\"galvani://host:port\")")),
            false => Ok((hosts, identity)),
        }
    }

    async fn credentials(&self, named_dir: Option<PathBuf>) -> Result<Identity, ErrorKind> {
        let dir = match &self.identity {
            Credentials::Given(identity) => return Ok((**identity).clone()),
            Credentials::Dir(dir) => dir.clone(),
            Credentials::Elsewhere => named_dir
                .or_else(|| std::env::var_os(IDENTITY_VARIABLE).map(PathBuf::from))
                .ok_or_else(|| {
                    identity(format!("there is none: say identity_dir or set {IDENTITY_VARIABLE}"))
                })?,
        };
        let loaded = tokio::task::spawn_blocking(move || Identity::load(&dir)).await;
        match loaded {
            Ok(Ok(identity)) => Ok(identity),
            Ok(Err(error)) => Err(identity(with_source(&error))),
            Err(_) => Err(ErrorKind::Closed),
        }
    }
}

/// Whether a deadline can be carried to a server.
pub(crate) fn check_timeout(timeout: Duration) -> Result<(), ErrorKind> {
    if timeout < Duration::from_millis(1) || timeout > TIMEOUT_MAX {
        return Err(setting(format!("a timeout of {timeout:?} is not between 1 ms and 60 s")));
    }
    Ok(())
}

fn setting(what: impl Into<String>) -> ErrorKind {
    ErrorKind::Setting { what: what.into() }
}

fn identity(what: impl Into<String>) -> ErrorKind {
    ErrorKind::Identity { what: what.into() }
}

/// A socket that is not there is a matter of this machine; the rest is wrong with the identity.
fn kind_of_bind(error: &BindError) -> ErrorKind {
    let what = with_source(error);
    match error {
        BindError::BadPem | BindError::Identity(_) | BindError::OtherPeer | BindError::Tls(_) => {
            identity(what)
        }
        BindError::NoRuntime
        | BindError::Socket { .. }
        | BindError::NoCipherSuite
        | BindError::OutOfBounds { .. } => setting(what),
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A seed's text, and its addresses or why it has none.
type Seed = (String, Result<Vec<SocketAddr>, String>);

async fn resolve(hosts: &[String]) -> Vec<Seed> {
    let mut seeds = Vec::with_capacity(hosts.len());
    for host in hosts {
        let found = tokio::net::lookup_host(host).await;
        let found = found.map(|found| found.take(ADDRESSES_PER_SEED_MAX).collect());
        seeds.push((host.clone(), found.map_err(|error| error.to_string())));
    }
    seeds
}

/// Where to bind for these seeds: IPv4 unless one of them is not; large datagrams on loopback.
fn socket_for(seeds: &[Seed], network: Network) -> (SocketAddr, Config) {
    let addresses = || seeds.iter().filter_map(|(_, found)| found.as_ref().ok()).flatten();
    let bind = match addresses().any(SocketAddr::is_ipv6) {
        true => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        false => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    let config = match addresses().all(|addr| addr.ip().is_loopback()) {
        true => Config::loopback(),
        false => Config::default(),
    };
    (bind, Config { network, ..config })
}

/// The view of whichever seed answers first, or why none did.
async fn describe_any(
    links: &Arc<Links>,
    seeds: Vec<Seed>,
    deadline: Instant,
) -> Result<ClusterView, ErrorKind> {
    let mut failures = Vec::new();
    let mut tries = Vec::new();
    for (host, found) in seeds {
        match found {
            Ok(addresses) if addresses.is_empty() => failures.push(format!("{host} (no address)")),
            Ok(addresses) => {
                tries.extend(
                    addresses
                        .into_iter()
                        .map(|addr| Box::pin(describe(links, host.clone(), addr, deadline))),
                );
            }
            Err(why) => failures.push(format!("{host} ({why})")),
        }
    }
    let mut distrusted = false;
    while !tries.is_empty() {
        match first(&mut tries).await.1 {
            Ok(view) => return Ok(*view),
            Err(failure) => {
                distrusted |= failure.distrust;
                failures.push(format!("{} ({})", failure.seed, failure.why));
            }
        }
    }
    let detail = failures.join(", ");
    Err(match distrusted {
        true => ErrorKind::Tls { detail },
        false => ErrorKind::Unreachable { detail },
    })
}

struct SeedFailure {
    seed: String,
    why: String,
    distrust: bool,
}

/// Asks one address again and again until it answers, distrusts, or the time is up.
async fn describe(
    links: &Arc<Links>,
    host: String,
    addr: SocketAddr,
    deadline: Instant,
) -> Result<Box<ClusterView>, SeedFailure> {
    let seed = match host == addr.to_string() {
        true => host,
        false => format!("{host} at {addr}"),
    };
    let mut last = None;
    loop {
        let request = Request::start(links, addr, None, &|_| Message::Describe, None);
        let (why, distrust) = match timeout_at(deadline, request).await {
            Ok(Ok(Message::Described(view))) => return Ok(view),
            Ok(Ok(other)) => (format!("answered with a {}", other.name()), false),
            Ok(Err(fault)) => (told_of(&fault), fault.is_distrust()),
            Err(_) => (last.unwrap_or_else(|| "udp, no answer in time".to_owned()), false),
        };
        let pause = jittered(&links.network, SEED_PAUSE / 2, SEED_PAUSE);
        if distrust || Instant::now() + pause >= deadline {
            return Err(SeedFailure { seed, why, distrust });
        }
        last = Some(why);
        tokio::time::sleep(pause).await;
    }
}

fn told_of(fault: &Fault) -> String {
    match fault {
        Fault::NotDialed(galvani_transport::DownReason::ConnectTimeout) => {
            "udp, no answer in 1 s".to_owned()
        }
        Fault::NotDialed(_)
        | Fault::WrongNode
        | Fault::NotSent(_)
        | Fault::Lost(_)
        | Fault::Closed => fault.to_string(),
    }
}

/// Where to look for an identity that nobody named.
const IDENTITY_VARIABLE: &str = "GALVANI_IDENTITY";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_MAX: Duration = Duration::from_millis(TIMEOUT_MS_MAX as u64);
const RETRIES: u8 = 2;
const RETRIES_MAX: u8 = 10;
const ADDRESSES_PER_SEED_MAX: usize = 8;
/// Pause before a seed that did not answer is asked again.
const SEED_PAUSE: Duration = Duration::from_millis(300);
