//! A change of the layout as the command line sees it: begun with a plan, and watched until it is over.
//!
//! The members decide and do the work by themselves; whoever watches may leave. It is over when the
//! plan's layout is the only one and no node holds what it owns no more. Used by `cluster apply`, by
//! `node drain` and `forget`, and by `dev add` and `rm`. Source: `galvani-protocol/src/layout/`.

use super::plan::kept::KeptPlan;
use crate::args::line::Line;
use crate::commands::changes;
use crate::connect::{App, Session};
use crate::exit::Exit;
use crate::report::client::Retype;
use crate::report::text::{Span, count};
use crate::report::{Report, client};
use galvani_client::{
    ClusterView, ErrorKind, LayoutChange, Member, NodeId, NodeReport, Pace, Phase, Unfit,
};
use std::time::{Duration, Instant};

/// What became of the wish to change the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The change begins.
    Now,
    /// It was on its way already.
    Already,
    /// The plan's layout is the cluster's already.
    There,
}

impl Begun {
    /// As scripts see it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Begun::Now => "now",
            Begun::Already => "already",
            Begun::There => "there",
        }
    }
}

/// Begins the change to a plan's layout. The epoch in which it is under way, and what became of it.
pub(crate) async fn begin(
    app: &App,
    session: &Session,
    plan: &KeptPlan,
    line: &Line,
    pace: Pace,
) -> Result<(u64, Begun), Report> {
    let view = look(app, session, line).await?;
    if view.layout.cluster() != plan.layout.cluster() {
        let what =
            format!("plan {} is of cluster {}, this is {}", plan.id(), plan.cluster, view.name);
        return Err(Report::new(Exit::Refused, what)
            .why("nothing was changed")
            .next("say", app.again(line.clone()).with("--ctx", &plan.cluster).to_string()));
    }
    let (new, under_way) = match &view.change {
        Some(change) => (change.new.id(), true),
        None => (view.layout.id(), false),
    };
    let before = match (new == plan.layout.id(), under_way) {
        (true, true) => Begun::Already,
        (true, false) => Begun::There,
        (false, _) => Begun::Now,
    };
    if before == Begun::There {
        return Ok((view.epoch, before));
    }
    if let Some(report) = refused(plan, &view) {
        return Err(report);
    }
    match session.client.begin_layout(plan.layout.clone().into(), view.epoch, pace).await {
        Ok(state) if state.transition().is_none() => Ok((state.epoch(), Begun::There)),
        Ok(state) => Ok((state.epoch(), before)),
        Err(error) => {
            if let ErrorKind::JoinerUnfit { node, why } = error.kind() {
                return Err(unfit(plan, *node, *why));
            }
            let ErrorKind::LayoutRefused { why } = error.kind() else {
                let report = client::report(&error, &retype(app, line, plan.id()));
                let again = app.again(line.clone()).to_string();
                let report = report.why("it may have begun: asking again is safe, and tells");
                return Err(report.next("again", again));
            };
            // Another plan may have been faster; not every node has heard of it yet.
            let view = look(app, session, line).await?;
            Err(refused(plan, &view).unwrap_or_else(|| {
                Report::new(Exit::OutOfDate, format!("plan {}: {why}", plan.id()))
                    .field("kind", "layout_refused")
                    .why("nothing was changed by this plan")
                    .next("see", "galvani status")
                    .next("then plan again", plan.request.clone())
            }))
        }
    }
}

/// Why a node of a plan cannot join, and what to do about it.
fn unfit(plan: &KeptPlan, node: NodeId, why: Unfit) -> Report {
    let id = plan.id();
    let member = plan.layout.member(node);
    let name = member.map_or_else(|| node.to_string(), |member| member.name().to_owned());
    let at = member.map_or_else(String::new, |member| format!(" at {}", member.lanes()[0]));
    let again = format!("galvani cluster apply {id}");
    let report = |what: &str| {
        Report::new(Exit::Refused, format!("plan {id}: {name} {what}"))
            .field("kind", "joiner_unfit")
            .field("node", name.clone())
    };
    match why {
        Unfit::Unreachable | Unfit::Silent => {
            let what = match why {
                Unfit::Silent => "does not answer",
                _ => "cannot be reached by the members",
            };
            report(what)
                .why(format!("it does not run{at}, or its certificate is of another cluster"))
                .why("a change that needs it would stand still; nothing was changed")
                .next(
                    "start it, on its host",
                    format!("galvani server --config {name}/galvani.toml"),
                )
                .next("see whether it applies", "galvani status")
                .next("then", again)
        }
        Unfit::Holds { shards } => report("holds data from days when it was a member")
            .field("shards", shards)
            .why("it hands that over by itself, and may join when it holds nothing any more")
            .why("nothing was changed")
            .next("see how much is left", "galvani status")
            .next("then", again),
        Unfit::Unreadable => report("cannot read what it holds")
            .why("its disk failed, or its data is damaged; nothing was changed")
            .next(
                "see its log, and join with an empty data directory",
                "galvani help cluster invite",
            )
            .next("then", again),
    }
}

/// Why a plan is of no use on the layout there is.
fn refused(plan: &KeptPlan, view: &ClusterView) -> Option<Report> {
    let (id, on) = (plan.id(), plan.from.version());
    let report = |what: String, kind: &str| {
        Report::new(Exit::OutOfDate, what).field("kind", kind).field("made_on", on)
    };
    if let Some(change) = view.change.as_ref().filter(|it| it.new.id() != plan.layout.id()) {
        let (old, new) = (change.old.version(), change.new.version());
        let what = format!("plan {id}: another change is under way, v{old} -> v{new}");
        return Some(
            report(what, "layout_changing")
                .why(format!("to {}; nothing was changed by this plan", members_of(&change.new)))
                .next("see", "galvani status")
                .next("then plan again", plan.request.clone()),
        );
    }
    let is_other = view.change.is_none() && view.layout.id() != plan.from.id();
    (is_other && view.layout.id() != plan.layout.id()).then(|| {
        let (now, other) = (view.layout.version(), view.layout.id().short());
        let what = format!("plan {id} was made on layout v{on}, the cluster is at v{now}");
        let why = match now == on {
            true => format!("that v{now} is another one, {other}"),
            false => format!("its nodes are {}", members_of(&view.layout)),
        };
        report(what, "plan_out_of_date")
            .why(why)
            .why("nothing was changed")
            .next("plan again", plan.request.clone())
    })
}

fn members_of(layout: &galvani_client::Layout) -> String {
    let mut names: Vec<&str> = layout.members().iter().map(Member::name).collect();
    names.sort_unstable();
    names.join(" ")
}

/// The cluster as it is now.
pub(crate) async fn look(
    app: &App,
    session: &Session,
    line: &Line,
) -> Result<std::sync::Arc<ClusterView>, Report> {
    let looked = session.client.look().await;
    looked.map_err(|error| client::report(&error, &retype(app, line, String::new())))
}

pub(crate) fn retype(app: &App, line: &Line, subject: String) -> Retype {
    let line = app.again(line.clone());
    Retype { command: "layout", subject, line, about: app.about() }
}

/// How far a change is, at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// It is under way: what is left, in words.
    UnderWay(String),
    /// It is over, but for this.
    Over(Rest),
    /// Somebody gave it up.
    GivenUp,
}

/// What is left to do once a change is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rest {
    /// What nodes have yet to hand over, in words.
    holding: Vec<String>,
    /// Nodes that do not answer.
    silent: Vec<String>,
    /// Whether any of those is a node that leaves.
    of_leaver: bool,
}

impl Rest {
    fn is_nothing(&self) -> bool {
        self.holding.is_empty() && self.silent.is_empty()
    }

    /// Whether it may be left to the nodes: who holds something waits for one that is away.
    fn may_be_left(&self, strict: bool) -> bool {
        let must_wait = strict && self.of_leaver;
        !self.silent.is_empty() && !must_wait
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.holding.is_empty() {
            words.push(format!("handing over: {}", self.holding.join(", ")));
        }
        if !self.silent.is_empty() {
            words.push(format!("no answer from {}", self.silent.join(" ")));
        }
        words.join("   ")
    }
}

/// Who watches a change.
pub(crate) struct Watch<'a> {
    pub(crate) app: &'a App,
    pub(crate) session: &'a Session,
    pub(crate) plan: &'a KeptPlan,
    /// The epoch in which it was under way, or over.
    pub(crate) epoch: u64,
    /// Whether those that leave must say themselves that they hold nothing any more. Others, and what
    /// is to go to a node that does not answer, are not waited for long.
    pub(crate) strict: bool,
    pub(crate) patience: Duration,
}

impl Watch<'_> {
    /// Waits for its end, and tells how far it is; what is left then for want of a node that is away.
    pub(crate) async fn until_done(&self) -> Result<Option<String>, Report> {
        let began = Instant::now();
        let mut told = Told { at: began, words: String::new() };
        let mut since = None;
        loop {
            let left = match self.look().await {
                Look::Over(rest) if rest.is_nothing() => return Ok(None),
                Look::Over(rest) => {
                    since = rest.may_be_left(self.strict).then(|| since.unwrap_or(Instant::now()));
                    if since.is_some_and(|since: Instant| since.elapsed() >= SILENCE) {
                        return Ok(Some(rest.words()));
                    }
                    rest.words()
                }
                Look::UnderWay(words) => words,
                Look::GivenUp => return Err(self.given_up()),
            };
            if began.elapsed() >= self.patience {
                return Err(self.not_done(&left, began.elapsed()));
            }
            told.tell(self.app, &left, began);
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look(&self) -> Look {
        let view = match self.session.client.look().await {
            Ok(view) => view,
            Err(error) => return Look::UnderWay(format!("an answer: {error}")),
        };
        if view.epoch < self.epoch {
            return Look::UnderWay("the nodes to hear of it".to_owned());
        }
        let (mine, later) = (self.plan.layout.id(), self.plan.layout.version());
        let reports = self.session.client.status().await;
        match &view.change {
            Some(change) if change.new.id() == mine => {
                return Look::UnderWay(phase_words(change, &reports));
            }
            Some(change) if change.new.version() <= later => return Look::GivenUp,
            None if view.layout.version() < later => return Look::GivenUp,
            // It is over, and perhaps the next one is under way.
            Some(_) | None => {}
        }
        Look::Over(self.rest(&view, reports).await)
    }

    /// Who still holds what is owned elsewhere.
    async fn rest(&self, view: &ClusterView, mut reports: Vec<NodeReport>) -> Rest {
        let left = self.plan.from.members().iter();
        for member in left.filter(|it| self.plan.layout.member(it.id()).is_none()) {
            if !reports.iter().any(|report| report.id == member.id()) {
                reports.push(self.session.client.status_of(member).await);
            }
        }
        let mut rest = Rest::default();
        for report in &reports {
            let name = &report.name;
            let leaves = view.layout.member(report.id).is_none();
            let held = match &report.status {
                Err(_) => {
                    rest.silent.push(name.clone());
                    rest.of_leaver |= leaves;
                    continue;
                }
                Ok(status) if status.layout_epoch < view.epoch => {
                    "has yet to hear of it".to_owned()
                }
                Ok(status) => {
                    let hints: u64 = status.hints.values().map(|held| held.count).sum();
                    match (status.shards_leaving, leaves, hints) {
                        (0, false, _) | (0, true, 0) => continue,
                        (0, true, hints) => count(hints, "hint"),
                        (left, _, _) => shards(left),
                    }
                }
            };
            rest.holding.push(format!("{name} {held}"));
            rest.of_leaver |= leaves;
        }
        rest
    }

    fn given_up(&self) -> Report {
        let (id, version) = (self.plan.id(), self.plan.from.version());
        Report::new(Exit::OutOfDate, format!("plan {id}: the change was given up"))
            .field("kind", "given_up")
            .why(format!("somebody said galvani cluster abort: layout v{version} stays"))
            .next("see", "galvani status")
            .next("again", format!("galvani cluster apply {id}"))
    }

    fn not_done(&self, left: &str, took: Duration) -> Report {
        let id = self.plan.id();
        Report::new(Exit::TimedOut, format!("plan {id}: not done after {}", Span(took)))
            .field("waited_for", left)
            .why(format!("waited for {left}"))
            .why("it goes on by itself, as soon as it can")
            .next_line(vec![
                ("see", "galvani status".to_owned()),
                ("go on waiting", format!("galvani cluster apply {id} --wait")),
                ("or give up", "galvani cluster abort".to_owned()),
            ])
    }
}

/// Says what is left to the nodes.
pub(crate) fn note_left(app: &App, left: Option<String>) {
    if let Some(left) = left {
        app.out.note(&format!("{left}: what is left goes on by itself when all are back"));
    }
}

/// What keeps a phase from its end.
fn phase_words(change: &LayoutChange, reports: &[NodeReport]) -> String {
    let silent = reports.iter().filter(|report| report.status.is_err());
    let silent = silent.map(|report| format!("{} does not answer", report.name));
    let copied = changes::copied(change, reports);
    let busy: Vec<String> = copied.into_iter().chain(silent).collect();
    let phase = phase_word(change.phase);
    if busy.is_empty() { phase.to_owned() } else { format!("{phase}: {}", busy.join("   ")) }
}

/// What a phase is called.
pub(crate) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Copying => "copying",
        Phase::Switching => "switching",
    }
}

fn shards(shards: u32) -> String {
    count(shards.into(), "shard")
}

/// What was told last.
struct Told {
    at: Instant,
    words: String,
}

impl Told {
    fn tell(&mut self, app: &App, words: &str, began: Instant) {
        let is_new = self.words != words;
        if is_new && (self.words.is_empty() || self.at.elapsed() >= TELL_EVERY) {
            app.out.say(&format!("  {words}  ({})", Span(began.elapsed())));
            (self.at, self.words) = (Instant::now(), words.to_owned());
        }
    }
}

/// How long a change is waited for, unless somebody says otherwise: it moves data.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3_600);
/// How long a node may say nothing before what is left is left to the nodes.
const SILENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The time of one request: members decide together, and tell.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::{KeptPlan, Rest, refused};
    use galvani_client::{BucketName, BucketProps, ClusterView, LayoutChange, NodeId, Phase};
    use galvani_model::ids::ClusterId;
    use galvani_model::placement::{Change, Layout, Member};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn layout() -> Layout {
        let member = |id: u16| {
            let lanes = vec![([10, 0, 0, 1], 7000 + id).into()];
            Member::new(NodeId(id.into()), format!("n{id}"), "a", 100, lanes).expect("valid")
        };
        Layout::compute(ClusterId(9), 4, 16, 3, (1..=4).map(member).collect()).expect("possible")
    }

    fn removal(from: &Layout, node: u128) -> KeptPlan {
        let next = from.changed(&[Change::Remove(NodeId(node))]).expect("possible");
        KeptPlan::new("prod", "galvani cluster plan remove".to_owned(), from, next)
    }

    fn view(layout: &Layout, change: Option<&Layout>) -> ClusterView {
        let layout = Arc::new(layout.clone());
        let change = change.map(|new| LayoutChange {
            old: layout.clone(),
            new: Arc::new(new.clone()),
            phase: Phase::Copying,
            begun: 2,
            pace: galvani_client::Pace::default(),
        });
        let buckets = BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(3))]);
        let (cluster, node) = (layout.cluster(), NodeId(1));
        ClusterView { cluster, name: "prod".into(), node, layout, epoch: 2, change, buckets }
    }

    #[test]
    fn what_waits_for_a_node_that_is_away_is_left_to_the_nodes_but_not_what_a_leaver_holds() {
        let rest = |holding: &[&str], silent: &[&str], of_leaver| Rest {
            holding: holding.iter().map(|it| (*it).to_owned()).collect(),
            silent: silent.iter().map(|it| (*it).to_owned()).collect(),
            of_leaver,
        };
        assert!(rest(&[], &[], false).is_nothing());
        for strict in [false, true] {
            assert!(!rest(&["n2 1 shard"], &[], false).may_be_left(strict), "all are there");
            assert!(rest(&["n2 1 shard"], &["n3"], false).may_be_left(strict));
            assert_eq!(rest(&[], &["n3"], true).may_be_left(strict), !strict, "n3 leaves");
            assert_eq!(rest(&["n4 1 shard"], &["n3"], true).may_be_left(strict), !strict);
        }
        let words = rest(&["n2 1 shard"], &["n3"], false).words();
        assert_eq!(words, "handing over: n2 1 shard   no answer from n3");
    }

    #[test]
    fn a_plan_is_of_use_only_on_the_layout_it_was_made_on() {
        let now = layout();
        let (plan, other) = (removal(&now, 4), removal(&now, 1));
        assert!(refused(&plan, &view(&now, None)).is_none());
        assert!(refused(&plan, &view(&now, Some(&plan.layout))).is_none(), "it is on its way");
        assert!(refused(&plan, &view(&plan.layout, None)).is_none(), "it is there");
        let late = refused(&plan, &view(&other.layout, None)).expect("out of date");
        let told = late.to_string();
        assert_eq!(late.exit.code(), 10);
        assert!(told.contains("made on layout v4, the cluster is at v5"), "{told}");
        assert!(told.contains("its nodes are n2 n3 n4") && told.contains("plan again"), "{told}");
        let busy = refused(&plan, &view(&now, Some(&other.layout))).expect("another one");
        let told = busy.to_string();
        assert_eq!(busy.exit.code(), 10);
        assert!(told.contains("another change is under way, v4 -> v5"), "{told}");
    }
}
