//! From quorum options to requests, and back to what people would type again.

use crate::args::data::{Copies, ReadQuorum, WriteQuorum};
use crate::args::line::Line;
use crate::connect::App;
use crate::report::client::{About, Retype};
use crate::report::text::printable;
use bytes::Bytes;
use galvani_client::{BucketName, Get, Put};

/// A read with what the options ask for; `strict` only where the command reads for its own sake.
pub(crate) fn read(mut get: Get, copies: Copies, asked: ReadQuorum) -> Get {
    if let Some(n) = copies.n {
        get = get.n(n);
    }
    if let Some(r) = asked.r {
        get = get.r(r);
    }
    if let Some(pr) = asked.pr {
        get = get.pr(pr);
    }
    get
}

/// A write with what the options ask for.
pub(crate) fn write<State>(mut put: Put<State>, copies: Copies, asked: WriteQuorum) -> Put<State> {
    if let Some(n) = copies.n {
        put = put.n(n);
    }
    if let Some(w) = asked.w {
        put = put.w(w);
    }
    if let Some(pw) = asked.pw {
        put = put.pw(pw);
    }
    if let Some(dw) = asked.dw {
        put = put.dw(dw);
    }
    if copies.strict {
        put = put.strict();
    }
    put
}

/// A command on a key as it could be typed again: `line` has the options of the command itself.
pub(crate) fn retype(
    app: &App,
    command: &'static str,
    bucket: &BucketName,
    key: &Bytes,
    line: Line,
) -> Retype {
    let about = About { bucket: Some(bucket.clone()), key: Some(key.clone()), ..app.about() };
    Retype { command, subject: subject(bucket, key), line: app.again(line), about }
}

/// A key as blocks name it: `cart/42`, or `bucket:key`.
pub(crate) fn subject(bucket: &BucketName, key: &[u8]) -> String {
    let key = printable(key, KEY_CHARS_SHOWN);
    match bucket.as_str() {
        "default" => key,
        bucket => format!("{bucket}:{key}"),
    }
}

const KEY_CHARS_SHOWN: usize = 100;
