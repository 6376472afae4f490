//! `cluster invite`: what lets a node in that is to join, as a directory or for a token.
//!
//! A directory has it all: the cluster's root, key and certificate, the cluster file. With a token
//! (`invite/serve.rs`) the node makes its key itself and comes for the rest. It then runs, tells the
//! members who it is, and owns nothing before a plan says so.
//! The work is `galvani-node/src/{provision,join}.rs`; next to read: `plan/applicants.rs`.

mod serve;

use crate::args::cluster::Invite;
use crate::args::line::Line;
use crate::commands::Done;
use crate::connect::App;
use crate::exit::Exit;
use crate::report::{Report, json};
use galvani_model::limits::Limits;
use galvani_node::cluster_file::ClusterFile;
use galvani_node::config::{StorageSection, TransportSection};
use galvani_node::provision::{JoinSpec, NodeSpec, ProvisionError, create_joiner};

/// Makes it.
pub(crate) async fn run(app: &App, args: &Invite) -> Done {
    let mut cluster =
        ClusterFile::load(&args.cluster).map_err(|error| refused(args, &error.into()))?;
    let is_fresh = renew(app, &mut cluster).await;
    let Some(out) = &args.out else { return serve::run(app, args, &cluster, is_fresh).await };
    let spec = spec(args, &cluster);
    let (member, config) = create_joiner(&spec, out).map_err(|error| refused(args, &error))?;
    let (name, out) = (&args.node.name, out.display());
    if app.out.is_json() {
        let mut map = json::object("galvani.cluster_invite/1");
        map.insert("name".to_owned(), name.as_str().into());
        map.insert("id".to_owned(), member.id().to_string().into());
        map.insert("config".to_owned(), config.display().to_string().into());
        map.insert("layout_version".to_owned(), cluster.layout.version().into());
        map.insert("layout_is_fresh".to_owned(), is_fresh.into());
        app.out.json(map)?;
        return Ok(Exit::Done);
    }
    if !app.out.quiet {
        app.out.line(&format!("ok  node {name}  zone {}  in {out}", member.zone()))?;
    }
    if !is_fresh {
        let version = cluster.layout.version();
        app.out.note(&format!(
            "no server of the cluster was asked: the node will look for the members of layout v{version}"
        ));
    }
    app.out.say(&format!(
        "  next  copy {out} to its host, and there:  galvani server --config galvani.toml\n  \
         then  galvani cluster plan add {name}"
    ));
    Ok(Exit::Done)
}

fn spec<'a>(args: &'a Invite, cluster: &'a ClusterFile) -> JoinSpec<'a> {
    let node = &args.node;
    JoinSpec {
        ca: &args.ca,
        cluster,
        node: NodeSpec {
            name: node.name.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            lanes: node.lanes(),
        },
        durability: args.durability.into(),
        limits: Limits::default(),
        storage: StorageSection::default(),
        transport: TransportSection { mtu_max: super::MTU_ETHERNET, faults: false },
    }
}

/// Puts the layout there is now in place of that of the file, if a server of the cluster says it.
async fn renew(app: &App, cluster: &mut ClusterFile) -> bool {
    // Without a server it works all the same.
    let Ok(session) = app.connect().await else { return false };
    let view = session.client.cluster();
    let is_it = view.cluster == cluster.layout.cluster();
    if is_it {
        cluster.layout = view.layout.clone();
    }
    is_it
}

/// A directory beside the one that is there.
fn beside(args: &Invite) -> String {
    let out = args.out.as_ref().map_or(args.node.name.clone(), |out| out.display().to_string());
    format!("{out}-2")
}

fn refused(args: &Invite, error: &ProvisionError) -> Report {
    let line = Line::new("cluster invite")
        .with_path("--ca", &args.ca)
        .with_path("--cluster", &args.cluster)
        .with("--node", &args.node);
    let report = |exit| Report::new(exit, format!("cluster invite: {error}"));
    match error {
        ProvisionError::Exists { .. } => report(Exit::Refused)
            .why("a node's directory is never made over another one")
            .next("say", line.with_path("--out", beside(args)).to_string()),
        ProvisionError::NameTaken { name, .. } => report(Exit::Refused)
            .why("a node has the name of another only if it replaces it: take another name")
            .next("see", "galvani status")
            .next("then", format!("galvani cluster plan replace {name} NEW")),
        ProvisionError::OtherCluster { .. } => report(Exit::NotTrusted)
            .why("nothing was made: its members would not let the node in")
            .next("say", "--ca with the ca directory beside that cluster file"),
        ProvisionError::Pki(_) => report(Exit::NotTrusted)
            .why("--ca is the directory ca that cluster create or dev has made")
            .next("see", "galvani help cluster invite"),
        ProvisionError::Member { .. }
        | ProvisionError::Layout(_)
        | ProvisionError::Bucket(_)
        | ProvisionError::ClusterFile(_)
        | ProvisionError::Io { .. } => report(Exit::Usage)
            .why("nothing was changed")
            .next("see", "galvani help cluster invite"),
    }
}
