//! What a bench found: figures for people and for scripts.
//!
//! Adds nothing up twice: histograms are merged, percentiles never averaged. Next: `bench.rs`.

use crate::args::bench::{Bench, Workload};
use crate::commands::bench::worker::Tally;
use crate::report::json;
use crate::report::text::{Size, grouped};
use galvani_client::NodeId;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json as value};
use std::collections::BTreeMap;
use std::time::Duration;

/// CPU time of the node processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Spent while measuring, in microseconds, all nodes.
    pub(crate) micros: u64,
    /// Nodes that answered before and after with the same process.
    pub(crate) nodes: usize,
    /// Nodes that did not: the figure lacks them.
    pub(crate) lacking: usize,
}

impl Cpu {
    pub(crate) fn between(
        before: &BTreeMap<(NodeId, u32), u64>,
        after: &BTreeMap<(NodeId, u32), u64>,
    ) -> Cpu {
        let spent = |(who, end): (&(NodeId, u32), &u64)| {
            before.get(who).map(|start| end.saturating_sub(*start))
        };
        let known: Vec<u64> = after.iter().filter_map(spent).collect();
        let nodes = known.len();
        let lacking = before.len().max(after.len()) - nodes;
        Cpu { micros: known.iter().sum(), nodes, lacking }
    }
}

/// All that a bench found.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    pub(crate) args: &'a Bench,
    /// Workers.
    pub(crate) concurrency: u32,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
    pub(crate) cpu: Cpu,
}

impl Summary<'_> {
    /// For people.
    pub(crate) fn page(&self) -> String {
        let Bench { keys, value, .. } = self.args;
        let concurrency = self.concurrency;
        let mut lines = vec![format!(
            "{}  closed loop, {concurrency} workers  {} keys of {}  {:.1} s",
            workload(self.args),
            grouped(keys.get()),
            Size(*value),
            self.took.as_secs_f64()
        )];
        let rate = grouped(self.rate().round() as u64);
        lines.push(format!(
            "  {rate} ops/s  {} done  {} failed",
            grouped(self.tally.done()),
            grouped(self.tally.failed())
        ));
        for (name, histogram) in [("get", &self.tally.gets), ("put", &self.tally.puts)] {
            if !histogram.is_empty() {
                lines.push(format!(
                    "  {name}  {}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {} ms",
                    grouped(histogram.len()),
                    ms(histogram.value_at_quantile(0.5)),
                    ms(histogram.value_at_quantile(0.9)),
                    ms(histogram.value_at_quantile(0.99)),
                    ms(histogram.value_at_quantile(0.999)),
                    ms(histogram.max()),
                ));
            }
        }
        lines.push(self.cpu_line());
        for (what, count) in &self.tally.errors {
            lines.push(format!("  failed {}  {what}", grouped(*count)));
        }
        lines.push("  closed loop: tail latencies are optimistic".to_owned());
        lines.join("\n")
    }

    /// For scripts.
    pub(crate) fn document(&self) -> Map<String, Value> {
        let mut map = json::object("galvani.bench/1");
        let Bench { keys, value, .. } = self.args;
        let concurrency = self.concurrency;
        map.insert("workload".to_owned(), workload(self.args).into());
        map.insert("loop".to_owned(), "closed".into());
        map.insert("concurrency".to_owned(), concurrency.into());
        map.insert("keys".to_owned(), keys.get().into());
        map.insert("value_bytes".to_owned(), (*value).into());
        let text = |quorum: Option<galvani_client::Quorum>| quorum.map(|quorum| quorum.to_string());
        map.insert("r".to_owned(), text(self.args.read.r).into());
        map.insert("w".to_owned(), text(self.args.write.w).into());
        map.insert("n".to_owned(), self.args.copies.n.into());
        map.insert("seconds".to_owned(), self.took.as_secs_f64().into());
        map.insert("ops".to_owned(), self.tally.done().into());
        map.insert("failed".to_owned(), self.tally.failed().into());
        map.insert("errors".to_owned(), value!(self.tally.errors));
        map.insert("ops_per_second".to_owned(), self.rate().into());
        map.insert("get".to_owned(), latencies(&self.tally.gets));
        map.insert("put".to_owned(), latencies(&self.tally.puts));
        map.insert("cpu_seconds_per_1000_ops".to_owned(), self.cpu_per_thousand().into());
        map.insert("cpu_micros".to_owned(), self.cpu.micros.into());
        map.insert("cpu_nodes".to_owned(), self.cpu.nodes.into());
        map.insert("cpu_nodes_lacking".to_owned(), self.cpu.lacking.into());
        map
    }

    fn rate(&self) -> f64 {
        self.tally.done() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// `None`: nothing was done, or no node told its CPU time.
    fn cpu_per_thousand(&self) -> Option<f64> {
        let done = self.tally.done();
        (done > 0 && self.cpu.nodes > 0)
            .then(|| self.cpu.micros as f64 / 1e6 / (done as f64 / 1000.0))
    }

    fn cpu_line(&self) -> String {
        let lacking = match self.cpu.lacking {
            0 => String::new(),
            lacking => format!(" (without {lacking} that were restarted or did not answer)"),
        };
        match self.cpu_per_thousand() {
            Some(seconds) => format!(
                "  cpu  {seconds:.3} s per 1000 ops, {} node processes together{lacking}",
                self.cpu.nodes
            ),
            None => format!("  cpu  unknown{lacking}"),
        }
    }
}

/// The workload as it was typed.
pub(crate) fn workload(args: &Bench) -> &'static str {
    match args.workload {
        Workload::Put => "put",
        Workload::Get => "get",
        Workload::Mix => "mix",
    }
}

/// Percentiles for scripts; null if there are none.
pub(crate) fn latencies(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    value!({
        "count": histogram.len(),
        "mean_us": histogram.mean(),
        "p50_us": at(0.5),
        "p90_us": at(0.9),
        "p95_us": at(0.95),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": histogram.max(),
    })
}

/// Milliseconds for people.
pub(crate) fn ms(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::Cpu;
    use galvani_client::NodeId;
    use std::collections::BTreeMap;

    #[test]
    fn a_restarted_node_is_not_counted() {
        let (one, two) = (NodeId(1), NodeId(2));
        let before = BTreeMap::from([((one, 10), 100), ((two, 20), 900)]);
        let after = BTreeMap::from([((one, 10), 350), ((two, 21), 50)]);
        assert_eq!(Cpu::between(&before, &after), Cpu { micros: 250, nodes: 1, lacking: 1 });
    }
}
