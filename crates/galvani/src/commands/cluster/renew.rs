//! `cluster renew`: certificates anew for whom old ones name; `cluster root`: a root to follow another.
//!
//! They only write files. A node that runs takes them in by itself (`galvani-node/src/renewal.rs`).
//! The work is `galvani-node/src/provision.rs`.

use crate::args::cluster::{Renew, Root};
use crate::commands::Done;
use crate::connect::App;
use crate::exit::Exit;
use crate::report::{Report, json};
use galvani_node::provision::{ProvisionError, create_root, renew};
use serde_json::{Value, json as value};
use std::time::{SystemTime, UNIX_EPOCH};

/// Renews them, one after the other; what was renewed before one that cannot be stays so.
pub(super) fn run(app: &App, args: &Renew) -> Done {
    let mut renewed = Vec::with_capacity(args.dirs.len());
    for dir in &args.dirs {
        let expires_s = renew(&args.ca, &args.trust, dir).map_err(|error| {
            let report = refused(&format!("cluster renew: {}: {error}", dir.display()), &error);
            match renewed.as_slice() {
                [] => report.why("nothing was renewed"),
                done => report.why(format!("{} before it are renewed", done.len())),
            }
        })?;
        renewed.push((dir, expires_s));
    }
    if app.out.is_json() {
        let entries = renewed.iter().map(|(dir, expires_s)| {
            value!({ "identity": dir.display().to_string(), "expires_s": expires_s })
        });
        let mut map = json::object("galvani.cluster_renew/1");
        map.insert("renewed".to_owned(), entries.collect::<Vec<Value>>().into());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    if app.out.quiet {
        return Ok(Exit::Done);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    for (dir, expires_s) in renewed {
        let days = expires_s.map_or(0, |end| end.saturating_sub(now) / 86_400);
        app.out.line(&format!("ok  {}  good for {days} days", dir.display()))?;
    }
    Ok(Exit::Done)
}

/// Makes the root.
pub(super) fn root(app: &App, args: &Root) -> Done {
    create_root(&args.ca, &args.out).map_err(|error| {
        refused(&format!("cluster root: {error}"), &error).why("nothing was made")
    })?;
    let (ca, out) = (args.ca.display(), args.out.display());
    if app.out.is_json() {
        let mut map = json::object("galvani.cluster_root/1");
        map.insert("ca".to_owned(), out.to_string().into());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    if !app.out.quiet {
        app.out.line(&format!("ok  a new root in {out}; nobody believes it yet"))?;
    }
    app.out.say(&format!(
        "  first  galvani cluster renew --ca {ca} --trust {out} DIR ..   all nodes and clients believe both\n  \
         then   galvani cluster renew --ca {out} --trust {ca} DIR ..   all show the new one\n  \
         last   galvani cluster renew --ca {out} DIR ..   nobody believes the old one"
    ));
    Ok(Exit::Done)
}

fn refused(what: &str, error: &ProvisionError) -> Report {
    match error {
        ProvisionError::Exists { .. } => Report::new(Exit::Refused, what)
            .why("a root is never written over another one")
            .next("say", "--out with a directory that is not there"),
        ProvisionError::OtherCluster { .. } => Report::new(Exit::NotTrusted, what)
            .next("say", "--ca with the ca directory of that cluster"),
        ProvisionError::Pki(_)
        | ProvisionError::Io { .. }
        | ProvisionError::NameTaken { .. }
        | ProvisionError::Member { .. }
        | ProvisionError::Layout(_)
        | ProvisionError::Bucket(_)
        | ProvisionError::ClusterFile(_) => {
            Report::new(Exit::NotTrusted, what).next("see", "galvani help cluster renew")
        }
    }
}
