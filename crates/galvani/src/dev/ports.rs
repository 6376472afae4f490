//! UDP ports on loopback: choosing them once, and naming who has taken one.
//!
//! A port is chosen once and kept for the cluster's life. Next to read: `up.rs`.

use crate::args::dev::Ports;
use crate::args::line::Line;
use crate::exit::Exit;
use crate::report::{Report, mistakes};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

/// First port unless `--ports` says otherwise.
pub(crate) const BASE: u16 = 7070;
/// Nodes are this many ports apart, or more if they have more lanes.
const STEP: u16 = 10;
/// How long a port that is taken may take to become free.
const LET_GO: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The lanes of each node.
pub(crate) fn choose(
    ports: Ports,
    nodes: u8,
    lanes: u16,
    auto: &Line,
) -> Result<Vec<Vec<SocketAddr>>, Report> {
    match ports {
        Ports::Auto => any_free(nodes, lanes),
        Ports::From(base) => from(base, nodes, lanes, auto),
    }
}

fn from(base: u16, nodes: u8, lanes: u16, auto: &Line) -> Result<Vec<Vec<SocketAddr>>, Report> {
    let step = step(lanes);
    let at = |node: u8, lane: u16| {
        let offset = u16::from(node).checked_mul(step)?.checked_add(lane)?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, base.checked_add(offset)?)))
    };
    let one = |node: u8| (0..lanes).map(|lane| at(node, lane)).collect::<Option<Vec<_>>>();
    let all: Option<Vec<_>> = (0..nodes).map(one).collect();
    all.ok_or_else(|| {
        let what = format!("--ports {base}: {nodes} nodes in steps of {step} go past port 65535");
        Report::new(Exit::Usage, what).next("try", auto.to_string())
    })
}

/// The lanes of nodes that come later: the next ones, if the nodes there are stand in steps and those
/// ports are free; else any free ones.
pub(crate) fn more(
    taken: &[Vec<SocketAddr>],
    nodes: u8,
    lanes: u16,
) -> Result<Vec<Vec<SocketAddr>>, Report> {
    let step = step(lanes);
    let mut firsts: Vec<u16> =
        taken.iter().filter_map(|lanes| Some(lanes.first()?.port())).collect();
    firsts.sort_unstable();
    let in_steps = firsts.windows(2).all(|pair| (pair[1] - pair[0]) % step == 0);
    let next = firsts.last().filter(|_| in_steps && firsts.len() > 1);
    if let Some(base) = next.and_then(|last| last.checked_add(step))
        && let Ok(all) = from(base, nodes, lanes, &Line::new("dev add"))
        && check(all.iter().flatten(), None).is_ok()
    {
        return Ok(all);
    }
    any_free(nodes, lanes)
}

/// How far apart nodes with so many lanes are.
fn step(lanes: u16) -> u16 {
    lanes.div_ceil(STEP).max(1) * STEP
}

fn any_free(nodes: u8, lanes: u16) -> Result<Vec<Vec<SocketAddr>>, Report> {
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    let mut all = Vec::new();
    for _ in 0..nodes {
        let mut one = Vec::new();
        for _ in 0..lanes {
            let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
            let bound = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (addr, socket) = bound.map_err(|error| no_port(&error))?;
            one.push(addr);
            held.push(socket);
        }
        all.push(one);
    }
    Ok(all)
}

/// An error unless every address is free, at once or soon: a process that was just killed may take
/// a moment to let go. A new cluster may still choose others, with `auto`.
pub(crate) fn check<'a>(
    lanes: impl Iterator<Item = &'a SocketAddr>,
    auto: Option<&Line>,
) -> Result<(), Report> {
    let until = Instant::now() + LET_GO;
    for addr in lanes {
        while let Err(error) = UdpSocket::bind(addr) {
            match error.kind() {
                io::ErrorKind::AddrInUse if Instant::now() < until => thread::sleep(LOOK_AGAIN),
                io::ErrorKind::AddrInUse => {
                    return Err(mistakes::port_taken(addr.port(), owner(addr.port()), auto));
                }
                _ => return Err(no_port(&error)),
            }
        }
    }
    Ok(())
}

fn no_port(error: &io::Error) -> Report {
    Report::unexpected(format!("no udp port on loopback: {error}"))
}

/// Which process has a UDP port: its id and command line, as far as /proc tells.
fn owner(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"];
    let inode = tables.iter().find_map(|path| inode_of(&fs::read_to_string(path).ok()?, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = |file: fs::DirEntry| {
            fs::read_link(file.path())
                .is_ok_and(|to| to.as_os_str().as_bytes() == wanted.as_bytes())
        };
        if files.flatten().any(has) {
            return Some((pid, command_of(pid)));
        }
    }
    None
}

/// The inode of the socket bound to `port`, from the text of /proc/net/udp.
fn inode_of(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, bound) = fields.get(1)?.rsplit_once(':')?;
        let same = u16::from_str_radix(bound, 16).ok()? == port;
        same.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn command_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let text = words.join(" ");
    crate::report::text::printable(text.trim_end().as_bytes(), COMMAND_CHARS_SHOWN)
}

const COMMAND_CHARS_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::{check, choose, inode_of, more};
    use crate::args::dev::Ports;
    use crate::args::line::Line;
    use std::collections::BTreeSet;
    use std::net::UdpSocket;

    #[test]
    fn ports_are_stable_and_apart() {
        let ports = |nodes, lanes| -> Vec<Vec<u16>> {
            let all = choose(Ports::From(7070), nodes, lanes, &Line::new("dev")).expect("room");
            all.iter().map(|one| one.iter().map(|addr| addr.port()).collect()).collect()
        };
        assert_eq!(ports(3, 2), [[7070, 7071], [7080, 7081], [7090, 7091]]);
        assert_eq!(ports(2, 11)[1][0], 7090);
        let refused = choose(Ports::From(65530), 2, 1, &Line::new("dev"));
        assert_eq!(refused.expect_err("no room").exit.code(), 2);
    }

    #[test]
    fn automatic_ports_are_all_different() {
        let all = choose(Ports::Auto, 5, 3, &Line::new("dev")).expect("free ports");
        let different: BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(different.len(), 15);
    }

    #[test]
    fn later_nodes_stand_in_the_same_steps_if_there_are_some() {
        // Ports that the system gives out to nobody.
        let at = |port: u16| vec![([127, 0, 0, 1], port).into()];
        let all = more(&[at(1910), at(1920), at(1940)], 2, 1).expect("room");
        let any = more(&[at(1910), at(1917)], 1, 1).expect("room");
        let next: Vec<u16> = all.iter().map(|one| one[0].port()).collect();
        // Somebody may have one of them: then it is any.
        assert!(next == [1950, 1960] || next[0] > 1960, "{next:?}");
        assert!(any[0][0].port() > 1960, "they stand in no steps: {any:?}");
    }

    #[test]
    fn a_taken_port_is_told_with_its_owner() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let addr = socket.local_addr().expect("bound");
        let report = check([addr].iter(), None).expect_err("taken");
        let (port, pid) = (addr.port(), std::process::id());
        let told = report.to_string();
        assert!(told.starts_with(&format!("error  udp {port} is used by pid {pid} (")), "{told}");
        drop(socket);
    }

    #[test]
    fn sockets_are_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode ref pointer drops\n  \
                     515: 0100007F:1B9E 00000000:0000 07 00000000:00000000 00:00000000 00000000     \
                     0        0 41201 2 0000000000000000 0\n";
        assert_eq!(inode_of(table, 7070), Some(41201));
        assert_eq!(inode_of(table, 7071), None);
    }
}
