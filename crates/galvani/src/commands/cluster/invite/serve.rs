//! `cluster invite --serve`: prints a token, and signs for the node that comes with it.
//!
//! It runs where the root's key is, and ends when the node has its certificate, when the token has
//! expired, or with Ctrl-C. Whoever comes with an earlier token is told what became of it.
//! The work is `galvani-node/src/join/invites.rs`.

use super::{refused, spec};
use crate::args::cluster::Invite;
use crate::args::line::Line;
use crate::commands::Done;
use crate::commands::patience::Signals;
use crate::connect::App;
use crate::exit::Exit;
use crate::report::text::Span;
use crate::report::{Report, json};
use galvani_node::cluster_file::ClusterFile;
use galvani_node::join::invites::Invites;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Invites, and waits for the node.
pub(super) async fn run(app: &App, args: &Invite, cluster: &ClusterFile, is_fresh: bool) -> Done {
    let at = args.serve.expect("the arguments have --out or --serve");
    if at.ip().is_unspecified() {
        let what = format!("cluster invite: {at} is no address that a node can ask");
        return Err(Report::new(Exit::Usage, what)
            .why("the token says where the node asks for its certificate; nothing was made")
            .next("say", "--serve with an address of this machine, as in --serve 10.0.0.2:7900"));
    }
    let life = args.ttl.unwrap_or(LIFE);
    let ends = Instant::now() + life;
    let spec = spec(args, cluster);
    let invites = Invites::of(&spec).map_err(|error| refused(args, &error))?;
    let mut endpoint = invites.listen(at).map_err(|error| {
        Report::new(Exit::Refused, format!("cluster invite: {error}"))
            .why("another process has the port, or the address is not of this machine")
            .next("see", "ss -ulpn")
    })?;
    let at = endpoint.local_addr().unwrap_or(at);
    let made = invites.invite(&spec, life, &[at]).map_err(|error| refused(args, &error))?;
    let (member, token) = made;
    let name = member.name();
    tell(app, name, &token.to_string(), life)?;
    if !is_fresh {
        let version = cluster.layout.version();
        app.out.note(&format!(
            "no server of the cluster was asked: the node will look for the members of layout v{version}"
        ));
    }
    let mut signals = Signals::taken()?;
    loop {
        let asked = tokio::select! {
            asked = endpoint.next() => asked,
            () = sleep_until(ends) => return Err(nobody_came(args, name, life)),
            () = signals.any() => return Err(interrupted(args, name)),
        };
        let Some(asked) = asked else { return Err(Report::unexpected("the endpoint ended")) };
        let from = asked.from;
        let (answer, told) = invites.answer(&asked.question);
        let arrived = asked.answer(&answer).await;
        match told {
            Ok(who) if who == name && arrived => return done(app, name, from),
            Ok(who) if arrived => app.out.say(&format!("{who} has its certificate, at {from}")),
            // It comes again, with the same key.
            Ok(who) => app.out.say(&format!("{who} at {from} did not take its answer")),
            Err(refusal) => app.out.say(&format!("{from} was refused: {refusal}")),
        }
    }
}

fn tell(app: &App, name: &str, token: &str, life: Duration) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = json::object("galvani.cluster_token/1");
        map.insert("name".to_owned(), name.into());
        map.insert("token".to_owned(), token.into());
        map.insert("good_for_s".to_owned(), life.as_secs().into());
        return app.out.json(map);
    }
    app.out.line(token)?;
    app.out.say(&format!(
        "  next  galvani server --join TOKEN --dir {name}     on the node's host, within {}\n  \
         then  galvani cluster plan add {name}\n\
         waiting for {name}; Ctrl-C takes the token back",
        Span(life)
    ));
    Ok(())
}

fn done(app: &App, name: &str, from: SocketAddr) -> Done {
    if !app.out.is_json() {
        app.out.say(&format!("ok  node {name} has its certificate, at {from}"));
    }
    Ok(Exit::Done)
}

fn again(args: &Invite) -> String {
    let line = Line::new("cluster invite")
        .with_path("--ca", &args.ca)
        .with_path("--cluster", &args.cluster)
        .with("--node", &args.node);
    line.given("--serve", args.serve).to_string()
}

fn nobody_came(args: &Invite, name: &str, life: Duration) -> Report {
    Report::new(Exit::TimedOut, format!("cluster invite: {name} did not come in {}", Span(life)))
        .why("its token has expired; nothing in the cluster was changed")
        .next("again", again(args))
}

fn interrupted(args: &Invite, name: &str) -> Report {
    Report::new(Exit::Interrupted, "interrupted")
        .why(format!("nobody answers {name} any more; nothing in the cluster was changed"))
        .next("again", again(args))
}

/// How long a token is good, unless somebody says otherwise.
const LIFE: Duration = Duration::from_secs(3600);
