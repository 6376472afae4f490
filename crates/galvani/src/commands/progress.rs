//! A progress bar on a terminal; nothing where there is none.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};

/// A bar on stderr; with `total` unknown, a count.
pub(crate) fn bar(out: &Output, total: Option<u64>, what: &str) -> ProgressBar {
    let target = match io::stderr().is_terminal() && !out.quiet {
        true => ProgressDrawTarget::stderr_with_hz(10),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(total, target);
    let template = match total {
        Some(_) => "{msg} [{bar:30}] {pos}/{len}  {per_sec}  {eta} left",
        None => "{msg} {pos}  {per_sec}  {elapsed}",
    };
    let style = ProgressStyle::with_template(template).expect("a valid template");
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what.to_owned());
    bar
}
