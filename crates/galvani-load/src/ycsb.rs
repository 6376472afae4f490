//! A run in YCSB's own text format, for whatever already reads that.
//!
//! Sections are named as YCSB names operations: `READ`, `UPDATE` (a put), `INSERT`, and
//! `READ-MODIFY-WRITE`. As with its `measurement.interval=both`, a section counts from when requests
//! were sent, and the same with `Intended-` before its name from when they were due. Failures are one
//! line of their section; those that were waited for are in its latencies, as in every report of a
//! run. Source: YCSB 0.17, `TextMeasurementsExporter`. Next to read: `run.rs`.

use crate::hdr;
use crate::run::{Histograms, Run};
use hdrhistogram::Histogram;
use std::fmt::Write;

/// The run as YCSB would print it.
pub fn text(run: &Run) -> String {
    let mut out = String::new();
    line(&mut out, "OVERALL", "RunTime(ms)", (run.seconds * 1e3).round());
    line(&mut out, "OVERALL", "Throughput(ops/sec)", run.ops_per_second);
    for (kind, Histograms { due, sent }) in &run.histograms {
        let name = section(kind);
        let failures = run.errors.iter().filter(|(what, _)| of(what) == kind);
        let failed: u64 = failures.map(|(_, count)| count).sum();
        for (name, histogram) in [(name.to_owned(), sent), (format!("Intended-{name}"), due)] {
            let Some(histogram) = hdr::decode(histogram) else { continue };
            latencies(&mut out, &name, &histogram);
            match failed {
                0 => line(&mut out, &name, "Return=OK", histogram.len()),
                failed => line(&mut out, &name, "Return=ERROR", failed),
            }
        }
    }
    out
}

fn latencies(out: &mut String, name: &str, histogram: &Histogram<u64>) {
    line(out, name, "Operations", histogram.len());
    line(out, name, "AverageLatency(us)", histogram.mean());
    line(out, name, "MinLatency(us)", histogram.min());
    line(out, name, "MaxLatency(us)", histogram.max());
    for (percent, quantile) in [("50", 0.5), ("95", 0.95), ("99", 0.99), ("99.9", 0.999)] {
        let latency = histogram.value_at_quantile(quantile);
        line(out, name, &format!("{percent}thPercentileLatency(us)"), latency);
    }
}

fn line(out: &mut String, section: &str, what: &str, figure: impl std::fmt::Display) {
    let _infallible = writeln!(out, "[{section}], {what}, {figure}");
}

/// What YCSB calls a kind of operation.
fn section(kind: &str) -> &str {
    match kind {
        "get" => "READ",
        "put" => "UPDATE",
        "insert" => "INSERT",
        "rmw" => "READ-MODIFY-WRITE",
        other => other,
    }
}

/// The kind of operation of a failure's name, such as `get: overloaded`.
fn of(failure: &str) -> &str {
    failure.split_once(": ").map_or("", |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::hdr::{encode, histogram};
    use crate::run::{Histograms, Run};
    use std::collections::BTreeMap;

    #[test]
    fn a_run_is_told_in_the_sections_that_ycsb_has() {
        let of = |micros: &[u64]| {
            let mut all = histogram();
            micros.iter().for_each(|micros| all.record(*micros).expect("it grows"));
            encode(&all)
        };
        let reads = Histograms { due: of(&[300, 400, 900]), sent: of(&[100, 200, 300]) };
        let writes = Histograms { due: of(&[50]), sent: of(&[40]) };
        let run = Run {
            seconds: 2.0,
            ops_per_second: 2.0,
            histograms: BTreeMap::from([("get".to_owned(), reads), ("rmw".to_owned(), writes)]),
            errors: BTreeMap::from([("rmw: overloaded".to_owned(), 7), ("getaway".to_owned(), 1)]),
            ..Run::default()
        };
        let told = text(&run);
        for line in [
            "[OVERALL], RunTime(ms), 2000",
            "[OVERALL], Throughput(ops/sec), 2",
            "[READ], Operations, 3",
            "[READ], AverageLatency(us), 200",
            "[READ], MinLatency(us), 100",
            "[READ], 50thPercentileLatency(us), 200",
            "[READ], Return=OK, 3",
            "[Intended-READ], MaxLatency(us), 900",
            "[READ-MODIFY-WRITE], Return=ERROR, 7",
            "[Intended-READ-MODIFY-WRITE], 99thPercentileLatency(us), 50",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}\n{told}");
        }
        assert_eq!(told.matches("ERROR").count(), 2, "{told}");
    }
}
