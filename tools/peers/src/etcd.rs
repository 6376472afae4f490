//! etcd v3 over gRPC: `Put` and linearizable `Range`, many requests on one HTTP/2 connection.
//!
//! The two messages are small enough to be written by hand, which spares a build with `protoc`; the
//! JSON gateway would charge etcd's servers for base64 and JSON that their users do not pay.
//! Source: `etcdserverpb/rpc.proto`; the gRPC protocol over HTTP/2.

use crate::error::PeerError;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;

/// A connection that workers share.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    addr: String,
    send: SendRequest<Bytes>,
}

impl Etcd {
    /// Connects to one member. Must be called in a runtime: a task of its own moves the bytes.
    pub(crate) async fn connect(addr: &str) -> Result<Etcd, PeerError> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(16 << 20);
        let (send, connection) = builder.handshake(stream).await?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told of the end.
            let _ = connection.await;
        });
        Ok(Etcd { addr: addr.to_owned(), send })
    }

    pub(crate) async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), PeerError> {
        let request = message(&[(KEY, key.as_bytes()), (PUT_VALUE, value)]);
        self.call("/etcdserverpb.KV/Put", request).await.map(drop)
    }

    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<Bytes>, PeerError> {
        let request = message(&[(KEY, key.as_bytes())]);
        let answer = self.call("/etcdserverpb.KV/Range", request).await?;
        match field(&answer, RANGE_KVS)? {
            Some(kv) => field(&kv, KV_VALUE),
            None => Ok(None),
        }
    }

    /// Calls a method with one message; returns the one that came back.
    async fn call(&mut self, method: &str, message: Bytes) -> Result<Bytes, PeerError> {
        let uri = format!("http://{}{method}", self.addr);
        let request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| PeerError::Usage(error.to_string()))?;
        self.send = self.send.clone().ready().await?;
        let (response, mut body) = self.send.send_request(request, false)?;
        body.send_data(message, true)?;
        let response = response.await?;
        // Without a message the status comes with the head.
        check_status(response.headers())?;
        let mut incoming = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(part) = incoming.data().await {
            let part = part?;
            incoming.flow_control().release_capacity(part.len())?;
            answer.extend_from_slice(&part);
        }
        if let Some(trailers) = incoming.trailers().await? {
            check_status(&trailers)?;
        }
        if answer.len() < PREFIX_BYTES {
            return Err(malformed("an answer without a message"));
        }
        Ok(answer.split_off(PREFIX_BYTES).freeze())
    }
}

fn check_status(headers: &http::HeaderMap) -> Result<(), PeerError> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            Err(PeerError::Refused(format!("{status:?} {:?}", headers.get("grpc-message"))))
        }
        Some(_) | None => Ok(()),
    }
}

/// A gRPC frame with a message of these length-delimited fields.
fn message(fields: &[(u8, &[u8])]) -> Bytes {
    let mut body = BytesMut::new();
    for (number, bytes) in fields {
        body.put_u8(number << 3 | LENGTH_DELIMITED);
        put_varint(&mut body, bytes.len() as u64);
        body.extend_from_slice(bytes);
    }
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + body.len());
    frame.put_u8(0);
    frame.put_u32(body.len() as u32);
    frame.extend_from_slice(&body);
    frame.freeze()
}

/// The first length-delimited field `number` of a protobuf message.
fn field(mut message: &[u8], number: u8) -> Result<Option<Bytes>, PeerError> {
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match tag as u8 & 7 {
            0 => drop(take_varint(&mut message)?),
            LENGTH_DELIMITED => {
                let length = take_varint(&mut message)? as usize;
                let bytes = message.get(..length).ok_or_else(|| malformed("cut short"))?;
                if tag >> 3 == u64::from(number) {
                    return Ok(Some(Bytes::copy_from_slice(bytes)));
                }
                message = &message[length..];
            }
            _ => return Err(malformed("a field of an unexpected type")),
        }
    }
    Ok(None)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(input: &mut &[u8]) -> Result<u64, PeerError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first().ok_or_else(|| malformed("cut short"))?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("an endless number"))
}

fn malformed(what: &str) -> PeerError {
    PeerError::Malformed { protocol: "etcd's gRPC", what: what.to_owned() }
}

/// Compressed or not, and the length.
const PREFIX_BYTES: usize = 5;
const LENGTH_DELIMITED: u8 = 2;
/// `key` of `PutRequest` and `RangeRequest`.
const KEY: u8 = 1;
/// `value` of `PutRequest`.
const PUT_VALUE: u8 = 2;
/// `kvs` of `RangeResponse`.
const RANGE_KVS: u8 = 2;
/// `value` of `KeyValue`.
const KV_VALUE: u8 = 5;

#[cfg(test)]
mod tests {
    use super::{KEY, KV_VALUE, PREFIX_BYTES, PUT_VALUE, RANGE_KVS, field, message};

    #[test]
    fn messages_have_the_bytes_that_protobuf_gives_them() {
        let put = message(&[(KEY, b"k"), (PUT_VALUE, &[7; 300])]);
        assert_eq!(&put[..8], [0, 0, 0, 1, 0x32, 0x0a, 1, b'k']);
        assert_eq!(&put[8..11], [0x12, 0xac, 0x02]);
        assert_eq!(put.len(), 11 + 300);
    }

    #[test]
    fn a_value_is_found_among_numbers_and_other_fields() {
        // A header, kvs { key, create_revision = 300, value }, count = 1.
        let kv = [&[0x0a, 1, b'k', 0x10, 0xac, 0x02, 0x2a, 2][..], b"v1"].concat();
        let answer = [&[0x0a, 2, 0x18, 1, 0x12, kv.len() as u8][..], &kv, &[0x20, 1]].concat();
        let found = field(&answer, RANGE_KVS).expect("well formed").expect("there");
        assert_eq!(field(&found, KV_VALUE).expect("well formed").as_deref(), Some(&b"v1"[..]));
        assert_eq!(field(&answer[..4], RANGE_KVS).expect("well formed"), None);
        assert!(field(&answer[..8], RANGE_KVS).is_err());
        let own = message(&[(KEY, b"k")]).slice(PREFIX_BYTES..);
        assert_eq!(field(&own, KEY).expect("well formed").as_deref(), Some(&b"k"[..]));
    }
}
