//! `server --join TOKEN --dir DIR`: the directory of a node that was invited, made before it starts.
//!
//! What is done is in `galvani-node/src/join/arrive.rs`; here it is said why it was not.

use crate::commands::block_on;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::Report;
use galvani_node::join::Refusal;
use galvani_node::join::arrive::{ArriveError, arrive, config_in};
use galvani_node::join::token::JoinToken;
use std::fs;
use std::path::{Path, PathBuf};

/// The configuration file of the node in `dir`, which the token let in, now or before.
pub(super) fn arrived(word: &str, dir: &Path, out: Output) -> Result<PathBuf, Report> {
    let config = config_in(dir);
    if config.exists() {
        out.say(&format!("{} is there: the token is not looked at", config.display()));
        return Ok(config);
    }
    let token = token(word)?;
    let made = block_on(async { Ok(arrive(&token, dir).await) })?;
    made.map_err(|error| report(&error, &token, dir))?;
    out.say(&format!(
        "node {} has its certificate  next: galvani cluster plan add {}",
        token.name, token.name
    ));
    Ok(config)
}

/// The token, or what the file has that `@` names.
fn token(word: &str) -> Result<JoinToken, Report> {
    let text = match word.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).map_err(|error| {
            Report::new(Exit::Usage, format!("--join: {path}: {error}"))
                .why("nothing was made")
                .next("see", "galvani help server")
        })?,
        None => word.to_owned(),
    };
    text.parse().map_err(|error| {
        Report::new(Exit::Usage, format!("--join: this is no token: {error}"))
            .why("nothing was made")
            .next("make one", "galvani help cluster invite")
    })
}

fn report(error: &ArriveError, token: &JoinToken, dir: &Path) -> Report {
    let report = |exit| Report::new(exit, format!("server: {error}"));
    let invite_again = ("invite it again", "galvani help cluster invite");
    match error {
        ArriveError::OldData { path } => report(Exit::Refused)
            .why("a node that joins begins with nothing: what is there is another one's")
            .why("nothing was changed, and the token is as good as before")
            .next("start that one", "galvani server --config ITS/galvani.toml")
            .next("or set it aside", format!("mv {0} {0}.old", path.display())),
        ArriveError::Expired { .. } => report(Exit::NotTrusted)
            .why("nobody was asked; nothing was made")
            .next(invite_again.0, invite_again.1),
        ArriveError::NoAnswer { .. } => report(Exit::NoServer)
            .why("galvani cluster invite --serve answers while it runs: until the token is used or expired")
            .why("its address must be one that this host reaches, by UDP")
            .next("run it, then", again(dir)),
        ArriveError::OtherCluster { .. } => report(Exit::NotTrusted)
            .why("nothing was sent: it may be the invitation of another cluster at the same address")
            .next("invite it from the cluster's own ca", invite_again.1),
        ArriveError::Refused { refusal, .. } => match refusal {
            Refusal::Used { .. } => report(Exit::NotTrusted)
                .why(format!("{} has its certificate: a token is good for one node", token.name))
                .why("if that was none of yours, take it out: galvani node forget, and make a new root")
                .next("invite another", invite_again.1),
            Refusal::Unknown | Refusal::Expired { .. } => report(Exit::NotTrusted)
                .why("nothing was made that a node could start from")
                .next(invite_again.0, invite_again.1),
            Refusal::Malformed { .. } | Refusal::Failed { .. } => report(Exit::Refused)
                .why("the token is as good as before")
                .next("see", "what galvani cluster invite --serve says"),
        },
        ArriveError::Nonsense { .. } => report(Exit::NotTrusted)
            .why("nothing was made that a node could start from")
            .next(invite_again.0, invite_again.1),
        ArriveError::Pki(_) | ArriveError::Io { .. } => report(Exit::Refused)
            .why("nothing was made that a node could start from")
            .next("see", format!("ls {}", dir.display())),
    }
}

/// The command, without the secret.
fn again(dir: &Path) -> String {
    format!("galvani server --join TOKEN --dir {}", dir.display())
}
