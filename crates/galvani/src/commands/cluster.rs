//! `cluster create`: certificates, layout and a directory for each node, for real hosts; `cluster
//! client`: an identity with a role; `cluster plan`: other nodes, in `cluster/plan.rs`; `cluster apply`
//! and `abort`: carrying that out, in `cluster/apply.rs`; `cluster invite`: a node for it; `cluster
//! renew` and `root`: certificates anew, in `cluster/renew.rs`.
//!
//! Starts nothing; `galvani server` does. The work is `galvani-node/src/provision.rs`.

mod apply;
pub(crate) mod change;
mod invite;
mod pace;
pub(crate) mod plan;
mod renew;

use crate::args::cluster::{ClientRole, Cluster, ClusterClient, Create, NodeArg};
use crate::args::line::Line;
use crate::commands::{Done, block_on};
use crate::connect::App;
use crate::context::{Context, check_name};
use crate::exit::Exit;
use crate::report::{Report, json};
use clap::ValueEnum;
use galvani_node::provision::{
    ClusterSpec, NodeSpec, ProvisionError, Provisioned, Role, create, create_client,
};
use serde_json::Value;
use std::path::absolute;

/// Does what is asked with clusters.
pub(crate) fn run(app: &App, args: Cluster) -> Done {
    match args {
        Cluster::Create(args) => run_create(app, args),
        Cluster::Client(args) => client(app, &args),
        Cluster::Plan(args) => block_on(plan::run(app, args)),
        Cluster::Apply(args) => block_on(apply::run(app, &args)),
        Cluster::Pause(args) => block_on(pace::run(app, &args, true)),
        Cluster::Resume(args) => block_on(pace::run(app, &args, false)),
        Cluster::Abort(args) => block_on(apply::abort(app, &args)),
        Cluster::Invite(args) => block_on(invite::run(app, &args)),
        Cluster::Renew(args) => renew::run(app, &args),
        Cluster::Root(args) => renew::root(app, &args),
    }
}

/// Makes a client's identity from the cluster's own root.
fn client(app: &App, args: &ClusterClient) -> Done {
    let role = match args.role {
        ClientRole::Admin => Role::Admin,
        ClientRole::ReadWrite => Role::ReadWrite,
        ClientRole::ReadOnly => Role::ReadOnly,
    };
    let made = create_client(&args.ca, &args.name, role, &args.out);
    made.map_err(|error| {
        let what = format!("cluster client: {error}");
        match error {
            ProvisionError::Exists { .. } => Report::new(Exit::Refused, what)
                .why("an identity is never written over another: name a new directory by --out"),
            _ => Report::new(Exit::NotTrusted, what)
                .why("--ca is the directory ca that cluster create or dev has made"),
        }
    })?;
    let out = args.out.display();
    if app.out.is_json() {
        let mut map = json::object("galvani.cluster_client/1");
        map.insert("name".to_owned(), args.name.as_str().into());
        map.insert("role".to_owned(), role.as_str().into());
        map.insert("identity".to_owned(), out.to_string().into());
        app.out.json(map)?;
    } else {
        app.out.line(&format!("ok  client {}  {}  in {out}", args.name, role.as_str()))?;
    }
    Ok(Exit::Done)
}

fn run_create(app: &App, args: Create) -> Done {
    check_name(&args.name)?;
    let made = create(&spec(&args), &args.dir).map_err(|error| refused(&args, &error))?;
    if !args.no_context {
        let seeds = args.nodes.iter().map(|node| node.first_lane.to_string()).collect();
        let identity = absolute(&made.client_identity).unwrap_or(made.client_identity.clone());
        app.state.save(&args.name, &Context::new(seeds, identity, None))?;
        app.state.select(&args.name)?;
    }
    tell(app, &args, &made)?;
    Ok(Exit::Done)
}

fn spec(args: &Create) -> ClusterSpec {
    let node = |node: &NodeArg| NodeSpec {
        name: node.name.clone(),
        zone: node.zone.clone(),
        weight: node.weight,
        lanes: node.lanes(),
    };
    ClusterSpec {
        name: args.name.clone(),
        partitions: args.partitions,
        n: copies(args),
        nodes: args.nodes.iter().map(node).collect(),
        durability: args.durability.into(),
        mtu_max: MTU_ETHERNET,
        faults: false,
    }
}

fn copies(args: &Create) -> u8 {
    args.n.unwrap_or_else(|| u8::try_from(args.nodes.len()).unwrap_or(COPIES).min(COPIES))
}

fn tell(app: &App, args: &Create, made: &Provisioned) -> Result<(), Report> {
    if app.out.is_json() {
        let mut map = json::object("galvani.cluster_create/1");
        map.insert("name".to_owned(), args.name.as_str().into());
        map.insert("cluster".to_owned(), made.cluster.to_string().into());
        let configs = made.configs.iter().map(|path| Value::from(path.display().to_string()));
        map.insert("configs".to_owned(), configs.collect());
        let identity = made.client_identity.display().to_string();
        map.insert("client_identity".to_owned(), identity.into());
        return app.out.json(map);
    }
    let dir = args.dir.display();
    app.out.line(&format!(
        "ok  cluster {}  {} nodes  n={}  in {dir}",
        args.name,
        args.nodes.len(),
        copies(args)
    ))?;
    for (node, config) in args.nodes.iter().zip(&made.configs) {
        let (name, at, zone) = (&node.name, node.first_lane, &node.zone);
        app.out.line(&format!("  {name}  {at}  zone {zone}  {}", config.display()))?;
    }
    app.out.say(&format!(
        "  next  copy {dir}/NAME to its host, and there:  galvani server --config NAME/galvani.toml\n  \
         keep  {dir}/ca (it signs certificates) off the nodes"
    ));
    if !args.no_context {
        app.out.say(&format!("  context {} selected", args.name));
    }
    Ok(())
}

/// A cluster that was not made.
fn refused(args: &Create, error: &ProvisionError) -> Report {
    let report = Report::new(Exit::Refused, format!("cluster create: {error}"));
    match error {
        ProvisionError::Exists { .. } => report
            .why("a cluster is never made over another one")
            .next("try", elsewhere(args).to_string()),
        ProvisionError::Member { .. }
        | ProvisionError::Layout(_)
        | ProvisionError::Bucket(_)
        | ProvisionError::OtherCluster { .. }
        | ProvisionError::NameTaken { .. } => {
            report.why("nothing was made").next("see", "galvani help cluster create")
        }
        ProvisionError::Pki(_) | ProvisionError::ClusterFile(_) | ProvisionError::Io { .. } => {
            report.why(format!("what was made so far is in {}", args.dir.display()))
        }
    }
}

/// The same command into another directory.
fn elsewhere(args: &Create) -> Line {
    let mut dir = args.dir.clone().into_os_string();
    dir.push("-2");
    let line = Line::new("cluster create").with("--name", &args.name).with_path("--dir", dir);
    let line = args.nodes.iter().fold(line, |line, node| line.another("--node", node));
    let durability = args.durability.to_possible_value();
    let durability = durability.map(|value| value.get_name().to_owned());
    line.given("-n", args.n)
        .with("--partitions", args.partitions)
        .given("--durability", durability)
        .flag("--no-context", args.no_context)
}

/// Copies of each key, if there are as many nodes.
const COPIES: u8 = 3;
/// Largest UDP payload on Ethernet, with IPv6.
pub(super) const MTU_ETHERNET: u16 = 1452;
