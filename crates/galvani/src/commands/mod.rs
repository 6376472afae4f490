//! One file per command; this one only picks it.
//!
//! A command returns how it ended or a block that says why not. Commands that ask a cluster run on
//! one thread: they wait more than they compute.

mod bench;
mod bucket;
mod certificates;
mod changes;
pub(crate) mod cluster;
mod consumers;
mod ctx;
mod damage;
mod del;
mod explain;
mod export;
mod feed;
mod get;
mod graves;
mod group;
mod help;
mod import;
mod lagged;
mod ls;
mod node;
mod options;
pub(crate) mod patience;
mod place;
mod progress;
mod put;
mod quorum;
mod refill;
mod repair;
mod safety;
pub(crate) mod server;
mod status;
mod tour;
mod update;
mod version;
mod wait;

use crate::args::{Cli, Command};
use crate::connect::App;
use crate::context::State;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use std::future::Future;

/// What a command returns.
pub(crate) type Done = Result<Exit, Report>;

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Exit {
    let out = Output::of(&cli.global);
    let name = cli.command.name();
    match dispatch(cli, out) {
        Ok(exit) => exit,
        Err(report) => {
            out.error(name, &report);
            report.exit
        }
    }
}

fn dispatch(cli: Cli, out: Output) -> Done {
    let Cli { context, global, command } = cli;
    // These need no state and no cluster: they work everywhere.
    let command = match command {
        Command::Server(args) => return server::run(args, out),
        Command::Quorum(args) => return quorum::run(args, out),
        Command::Completions(args) => return help::completions(&args),
        Command::Version => return version::run(out),
        Command::Help(args) => return help::run(&args, out),
        other => other,
    };
    let app = App { out, global, context, state: State::locate()? };
    match command {
        Command::Dev(args) => crate::dev::run(&app, *args),
        Command::Put(args) => block_on(put::run(&app, args)),
        Command::Get(args) => block_on(get::run(&app, args)),
        Command::Del(args) => block_on(del::run(&app, args)),
        Command::Update(args) => block_on(update::run(&app, args)),
        Command::Ls(args) => block_on(ls::run(&app, args)),
        Command::Feed(args) => block_on(feed::run(&app, *args)),
        Command::Group(args) => block_on(group::run(&app, args)),
        Command::Lagged(args) => lagged::run(&app, args),
        Command::Bucket(args) => block_on(bucket::run(&app, args)),
        Command::Import(args) => block_on(import::run(&app, args)),
        Command::Export(args) => block_on(export::run(&app, args)),
        Command::Status(args) => block_on(status::run(&app, args)),
        Command::Tour(args) => block_on(tour::run(&app, args)),
        Command::Wait(args) => block_on(wait::run(&app, args)),
        Command::Repair(args) => block_on(repair::run(&app, args)),
        Command::Explain(args) => block_on(explain::run(&app, args)),
        Command::Bench(args) => block_on(bench::run(&app, *args)),
        Command::Cluster(args) => cluster::run(&app, args),
        Command::Node(args) => block_on(node::run(&app, args)),
        Command::Ctx(args) => ctx::run(&app, args),
        Command::Server(_)
        | Command::Quorum(_)
        | Command::Completions(_)
        | Command::Version
        | Command::Help(_) => unreachable!("done above"),
    }
}

/// Runs a future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Report>>) -> Result<T, Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Report::unexpected(format!("no runtime: {error}")))?;
    let result = runtime.block_on(future);
    // A name that is still being resolved must not hold the process up.
    runtime.shutdown_background();
    result
}
