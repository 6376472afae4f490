//! RESP 2, the protocol of Redis: commands out, replies in. Never opens a socket.
//!
//! Source: the Redis serialization protocol specification.

use crate::error::PeerError;
use bytes::{Buf, Bytes, BytesMut};

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR ..`
    Error(String),
    /// `:7`
    Integer(i64),
    /// `$3`, or nothing for `$-1`.
    Bulk(Option<Bytes>),
    /// `*2`, or nothing for `*-1`.
    Array(Option<Vec<Reply>>),
}

/// Appends a command, each part as a bulk string.
pub(crate) fn encode(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes the next whole reply off `input`; `None` leaves it as it is and means: read on.
pub(crate) fn decode(input: &mut BytesMut) -> Result<Option<Reply>, PeerError> {
    let mut at = 0;
    match reply(input, &mut at, 0)? {
        Some(reply) => {
            input.advance(at);
            Ok(Some(reply))
        }
        None => Ok(None),
    }
}

fn reply(input: &[u8], at: &mut usize, depth: usize) -> Result<Option<Reply>, PeerError> {
    if depth > DEPTH_MAX {
        return Err(malformed("arrays in arrays in arrays"));
    }
    let Some(line) = line(input, at) else {
        return Ok(None);
    };
    let Some((kind, rest)) = line.split_first() else {
        return Err(malformed("an empty line"));
    };
    let text = || String::from_utf8_lossy(rest).into_owned();
    let number = || text().parse::<i64>().map_err(|_| malformed(&text()));
    Ok(Some(match kind {
        b'+' => Reply::Simple(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(number()?),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Reply::Bulk(None),
            Ok(length) => {
                let Some(body) = input.get(*at..*at + length + 2) else {
                    return Ok(None);
                };
                *at += length + 2;
                Reply::Bulk(Some(Bytes::copy_from_slice(&body[..length])))
            }
        },
        b'*' => match usize::try_from(number()?) {
            Err(_) => Reply::Array(None),
            Ok(length) => {
                let mut replies = Vec::new();
                for _ in 0..length {
                    match reply(input, at, depth + 1)? {
                        Some(reply) => replies.push(reply),
                        None => return Ok(None),
                    }
                }
                Reply::Array(Some(replies))
            }
        },
        _ => return Err(malformed(&String::from_utf8_lossy(line))),
    }))
}

/// The bytes up to the next line end, which is passed over.
fn line<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = input.get(*at..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn malformed(what: &str) -> PeerError {
    PeerError::Malformed { protocol: "RESP", what: what.to_owned() }
}

const DEPTH_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::{Reply, decode, encode};
    use bytes::{Bytes, BytesMut};

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        encode(&[b"SET", b"k", b"a\r\nb"], &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_of_every_kind_are_read() {
        let bulk = |text: &'static str| Reply::Bulk(Some(Bytes::from_static(text.as_bytes())));
        let cases = [
            ("+OK\r\n", Reply::Simple("OK".into())),
            ("-ERR no\r\n", Reply::Error("ERR no".into())),
            (":-7\r\n", Reply::Integer(-7)),
            ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            ("$-1\r\n", Reply::Bulk(None)),
            ("*-1\r\n", Reply::Array(None)),
            ("*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", {
                Reply::Array(Some(vec![Reply::Integer(1), Reply::Array(Some(vec![bulk("x")]))]))
            }),
        ];
        for (text, want) in cases {
            let mut input = BytesMut::from(format!("{text}+next").as_str());
            assert_eq!(decode(&mut input).expect("well formed"), Some(want), "{text:?}");
            assert_eq!(input, "+next");
            // Cut short anywhere, it is not yet there, and nothing is lost.
            for cut in 0..text.len() {
                let mut input = BytesMut::from(&text[..cut]);
                assert_eq!(decode(&mut input).expect("not yet wrong"), None, "{text:?} to {cut}");
                assert_eq!(input.len(), cut);
            }
        }
    }

    #[test]
    fn what_is_not_resp_is_said_so() {
        for text in ["HTTP/1.1 400\r\n", ":x\r\n", "\r\n", &"*1\r\n".repeat(20)] {
            assert!(decode(&mut BytesMut::from(text)).is_err(), "{text:?}");
        }
    }
}
