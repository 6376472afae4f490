//! What a run costs: CPU and memory of the node processes, and CPU of the bench itself.
//!
//! The nodes tell of themselves in their status, once a second: that is part of what is measured,
//! and the same in every run. Next to read: `summary.rs`.

use crate::connect::Session;
use galvani_client::NodeId;
use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// CPU time of each node's process so far, by node and process.
pub(crate) type CpuSoFar = BTreeMap<(NodeId, u32), u64>;

/// CPU time of the node processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Spent while measuring, in microseconds, all nodes.
    pub(crate) micros: u64,
    /// Nodes that answered before and after with the same process.
    pub(crate) nodes: usize,
    /// Nodes that did not: the figure lacks them.
    pub(crate) lacking: usize,
}

impl Cpu {
    pub(crate) fn between(before: &CpuSoFar, after: &CpuSoFar) -> Cpu {
        let spent = |(who, end): (&(NodeId, u32), &u64)| {
            before.get(who).map(|start| end.saturating_sub(*start))
        };
        let known: Vec<u64> = after.iter().filter_map(spent).collect();
        let nodes = known.len();
        let lacking = before.len().max(after.len()) - nodes;
        Cpu { micros: known.iter().sum(), nodes, lacking }
    }
}

/// Asks the nodes; also how much memory each has, the most so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The most memory of any node, in bytes; 0: none said.
    pub(crate) memory: Cell<u64>,
    /// Hints each process held and delivered when it was asked last.
    hints: RefCell<BTreeMap<(NodeId, u32), (u64, u64)>>,
    /// Hints that wait on all nodes that were asked last.
    pub(crate) hints_left: Cell<u64>,
}

impl Watch {
    /// What they spent so far.
    pub(crate) async fn ask(&self, session: &Session) -> CpuSoFar {
        let reports = session.client.with_timeout(WATCH).status().await;
        let answered =
            reports.into_iter().filter_map(|report| Some((report.id, report.status.ok()?)));
        self.hints_left.set(0);
        let note = |(id, status): (NodeId, galvani_client::NodeStatus)| {
            let counters = &status.counters;
            let hints = (counters.hints_held, counters.hints_delivered);
            self.hints.borrow_mut().insert((id, status.pid), hints);
            let left: u64 = status.hints.values().map(|figures| figures.count).sum();
            self.hints_left.set(self.hints_left.get() + left);
            self.memory.set(self.memory.get().max(status.memory_bytes));
            ((id, status.pid), status.cpu_micros)
        };
        answered.map(note).collect()
    }

    /// Hints made and delivered so far, by all processes that were ever asked.
    pub(crate) fn hints(&self) -> (u64, u64) {
        let all = self.hints.borrow();
        all.values().fold((0, 0), |(held, delivered), one| (held + one.0, delivered + one.1))
    }

    /// Asks them every second, for ever.
    pub(crate) async fn watch(&self, session: &Session) {
        loop {
            tokio::time::sleep(WATCH).await;
            self.ask(session).await;
        }
    }
}

/// CPU time of this process beside the time that went by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    began: Instant,
    cpu: Duration,
}

impl Own {
    pub(crate) fn now() -> Own {
        Own { began: Instant::now(), cpu: cpu() }
    }

    /// The share of one core since then.
    pub(crate) fn share(&self) -> f64 {
        let spent = cpu().saturating_sub(self.cpu).as_secs_f64();
        spent / self.began.elapsed().as_secs_f64().max(1e-9)
    }
}

fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(spent.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(spent.tv_nsec).unwrap_or(0))
}

const WATCH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::{Cpu, Own};
    use galvani_client::NodeId;
    use std::collections::BTreeMap;

    #[test]
    fn a_restarted_node_is_not_counted() {
        let (one, two) = (NodeId(1), NodeId(2));
        let before = BTreeMap::from([((one, 10), 100), ((two, 20), 900)]);
        let after = BTreeMap::from([((one, 10), 350), ((two, 21), 50)]);
        assert_eq!(Cpu::between(&before, &after), Cpu { micros: 250, nodes: 1, lacking: 1 });
    }

    #[test]
    fn work_of_this_process_is_counted() {
        let own = Own::now();
        let mut work = 1_u64;
        while own.cpu == super::cpu() {
            work = work.wrapping_mul(std::hint::black_box(3));
        }
        assert!(own.share() > 0.0);
    }
}
