//! AWS Signature Version 4, as far as K2V needs it: a request without session token, its payload
//! hashed. Never sends anything; what is encoded in a path or query is the caller's business.
//! Source: the AWS signing process, and its published test suite.

use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// Who signs, and for which service.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: String,
    pub(crate) region: String,
    pub(crate) service: String,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Encoded already.
    pub(crate) path: &'a str,
    /// Encoded already, ordered by name.
    pub(crate) query: &'a str,
    /// Names in lower case, in their order.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Of the payload, in hexadecimal.
    pub(crate) payload_hash: &'a str,
    /// `20150830T123600Z`
    pub(crate) time: &'a str,
}

impl Credentials {
    /// The value of the header `Authorization`.
    pub(crate) fn authorization(&self, request: &Request) -> String {
        let day = request.time.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String = request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let Request { method, path, query, payload_hash, time, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload_hash}");
        let hash = sha256(canonical.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let signature = hex(sign(&self.signing_key(day), text.as_bytes()).as_ref());
        let key_id = &self.key_id;
        format!(
            "AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, \
             Signature={signature}"
        )
    }

    fn signing_key(&self, day: &str) -> Key {
        let first = Key::new(HMAC_SHA256, format!("AWS4{}", self.secret).as_bytes());
        [day, &self.region, &self.service, "aws4_request"]
            .iter()
            .fold(first, |key, part| Key::new(HMAC_SHA256, sign(&key, part.as_bytes()).as_ref()))
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Request, sha256};

    const HEADERS: &[(&str, &str)] =
        &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];

    fn signature(method: &str, query: &str) -> String {
        let credentials = Credentials {
            key_id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
            service: "service".to_owned(),
        };
        let payload_hash = &sha256(b"");
        let time = "20150830T123600Z";
        let request = Request { method, path: "/", query, headers: HEADERS, payload_hash, time };
        let value = credentials.authorization(&request);
        let scope = "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        assert!(value.contains(scope), "{value}");
        assert!(value.contains("SignedHeaders=host;x-amz-date"), "{value}");
        value.rsplit('=').next().unwrap_or_default().to_owned()
    }

    /// Cases of the published test suite: get-vanilla, post-vanilla,
    /// get-vanilla-query-order-key-case.
    #[test]
    fn the_published_cases_are_signed_as_published() {
        let get = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        assert_eq!(signature("GET", ""), get);
        let post = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert_eq!(signature("POST", ""), post);
        let query = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        assert_eq!(signature("GET", "Param1=value1&Param2=value2"), query);
    }

    #[test]
    fn the_empty_payload_has_its_known_hash() {
        let want = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), want);
    }
}
