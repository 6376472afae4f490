//! The join token: a string that lets one node into one cluster, once, for a while.
//!
//! It says where to ask, which root to believe there, and the secret to ask with. Who has it can get
//! the one certificate it is for, so it is sent as a password is. Its form is `galvani-join-` and
//! base64url of the bytes below; the last four find a token that was not copied whole.
//!
//! ```text
//! | 01 | cluster 16 | SHA-256 of the root 32 | secret 16 | expires, s since 1970 u64 LE |
//!   name: | len u8, text |   addresses: | count u8 | for each: len u8, text |   CRC-32C u32 LE |
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use galvani_model::ids::ClusterId;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// What a token carries.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster.
    pub cluster: ClusterId,
    /// SHA-256 of its root certificate (DER).
    pub root: [u8; 32],
    /// What proves that the node was invited.
    pub secret: [u8; 16],
    /// Until when it is good, in seconds since 1970.
    pub expires_s: u64,
    /// Who is invited.
    pub name: String,
    /// Where whoever invites listens: 1 to 8 addresses.
    pub addresses: Vec<SocketAddr>,
}

/// Why text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("it does not begin with {PREFIX}")]
    Prefix,
    /// It is not whole: a character is missing or another one.
    #[error("it is not whole: it was not copied to its end, or altered")]
    Damaged,
    /// It is of a later version.
    #[error("it is of version {found}, this build reads version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.cluster.0.to_be_bytes());
        bytes.extend(self.root);
        bytes.extend(self.secret);
        bytes.extend(self.expires_s.to_le_bytes());
        text(&mut bytes, &self.name);
        bytes.push(self.addresses.len() as u8);
        self.addresses.iter().for_each(|address| text(&mut bytes, &address.to_string()));
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Its secret is for no log.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({} of {})", self.name, self.cluster)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let coded = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = match coded.len() <= CHARACTERS_MAX {
            true => URL_SAFE_NO_PAD.decode(coded).map_err(|_| TokenError::Damaged)?,
            false => return Err(TokenError::Damaged),
        };
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
            return Err(TokenError::Damaged);
        }
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&found) => return Err(TokenError::Version { found }),
            None => return Err(TokenError::Damaged),
        }
        Reader(&bytes[1..]).token().ok_or(TokenError::Damaged)
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.push(text.len() as u8);
    out.extend(text);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn token(mut self) -> Option<JoinToken> {
        let token = JoinToken {
            cluster: ClusterId(u128::from_be_bytes(self.chunk()?)),
            root: self.chunk()?,
            secret: self.chunk()?,
            expires_s: u64::from_le_bytes(self.chunk()?),
            name: self.text()?,
            addresses: {
                let [count] = self.chunk()?;
                (0..count).map(|_| self.text()?.parse().ok()).collect::<Option<_>>()?
            },
        };
        let counts = (1..=ADDRESSES_MAX).contains(&token.addresses.len());
        (self.0.is_empty() && counts && !token.name.is_empty()).then_some(token)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn text(&mut self) -> Option<String> {
        let [length] = self.chunk()?;
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// How every token begins.
pub const PREFIX: &str = "galvani-join-";
/// Most addresses of a token.
pub const ADDRESSES_MAX: usize = 8;
const VERSION: u8 = 1;
/// Many times what one takes.
const CHARACTERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::{JoinToken, PREFIX, TokenError};
    use galvani_model::ids::ClusterId;

    fn token() -> JoinToken {
        JoinToken {
            cluster: ClusterId(77),
            root: [3; 32],
            secret: [9; 16],
            expires_s: 1_800_000_000,
            name: "n4".to_owned(),
            addresses: vec!["10.0.0.9:7900".parse().expect("an address")],
        }
    }

    #[test]
    fn a_token_comes_back_and_its_debug_form_has_no_secret() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()), "as a file has it");
        assert!(!format!("{:?}", token()).contains('9'));
    }

    #[test]
    fn a_token_that_is_not_whole_is_told_from_one_of_another_version() {
        let text = token().to_string();
        assert_eq!("n4".parse::<JoinToken>(), Err(TokenError::Prefix));
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<JoinToken>(), Err(TokenError::Damaged), "{end}");
        }
        for at in PREFIX.len()..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ASCII");
            assert!(other.parse::<JoinToken>().is_err(), "{other}");
        }
        let long = format!("{PREFIX}{}", "A".repeat(1 << 20));
        assert_eq!(long.parse::<JoinToken>(), Err(TokenError::Damaged));
    }
}
