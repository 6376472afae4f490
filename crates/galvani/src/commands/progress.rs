//! A progress bar on a terminal; nothing where there is none.
//!
//! There is a bar only when it is known how much there is to do: before that a count. How long it will
//! take is said only once something was done.

use crate::output::Output;
use crate::report::text::grouped;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt;
use std::io::{self, IsTerminal};

/// A bar on stderr; with `total` unknown, a count.
pub(crate) fn bar(out: &Output, total: Option<u64>, what: &str) -> ProgressBar {
    let target = match io::stderr().is_terminal() && !out.quiet {
        true => ProgressDrawTarget::stderr_with_hz(10),
        false => ProgressDrawTarget::hidden(),
    };
    drawn_on(target, total, what)
}

/// That there is so much to do, which was not known before or was another number.
pub(crate) fn set_total(bar: &ProgressBar, total: u64) {
    let known = Some(total).filter(|total| *total > 0);
    if bar.length() != known {
        bar.set_style(style(known));
        known.map_or_else(|| bar.unset_length(), |total| bar.set_length(total));
    }
}

fn drawn_on(target: ProgressDrawTarget, total: Option<u64>, what: &str) -> ProgressBar {
    // A bar of nothing would be full.
    let total = total.filter(|total| *total > 0);
    let bar = ProgressBar::with_draw_target(total, target);
    bar.set_style(style(total));
    bar.set_message(what.to_owned());
    bar
}

fn style(total: Option<u64>) -> ProgressStyle {
    let template = match total {
        Some(_) => "{msg} [{bar:30}] {pos}/{len}{rate}{left}",
        None => "{msg} {pos}{rate}  {elapsed}",
    };
    let style = ProgressStyle::with_template(template).expect("a valid template");
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // Writing to memory does not fail.
        let _ = out.write_str(&rate_words(state.per_sec()));
    };
    let left = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // It is zero as long as nobody knows.
        if state.eta().as_secs() > 0 {
            let _ = write!(out, "  {:#} left", HumanDuration(state.eta()));
        }
    };
    style.progress_chars("=> ").with_key("rate", rate).with_key("left", left)
}

/// `  20/s`, `  1.9/s`; nothing as long as nothing was done.
fn rate_words(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => String::new(),
        rate if rate < 0.1 => "  under 0.1/s".to_owned(),
        rate if rate < 9.95 => format!("  {rate:.1}/s"),
        rate => format!("  {}/s", grouped(rate.round() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::{drawn_on, rate_words, set_total};
    use indicatif::{ProgressDrawTarget, TermLike};
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;

    /// A terminal that keeps what is written on it.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<Vec<String>>>);

    impl Paper {
        /// What was drawn since the last look, without the space that fills the line.
        fn frames(&self) -> Vec<String> {
            let frames = std::mem::take(&mut *self.0.lock());
            let frames = frames.iter().map(|frame| frame.trim().to_owned());
            frames.filter(|frame| !frame.is_empty()).collect()
        }
    }

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().push(text.to_owned());
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_full_before_it_is_known_how_much_there_is() {
        for total in [None, Some(0)] {
            let paper = Paper::default();
            let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
            let bar = drawn_on(target, total, "shards read");
            assert_eq!(paper.frames(), ["shards read 0  0s"], "{total:?}");
            set_total(&bar, 0);
            bar.force_draw();
            assert_eq!(paper.frames(), ["shards read 0  0s"], "not known yet");
            set_total(&bar, 256);
            bar.force_draw();
            let empty = format!("shards read [{}] 0/256", " ".repeat(30));
            assert_eq!(paper.frames().last(), Some(&empty), "known, and nothing is done yet");
            bar.set_position(256);
            bar.force_draw();
            let full = format!("shards read [{}] 256/256", "=".repeat(30));
            let frame = paper.frames().pop().expect("drawn");
            assert!(frame.starts_with(&full) && !frame.contains("left"), "{frame}");
        }
    }

    #[test]
    fn rates_are_for_people() {
        for (rate, words) in [
            (0.0, ""),
            (0.004, "  under 0.1/s"),
            (1.8756, "  1.9/s"),
            (9.97, "  10/s"),
            (18.756, "  19/s"),
            (20.2137, "  20/s"),
            (12_345.6, "  12 346/s"),
        ] {
            assert_eq!(rate_words(rate), words, "{rate}");
        }
    }
}
