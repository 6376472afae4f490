//! Connections between lanes, and the faults of the network between nodes.
//!
//! In the stream regime a connection delivers in order while it lives; a cut holds messages back
//! until it heals or the connection is found dead, which loses them. In the datagram regime single
//! messages are lost, doubled and reordered. Nothing here knows what a message means.
//! Next to read: `drive.rs`.

use crate::lag::Lag;
use crate::packet::{ConnId, LaneAt, Packet};
use crate::profile::{Profile, Regime};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// One connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conn {
    pub(crate) up: bool,
    /// Counts its lives.
    pub(crate) epoch: u64,
    /// Held back by a cut.
    held: Vec<Packet>,
    /// When the last message towards the server, and towards the asker, arrives.
    last: [u64; 2],
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives at these times: never, once or twice.
    Arrives(Vec<u64>),
    /// It waits for a cut to heal.
    Held,
}

/// The network.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    regime: Regime,
    delay_max: u64,
    slow: u64,
    loss: u64,
    duplicates: u64,
    conns: BTreeMap<ConnId, Conn>,
    /// Ordered pairs of nodes whose messages do not get through, and how many cuts there are.
    cuts: BTreeMap<(usize, usize), u32>,
    /// Nodes whose links are slow.
    lags: BTreeMap<usize, Lag>,
}

impl Net {
    pub(crate) fn new(profile: &Profile) -> Net {
        let lanes = (0..profile.hosts()).flat_map(|node| {
            (0..usize::from(profile.lanes)).map(move |lane| LaneAt { node, lane })
        });
        let lanes: Vec<LaneAt> = lanes.collect();
        let mut conns = BTreeMap::new();
        for &asker in &lanes {
            for &server in lanes.iter().filter(|&&server| server != asker) {
                conns.insert(ConnId { asker, server }, Conn::default());
            }
        }
        Net {
            regime: profile.regime,
            delay_max: profile.delay_max,
            slow: profile.slow,
            loss: profile.loss,
            duplicates: profile.duplicates,
            conns,
            cuts: BTreeMap::new(),
            lags: BTreeMap::new(),
        }
    }

    /// What becomes of a message on `conn`, towards its server or back. Only messages that a
    /// receiver must bear twice are ever doubled (`doubles`).
    pub(crate) fn fate(
        &mut self,
        conn: ConnId,
        to_server: bool,
        doubles: bool,
        now: u64,
        rng: &mut Rng,
    ) -> Fate {
        let (asker, server) = (conn.asker.node, conn.server.node);
        let (from, to) = if to_server { (asker, server) } else { (server, asker) };
        let delay = self.delay(from, to, rng);
        if from == to {
            return Fate::Arrives(vec![now + delay]);
        }
        let cut = self.is_cut(from, to);
        match self.regime {
            Regime::Stream if cut => Fate::Held,
            Regime::Stream => {
                let last = &mut self.conn_mut(conn).last[usize::from(to_server)];
                *last = (now + delay).max(*last + 1);
                Fate::Arrives(vec![*last])
            }
            Regime::Datagram if cut || rng.chance(self.loss) => Fate::Arrives(Vec::new()),
            Regime::Datagram if doubles && rng.chance(self.duplicates) => {
                let again = now + self.delay(from, to, rng) + self.delay(from, to, rng);
                Fate::Arrives(vec![now + delay, again])
            }
            Regime::Datagram => Fate::Arrives(vec![now + delay]),
        }
    }

    /// When a datagram from one node to another arrives; never, if a cut or chance loses it.
    pub(crate) fn datagram(&self, from: usize, to: usize, now: u64, rng: &mut Rng) -> Vec<u64> {
        if self.is_cut(from, to) || rng.chance(self.loss) {
            return Vec::new();
        }
        let copies = if rng.chance(self.duplicates) { 2 } else { 1 };
        (0..copies).map(|_| now + self.delay(from, to, rng)).collect()
    }

    fn delay(&self, from: usize, to: usize, rng: &mut Rng) -> u64 {
        if from == to {
            return rng.between(1, 20);
        }
        let usual = rng.between(self.delay_max / 10 + 1, self.delay_max);
        let usual = if rng.chance(self.slow) { usual + rng.below(1_500_000) } else { usual };
        let leaves = self.lags.get(&from).filter(|lag| lag.from);
        let arrives = self.lags.get(&to).filter(|lag| lag.towards);
        let longer = leaves.into_iter().chain(arrives);
        usual + longer.map(|lag| rng.between(lag.between.0, lag.between.1)).sum::<u64>()
    }

    /// A node's links are slow from now on.
    pub(crate) fn slow_down(&mut self, node: usize, lag: Lag) {
        self.lags.insert(node, lag);
    }

    /// Ends a lag of a node's links; false if it is over.
    pub(crate) fn speed_up(&mut self, node: usize, number: u64) -> bool {
        let current = self.lags.get(&node).is_some_and(|lag| lag.number == number);
        current && self.lags.remove(&node).is_some()
    }

    /// Holds a message back until the cut heals.
    pub(crate) fn hold(&mut self, conn: ConnId, packet: Packet) {
        self.conn_mut(conn).held.push(packet);
    }

    /// Takes what was held back and now gets through.
    pub(crate) fn release(&mut self) -> Vec<Packet> {
        let mut released = Vec::new();
        let cuts = &self.cuts;
        for (id, conn) in &mut self.conns {
            let nodes = (id.asker.node, id.server.node);
            let cut = cuts.contains_key(&nodes) || cuts.contains_key(&(nodes.1, nodes.0));
            if !cut {
                released.append(&mut conn.held);
            }
        }
        released
    }

    /// Ends a connection's life: what it held back is lost.
    pub(crate) fn take_down(&mut self, conn: ConnId) {
        let conn = self.conn_mut(conn);
        conn.up = false;
        conn.epoch += 1;
        conn.held.clear();
    }

    /// The asker's process is gone: what it has sent still arrives.
    pub(crate) fn orphan(&mut self, conn: ConnId) {
        let conn = self.conn_mut(conn);
        conn.up = false;
        conn.held.clear();
    }

    /// Starts a new life of a connection.
    pub(crate) fn bring_up(&mut self, conn: ConnId) {
        let conn = self.conn_mut(conn);
        conn.up = true;
        conn.epoch += 1;
    }

    /// Cuts messages from one node to another; cuts add up.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    /// Takes one cut back.
    pub(crate) fn heal(&mut self, from: usize, to: usize) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&(from, to));
            }
        }
    }

    /// From now on no message is lost, doubled or very slow.
    pub(crate) fn calm(&mut self) {
        self.cuts.clear();
        self.lags.clear();
        (self.slow, self.loss, self.duplicates) = (0, 0, 0);
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains_key(&(from, to))
    }

    pub(crate) fn has_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    pub(crate) fn conn(&self, conn: ConnId) -> &Conn {
        &self.conns[&conn]
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }

    /// The connections between two nodes, both ways.
    pub(crate) fn between(&self, nodes: &BTreeSet<usize>) -> Vec<ConnId> {
        let joins = |id: &&ConnId| {
            id.asker.node != id.server.node
                && nodes.contains(&id.asker.node)
                && nodes.contains(&id.server.node)
        };
        self.conns.keys().filter(joins).copied().collect()
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.regime == Regime::Stream
    }

    fn conn_mut(&mut self, conn: ConnId) -> &mut Conn {
        self.conns.get_mut(&conn).expect("connections are made once, for all pairs of lanes")
    }
}
