//! Reading `galvani://host:port,host:port?identity=DIR`.
//!
//! Only the text is read here; names are resolved when the client connects.

use std::path::PathBuf;

/// What a url names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seeds {
    /// `host:port` each, as `ToSocketAddrs` reads them.
    pub(crate) hosts: Vec<String>,
    pub(crate) identity: Option<PathBuf>,
}

/// The seeds of `url`, or what is wrong with it.
pub(crate) fn parse(url: &str) -> Result<Seeds, String> {
    let wrong = |why: &str| format!("{url:?} is not galvani://host:port,..: {why}");
    let rest = match url.split_once("://") {
        Some(("galvani", rest)) => rest,
        Some((scheme, _)) => return Err(wrong(&format!("scheme {scheme:?} is not known"))),
        None => url,
    };
    let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut seeds = Seeds::default();
    for host in hosts.trim_end_matches('/').split(',').map(str::trim) {
        seeds.hosts.push(with_port(host).ok_or_else(|| wrong("a host is missing or odd"))?);
    }
    if seeds.hosts.len() > SEEDS_MAX {
        return Err(wrong("too many seeds"));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("identity", dir)) if !dir.is_empty() => seeds.identity = Some(dir.into()),
            Some(_) | None => return Err(wrong(&format!("parameter {pair:?} is not known"))),
        }
    }
    Ok(seeds)
}

fn with_port(host: &str) -> Option<String> {
    let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '@' | '#');
    if host.is_empty() || host.contains(odd) {
        return None;
    }
    // The port follows the last colon, unless that colon is inside an IPv6 address's brackets.
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            let ok = !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0);
            ok.then(|| host.to_owned())
        }
        Some(_) | None => Some(format!("{host}:{PORT_DEFAULT}")),
    }
}

/// The port of a node's first lane unless it is configured otherwise.
const PORT_DEFAULT: u16 = 7070;
/// Seeds are tried all at once.
const SEEDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::{Seeds, parse};

    #[test]
    fn urls_name_hosts_ports_and_an_identity() {
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        let seeds = |names: &[&str]| Seeds { hosts: hosts(names), identity: None };
        for (url, expected) in [
            ("galvani://n1:1,n2:2", seeds(&["n1:1", "n2:2"])),
            ("galvani://n1/", seeds(&["n1:7070"])),
            ("127.0.0.1:7080", seeds(&["127.0.0.1:7080"])),
            ("galvani://[::1]:7070,[fd00::2]", seeds(&["[::1]:7070", "[fd00::2]:7070"])),
            (
                "galvani://n1?identity=/etc/galvani/me",
                Seeds { hosts: hosts(&["n1:7070"]), identity: Some("/etc/galvani/me".into()) },
            ),
        ] {
            assert_eq!(parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn urls_that_name_nobody_are_refused() {
        let many = format!("galvani://{}", vec!["n"; 65].join(","));
        for url in [
            "",
            "galvani://",
            "http://n1:7070",
            "galvani://n1:0",
            "galvani://n1:x",
            "galvani://n1:70700",
            "galvani://:7070",
            "galvani://n1,,n2",
            "galvani://user@n1",
            "galvani://n1?token=x",
            many.as_str(),
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
