//! Histograms as text: HdrHistogram's V2 format, compressed and in base64, as its other tools read
//! it; and the interval log (format 1.3) made of them.

use crate::run::Run;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::fmt::Write;

/// A histogram of microseconds, to three digits; it grows as needed: a latency is never cut.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 digits are within 0..=5")
}

/// Adds all of one histogram to another that grows.
pub fn merge(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    into.add(from).expect("a histogram that resizes takes any value");
}

/// As text.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    written.expect("a vector takes all bytes");
    STANDARD.encode(bytes)
}

/// From text; `None`: it is no histogram.
pub fn decode(text: &str) -> Option<Histogram<u64>> {
    let bytes = STANDARD.decode(text).ok()?;
    let mut histogram: Histogram<u64> =
        Deserializer::new().deserialize(&mut bytes.as_slice()).ok()?;
    histogram.auto(true);
    Some(histogram)
}

/// A run as an interval log: one line a second and kind of operation, latencies in microseconds
/// from the intended start, the largest in milliseconds.
pub fn log(run: &Run) -> String {
    let mut out = String::from("#[Histogram log format version 1.3]\n");
    let start = run.started_ms as f64 / 1e3;
    let _infallible =
        writeln!(out, "#[StartTime: {start:.3} (seconds since epoch), {}]", run.started_at);
    out.push_str("\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",");
    out.push_str("\"Interval_Compressed_Histogram\"\n");
    for batch in &run.batches {
        for (kind, part) in &batch.kinds {
            let max = part.max_us as f64 / 1e3;
            let (from, histogram) = (batch.second as f64, &part.histogram);
            let _infallible = writeln!(out, "Tag={kind},{from:.3},1.000,{max:.3},{histogram}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, histogram};

    #[test]
    fn histograms_come_back_and_can_be_merged() {
        let mut one = histogram();
        for micros in [1, 80, 80, 3_000, 12_000_000] {
            one.record(micros).expect("it grows");
        }
        let text = encode(&one);
        assert!(text.starts_with("HISTFAAA"), "the cookie of V2, compressed: {text}");
        let mut back = decode(&text).expect("our own");
        assert_eq!(back, one);
        super::merge(&mut back, &one);
        assert_eq!(back.len(), 10);
        assert!(decode("HISTFAAA").is_none() && decode("!").is_none());
    }
}
