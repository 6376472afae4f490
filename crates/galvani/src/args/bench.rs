//! Arguments of `bench`.
//!
//! What they mean together is checked in `commands/bench.rs`. Next to read: that.

use crate::args::data::{Copies, InBucket, ReadQuorum, WriteQuorum};
use crate::args::faults::Groups;
use crate::args::value;
use clap::{Args, Subcommand, ValueEnum};
use galvani_load::compare::{Limit, Objective};
use galvani_load::workload::{Distribution, Mix};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Workers of a closed loop, where nothing else is said.
pub(crate) const WORKERS: u32 = 16;

/// What a bench does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Writes, each after the last one of its key.
    Put,
    /// Reads.
    Get,
    /// Both, see --reads.
    Mix,
    /// YCSB A: half reads, half updates, zipfian.
    A,
    /// YCSB B: 95 % reads, 5 % updates, zipfian.
    B,
    /// YCSB C: reads, zipfian.
    C,
    /// YCSB D: 95 % reads of the latest, 5 % new keys.
    D,
    /// YCSB E: cannot be done, keys have no order to scan in.
    #[value(hide = true)]
    E,
    /// YCSB F: half reads, half reads with a write after them, zipfian.
    F,
}

impl Workload {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Mix => "mix",
            Workload::A => "a",
            Workload::B => "b",
            Workload::C => "c",
            Workload::D => "d",
            Workload::E => "e",
            Workload::F => "f",
        }
    }

    /// As it is written in reports.
    pub(crate) fn title(self) -> String {
        match self {
            Workload::Put | Workload::Get | Workload::Mix => self.name().to_owned(),
            _ => format!("ycsb-{}", self.name()),
        }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keys {
    /// Every key as often as any other.
    Uniform,
    /// Few keys often: YCSB's scrambled zipfian, 0.99.
    Zipfian,
    /// The keys made last most often.
    Latest,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    before_help = "  galvani bench                      half of what the cluster can do, open loop\n  \
                         galvani bench a --rate 20k --duration 60s --save a.json\n  \
                         galvani bench put -c 64 --value 1KiB -w 2\n  \
                         galvani bench mix --overload       0.5 to 4 times what the cluster can do\n  \
                         galvani bench sweep --quorums      what each r and w costs\n  \
                         galvani bench compare a.json b.json --fail-if 'put.p99>+5%'"
)]
#[command(
    after_help = "Open loop: requests start on schedule, their latency counts from when they were \
                        due and is printed from when they were sent too, and none is tried again. \
                        Without --rate it is half of what 16 workers get done in a closed loop. \
                        With -c or --count a closed loop: a worker sends its next request when the \
                        last one is answered, so tail latencies are optimistic.\n\
                        At the end every key written is read again at r=all. Keys bench/00000000.. \
                        are made if absent and stay. Where no cluster is selected, one of three \
                        nodes is started on this machine and removed at the end.\n\
                        Exit 1: requests failed, or the check did; with --rate what was refused, \
                        late or not sent is counted, and no failure; with --overload nothing is. \
                        130: Ctrl-C, no figures."
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// What to do but to run.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// The same as without a word: run.
    Run(Box<Run>),
    /// Print a saved run again.
    Show(Show),
    /// Two saved runs beside each other, and whether they differ by more than chance.
    Compare(Compare),
    /// Runs that several machines did at the same time, as one.
    Merge(Merge),
    /// Many runs, one table: all pairs of quorums, or the highest rate that holds an objective.
    Sweep(Box<Sweep>),
    /// Faults on a local cluster while a load runs, and what became of it.
    Chaos(Box<Chaos>),
}

/// Arguments of `bench chaos`.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("faults").required(true).multiple(true)
          .args(["kill", "start", "pause", "resume", "cut", "heal"])),
    before_help = "  galvani bench chaos --kill n2@3s --start n2@6s\n  \
                   galvani bench chaos --kill n2@20s --cut 'n1|n2,n3@40s' --heal @50s --duration 60s",
    after_help = "What galvani dev does, at these times of the run; each may be given several times. \
                  At the end everything is healed, resumed and started, hints are waited for, and \
                  what was written is read again at r=all. The report also says how long nothing was \
                  answered, and how many hints were made and drained. Exit as of bench run; where a \
                  node was killed requests may fail, which is counted and no failure."
)]
pub(crate) struct Chaos {
    /// SIGKILL of a node: n2@20s.
    #[arg(long, value_name = "NODE@TIME", value_parser = named)]
    pub(crate) kill: Vec<Timed>,
    /// Start it again.
    #[arg(long, value_name = "NODE@TIME", value_parser = named)]
    pub(crate) start: Vec<Timed>,
    /// SIGSTOP of a node.
    #[arg(long, value_name = "NODE@TIME", value_parser = named)]
    pub(crate) pause: Vec<Timed>,
    /// SIGCONT.
    #[arg(long, value_name = "NODE@TIME", value_parser = named)]
    pub(crate) resume: Vec<Timed>,
    /// Cut nodes off from each other: 'n1|n2,n3@40s'.
    #[arg(long, value_name = "NODES|NODES@TIME", value_parser = groups)]
    pub(crate) cut: Vec<Timed>,
    /// Undo all cuts: @50s.
    #[arg(long, value_name = "@TIME", value_parser = alone)]
    pub(crate) heal: Vec<Timed>,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// Something at a time of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timed {
    pub(crate) what: String,
    pub(crate) at: Duration,
}

fn timed(text: &str) -> Result<Timed, String> {
    let wrong = || format!("{text:?} has no time of the run behind it, such as @20s");
    let (what, at) = text.rsplit_once('@').ok_or_else(wrong)?;
    Ok(Timed { what: what.to_owned(), at: value::duration(at)? })
}

fn named(text: &str) -> Result<Timed, String> {
    match timed(text)? {
        timed if timed.what.is_empty() => Err(format!("{text:?} names no node, such as n2@20s")),
        timed => Ok(timed),
    }
}

fn groups(text: &str) -> Result<Timed, String> {
    let timed = timed(text)?;
    timed.what.parse::<Groups>().map_err(|why| why.to_string())?;
    Ok(timed)
}

fn alone(text: &str) -> Result<Timed, String> {
    match timed(text)? {
        timed if timed.what.is_empty() => Ok(timed),
        _ => Err(format!("{text:?}: heal is of all nodes, such as @50s")),
    }
}

/// Arguments of `bench sweep`.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("swept").required(true).args(["quorums", "slo"])),
    before_help = "  galvani bench sweep --quorums                       r and w from 1 to n, one table\n  \
                   galvani bench sweep --quorums -c 16 --duration 5s\n  \
                   galvani bench sweep put --slo 'put.p99<5ms'         the highest rate that holds it",
    after_help = "--quorums: every pair at the same rate, which is --rate or half of what 16 workers \
                  get done, or with -c in a closed loop.\n--slo: begins with --rate or that half, \
                  and doubles or halves. A rate holds the objective if the latency is below it, at \
                  most one request in a thousand failed or was not sent. Exit 1: no rate does."
)]
pub(crate) struct Sweep {
    /// All pairs of r and w, from 1 to the bucket's n.
    #[arg(long)]
    pub(crate) quorums: bool,
    /// The highest rate at which this holds: put.p99<5ms, get.p99.9<20ms, ..
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) slo: Option<Objective>,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// Arguments of `bench run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// What to do.
    #[arg(default_value = "mix")]
    pub(crate) workload: Workload,
    /// The same as an option.
    #[arg(
        short = 'W',
        long = "workload",
        value_name = "WORKLOAD",
        conflicts_with = "workload",
        id = "workload_option",
        hide = true
    )]
    pub(crate) workload_option: Option<Workload>,
    /// Closed loop of so many workers: requests under way at once. With --rate the most that may
    /// be; what comes beyond it is not sent, and counted. [default: with --rate or --overload as
    /// many as there are keys, 65536 at most; with --count 16]
    #[arg(short, long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: Option<u32>,
    /// Requests a second on average, at random moments drawn beforehand (Poisson), whether or not
    /// earlier ones were answered, and without retries; 1M at most.
    #[arg(long, value_name = "R", value_parser = value::rate, conflicts_with = "count")]
    pub(crate) rate: Option<NonZeroU64>,
    /// Find what the cluster can do, then offer 0.5, 1, 2 and 4 times as much.
    #[arg(long, conflicts_with_all = ["count", "rate", "save", "hlog", "html", "ycsb_output"])]
    pub(crate) overload: bool,
    /// Keys; at least one for each worker.
    #[arg(long, value_name = "N", default_value = "10k", value_parser = value::count)]
    pub(crate) keys: NonZeroU64,
    /// Bytes of each value. [default: 1KiB; of YCSB 1000]
    #[arg(long, value_name = "BYTES", value_parser = value::size)]
    pub(crate) value: Option<u64>,
    /// Stop after this many operations.
    #[arg(long, value_name = "N", value_parser = value::count, conflicts_with = "duration")]
    pub(crate) count: Option<NonZeroU64>,
    /// Stop after this time, 100ms to 24h. [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    pub(crate) duration: Option<Duration>,
    /// Run this long before measuring, 1h at most.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::pause)]
    pub(crate) warmup: Duration,
    /// Percent of operations that are reads, of workload mix.
    #[arg(long, value_name = "PERCENT", default_value = "50",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    /// How keys are chosen. [default: uniform; of YCSB as it says]
    #[arg(long, value_name = "HOW")]
    pub(crate) distribution: Option<Keys>,
    /// Of the random numbers: the same one makes the same operations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Do not read again at the end what was written.
    #[arg(long)]
    pub(crate) no_check: bool,
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// Where a run goes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Files {
    /// Write the run to this file, with every second and all histograms, for show, compare and merge.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pages: Pages,
}

/// What is made of a run, saved or not.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Pages {
    /// Write an HdrHistogram interval log (1.3) to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,
    /// Write a page with plots to this file.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,
    /// Write the run as YCSB prints it to this file; Intended-.. counts from when requests were due.
    #[arg(long, value_name = "FILE")]
    pub(crate) ycsb_output: Option<PathBuf>,
}

impl Run {
    /// Workers of a closed loop: as asked, or 16, but no more than there are keys.
    pub(crate) fn workers(&self) -> u32 {
        let keys = u32::try_from(self.keys.get()).unwrap_or(u32::MAX);
        self.concurrency.unwrap_or(WORKERS.min(keys))
    }

    /// What is to be done, however it was said.
    pub(crate) fn workload(&self) -> Workload {
        self.workload_option.unwrap_or(self.workload)
    }

    /// The shares of operations; `None`: it cannot be done.
    pub(crate) fn mix(&self) -> Option<Mix> {
        let mix = match self.workload() {
            Workload::Put => Mix::plain(0),
            Workload::Get => Mix::plain(100),
            Workload::Mix => Mix::plain(self.reads),
            Workload::A => Mix::ycsb('a')?,
            Workload::B => Mix::ycsb('b')?,
            Workload::C => Mix::ycsb('c')?,
            Workload::D => Mix::ycsb('d')?,
            Workload::E => Mix::ycsb('e')?,
            Workload::F => Mix::ycsb('f')?,
        };
        let distribution = match self.distribution {
            None => mix.distribution,
            Some(Keys::Uniform) => Distribution::Uniform,
            Some(Keys::Zipfian) => Distribution::Zipfian,
            Some(Keys::Latest) => Distribution::Latest,
        };
        Some(Mix { distribution, ..mix })
    }

    /// Bytes of each value.
    pub(crate) fn value_bytes(&self) -> u64 {
        let usual = match self.workload() {
            Workload::Put | Workload::Get | Workload::Mix => 1 << 10,
            _ => YCSB_BYTES,
        };
        self.value.unwrap_or(usual)
    }

    /// Whether workers wait for answers before they ask again.
    pub(crate) fn is_closed(&self) -> bool {
        let open = self.rate.is_some() || self.overload;
        !open && (self.concurrency.is_some() || self.count.is_some())
    }

    /// How long is measured.
    pub(crate) fn duration(&self) -> Duration {
        self.duration.unwrap_or(DURATION)
    }
}

/// Arguments of `bench show`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani bench show a.json\n  \
                         galvani bench show a.json --html a.html")]
pub(crate) struct Show {
    /// A file that --save wrote.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) pages: Pages,
}

/// Arguments of `bench merge`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani bench merge one.json two.json\n  \
                   galvani bench merge *.json --save all.json --html all.html",
    after_help = "For runs that several machines did against one cluster at the same time: start each with \
                  the same words, its own --seed and, so that what it wrote can be judged, its own \
                  --bucket. Counts and rates add up, histograms are merged, percentiles are never \
                  averaged. CPU and memory of the nodes were seen by all: the most counts."
)]
pub(crate) struct Merge {
    /// Files that --save wrote.
    #[arg(required = true, num_args = 2..)]
    pub(crate) runs: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) files: Files,
}

/// Arguments of `bench compare`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani bench compare main.json mine.json\n  \
                         galvani bench compare main.json mine.json --fail-if 'put.p99>+5%' \
                         --fail-if 'ops<-3%'")]
#[command(
    after_help = "A change is significant if the two series of seconds differ with p < 0.05 \
                        (Welch's test over effective sample sizes). Exit 1: a limit is broken, that \
                        is a change beyond it and significant; or a run is GENERATOR-BOUND, which \
                        says nothing of the cluster."
)]
pub(crate) struct Compare {
    /// The run before.
    pub(crate) before: PathBuf,
    /// The run after.
    pub(crate) after: PathBuf,
    /// What must not be: put.p99>+5%, ops<-3%, ..
    #[arg(long, value_name = "LIMIT")]
    pub(crate) fail_if: Vec<Limit>,
}

/// How long is measured unless said otherwise.
const DURATION: Duration = Duration::from_secs(10);
/// A record of YCSB: ten fields of a hundred bytes.
const YCSB_BYTES: u64 = 1_000;
