//! As much of HTTP/1.1 as a load needs: one kept connection, one request at a time.
//!
//! Bodies of known length and chunked ones are read; nothing is compressed or redirected.

use crate::error::PeerError;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Http1 {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Http1 {
    pub(crate) async fn connect(addr: &str) -> Result<Http1, PeerError> {
        let stream = TcpStream::connect(addr).await?;
        // Head and body leave in one write; without this they might wait for each other's ack.
        stream.set_nodelay(true)?;
        Ok(Http1 { stream, input: BytesMut::new(), output: Vec::new() })
    }

    /// Sends a request and waits for its response.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, PeerError> {
        self.output.clear();
        let mut head = format!("{method} {target} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body);
        self.stream.write_all(&self.output).await?;
        loop {
            if let Some(response) = decode(&mut self.input)? {
                return Ok(response);
            }
            self.input.reserve(8 << 10);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(PeerError::Refused("the connection ended".to_owned()));
            }
        }
    }
}

/// Takes the next whole response off `input`; `None` leaves it as it is and means: read on.
fn decode(input: &mut BytesMut) -> Result<Option<Response>, PeerError> {
    let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status: u16 = status.ok_or_else(|| malformed(first))?;
    let (mut length, mut chunked) = (0, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| malformed(value))?,
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let start = end + 4;
    let (body, used) = if chunked {
        match chunks(&input[start..])? {
            Some(chunks) => chunks,
            None => return Ok(None),
        }
    } else {
        match input.get(start..start + length) {
            Some(body) => (Bytes::copy_from_slice(body), length),
            None => return Ok(None),
        }
    };
    input.advance(start + used);
    Ok(Some(Response { status, body }))
}

/// The body of a chunked response and how many bytes it took.
fn chunks(input: &[u8]) -> Result<Option<(Bytes, usize)>, PeerError> {
    let (mut at, mut body) = (0, BytesMut::new());
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        let digits = text.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| malformed(&text))?;
        at += end + 2;
        let Some(chunk) = input.get(at..at + length + 2) else {
            return Ok(None);
        };
        body.extend_from_slice(&chunk[..length]);
        at += length + 2;
        if length == 0 {
            return Ok(Some((body.freeze(), at)));
        }
    }
}

fn malformed(what: &str) -> PeerError {
    PeerError::Malformed { protocol: "HTTP/1.1", what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Response, decode};
    use bytes::{Bytes, BytesMut};

    #[test]
    fn responses_are_read_whole_or_not_at_all() {
        let cases = [
            ("HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n", 204, ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                200,
                "hello",
            ),
        ];
        for (text, status, body) in cases {
            let mut input = BytesMut::from(format!("{text}HTTP").as_str());
            let want = Response { status, body: Bytes::from(body) };
            assert_eq!(decode(&mut input).expect("well formed"), Some(want));
            assert_eq!(input, "HTTP");
            for cut in 0..text.len() {
                let mut input = BytesMut::from(&text[..cut]);
                assert_eq!(decode(&mut input).expect("not yet wrong"), None, "{text:?} to {cut}");
                assert_eq!(input.len(), cut);
            }
        }
        assert!(decode(&mut BytesMut::from("SSH-2.0\r\n\r\n")).is_err());
    }
}
