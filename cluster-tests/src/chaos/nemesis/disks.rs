//! Faults of disks: lost, of an earlier time, with a flipped byte in a file; and one that is full.
//!
//! Whatever a disk loses, all owners agree before it and after it, and only this node may lose data in
//! between: a flipped byte may cost what only that disk held, like the loss of all of it. A node with one
//! is mended as people mend it: it starts and is repaired, or refuses, and then what it says is typed.
//! Nothing of that may be shown to a reader, or spread.

use super::{Fault, Nemesis};
use crate::chaos::ledger::Loss;
use crate::command::Ran;
use crate::wait::at_most;
use crate::{flips, processes};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

impl Nemesis<'_> {
    /// One node loses data, others are hurt while it is filled again, and all agree at the end.
    pub(super) fn lose(&mut self, fault: Fault) {
        let names = self.names();
        let place = self.rng.random_range(0..names.len());
        let victim = names[place].clone();
        let node = u8::try_from(place).expect("few nodes");
        // Whose directory is new or a copy knows it; of a damaged row it knows when it comes to it.
        self.agree(Some(Loss { node, noticed: fault != Fault::Flip }));
        if !self.field.is_clean() {
            return;
        }
        self.say(&format!("{fault} {victim}"));
        *self.done.entry(fault).or_default() += 1;
        let work = self.rng.random_range(200..2_500);
        match fault {
            Fault::Older => self.put_older(&victim, work),
            Fault::Flip => self.flip(&victim, work),
            _ => {
                self.pause(work);
                self.cluster.kill_process(&victim);
                remove(&self.cluster.home(&victim).join("data"));
            }
        }
        let away = self.rng.random_range(0..1_500);
        self.pause(away);
        match fault {
            Fault::Flip => self.heal(&victim),
            _ => self.start(&victim),
        }
        if self.rng.random_bool(0.6) {
            // While it is being filled.
            self.round(None);
        }
        self.agree(None);
    }

    /// An older copy of its data is put back.
    fn put_older(&mut self, victim: &str, work: u64) {
        let home = self.cluster.home(victim);
        // Beside the data: its disk may be one of its own.
        let (data, copy) = (home.join("data"), home.join("older"));
        self.cluster.kill_process(victim);
        copy_dir(&data, &copy);
        self.start(victim);
        self.pause(work);
        self.cluster.kill_process(victim);
        remove(&data);
        std::fs::rename(&copy, &data).expect("both are in the test's own directory");
    }

    /// It goes down, some way or other, and a byte of its files is not what it was.
    fn flip(&mut self, victim: &str, work: u64) {
        self.pause(work);
        match self.rng.random_bool(0.5) {
            true => self.cluster.kill_process(victim),
            false => drop(self.cluster.run(&["dev", "stop", victim])),
        }
        let data = self.cluster.home(victim).join("data");
        let mut files = flips::data_files(&data);
        // The last minutes are in the journal, and in a short run all there is.
        if self.rng.random_bool(0.5) {
            files.retain(|file| flips::is_journal(file));
        }
        let file = files.choose(&mut self.rng).expect("a node that served has a journal");
        let at = flips::flip(file, |end| self.rng.random_range(0..end));
        let name = file.strip_prefix(&data).unwrap_or(file).display().to_string();
        self.say(&format!("a byte is flipped, {at} of {name}"));
    }

    /// Starts a node with a flipped byte and mends it, or does what it says.
    fn heal(&mut self, victim: &str) {
        let started = self.cluster.run(&["dev", "start", victim]);
        let said = match processes::of_node(&self.cluster.home(victim)).is_empty() {
            true => started,
            false => self.repaired(victim),
        };
        match said.code {
            Some(0) => self.say(said.text().trim_end()),
            Some(_) | None => self.fill_anew(victim, &said),
        }
        // What it has met is mended: what it counts from now on would be other damage.
        let reports = self.cluster.block_on(self.client.status());
        let met = reports.iter().find(|report| report.name == victim).is_some_and(|report| {
            report.status.as_ref().is_ok_and(|status| status.counters.quarantined > 0)
        });
        if met {
            self.cluster.kill_process(victim);
            self.start(victim);
        }
    }

    /// Has a node read and mend all it holds; what it said in the end.
    fn repaired(&self, victim: &str) -> Ran {
        let mut said = self.cluster.run(&["repair", "--node", victim, "--no-wait"]);
        if said.code != Some(0) {
            return said;
        }
        // One whose engine fails at a damaged file is silent for seconds while it opens it again: then it is
        // asked again, as people do.
        let is_at_it = |said: &Ran| said.text().contains(" is at it: ") || said.code == Some(8);
        at_most(REPAIR, || {
            said = self.cluster.run(&["repair", "--node", victim, "--state"]);
            !is_at_it(&said)
        });
        if is_at_it(&said) {
            self.blame(format!("{victim} is not repaired after {REPAIR:?}: {said}"));
        }
        said
    }

    /// Does what a node with damaged files, or who asked it, said to do.
    fn fill_anew(&mut self, victim: &str, said: &Ran) {
        let why = said.stderr.lines().next().unwrap_or_default().to_owned();
        self.say(&format!("{why}: as told, its data is set aside"));
        let field = self.field.clone();
        // Nobody may lack anything meanwhile.
        let _closed = self.cluster.block_on(field.gate.write());
        let aside = self.cluster.home(victim).join("data.damaged");
        match self.cluster.do_as_told(said) {
            Err(why) => self.blame(format!("{victim} cannot be filled anew as told: {why}")),
            Ok(()) if !aside.exists() => self.blame(format!("nothing was set aside: {said}")),
            Ok(()) => {
                self.filled_anew += 1;
                remove(&aside);
            }
        }
    }

    /// The disk that can be full is.
    pub(super) fn fill_disk(&mut self) {
        if let Some((_, disk)) = self.small {
            disk.tighten(LEFT_KIB);
            self.is_full = true;
        }
    }

    /// It has room again. A full disk ends no node.
    pub(super) fn empty_disk(&mut self) {
        let Some((owner, disk)) = self.small else { return };
        if !std::mem::take(&mut self.is_full) {
            return;
        }
        if processes::of_node(&self.cluster.home(owner)).is_empty() {
            self.blame(format!("{owner} ended by itself on a full disk"));
        }
        disk.loosen();
    }
}

fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("its node is down");
}

fn copy_dir(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} cannot be copied", from.display());
}

/// What a full disk has left: less than a node keeps back.
const LEFT_KIB: u64 = 1024;
/// Most time a node may take to read and mend what it holds, while clients are at work.
const REPAIR: Duration = Duration::from_secs(300);
