//! The table: medians of the runs of each peer, and how Galvani compares.
//!
//! Runs are of one group when operation, concurrency and size of values are the same. Percentiles
//! of several runs are never averaged: the median run's stands.

use crate::result::Run;
use std::collections::BTreeMap;

/// Whom others are compared with.
pub(crate) const BASE: &str = "galvani";

/// A page for people and for pages: medians of all runs that differ only in time.
pub(crate) fn of(runs: &[Run]) -> String {
    let mut groups: BTreeMap<(&str, u32, u64), BTreeMap<&str, Vec<&Run>>> = BTreeMap::new();
    for run in runs {
        let group = groups.entry((&run.op, run.concurrency, run.value_bytes)).or_default();
        group.entry(&run.peer).or_default().push(run);
    }
    let mut page = String::new();
    for ((op, concurrency, bytes), peers) in groups {
        page.push_str(&format!("{op}, {concurrency} in flight, values of {bytes} B\n\n"));
        page.push_str("| store | runs | ops/s | p50 / p99 ms | servers' CPU us/op | failed | ");
        page.push_str("Galvani does | Galvani's CPU |\n|---|---|---|---|---|---|---|---|\n");
        let base = peers.iter().find(|(peer, _)| peer.starts_with(BASE)).map(|(_, runs)| runs);
        for (peer, runs) in &peers {
            page.push_str(&line(peer, runs, base.map(Vec::as_slice)));
        }
        page.push('\n');
    }
    page
}

fn line(peer: &str, runs: &[&Run], base: Option<&[&Run]>) -> String {
    let (ops, cpu) = (ops(runs), cpu(runs));
    let is_base = peer.starts_with(BASE);
    let times = |ratio: Option<f64>| match ratio {
        Some(ratio) if !is_base => format!("{ratio:.2}x"),
        Some(_) | None => "-".to_owned(),
    };
    let base_ops = base.map(crate::table::ops).filter(|_| ops > 0.0);
    let base_cpu = base.and_then(crate::table::cpu);
    let cpu_ratio = base_cpu.zip(cpu).filter(|(_, cpu)| *cpu > 0.0).map(|(base, cpu)| base / cpu);
    format!(
        "| {peer} | {} | {ops:.0} | {:.2} / {:.2} | {} | {} | {} | {} |\n",
        runs.len(),
        median(runs, |run| run.p50_us as f64) / 1e3,
        median(runs, |run| run.p99_us as f64) / 1e3,
        cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.1}")),
        runs.iter().map(|run| run.failed).sum::<u64>(),
        times(base_ops.map(|base| base / ops)),
        times(cpu_ratio),
    )
}

fn ops(runs: &[&Run]) -> f64 {
    median(runs, |run| run.ops_per_second)
}

fn cpu(runs: &[&Run]) -> Option<f64> {
    let known = runs.iter().all(|run| run.server_cpu_us.is_some());
    known.then(|| median(runs, |run| run.server_cpu_us.unwrap_or_default()))
}

fn median(runs: &[&Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| of(run)).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::result::{Run, read};

    fn run(peer: &str, ops_per_second: f64, server_cpu_us: Option<f64>) -> Run {
        Run {
            peer: peer.to_owned(),
            op: "put".to_owned(),
            concurrency: 64,
            value_bytes: 1024,
            ops_per_second,
            p50_us: 1_500,
            p99_us: 9_000,
            server_cpu_us,
            failed: 1,
        }
    }

    #[test]
    fn medians_and_ratios_are_those_of_one_group() {
        let mut runs = vec![
            run("redis", 100.0, Some(10.0)),
            run("galvani", 400.0, Some(40.0)),
            run("redis", 200.0, Some(20.0)),
            run("galvani", 600.0, Some(50.0)),
            run("redis", 900.0, Some(30.0)),
        ];
        let other = Run { op: "get".to_owned(), ..run("redis", 7.0, None) };
        runs.push(other);
        let page = of(&runs);
        let redis = "| redis | 3 | 200 | 1.50 / 9.00 | 20.0 | 3 | 3.00x | 2.50x |";
        assert!(page.contains(redis), "{page}");
        assert!(page.contains("| galvani | 2 | 600 | 1.50 / 9.00 | 50.0 | 2 | - | - |"), "{page}");
        assert!(page.contains("| redis | 1 | 7 | 1.50 / 9.00 | - | 1 | - | - |"), "{page}");
    }

    #[test]
    fn runs_are_read_as_they_were_appended() {
        let file = std::env::temp_dir().join(format!("peers-test-{}.jsonl", std::process::id()));
        let runs = [run("redis", 1.5, None), run("galvani", 2.5, Some(3.5))];
        runs.iter().for_each(|run| run.append(&file).expect("a file that can be written"));
        let back = read(&file);
        let _ = std::fs::remove_file(&file);
        assert_eq!(back.expect("readable"), runs);
    }
}
