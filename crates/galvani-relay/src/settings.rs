//! How a relay delivers: bounds, patience, secret.
//!
//! Every field has a default that suits most targets. What belongs to one kind of target is said in
//! its text (`target.rs`), except the secret, which must not stand in a command line.

use std::fmt;
use std::time::Duration;

/// How a relay delivers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most deliveries under way at once, each of another order key. `None`: what suits the target
    /// (commands 4, webhooks 16, brokers 64). A file takes one batch at a time.
    pub max_in_flight: Option<usize>,
    /// How long one try may take. Past it the try counts as failed, and as unknown: the event goes out
    /// again under the same id. Files and stdout have no such bound. Default 10 s.
    pub attempt_timeout: Duration,
    /// When a try that failed is made again.
    pub retry: Retry,
    /// The secret: signs webhooks, is the password of Redis and the token of NATS.
    pub secret: Option<Secret>,
    /// Whether lines are added to a file whose last line is no event. Default: no.
    pub adopt: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_in_flight: None,
            attempt_timeout: Duration::from_secs(10),
            retry: Retry::default(),
            secret: None,
            adopt: false,
        }
    }
}

/// When a try that failed is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The wait after the first failure. It doubles with each further one. Default 100 ms.
    pub first: Duration,
    /// The longest wait. Default 30 s. A target that asks for a longer one (`Retry-After`) gets it, up
    /// to five minutes.
    pub longest: Duration,
    /// How long one event may go on failing. `None`, the default: for ever.
    pub give_up_after: Option<Duration>,
    /// How often one event is tried. `None`, the default: without limit.
    pub tries_max: Option<u32>,
    /// After how many failures in a row, of whatever events, the target counts as down: then one
    /// event alone is tried until the target takes it. A target that cannot be reached counts as
    /// down at once. Default 5.
    pub failures_until_down: u32,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            give_up_after: None,
            tries_max: None,
            failures_until_down: 5,
        }
    }
}

/// A secret. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret from the contents of a file: white space at both ends does not belong to it. `None`
    /// if nothing is left.
    pub fn new(text: &[u8]) -> Option<Secret> {
        let trimmed = text.trim_ascii();
        (!trimmed.is_empty()).then(|| Secret(trimmed.to_vec()))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its text, where the target wants text.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_trimmed_and_never_shown() {
        let secret = Secret::new(b" s3cret\n").unwrap();
        assert_eq!(secret.bytes(), b"s3cret");
        assert_eq!(Secret::new(b" \n"), None);
        let settings = Settings { secret: Some(secret), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
