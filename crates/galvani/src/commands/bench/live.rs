//! One line on a terminal while a load runs: time, rate, p99, errors, lag, and the rates of the last
//! seconds as a sparkline. Nothing where there is no terminal.
//!
//! It only reads what is recorded. Next to read: `outcome.rs`.

use crate::commands::bench::outcome::Outcome;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Shows how it goes, for ever; `whole`: how long it takes, if that is known.
pub(crate) async fn show(out: &Output, outcome: &RefCell<Outcome>, whole: Option<Duration>) {
    if !io::stderr().is_terminal() || out.quiet {
        return std::future::pending().await;
    }
    let length = whole.map(|whole| whole.as_millis() as u64);
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(4));
    let template = if length.is_some() { " [{bar:20}] {msg}" } else { " {msg}" };
    let style = ProgressStyle::with_template(template).expect("a valid template");
    bar.set_style(style.progress_chars("=> "));
    let bar = Cleared(bar);
    let mut rates = Vec::new();
    loop {
        tokio::time::sleep(TICK).await;
        let mut outcome = outcome.borrow_mut();
        let elapsed = Instant::now().saturating_duration_since(outcome.began);
        outcome.recorder.reach(elapsed);
        bar.0.set_position(elapsed.as_millis() as u64);
        bar.0.set_message(line(&outcome, elapsed, &mut rates));
    }
}

/// Gone from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn line(outcome: &Outcome, elapsed: Duration, rates: &mut Vec<(u64, u64)>) -> String {
    let mut line = format!("now {} s", elapsed.as_secs());
    if let Some(second) = outcome.recorder.last() {
        line.push_str(&format!("  {}/s", crate::report::text::grouped(second.ops)));
        for (kind, part) in &second.kinds {
            line.push_str(&format!("  {kind} p99 {:.2} ms", part.p99_us as f64 / 1e3));
        }
        if rates.last().is_none_or(|(number, _)| *number < second.second) {
            rates.push((second.second, second.ops));
        }
    }
    let lag = outcome.recorder.lag.value_at_quantile(0.99) as f64 / 1e3;
    let last = &rates[rates.len().saturating_sub(SECONDS)..];
    let last: Vec<u64> = last.iter().map(|(_, ops)| *ops).collect();
    line.push_str(&format!("  errors {}  lag {lag:.2} ms  [{}]", outcome.failed(), spark(&last)));
    line
}

/// Numbers as blocks of eight heights.
fn spark(numbers: &[u64]) -> String {
    let most = numbers.iter().copied().max().unwrap_or(0).max(1);
    let block = |number: &u64| BLOCKS[(number * (BLOCKS.len() as u64 - 1) / most) as usize];
    numbers.iter().map(block).collect()
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const SECONDS: usize = 20;
const TICK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::{line, spark};
    use crate::commands::bench::outcome::Outcome;
    use galvani_load::workload::Kind;
    use std::time::{Duration, Instant};

    #[test]
    fn the_line_tells_of_the_last_whole_second() {
        let mut outcome = Outcome::new(Instant::now());
        let (ms, mut rates) = (Duration::from_millis, Vec::new());
        outcome.recorder.record(Kind::Get, ms(10), ms(2), ms(1));
        outcome.recorder.reach(ms(1_500));
        let said = line(&outcome, ms(1_500), &mut rates);
        assert_eq!(said, "now 1 s  1/s  get p99 2.00 ms  errors 0  lag 0.00 ms  [█]");
        assert_eq!(line(&outcome, ms(1_700), &mut rates), said, "one block a second");
    }

    #[test]
    fn sparks_go_from_none_to_most() {
        assert_eq!(spark(&[0, 50, 100]), "▁▄█");
        assert_eq!((spark(&[]), spark(&[0])), (String::new(), "▁".to_owned()));
    }
}
