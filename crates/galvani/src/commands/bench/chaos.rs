//! Faults on a local cluster while a load runs, by the clock: kill, pause, cut, heal, start.
//!
//! Each is done by the command that people type, `galvani dev ..`, as a process of its own, and what
//! it took is written down. At the end of the run, when a command that is under way has come to its
//! own end, all is mended: cuts healed, nodes started and resumed, hints waited for; then the check
//! reads every replica. Next to read: `verify.rs`.

use crate::args::bench::Chaos as Args;
use crate::commands::bench::outcome::Outcome;
use crate::commands::bench::summary::ms;
use crate::commands::place::{Dropped, ran_in, typed};
use crate::connect::App;
use crate::exit::Exit;
use crate::report::Report;
use crate::report::text::grouped;
use galvani_load::phases::{Phase, phases};
use galvani_load::run::{Broken, Chaos, Run};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// One fault, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    at: Duration,
    /// Words of `galvani dev`.
    words: Vec<String>,
}

/// The faults of a run.
#[derive(Debug)]
pub(crate) struct Faults {
    events: Vec<Event>,
    state: PathBuf,
    /// Options that name the local cluster.
    which: Vec<String>,
    done: RefCell<Vec<Broken>>,
}

/// Before anything is made: whether the faults make sense.
pub(crate) fn check(args: &Args) -> Result<(), Report> {
    let wrong = |what: String, why: &str| {
        let report = Report::new(Exit::Usage, what).why(why);
        Err(report.next("see", "galvani help bench chaos"))
    };
    if args.run.overload || args.run.count.is_some() {
        let what = "bench chaos: --overload and --count are for bench run".to_owned();
        return wrong(what, "faults come by the clock: use --duration");
    }
    let duration = args.run.duration();
    match events(args).iter().find(|event| event.at >= duration) {
        Some(event) => {
            let (at, duration) = (word(event.at), word(duration));
            let what = format!("bench chaos: {} at {at} is after the end", event.words.join(" "));
            wrong(what, &format!("the run takes {duration} (--duration)"))
        }
        None => Ok(()),
    }
}

/// The faults in the order of their times.
fn events(args: &Args) -> Vec<Event> {
    let mut events = Vec::new();
    let verbs = [
        ("kill", &args.kill),
        ("start", &args.start),
        ("pause", &args.pause),
        ("resume", &args.resume),
        ("cut", &args.cut),
    ];
    for (verb, all) in verbs {
        events.extend(
            all.iter().map(|timed| Event {
                at: timed.at,
                words: vec![verb.to_owned(), timed.what.clone()],
            }),
        );
    }
    events.extend(
        args.heal.iter().map(|timed| Event { at: timed.at, words: vec!["heal".to_owned()] }),
    );
    events.sort_by_key(|event| event.at);
    events
}

impl Faults {
    /// On the local cluster of this context; an error if it is of another kind.
    pub(crate) fn of(app: &App, args: &Args) -> Result<Faults, Report> {
        let name = app.context_name()?.filter(|_| app.global.server.is_empty());
        let dir = match &name {
            Some(name) => app.state.context(name)?.and_then(|context| context.dev_dir),
            None => None,
        };
        let (Some(name), Some(dir)) = (name, dir) else {
            return Err(Report::new(Exit::Usage, "bench chaos: this is no local cluster")
                .why("only nodes that `galvani dev` started are killed, paused or cut off")
                .next("try", "galvani dev -d"));
        };
        let dir = dir.display().to_string();
        let which = ["--name", &name, "--dir", &dir].map(str::to_owned).to_vec();
        let state = app.state.root().to_owned();
        Ok(Faults { events: events(args), state, which, done: RefCell::new(Vec::new()) })
    }

    /// Does each fault at its time of the run that began at `began`, until `over` is told; one that
    /// is under way then is done to its end.
    pub(crate) async fn play(&self, began: Instant, over: &Notify) {
        self.play_by(began, over, async |words| self.dev(words).await).await;
    }

    async fn play_by(
        &self,
        began: Instant,
        over: &Notify,
        dev: impl AsyncFn(&[&str]) -> Result<(), String>,
    ) {
        for event in &self.events {
            tokio::select! {
                biased;
                () = over.notified() => return,
                () = tokio::time::sleep_until((began + event.at).into()) => {}
            }
            let words: Vec<&str> = event.words.iter().map(String::as_str).collect();
            let failed = dev(&words).await.err();
            let at = began.elapsed().as_secs_f64();
            let words = event.words.join(" ");
            let what = failed.map_or(words.clone(), |why| format!("{words}: FAILED, {why}"));
            self.done.borrow_mut().push(Broken { at, what });
        }
    }

    /// Undoes everything and waits until all hints are handed over; what does not work is said.
    pub(crate) async fn mend(&self, app: &App) {
        app.out.say("mend     heal, resume and start everything, wait for hints");
        // A paused node cannot be told to heal: it goes on first. One that is not paused says so.
        let paused = self.events.iter().filter(|event| event.words[0] == "pause");
        for event in paused {
            let _ = self.dev(&["resume", &event.words[1]]).await;
        }
        for words in [&["start"][..], &["heal"]] {
            if let Err(why) = self.dev(words).await {
                app.out.note(&format!("{}: {why}", typed(words)));
            }
        }
        let wait = ["wait", "--for", "hints=0", "--patience", "60s", "--ctx", &self.which[1]];
        match ran_in(&self.state, &wait, Dropped::Kills).await {
            Ok(ran) if ran.code == Some(0) => {}
            Ok(ran) => app.out.note(ran.output.trim()),
            Err(_) => app.out.note("nobody knows whether hints are left"),
        }
    }

    /// What was done, beside the gap that the load saw.
    pub(crate) fn found(&self, outcome: &Outcome) -> Chaos {
        let (from, long) = outcome.longest_gap;
        Chaos {
            done: self.done.borrow().clone(),
            unavailable_seconds: long.as_secs_f64(),
            unavailable_from: from.as_secs_f64(),
            ..Chaos::default()
        }
    }

    async fn dev(&self, words: &[&str]) -> Result<(), String> {
        let mut all = vec!["dev"];
        all.extend(words);
        all.extend(self.which.iter().map(String::as_str));
        // Half a fault, or half its mending, is a state that the next command knows nothing of.
        match ran_in(&self.state, &all, Dropped::Waits).await {
            Ok(ran) if ran.code == Some(0) => Ok(()),
            Ok(ran) => Err(ran.output.lines().next().unwrap_or_default().to_owned()),
            Err(report) => Err(report.to_string().lines().next().unwrap_or_default().to_owned()),
        }
    }
}

/// The words of the report.
pub(crate) fn lines(chaos: &Chaos) -> Vec<String> {
    let done = chaos.done.iter().map(|Broken { at, what }| format!("  {at:>5.1} s  {what}"));
    let mut lines: Vec<String> = done.collect();
    let Chaos { unavailable_seconds: long, unavailable_from: from, .. } = chaos;
    lines
        .push(format!("  unavailable  {long:.2} s at most without an answer, from {from:.1} s on"));
    let Chaos { hints_made, hints_drained, hints_left, .. } = chaos;
    lines.push(format!("  hints  {hints_made} made, {hints_drained} drained, {hints_left} left"));
    lines
}

/// A line for each phase: how fast it was, and what the slow ones took.
pub(crate) fn phase_lines(run: &Run) -> Vec<String> {
    let line = |phase: &Phase| {
        let what = if phase.what.is_empty() { "before" } else { &phase.what };
        let seconds = phase.seconds.max(1);
        let kinds = phase.kinds.iter().map(|(kind, latency)| {
            let (p99, max) = (ms(latency.p99_us), ms(latency.max_us));
            format!("  {kind} p99 {p99:>8} max {max:>8}")
        });
        let (ops, errors) = (phase.ops / seconds, phase.errors);
        let kinds = kinds.collect::<String>();
        format!("  {what:<16} {:>3} s {:>8}/s  failed {errors}{kinds}", phase.seconds, grouped(ops))
    };
    phases(run).iter().map(line).collect()
}

fn word(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Faults, check, events};
    use crate::args::bench::{BenchCommand, Chaos};
    use crate::args::{Cli, Command};
    use clap::Parser;
    use std::cell::{Cell, RefCell};
    use std::path::PathBuf;
    use std::time::Instant;
    use tokio::sync::Notify;

    fn parsed(words: &[&str]) -> Result<Chaos, clap::Error> {
        let cli = Cli::try_parse_from([&["galvani", "bench", "chaos"], words].concat())?;
        let Command::Bench(bench) = cli.command else { panic!("bench") };
        let Some(BenchCommand::Chaos(args)) = bench.command else { panic!("chaos") };
        Ok(*args)
    }

    #[test]
    fn faults_come_in_the_order_of_their_times() {
        let words = "--cut n1|n2,n3@4s --heal @5s --kill n2@2s --start n2@3500ms";
        let words: Vec<&str> = words.split(' ').collect();
        let args = parsed(&words).expect("faults");
        let order: Vec<String> = events(&args).iter().map(|event| event.words.join(" ")).collect();
        assert_eq!(order, ["kill n2", "start n2", "cut n1|n2,n3", "heal"]);
        assert!(check(&args).is_ok());
    }

    #[test]
    fn a_fault_under_way_at_the_end_is_done_and_no_other_is_begun() {
        let args = parsed(&["--kill", "n2@0s", "--start", "n2@1ms"]).expect("faults");
        let (events, done) = (events(&args), RefCell::default());
        let faults = Faults { events, state: PathBuf::new(), which: Vec::new(), done };
        let (over, ran) = (&Notify::new(), &Cell::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let dev = async |_: &[&str]| {
                // The load ends here, and the command takes a while longer.
                over.notify_one();
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                ran.set(ran.get() + 1);
                Ok(())
            };
            faults.play_by(Instant::now(), over, dev).await;
        });
        let done: Vec<String> =
            faults.done.borrow().iter().map(|broken| broken.what.clone()).collect();
        assert_eq!((ran.get(), done), (1, vec!["kill n2".to_owned()]));
    }

    #[test]
    fn faults_that_make_no_sense_are_refused() {
        for words in [&["--kill", "n2"][..], &["--kill", "@2s"], &["--cut", "n1@2s"], &[]] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
        let late = parsed(&["--kill", "n2@20s", "--duration", "10s"]).expect("faults");
        assert_eq!(check(&late).map_err(|report| report.exit.code()), Err(2));
    }
}
