//! The opaque causal token a read returns and a write carries back.
//!
//! A context is bytes to this crate: only servers make and open them, and refuse one of another key
//! or cluster. It prints as base64url without padding and parses back, so that it can live in a
//! file, a cookie or a command line.

use crate::error::{Error, ErrorKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use galvani_model::limits::CONTEXT_BYTES_MAX;
use std::fmt;
use std::str::FromStr;

/// What a read or write had seen of its key. Equal bytes, equal contexts. The default one has seen
/// nothing: writing after it is a blind write.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Context(Bytes);

impl Context {
    /// The context that `bytes` are, copied; longer than any context is an error.
    pub fn from_bytes(bytes: &[u8]) -> Result<Context, Error> {
        if bytes.len() > CONTEXT_BYTES_MAX {
            return Err(malformed());
        }
        Ok(Context(Bytes::copy_from_slice(bytes)))
    }

    /// The token itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has seen nothing, as the default one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A token off the wire: copied, so that it does not keep a receive buffer alive.
    pub(crate) fn received(token: &Bytes) -> Context {
        Context(Bytes::copy_from_slice(token))
    }

    pub(crate) fn token(&self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.clone())
    }
}

impl AsRef<Context> for Context {
    fn as_ref(&self) -> &Context {
        self
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl FromStr for Context {
    type Err = Error;

    fn from_str(text: &str) -> Result<Context, Error> {
        // Four digits are three bytes; longer texts are refused before they are decoded.
        if text.len() > CONTEXT_BYTES_MAX.div_ceil(3) * 4 {
            return Err(malformed());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
        Context::from_bytes(&bytes)
    }
}

fn malformed() -> Error {
    Error::new("parse", "context", ErrorKind::ContextMalformed)
}

#[cfg(test)]
mod tests {
    use super::Context;
    use crate::error::ErrorKind;
    use galvani_model::limits::CONTEXT_BYTES_MAX;

    #[test]
    fn a_context_prints_and_parses_to_itself() {
        for len in [0, 1, 2, 3, 63, CONTEXT_BYTES_MAX] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 37) as u8).collect();
            let context = Context::from_bytes(&bytes).expect("within the limit");
            let text = context.to_string();
            assert!(!text.contains(['+', '/', '=']));
            assert_eq!(text.parse::<Context>().expect("our own text"), context);
        }
    }

    #[test]
    fn texts_that_are_no_contexts_are_refused() {
        let long = "A".repeat(CONTEXT_BYTES_MAX * 2);
        for text in ["!", "a b", "AAAA=", "A", long.as_str()] {
            let error = text.parse::<Context>().expect_err("refused");
            assert_eq!(error.kind(), &ErrorKind::ContextMalformed);
        }
    }
}
