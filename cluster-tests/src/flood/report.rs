//! What a flood of hints did: hints over time against their bound, the foreground by phase, the end.
//!
//! Printed for people, and asked by the test whether it passed: bounds held, the bound was reached and
//! said so, nothing is left and nothing lost. No latency decides that.

use super::Settings;
use std::fmt;
use std::time::Duration;

/// A look at the cluster.
#[derive(Clone, Debug)]
pub struct Moment {
    /// What went on.
    pub phase: &'static str,
    /// Since the load began.
    pub at: Duration,
    /// Hints that all nodes held together.
    pub hints: u64,
    /// Bytes of hints of the node that held most.
    pub bytes: u64,
    /// Writes acked so far.
    pub acked: u64,
    /// Probes refused so far because hints were full.
    pub refused: u64,
}

/// The writers' part of a phase.
#[derive(Clone, Debug)]
pub struct PhaseFigures {
    /// Its name.
    pub name: &'static str,
    /// How long it lasted.
    pub lasted: Duration,
    /// Writes acked.
    pub acked: u64,
    /// Microseconds that half, 99 of 100 and all writes took at most.
    pub micros: [u32; 3],
    /// Writes that failed, and why the first did.
    pub failed: (u64, Option<String>),
}

impl PhaseFigures {
    /// `micros` is sorted.
    pub(super) fn of(
        name: &'static str,
        lasted: Duration,
        micros: &[u32],
        failures: &[String],
    ) -> PhaseFigures {
        let at = |share: usize| micros.get((micros.len() * share / 100).min(micros.len() - 1));
        let at = |share| if micros.is_empty() { 0 } else { at(share).copied().unwrap_or(0) };
        PhaseFigures {
            name,
            lasted,
            acked: micros.len() as u64,
            micros: [at(50), at(99), at(100)],
            failed: (failures.len() as u64, failures.first().cloned()),
        }
    }
}

/// What became of the writes at w=3.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    /// Acked with a stand-in's hint among the acks.
    pub by_stand_in: u64,
    /// Failed because the stand-in's hints were full.
    pub refused: u64,
    /// Of those, told that two owners have the write.
    pub refused_and_stored_by_two: u64,
    /// Failed for another reason.
    pub failed_otherwise: u64,
    /// What the first of them was told.
    pub otherwise: Option<String>,
    /// What the first of those refused was told.
    pub example: Option<String>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was done.
    pub settings: Settings,
    /// Looks, in order.
    pub moments: Vec<Moment>,
    /// The writers, by phase.
    pub phases: Vec<PhaseFigures>,
    /// The prober.
    pub probes: Probes,
    /// Hints when the node came back, and the most bytes that one node held.
    pub drained: (u64, u64),
    /// How long it took until none were left; `None` if some were.
    pub drained_in: Option<Duration>,
    /// Hints at the end.
    pub hints_left: u64,
    /// Keys whose owners do not hold the same at the end.
    pub unequal: Vec<String>,
    /// Acked writes that are not there.
    pub lost: Vec<String>,
}

/// What the last hint that found room may be larger than its value.
const HEAD_BYTES_MAX: u64 = 512;

impl Report {
    /// What is wrong with it, if anything is.
    pub fn violations(&self) -> Vec<String> {
        let mut wrong: Vec<String> = Vec::new();
        let most = self.bytes_max();
        // Room is asked for a value; the row that then counts has its record's head, too.
        if most > self.settings.cap + HEAD_BYTES_MAX {
            wrong.push(format!("{most} bytes of hints, bound {}", self.settings.cap));
        }
        if self.drained_in.is_none() || self.hints_left > 0 {
            wrong.push(format!("{} hints are left", self.hints_left));
        }
        wrong.extend(self.unequal.iter().take(5).map(|what| format!("not equal: {what}")));
        wrong.extend(self.lost.iter().take(5).map(|what| format!("lost: {what}")));
        wrong
    }

    /// The most bytes of hints that a node was seen to hold.
    pub fn bytes_max(&self) -> u64 {
        self.moments.iter().map(|moment| moment.bytes).max().unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "phase      s     hints  bytes of one node    of cap     acked  refused at w=3"
        )?;
        // A few dozen lines, whatever was sampled.
        let step = self.moments.len().div_ceil(ROWS).max(1);
        for moment in self.moments.iter().step_by(step) {
            let Moment { phase, at, hints, bytes, acked, refused } = moment;
            let share = 100.0 * *bytes as f64 / self.settings.cap.max(1) as f64;
            let at = at.as_secs_f64();
            writeln!(
                f,
                "{phase:<7} {at:>5.1} {hints:>9} {bytes:>18} {share:>7.1} % {acked:>9} {refused:>9}"
            )?;
        }
        writeln!(f, "phase    lasted s   acked/s   p50 ms   p99 ms   max ms   failed")?;
        for PhaseFigures { name, lasted, acked, micros, failed } in &self.phases {
            let rate = *acked as f64 / lasted.as_secs_f64().max(0.001);
            let [p50, p99, max] = micros.map(|micros| f64::from(micros) / 1000.0);
            let (lasted, count) = (lasted.as_secs_f64(), failed.0);
            writeln!(
                f,
                "{name:<8} {lasted:>8.1} {rate:>9.0} {p50:>8.2} {p99:>8.2} {max:>8.1} {count:>8}"
            )?;
            if let Some(why) = &failed.1 {
                writeln!(f, "         the first: {why}")?;
            }
        }
        let Probes { by_stand_in, refused, refused_and_stored_by_two, .. } = &self.probes;
        let Probes { failed_otherwise, otherwise, example, .. } = &self.probes;
        writeln!(f, "w=3: {by_stand_in} acked with a stand-in, {refused} refused for full hints")?;
        writeln!(
            f,
            "     ({refused_and_stored_by_two} of them stored by two), {failed_otherwise} else"
        )?;
        if let Some(example) = example {
            writeln!(f, "     the first refused: {example}")?;
        }
        if let Some(otherwise) = otherwise {
            writeln!(f, "     the first of the others: {otherwise}")?;
        }
        let (hints, bytes) = self.drained;
        match self.drained_in.map(|took| took.as_secs_f64()) {
            Some(took) => writeln!(
                f,
                "{hints} hints ({bytes} bytes at the node with most) delivered in {took:.1} s, {:.0}/s",
                hints as f64 / took.max(0.001)
            )?,
            None => writeln!(f, "{hints} hints, and some were left")?,
        }
        let (left, unequal, lost) = (self.hints_left, self.unequal.len(), self.lost.len());
        write!(f, "at the end: {left} hints, {unequal} keys not equal, {lost} acked writes lost")
    }
}

/// Lines of the table of hints over time, about.
const ROWS: usize = 30;
