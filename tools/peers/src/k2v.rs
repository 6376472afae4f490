//! Garage's K2V: one item per key, each write a new item.
//!
//! A write of an item that exists, without its causality token, makes a sibling, and only a read
//! gives the token. So that K2V need neither read before it writes nor keep siblings, every write
//! here is of a key that was not there: the cheapest way it has.

use crate::error::PeerError;
use crate::http1::Http1;
use crate::sigv4::{Credentials, Request, sha256};
use bytes::Bytes;

/// Connection of one worker.
#[derive(Debug)]
pub(crate) struct K2v {
    http: Http1,
    host: String,
    bucket: String,
    credentials: Credentials,
}

impl K2v {
    /// Connects to the K2V address of one node. The bucket must exist.
    pub(crate) async fn connect(
        addr: &str,
        bucket: &str,
        credentials: Credentials,
    ) -> Result<K2v, PeerError> {
        let http = Http1::connect(addr).await?;
        Ok(K2v { http, host: addr.to_owned(), bucket: bucket.to_owned(), credentials })
    }

    pub(crate) async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), PeerError> {
        let (status, body) = self.ask("PUT", key, value).await?;
        match status {
            200 | 204 => Ok(()),
            _ => Err(refused(status, &body)),
        }
    }

    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<Bytes>, PeerError> {
        let (status, body) = self.ask("GET", key, &[]).await?;
        match status {
            200 => Ok(Some(body)),
            204 | 404 => Ok(None),
            _ => Err(refused(status, &body)),
        }
    }

    async fn ask(
        &mut self,
        method: &str,
        key: &str,
        value: &[u8],
    ) -> Result<(u16, Bytes), PeerError> {
        let path = format!("/{}/{key}", self.bucket);
        let query = "sort_key=v";
        let payload_hash = sha256(value);
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let headers = [
            ("accept", "application/octet-stream"),
            ("host", self.host.as_str()),
            ("x-amz-content-sha256", payload_hash.as_str()),
            ("x-amz-date", time.as_str()),
        ];
        let request = Request {
            method,
            path: &path,
            query,
            headers: &headers,
            payload_hash: &payload_hash,
            time: &time,
        };
        let authorization = self.credentials.authorization(&request);
        let mut all = headers.to_vec();
        all.push(("authorization", &authorization));
        let response = self.http.ask(method, &format!("{path}?{query}"), &all, value).await?;
        Ok((response.status, response.body))
    }
}

fn refused(status: u16, body: &[u8]) -> PeerError {
    PeerError::Refused(format!("{status} {}", String::from_utf8_lossy(body)))
}
