//! Certificates of a node that runs: taken anew when their files change, and warned of before they end.
//!
//! The files are looked at every few seconds, and at once after SIGHUP. What cannot be used is told
//! once and leaves the node with what it has: files may be half copied. Whoever is linked stays
//! linked, since a certificate counts when a link is made. Next to read: `galvani-transport/src/pki.rs`.

use crate::hosted::Hosted;
use galvani_storage::engine::Engine;
use galvani_transport::pki::Identity;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

/// The identity of a node and its files.
pub(crate) struct Renewal {
    dir: PathBuf,
    /// What the node shows now, as text; none: its files could not be read.
    current: Option<[String; 3]>,
    expires_s: Option<u64>,
    /// What was refused last.
    refused: Option<String>,
    warned: Option<Instant>,
}

impl Renewal {
    /// Of a node that has just read its identity from `dir`.
    pub(crate) fn of(dir: &Path) -> Renewal {
        let read = Identity::load(dir).ok();
        Renewal {
            dir: dir.to_owned(),
            expires_s: read.as_ref().and_then(Identity::expires_s),
            current: read.map(texts),
            refused: None,
            warned: None,
        }
    }

    /// Looks again and again; never ends.
    pub(crate) async fn watch<E: Engine>(&mut self, hosted: &Hosted<E>) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            self.look(hosted);
            self.warn();
            tokio::select! {
                () = sleep(LOOK) => {}
                () = heard(&mut hangup) => {}
            }
        }
    }

    fn look<E: Engine>(&mut self, hosted: &Hosted<E>) {
        let read = match Identity::load(&self.dir) {
            Ok(read) => read,
            Err(error) => return self.refuse(error.to_string()),
        };
        let now = texts(read.clone());
        if self.current.as_ref() == Some(&now) {
            return;
        }
        if let Err(error) = hosted.renew(&read) {
            return self.refuse(error.to_string());
        }
        (self.current, self.refused, self.warned) = (Some(now), None, None);
        self.expires_s = read.expires_s();
        let days = self.days_left();
        tracing::info!(event = "identity_renewed", dir = %self.dir.display(), days_left = days);
    }

    /// Told once: the files may be on their way.
    fn refuse(&mut self, why: String) {
        if self.refused.as_ref() != Some(&why) {
            let dir = self.dir.display();
            tracing::warn!(event = "identity_not_taken", %dir, %why, "the one before goes on");
            self.refused = Some(why);
        }
    }

    /// Says once a day that the certificate ends soon, or has ended.
    fn warn(&mut self) {
        let is_due = self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        let Some(days) = self.days_left().filter(|days| *days < WARN_DAYS && is_due) else {
            return;
        };
        self.warned = Some(Instant::now());
        let dir = self.dir.display();
        match days {
            0.. => tracing::warn!(
                event = "certificate_expires",
                days_left = days,
                "renew it: galvani cluster renew, into {dir}"
            ),
            _ => tracing::error!(
                event = "certificate_expired",
                days_left = days,
                "no new link is made with it; renew it: galvani cluster renew, into {dir}"
            ),
        }
    }

    /// Whole days until the certificate ends; less than none once it has.
    fn days_left(&self) -> Option<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some((self.expires_s? as i64 - now as i64).div_euclid(DAY_SECS))
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn texts(identity: Identity) -> [String; 3] {
    let Identity { ca_pem, cert_pem, key_pem } = identity;
    [ca_pem, cert_pem, key_pem]
}

/// Days before its end from which on a certificate is warned of: `galvani status` does, too.
const WARN_DAYS: i64 = 30;
const WARN_EVERY: Duration = Duration::from_secs(86_400);
const DAY_SECS: i64 = 86_400;
const LOOK: Duration = Duration::from_secs(2);
