//! A context: what a read saw, as an opaque token bound to its key by a keyed MAC.
//!
//! Clients carry it back unchanged; they cannot build one, and one of another key or another
//! cluster is refused before anything is written. Inside is an exact dot set, so a context never
//! deletes what its holder has not seen. The bytes are drawn in `docs/formats.md`.

use super::dot::Dot;
use super::dotset::DotSet;
use crate::hash::key_hash_128;
use crate::hlc::Hlc;
use crate::ids::Origin;
use crate::key::Key;
use crate::limits::CONTEXT_BYTES_MAX;
use crate::varint::{put_varint, take, take_varint};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// The cluster's secret that contexts are sealed with; every node has the same one.
#[derive(Clone, PartialEq, Eq)]
pub struct ContextKey(pub [u8; 16]);

impl core::fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ContextKey(..)")
    }
}

/// What a reader had seen of one key, opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The dots it saw or that were replaced for it.
    pub seen: DotSet,
    /// The latest hybrid time among them.
    pub hlc: Hlc,
}

/// Why a token is refused. Nothing has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Longer than [`CONTEXT_BYTES_MAX`].
    #[error("the context has {bytes} bytes, the limit is {CONTEXT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not made by this cluster, cut short, or altered.
    #[error("the context was not made by this cluster, or was altered")]
    Forged,
    /// Made by this cluster, for another key.
    #[error("the context belongs to another key")]
    OtherKey,
}

impl Context {
    /// The token of this context, for `key`.
    pub fn seal(&self, key: &Key, secret: &ContextKey) -> Vec<u8> {
        let mut token = Vec::with_capacity(64);
        token.push(TOKEN_VERSION);
        token.extend_from_slice(&binding(key).to_le_bytes());
        token.extend_from_slice(&self.hlc.0.to_le_bytes());
        put_varint(&mut token, self.seen.origins() as u64);
        for (origin, base, cloud) in self.seen.iter() {
            token.extend_from_slice(&origin.to_bytes());
            put_varint(&mut token, base);
            put_varint(&mut token, cloud.len() as u64);
            let mut last = base;
            for &counter in cloud {
                put_varint(&mut token, counter - last);
                last = counter;
            }
        }
        let mac = mac(&token, secret);
        token.extend_from_slice(&mac);
        token
    }

    /// Opens a token that came with a request for `key`.
    pub fn open(token: &[u8], key: &Key, secret: &ContextKey) -> Result<Context, ContextError> {
        if token.len() > CONTEXT_BYTES_MAX {
            return Err(ContextError::TooLong { bytes: token.len() });
        }
        let body_len = token.len().checked_sub(MAC_BYTES).ok_or(ContextError::Forged)?;
        let (body, tag) = token.split_at(body_len);
        if mac(body, secret) != tag {
            return Err(ContextError::Forged);
        }
        let (bound_to, context) = decode(body).ok_or(ContextError::Forged)?;
        if bound_to == binding(key) { Ok(context) } else { Err(ContextError::OtherKey) }
    }
}

/// The parts of a token without its MAC, or `None` if they do not fit together.
fn decode(mut body: &[u8]) -> Option<(u64, Context)> {
    if take(&mut body, 1)?[0] != TOKEN_VERSION {
        return None;
    }
    let bound_to = u64::from_le_bytes(take(&mut body, 8)?.try_into().ok()?);
    let hlc = Hlc(u64::from_le_bytes(take(&mut body, 8)?.try_into().ok()?));
    let mut seen = DotSet::new();
    for _ in 0..take_varint(&mut body)? {
        let origin = Origin::from_bytes(take(&mut body, 16)?.try_into().ok()?);
        let base = take_varint(&mut body)?;
        seen.insert_through(origin, base);
        let mut last = base;
        for _ in 0..take_varint(&mut body)? {
            last = last.checked_add(take_varint(&mut body)?)?;
            seen.insert(Dot::new(origin, last));
        }
    }
    body.is_empty().then_some((bound_to, Context { seen, hlc }))
}

/// Which key a token is for.
fn binding(key: &Key) -> u64 {
    key_hash_128(key, BINDING_SEED) as u64
}

/// SipHash-2-4 with 128 bits of output: a MAC for short messages under a secret key.
fn mac(body: &[u8], secret: &ContextKey) -> [u8; MAC_BYTES] {
    let mut hasher = SipHasher24::new_with_key(&secret.0);
    hasher.write(body);
    hasher.finish128().as_bytes()
}

const TOKEN_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const BINDING_SEED: u64 = 0x6761_6c76_6374_7831; // "galvctx1"
