//! Planted bugs: each takes one guard away, outside the code under test.
//!
//! A mutant lives in what the simulator puts around the lanes: the engine, the store, the driver,
//! the network, the client. A suite of oracles that does not catch a mutant within a stated number of
//! seeds asserts nothing about that guard. Next to read: `tests/mutants.rs`.

use core::fmt;
use core::str::FromStr;

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &[Mutant] = &[$(Mutant::$variant),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$variant => $name,)* }
            }
        }
    };
}

mutants! {
    /// The store forgets which logical writes it knows: the alias rule is off.
    ForgetsRequests = "forgets-requests",
    /// After a crash or a restored disk origins are used again, and nobody is asked.
    KeepsOrigins = "keeps-origins",
    /// Rule 2 of the incarnations is off: after a crash in mode `os` origins are kept as after a
    /// clean stop.
    KeepsOriginsAfterCrash = "keeps-origins-after-crash",
    /// Rule 3 is off: whoever is asked says that it knows nothing of the origin.
    AsksNobody = "asks-nobody",
    /// Rule 4 is off for records that arrive: replication, repair, answers to reads.
    IgnoresRecords = "ignores-records",
    /// Rule 4 is off for the dots a reader says it has.
    IgnoresDigests = "ignores-digests",
    /// Rule 4 is off for what clients have seen.
    IgnoresContexts = "ignores-contexts",
    /// Rule 5 is off: a directory that was copied or put back is taken for the same one. Rule 3 is off as
    /// well: since every member is asked, it finds out what rule 5 lets through.
    TrustsCopies = "trusts-copies",
    /// An owner that lost its disk answers reads before it has been filled again.
    AnswersAtOnce = "answers-at-once",
    /// Rule 6 is off: a damaged clock row is read as it was before, origin and counter included.
    StaleClocks = "stale-clocks",
    /// After a failed commit the shard goes on under its origin, from the counter before it.
    RevivesOrigins = "revives-origins",
    /// Rows are read whatever their checksum says.
    IgnoresChecksums = "ignores-checksums",
    /// A row that cannot be read, or whose checksum fails, is read as if it were not there.
    DamageIsAbsence = "damage-is-absence",
    /// A commit is lost and reported as done.
    LosesCommits = "loses-commits",
    /// Effects leave before the commit, and the machine may die in between.
    EffectsFirst = "effects-first",
    /// Nothing is ever fsynced.
    NeverFsyncs = "never-fsyncs",
    /// A batch is written in two halves, and the machine may die in between.
    TornBatches = "torn-batches",
    /// What a read has seen is told as a plain version vector: holes are claimed.
    PlainContexts = "plain-contexts",
    /// A replica's ack is counted for another replica too.
    DuplicateAcks = "duplicate-acks",
    /// A replica tells of one sibling only, and that it has seen them all.
    OneSibling = "one-sibling",
    /// A read that is to wait for its repairs does not.
    SkipsConfirming = "skips-confirming",
    /// A client's retry is a new logical write.
    NewWritePerRetry = "new-write-per-retry",
    /// A write in doubt is answered as never stored.
    SaysNo = "says-no",
    /// The digest is not kept up.
    StaleDigest = "stale-digest",
    /// Every bucket is treated as last-writer-wins.
    LastWriterWins = "last-writer-wins",
    /// Records lose what they replace on their way.
    DropsPast = "drops-past",
    /// What anti-entropy asks for is never sent.
    DropsPulled = "drops-pulled",
    /// Whoever is shown a clock says that its own is equal.
    AlwaysEqual = "always-equal",
    /// An owner that is asked for its clocks before tombstones are collected claims more than it has.
    CollectsEarly = "collects-early",
    /// An owner that is asked for its clocks claims all that the tombstones it has replace: only half of the
    /// proof is left.
    HalfProof = "half-proof",
    /// A value that was lost on one replica is not shown to it again.
    LeavesLost = "leaves-lost",
    /// Stand-ins count for writes that want owners only.
    CountsStandIns = "counts-stand-ins",
    /// Lanes are told of no bound on the repairs that their reads send.
    RepairsWithoutEnd = "repairs-without-end",
    /// A node that stood still lives through that time when it goes on, and hears of nobody in it.
    AgesInSilence = "ages-in-silence",
    /// A stand-in acks hints that it does not hold.
    HoldsNothing = "holds-nothing",
    /// A hint goes when it is given to its owner, whatever becomes of it there.
    ReleasesEarly = "releases-early",
    /// A stand-in loses its hints when it is asked for them.
    LosesHints = "loses-hints",
    /// A stand-in tells nobody of its hints, and gives none.
    KeepsHints = "keeps-hints",
    /// Damaged rows are known to nobody who could mend them.
    NeverMends = "never-mends",
    /// Read repairs are never sent.
    DropsRepairs = "drops-repairs",
    /// A write is sent to no other owner, and acked as if it were.
    AcksForOthers = "acks-for-others",
    /// A node that is held for down is never told so.
    NeverTellsTheDown = "never-tells-the-down",
    /// Lane 0 keeps it to itself that a node is alive again.
    KeepsDown = "keeps-down",
    /// Nodes hold it for a minute earlier than their clocks say: what has expired is shown.
    ShowsExpired = "shows-expired",
    /// Records lose their expiry on their way.
    ForgetsExpiry = "forgets-expiry",
    /// A page of the feed is shown backwards.
    FeedReorders = "feed-reorders",
    /// A page of the feed loses an event, and says that it is done with.
    FeedSkips = "feed-skips",
    /// A page of the feed shows an event twice.
    FeedRepeats = "feed-repeats",
    /// Records of live versions are trimmed.
    TrimsLive = "trims-live",
    /// Records of replaced versions are trimmed whoever lacks them or what replaced them.
    TrimsWithoutProof = "trims-without-proof",
    /// Records of collected tombstones are trimmed, and nothing tells a replica of them any more.
    TrimsTombstones = "trims-tombstones",
    /// New owners say that they have caught up, and do so only when the change is over.
    SkipsCopying = "skips-copying",
    /// Writes whose retries are known are forgotten by the date alone, however far it is off.
    TrustsTheDate = "trusts-the-date",
    /// Lanes are told of no bound on the requests that they work on.
    TakesEverythingOn = "takes-everything-on",
    /// Lanes are told of no bound on the values that operations hold.
    HoldsEverything = "holds-everything",
    /// Lanes are told of no bound on the hints that they hold for one owner.
    HoardsHints = "hoards-hints",
    /// Voters forget what they have promised and accepted for the next layout.
    ForgetsVotes = "forgets-votes",
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is not a mutant's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a mutant")]
pub struct UnknownMutant {
    /// The text that was refused.
    pub name: String,
}

impl FromStr for Mutant {
    type Err = UnknownMutant;
    fn from_str(name: &str) -> Result<Mutant, UnknownMutant> {
        let found = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
        found.ok_or_else(|| UnknownMutant { name: name.chars().take(40).collect() })
    }
}
