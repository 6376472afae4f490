//! What a run comes to, for people.

use crate::chaos::Settings;
use crate::chaos::judge::{Violation, What};
use crate::chaos::nemesis::Fault;
use crate::chaos::workers::Tally;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was like.
    pub settings: Settings,
    /// How long it took, the end included.
    pub took: Duration,
    /// What clients met.
    pub tally: Tally,
    /// Keys written.
    pub keys: usize,
    /// Acked writes.
    pub acked: usize,
    /// Acked writes that only a node had acked which lost its disk right after.
    pub excused: usize,
    /// Writes of several tries that go by several names: what replaced them is asked where owners agree.
    pub aliased: usize,
    /// Reads that showed a write of several tries beside what had replaced one of them.
    pub half_replaced: u64,
    /// Reads that showed a tombstone again which had been replaced.
    pub late_tombstones: u64,
    /// Reads whose owners could not have missed some write: the others could show nothing and be right.
    pub judged: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Whether a full disk was wanted and left out, because this machine makes no disk that can be full.
    pub left_out: bool,
    /// How often a node with a flipped byte was filled anew, because it, or its repair, said so.
    pub filled_anew: u64,
    /// How long owners took to agree before and after each loss of a disk.
    pub agreed: Vec<Duration>,
    /// From the last mending until all owners agreed on all keys; `None`: they were not asked, or
    /// did not.
    pub converged: Option<Duration>,
    /// Bytes of memory of the node with most, in each tenth of the time from the start to the end.
    pub memory: Vec<u64>,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// The whole story of the first keys that are wrong.
    pub stories: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.converged.is_some()
    }

    /// How often this is wrong.
    fn count(&self, what: &[What]) -> usize {
        self.violations.iter().filter(|violation| what.contains(&violation.what)).count()
    }

    /// The command that repeats it.
    pub fn command(&self) -> String {
        let Settings { seed, nodes, clients, time, think, beat, faults, first } = &self.settings;
        let words =
            |faults: &[Fault]| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut line = format!(
            "cargo run --release -p galvani-cluster-tests --bin chaos -- --seed {seed} --nodes {nodes} \
             --clients {clients} --seconds {} --think-ms {}",
            time.as_secs(),
            think.as_millis()
        );
        if let Some(beat) = beat {
            line += &format!(" --every-ms {}", beat.as_millis());
        }
        if faults.len() < Fault::ALL.len() {
            line += &format!(" --faults {}", words(faults));
        }
        if !first.is_empty() {
            line += &format!(" --first {}", words(first));
        }
        line
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { nodes, clients, .. } = &self.settings;
        let tally = &self.tally;
        let took = self.took.as_secs_f64();
        writeln!(f, "{nodes} nodes, {clients} clients, {took:.0} s, {} keys", self.keys)?;
        writeln!(
            f,
            "acked writes {} ({} with a stand-in)  reads {}  refused {}  in doubt {}",
            self.acked, tally.with_stand_ins, tally.reads, tally.never, tally.maybe
        )?;
        let faults = self.faults.iter().map(|(fault, count)| format!("{fault} {count}"));
        let all: u64 = self.faults.values().sum();
        writeln!(f, "faults {all}: {}", faults.collect::<Vec<_>>().join("  "))?;
        if self.left_out {
            writeln!(f, "NOT TESTED: {}, this machine mounts no small file system", Fault::Full)?;
        }
        writeln!(
            f,
            "copies of writes that a full disk refused {}, nodes filled anew after a flipped byte {}",
            tally.no_room, self.filled_anew
        )?;
        writeln!(f, "longest a client waited for any answer {:.1} s", tally.stall.as_secs_f64())?;
        let asked = tally.reads + tally.acked + tally.errors.values().sum::<u64>();
        for (kind, count) in &tally.errors {
            let share = *count as f64 * 100.0 / asked.max(1) as f64;
            writeln!(f, "  {kind:30} {count:8}  {share:.3} %")?;
        }
        if let Some(most) = self.agreed.iter().max() {
            let (most, times) = (most.as_secs_f64(), self.agreed.len());
            writeln!(f, "agreed {times} times while it went on, after {most:.1} s at most")?;
        }
        writeln!(
            f,
            "lost {}  resurrected {}  refused and seen {}  false siblings {}  invented {}  \
             missed by a quorum {}  other {}",
            self.count(&[What::Lost]),
            self.count(&[What::CameBack]),
            self.count(&[What::WasRefused]),
            self.count(&[What::Twice, What::BesideItsReplacer]),
            self.count(&[What::NeverWritten]),
            self.count(&[What::Missed]),
            self.count(&[What::NotEqual, What::NodeFailed, What::RefusedForGood]),
        )?;
        writeln!(f, "reads that had to show something {} of {}", self.judged, tally.reads)?;
        writeln!(f, "acked only by a disk that was lost right after: {}", self.excused)?;
        writeln!(
            f,
            "retried writes with several names: {}; reads that showed one for a moment beside what replaced \
             it: {}",
            self.aliased, self.half_replaced
        )?;
        writeln!(f, "replaced tombstones shown again for a moment: {}", self.late_tombstones)?;
        let memory = self.memory.iter().map(|bytes| (bytes >> 20).to_string());
        let memory = memory.collect::<Vec<_>>().join(" ");
        writeln!(f, "MiB of memory of the node with most, by tenths of the time: {memory}")?;
        match self.converged {
            Some(time) => {
                writeln!(f, "all replicas equal {:.1} s after the last fault", time.as_secs_f64())?;
            }
            None => writeln!(f, "all replicas equal: not seen")?,
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION  {violation}")?;
        }
        for story in &self.stories {
            writeln!(f, "{story}")?;
        }
        writeln!(f, "{}", if self.passed() { "PASS" } else { "FAIL" })?;
        write!(f, "again: {}", self.command())
    }
}
