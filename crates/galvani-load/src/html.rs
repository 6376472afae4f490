//! A run as one HTML file with plots: no script, nothing fetched, readable as it is.
//!
//! Three plots, as SVG in the page: latency by percentile (from when due and from when sent), the
//! rate over time, and the 99th percentile over time. Everything from outside is escaped.

use crate::hdr;
use crate::run::{Batch, Histograms, Latency, Run};
use std::fmt::Write;

/// The page.
pub fn page(run: &Run) -> String {
    let mut out = String::from(HEAD);
    let title = format!("galvani bench {}", run.workload);
    let _infallible = write!(
        out,
        "<title>{0}</title>{STYLE}</head><body><h1>{0}</h1><p>{1}</p>",
        escaped(&title),
        escaped(&subtitle(run)),
    );
    if run.generator_bound {
        out.push_str("<p class=bad>GENERATOR-BOUND: the figures say more of the bench than of the cluster</p>");
    }
    out.push_str(&table(run));
    out.push_str("<h2>Latency by percentile</h2>");
    out.push_str(&percentiles(run));
    let seconds: Vec<f64> = run.batches.iter().map(|batch| batch.second as f64).collect();
    out.push_str("<h2>Operations in each second</h2>");
    let rate = Line::of("ops", &seconds, |index| Some(run.batches[index].ops as f64));
    let errors = Line::of("failed", &seconds, |index| Some(run.batches[index].errors as f64));
    out.push_str(&plot(&[rate, errors], "seconds", &plain));
    out.push_str("<h2>99th percentile in each second, ms</h2>");
    let kinds = run.kinds();
    let lines: Vec<Line> = kinds
        .iter()
        .map(|(kind, _)| {
            let p99 = |batch: &Batch| Some(batch.kinds.get(*kind)?.p99_us as f64 / 1e3);
            Line::of(kind, &seconds, |index| p99(&run.batches[index]))
        })
        .collect();
    out.push_str(&plot(&lines, "seconds", &plain));
    out.push_str("</body></html>\n");
    out
}

fn subtitle(run: &Run) -> String {
    let shape = match (run.rate, run.concurrency) {
        (Some(rate), _) => format!("{rate:.0}/s, open loop"),
        (None, Some(workers)) => format!("closed loop, {workers} workers: tails are optimistic"),
        (None, None) => "closed loop".to_owned(),
    };
    let Run { seconds, keys, value_bytes, distribution, started_at, host, version, .. } = run;
    format!(
        "{shape}, {seconds:.1} s, {keys} keys of {value_bytes} B, {distribution}; {started_at}, \
         {host}, galvani {version}"
    )
}

fn table(run: &Run) -> String {
    let mut out =
        String::from("<table><tr><th><th>count<th>p50 ms<th>p90<th>p99<th>p99.9<th>max</tr>");
    let mut row = |name: String, latency: &Latency| {
        let ms = |micros: u64| format!("{:.2}", micros as f64 / 1e3);
        let Latency { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = *latency;
        let _infallible = write!(
            out,
            "<tr><td>{}<td>{count}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escaped(&name),
            ms(p50_us),
            ms(p90_us),
            ms(p99_us),
            ms(p999_us),
            ms(max_us),
        );
    };
    for (kind, latency) in run.kinds() {
        row(kind.to_owned(), latency);
        if let Some(sent) = run.service.get(kind) {
            row(format!("{kind}, from send"), sent);
        }
    }
    let _infallible = write!(
        out,
        "</table><p>{:.0} ops/s; failed {}, of those refused {}, timeouts {}; not sent {}; bench \
         {:.0} % of a core</p>",
        run.ops_per_second,
        run.failed,
        run.refused,
        run.timeouts,
        run.shed,
        run.generator_cpu * 100.0,
    );
    if let Some(check) = &run.check {
        let verdict = if check.passed() { "PASS" } else { "FAIL" };
        let _infallible = write!(
            out,
            "<p>check: {} acked writes, {} keys re-read: {} lost, {} resurrected, {} not read: \
             <b>{verdict}</b></p>",
            check.acked, check.keys, check.lost, check.resurrected, check.unread,
        );
    }
    out
}

/// Latency against 1/(1-q): the tail takes as much room as the rest.
fn percentiles(run: &Run) -> String {
    let mut lines = Vec::new();
    for (kind, Histograms { due, sent }) in &run.histograms {
        for (name, text) in [(kind.clone(), due), (format!("{kind}, from send"), sent)] {
            let Some(histogram) = hdr::decode(text).filter(|histogram| !histogram.is_empty())
            else {
                continue;
            };
            let nines = (histogram.len() as f64).log10();
            let points = (0..=100).map(|step| {
                let x = nines * f64::from(step) / 100.0;
                let micros = histogram.value_at_quantile(1.0 - 10_f64.powf(-x));
                (x, micros as f64 / 1e3)
            });
            lines.push(Line { name, points: points.collect() });
        }
    }
    let percent = |x: f64| format!("{}%", trimmed((1.0 - 10_f64.powf(-x)) * 100.0));
    plot(&lines, "percentile; ms", &percent)
}

fn trimmed(number: f64) -> String {
    format!("{number:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn of(name: &str, xs: &[f64], y: impl Fn(usize) -> Option<f64>) -> Line {
        let points = xs.iter().enumerate().filter_map(|(index, x)| Some((*x, y(index)?)));
        Line { name: name.to_owned(), points: points.collect() }
    }
}

fn plot(lines: &[Line], label: &str, tick: &dyn Fn(f64) -> String) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let x_max = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let y_max = all().map(|(_, y)| *y).fold(1e-9, f64::max);
    let at = |x: f64, y: f64| (LEFT + x / x_max * WIDTH, TOP + (1.0 - y / y_max) * HEIGHT);
    let mut out =
        format!("<svg viewBox=\"0 0 {} {}\" role=img>", LEFT + WIDTH + 20.0, TOP + HEIGHT + 45.0);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (x, y) = at(x_max * share, y_max * share);
        let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
        let (x_text, y_text) = (tick(x_max * share), plain(y_max * share));
        let _infallible = write!(
            out,
            "<path class=grid d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=end>{y_text}</text><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=middle>{x_text}</text>",
            LEFT - 6.0,
            y + 4.0,
            bottom + 16.0,
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for (index, (x, y)) in line.points.iter().enumerate() {
            let ((x, y), verb) = (at(*x, *y), if index == 0 { 'M' } else { 'L' });
            let _infallible = write!(path, "{verb}{x:.1} {y:.1}");
        }
        let _infallible = write!(
            out,
            "<path fill=none stroke=\"{colour}\" stroke-width=1.5 d=\"{path}\"/><text x=\"{:.1}\" \
             y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            LEFT + 10.0 + 150.0 * index as f64,
            TOP - 6.0,
            escaped(&line.name),
        );
    }
    let _infallible = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=middle>{}</text></svg>",
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 36.0,
        escaped(label),
    );
    out
}

fn plain(number: f64) -> String {
    match number {
        number if number >= 100.0 || number == 0.0 => format!("{number:.0}"),
        number if number >= 1.0 => format!("{number:.1}"),
        number => format!("{number:.3}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8>";
const STYLE: &str = "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;\
padding:0 1em;color:#222;background:#fff}table{border-collapse:collapse}td,th{padding:.2em .8em;\
text-align:right;border-bottom:1px solid #ddd}td:first-child{text-align:left}svg{width:100%}\
svg text{font-size:12px;fill:#555}.grid{stroke:#ddd;fill:none}.bad{color:#b00;font-weight:bold}\
</style>";
const COLOURS: [&str; 8] =
    ["#1668b8", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be123c", "#4d7c0f"];
const LEFT: f64 = 60.0;
const TOP: f64 = 24.0;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;

#[cfg(test)]
mod tests {
    use super::page;
    use crate::recorder::Recorder;
    use crate::run::{Histograms, Latency, Run};
    use crate::workload::Kind;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn the_page_is_whole_and_fetches_nothing() {
        let mut recorder = Recorder::new();
        for second in 0..5 {
            let (at, took) = (Duration::from_secs(second), Duration::from_millis(1 + second));
            recorder.record(Kind::Put, at, took, took);
        }
        let latencies = recorder.kinds[Kind::Put.index()].clone();
        let histograms = Histograms {
            due: crate::hdr::encode(&latencies.due),
            sent: crate::hdr::encode(&latencies.sent),
        };
        let run = Run {
            workload: "<a>".to_owned(),
            seconds: 5.0,
            put: Latency::of(&latencies.due),
            histograms: BTreeMap::from([("put".to_owned(), histograms)]),
            batches: recorder.batches(),
            generator_bound: true,
            ..Run::default()
        };
        let page = page(&run);
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("</svg>").count(), 3);
        assert!(page.contains("&lt;a&gt;") && !page.contains("<a>"), "{page}");
        assert!(page.contains("GENERATOR-BOUND"));
        for fetched in ["<script", "http:", "https:", "src=", "@import", "NaN", "inf"] {
            assert!(!page.contains(fetched), "{fetched}: {page}");
        }
    }
}
