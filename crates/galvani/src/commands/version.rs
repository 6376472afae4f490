//! `version`: of the program; of servers, see `status`.

use crate::commands::Done;
use crate::exit::Exit;
use crate::output::Output;
use crate::report::json;

/// Prints it.
pub(crate) fn run(out: Output) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    if out.is_json() {
        let mut map = json::object("galvani.version/1");
        map.insert("version".to_owned(), version.into());
        map.insert("os".to_owned(), std::env::consts::OS.into());
        map.insert("arch".to_owned(), std::env::consts::ARCH.into());
        out.json(map)?;
    } else {
        out.line(&format!("galvani {version}"))?;
    }
    Ok(Exit::Done)
}
