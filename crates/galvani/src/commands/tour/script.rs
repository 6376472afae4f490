//! What the tour shows: commands as people type them, and a sentence before each.
//!
//! Nothing runs here. Each step says with which code its command ends: a tour that shows something
//! else than it tells is a failure.

/// One command of the tour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// What is about to be seen.
    pub(crate) says: &'static str,
    /// The words behind `galvani`.
    pub(crate) words: &'static [&'static str],
    /// How it ends.
    pub(crate) exit: i32,
    /// What must be so before the next step, if it takes a moment.
    pub(crate) then: Then,
}

/// What must be so before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing more.
    GoOn,
    /// n1 has noticed that it is alone.
    AloneNoticed,
}

/// From a whole cluster through a partition and siblings to one value again.
pub(crate) const STEPS: [Step; 12] = [
    Step {
        says: "Three nodes, each a process of its own, each with a copy of every key.",
        words: &["dev", "-d", "-n", "3", "--ports", "auto"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "A value that all three replicas must store (-w 3).",
        words: &["put", "cart", "milk", "-w", "3"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "A partition: n1 on one side, n2 and n3 on the other. Clients still reach both sides.",
        words: &["dev", "cut", "n1|n2,n3"],
        exit: 0,
        then: Then::AloneNoticed,
    },
    Step {
        says: "n1 is alone: two replicas cannot store this, so it is refused before anything is written.",
        words: &["put", "cart", "lost?", "-w", "2", "-r", "1", "--via", "n1"],
        exit: 5,
        then: Then::GoOn,
    },
    Step {
        says: "One is enough for this one (-w 1): somebody near n1 goes on working.",
        words: &["put", "cart", "milk+eggs", "-w", "1", "-r", "1", "--via", "n1"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "And somebody on the other side, who cannot see that, writes too, with a majority.",
        words: &["put", "cart", "milk+tea", "-w", "2", "-r", "2", "--via", "n2"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "Each replica shows what it has seen: the two sides differ, and neither is wrong.",
        words: &["get", "cart", "-r", "1", "--via", "n1"],
        exit: 0,
        then: Then::GoOn,
    },
    Step { says: "The partition heals.", words: &["dev", "heal"], exit: 0, then: Then::GoOn },
    Step {
        says: "The replicas compare what they have taken in and send each other exactly the difference.",
        words: &["wait", "--for", "settled"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "Two writers who had not seen each other: both values are kept, as siblings. Neither the later \
               nor the larger wins.",
        words: &["get", "cart", "-r", "3", "--siblings", "table"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "put reads first and replaces what it has seen, so this one takes the place of both.",
        words: &["put", "cart", "milk+eggs+tea", "-w", "3"],
        exit: 0,
        then: Then::GoOn,
    },
    Step {
        says: "One value again, the same on all three.",
        words: &["get", "cart", "-r", "3"],
        exit: 0,
        then: Then::GoOn,
    },
];
