//! What a run found: the document from the figures, and the words from the document.
//!
//! Adds nothing up twice: histograms are merged, percentiles never averaged. A saved run is printed
//! by the same words. Next: `bench.rs`.

use crate::args::bench::Run as Args;
use crate::commands::bench::outcome::Outcome;
use crate::commands::bench::usage::Cpu;
use crate::report::json;
use crate::report::text::{Size, count, grouped};
use galvani_load::hdr::encode;
use galvani_load::run::{Chaos, Histograms, Latency, Quorum, Run, SCHEMA};
use galvani_load::stats::Series;
use galvani_load::workload::{Kind, Mix};
use hdrhistogram::Histogram;
use serde_json::{Value, json as value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What was measured beside the outcome.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    /// What faults did.
    pub(crate) chaos: Option<Chaos>,
    pub(crate) mix: Mix,
    pub(crate) quorum: Option<Quorum>,
    /// Requests a second, of an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) sustainable: Option<f64>,
    /// Workers, of a closed loop.
    pub(crate) workers: Option<u32>,
    pub(crate) timeout: Duration,
    pub(crate) started: SystemTime,
    pub(crate) cpu: Cpu,
    pub(crate) memory: u64,
    /// Share of a core that the bench itself took.
    pub(crate) own: f64,
    /// Writes that found or made a sibling.
    pub(crate) races: u64,
}

/// The document of a run.
pub(crate) fn run(args: &Args, outcome: Outcome, around: &Around) -> Run {
    let kind = |kind: Kind| &outcome.recorder.kinds[kind.index()];
    let due = |one| Latency::of(&kind(one).due);
    let lag = Latency::of(&outcome.recorder.lag).filter(|_| around.rate.is_some());
    let text = |quorum: Option<galvani_client::Quorum>| quorum.map(|quorum| quorum.to_string());
    let there = || Kind::ALL.into_iter().filter(|one| !kind(*one).due.is_empty());
    let histograms = there().map(|one| {
        let latencies = kind(one);
        let texts = Histograms { due: encode(&latencies.due), sent: encode(&latencies.sent) };
        (one.name().to_owned(), texts)
    });
    let service =
        there().filter_map(|one| Some((one.name().to_owned(), Latency::of(&kind(one).sent)?)));
    let done = outcome.good;
    let known = done > 0 && around.cpu.nodes > 0;
    let started_ms = around.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let late = lag.is_some_and(|lag| lag.p99_us > LAG_US_MAX);
    Run {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: json::time(around.started),
        started_ms: u64::try_from(started_ms).unwrap_or(0),
        workload: args.workload().title(),
        distribution: around.mix.distribution.name().to_owned(),
        shape: if around.rate.is_some() { "open" } else { "closed" }.to_owned(),
        rate: around.rate,
        sustainable_per_second: around.sustainable,
        concurrency: around.workers,
        seed: args.seed,
        keys: args.keys.get(),
        value_bytes: args.value_bytes(),
        n: args.copies.n,
        r: text(args.read.r),
        w: text(args.write.w),
        quorum: around.quorum,
        timeout_ms: around.timeout.as_millis() as u64,
        seconds: outcome.took.as_secs_f64(),
        offered: outcome.offered,
        shed: outcome.shed,
        waited_for: outcome.waited_for as u64,
        ops: done,
        ops_per_second: outcome.goodput(),
        failed: outcome.failed(),
        refused: outcome.refused,
        timeouts: outcome.timeouts,
        errors: outcome.errors.clone(),
        get: due(Kind::Get),
        put: due(Kind::Put),
        insert: due(Kind::Insert),
        rmw: due(Kind::Rmw),
        service: service.collect(),
        lag,
        generator_cpu: around.own,
        generator_bound: late || around.own > CPU_MAX,
        cpu_micros: around.cpu.micros,
        cpu_seconds_per_1000_ops: known
            .then(|| around.cpu.micros as f64 / 1e6 / (done as f64 / 1000.0)),
        cpu_nodes: around.cpu.nodes,
        cpu_nodes_lacking: around.cpu.lacking,
        node_memory_bytes_max: around.memory,
        races: around.races,
        check: None,
        host: host(),
        histograms: histograms.collect(),
        batches: outcome.recorder.batches(),
        chaos: around.chaos.clone(),
    }
}

/// For scripts: all but the histograms, which `--save` writes.
pub(crate) fn document(run: &Run, rows: Vec<Value>) -> Value {
    let short = Run { histograms: Default::default(), batches: Vec::new(), ..run.clone() };
    let mut document = serde_json::to_value(short).unwrap_or_default();
    if let (Some(map), false) = (document.as_object_mut(), rows.is_empty()) {
        map.insert("rows".to_owned(), rows.into());
    }
    document
}

/// One run among several: `times` a rate.
pub(crate) fn row(times: f64, run: &Run) -> Value {
    let all = merged(run);
    value!({
        "times": times,
        "rate": run.rate,
        "seconds": run.seconds,
        "offered": run.offered,
        "good": run.ops,
        "goodput_per_second": run.ops_per_second,
        "refused": run.refused,
        "timeouts": run.timeouts,
        "other": other(run),
        "shed": run.shed,
        "errors": run.errors,
        "get": run.get,
        "put": run.put,
        "insert": run.insert,
        "rmw": run.rmw,
        "p50_us": all.value_at_quantile(0.5),
        "p99_us": all.value_at_quantile(0.99),
        "bench_late_max_us": run.lag.map(|lag| lag.max_us),
        "generator_bound": run.generator_bound,
        "node_memory_bytes_max": run.node_memory_bytes_max,
    })
}

/// Failures that are neither refusals nor late.
pub(crate) fn other(run: &Run) -> u64 {
    run.failed.saturating_sub(run.refused + run.timeouts)
}

/// All latencies of a run, from when each request was due.
pub(crate) fn merged(run: &Run) -> Histogram<u64> {
    let mut all = galvani_load::hdr::histogram();
    for text in run.histograms.values() {
        if let Some(one) = galvani_load::hdr::decode(&text.due) {
            galvani_load::hdr::merge(&mut all, &one);
        }
    }
    all
}

/// For people.
pub(crate) fn page(run: &Run) -> String {
    let mut lines = Vec::new();
    if run.generator_bound {
        lines.push(format!(
            "GENERATOR-BOUND: {}; the figures say more of the bench and its machine than of the cluster",
            bound_by(run)
        ));
    }
    lines.push(headline(run));
    lines.push(rate_line(run));
    for (name, latency) in run.kinds() {
        lines.push(format!("  {name:<6}  {}", latency_line(latency)));
    }
    if run.rate.is_some() {
        let sent: Vec<String> = run
            .service
            .iter()
            .map(|(name, sent)| format!("{name} {} / {}", ms(sent.p50_us), ms(sent.p99_us)))
            .collect();
        lines.push(format!("  from send, p50 / p99:  {} ms", sent.join("  ")));
    }
    lines.push(bench_line(run));
    lines.push(cpu_line(run));
    if run.races > 0 {
        let races = grouped(run.races);
        lines.push(format!("  siblings  {races} writes raced with another one of their key; the next one merged them"));
    }
    for (what, count) in &run.errors {
        lines.push(format!("  failed {}  {what}", grouped(*count)));
    }
    match run.rate {
        None => lines.push("  closed loop: tail latencies are optimistic".to_owned()),
        Some(_) => lines.push("  latencies from when each request was due".to_owned()),
    }
    lines.extend(run.chaos.iter().flat_map(super::chaos::lines));
    lines.extend(super::chaos::phase_lines(run));
    if let Some(check) = &run.check {
        lines.push(check_line(check));
    }
    lines.join("\n")
}

fn headline(run: &Run) -> String {
    let shape = match (run.rate, run.concurrency) {
        (Some(rate), _) => format!("open loop, {}/s", grouped(rate.round() as u64)),
        (None, Some(workers)) => format!("closed loop, {workers} workers"),
        (None, None) => "closed loop".to_owned(),
    };
    let quorum = run.quorum.map(|Quorum { n, r, w }| format!("  r={r} w={w} n={n}"));
    format!(
        "{}  {shape}{}  {} keys of {}  {}  {:.1} s",
        run.workload,
        quorum.unwrap_or_default(),
        grouped(run.keys),
        Size(run.value_bytes),
        run.distribution,
        run.seconds
    )
}

fn rate_line(run: &Run) -> String {
    let per_second: Vec<f64> = run.whole_batches().iter().map(|batch| batch.ops as f64).collect();
    let margin = Series::of(&per_second)
        .map(|series| format!(" ± {}", grouped(series.margin().round() as u64)))
        .unwrap_or_default();
    let rate = grouped(run.ops_per_second.round() as u64);
    let (done, failed) = (grouped(run.ops), grouped(run.failed));
    let mut line = format!("  {rate}{margin} ops/s  {done} done  {failed} failed");
    if run.rate.is_some() {
        let (refused, timeouts) = (grouped(run.refused), grouped(run.timeouts));
        line.push_str(&format!(" (refused {refused}, timeouts {timeouts})"));
        let waited = grouped(run.waited_for);
        line.push_str(&format!("  {waited} under way at the end, all waited for"));
    }
    if run.shed > 0 && run.rate.is_some() {
        line.push_str(&format!("  not sent {}", grouped(run.shed)));
    }
    line
}

fn latency_line(latency: &Latency) -> String {
    format!(
        "{}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {} ms",
        grouped(latency.count),
        ms(latency.p50_us),
        ms(latency.p90_us),
        ms(latency.p99_us),
        ms(latency.p999_us),
        ms(latency.max_us),
    )
}

fn bench_line(run: &Run) -> String {
    let cpu = format!("cpu {:.0} % of a core", run.generator_cpu * 100.0);
    match run.lag {
        Some(lag) => format!(
            "  bench  {cpu}  schedule lag p50 {}  p99 {}  max {} ms",
            ms(lag.p50_us),
            ms(lag.p99_us),
            ms(lag.max_us)
        ),
        None => format!("  bench  {cpu}"),
    }
}

fn bound_by(run: &Run) -> String {
    match run.lag.filter(|lag| lag.p99_us > LAG_US_MAX) {
        Some(lag) => format!("the schedule lagged by {} ms at p99", ms(lag.p99_us)),
        None => format!("the bench took {:.0} % of a core", run.generator_cpu * 100.0),
    }
}

fn cpu_line(run: &Run) -> String {
    let lacking = match run.cpu_nodes_lacking {
        0 => String::new(),
        lacking => format!(" (without {lacking} that were restarted or did not answer)"),
    };
    let memory = match run.node_memory_bytes_max {
        0 => String::new(),
        memory => format!("  memory {} a node at most", Size(memory)),
    };
    match run.cpu_seconds_per_1000_ops {
        Some(seconds) => format!(
            "  cpu  {:.1} us per op, {} node processes together{lacking}{memory}",
            seconds * 1000.0,
            run.cpu_nodes
        ),
        None => format!("  cpu  unknown{lacking}{memory}"),
    }
}

/// What the check found, on one line.
pub(crate) fn check_line(check: &galvani_load::run::Check) -> String {
    let mut line = format!(
        "check  {} acked writes, {} keys re-read at r=all: {} lost, {} resurrected",
        grouped(check.acked),
        grouped(check.keys),
        grouped(check.lost),
        grouped(check.resurrected),
    );
    if check.unread > 0 {
        line.push_str(&format!(", {} not readable", grouped(check.unread)));
    }
    if check.foreign > 0 {
        line.push_str(&format!(", {} by somebody else", grouped(check.foreign)));
    }
    if check.unjudged > 0 {
        line.push_str(&format!(", {} not judged", count(check.unjudged, "key")));
    }
    format!("{line}  {}", check.verdict())
}

/// Milliseconds for people.
pub(crate) fn ms(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1e3)
}

/// Where this runs, in a few words.
fn host() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    format!("{cores} x {model}, kernel {}", kernel.trim())
}

/// Beyond either, the generator is what was measured.
const LAG_US_MAX: u64 = 1_000;
const CPU_MAX: f64 = 0.85;

#[cfg(test)]
mod tests {
    use super::{check_line, page};
    use galvani_load::run::{Check, Latency, Run};

    #[test]
    fn a_run_bound_by_its_generator_says_so_first() {
        let lag = Some(Latency { p99_us: 2_500, ..Latency::default() });
        let run = Run { generator_bound: true, rate: Some(500.0), lag, ..Run::default() };
        let first = page(&run).lines().next().expect("a line").to_owned();
        assert!(first.starts_with("GENERATOR-BOUND: the schedule lagged by 2.50 ms"), "{first}");
        let run = Run { generator_bound: true, generator_cpu: 0.93, ..Run::default() };
        assert!(page(&run).contains("took 93 % of a core"));
        assert!(!page(&Run::default()).contains("GENERATOR-BOUND"));
    }

    #[test]
    fn the_check_says_what_is_wrong() {
        let fine = Check { acked: 1_500, keys: 10, ..Check::default() };
        assert_eq!(
            check_line(&fine),
            "check  1 500 acked writes, 10 keys re-read at r=all: 0 lost, 0 resurrected  PASS"
        );
        let bad = check_line(&Check { lost: 2, unread: 1, ..fine });
        assert!(bad.ends_with("2 lost, 0 resurrected, 1 not readable  FAIL"), "{bad}");
        let open = check_line(&Check { foreign: 3, unjudged: 2, ..fine });
        let ends = "0 resurrected, 3 by somebody else, 2 keys not judged  NOT ALL JUDGED";
        assert!(open.ends_with(ends), "{open}");
    }
}
