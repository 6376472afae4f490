//! What pages of repair and hints cost a lane: the time to take them in or to give them, and
//! their part of the commit of the tick they came in.
//!
//! The lane knows no time but the tick's, so whoever drives it measures. What is measured changes
//! only when the next page comes, never what is in it. Next to read:
//! `galvani-protocol/src/share.rs`.

use galvani_protocol::Input;
use galvani_wire::Message;

/// Pages of one tick.
#[derive(Debug, Default)]
pub(crate) struct PageCosts {
    micros: u64,
    /// Bytes that they staged.
    staged: usize,
    fsync: bool,
    any: bool,
}

impl PageCosts {
    /// A page was handled: how long that took, how many bytes it staged, and whether the tick's
    /// commit is to be fsynced since then.
    pub(super) fn add(&mut self, micros: u64, staged: usize, fsync: bool) {
        self.micros += micros;
        self.staged += staged;
        self.fsync |= fsync;
        self.any = true;
    }

    /// Whether the tick has any.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// The tick was committed: what its pages cost. A sync that they alone asked for is theirs, of
    /// all else they pay by their bytes.
    pub(super) fn settle(&mut self, commit_micros: u64, staged: usize) -> u64 {
        let pages = core::mem::take(self);
        let part = match (pages.fsync, staged) {
            (true, _) => commit_micros,
            (false, 0) => 0,
            (false, all) => commit_micros.saturating_mul(pages.staged as u64) / all as u64,
        };
        pages.micros + part.min(commit_micros)
    }
}

/// Whether an input brings a page, or asks for one.
pub(super) fn is_page(input: &Input) -> bool {
    let message = match input {
        Input::Request { message, .. } | Input::Reply { message, .. } => message,
        _ => return false,
    };
    matches!(
        message,
        Message::Pull(_)
            | Message::Pulled(_)
            | Message::PullHints(_)
            | Message::HintsPulled(_)
            | Message::AskSlice(_)
            | Message::SliceIs(_)
    )
}

#[cfg(test)]
mod tests {
    use super::PageCosts;

    #[test]
    fn a_page_pays_for_its_time_and_its_part_of_the_commit() {
        let mut costs = PageCosts::default();
        assert!(!costs.any());
        costs.add(700, 3_000, false);
        costs.add(300, 1_000, false);
        assert!(costs.any());
        assert_eq!(costs.settle(800, 16_000), 1_000 + 200);
        assert!(!costs.any(), "it is paid");
        costs.add(50, 0, false);
        assert_eq!(costs.settle(800, 0), 50, "a page that was given stages nothing");
        costs.add(50, 10, true);
        assert_eq!(costs.settle(4_000, 1_000), 4_050, "the sync was for it");
    }
}
