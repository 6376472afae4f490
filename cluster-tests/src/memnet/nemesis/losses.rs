//! Disks that are lost, put back as they were some time ago, or copied for a second process.
//!
//! Before each, all owners have come to agree, and after it they do again. A lost or older disk may cost
//! what that node alone had acked in between, and weakens no quorum; of a copied one nothing may be
//! lost, unless clients wrote to the second process: its acks bear the node's name. Next to read:
//! `../nodes.rs`, which does it to a node.

use super::{Fault, Nemesis};
use crate::chaos::ledger::Loss;
use crate::chaos::workers::Crowd;
use crate::memnet::settle::settle;
use galvani_client::Client;
use galvani_storage::engine::MemoryEngine;
use rand::Rng;
use rand::seq::IndexedRandom;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

impl Nemesis<'_> {
    /// One fault of data, from agreement to agreement.
    pub(super) async fn lose(&mut self, fault: Fault) -> Result<(), String> {
        let index = self.rng.random_range(0..self.nodes.len());
        let writes_to_copy = fault == Fault::Copy && self.rng.random_bool(0.5);
        let loss = Loss {
            node: u8::try_from(index).expect("few nodes"),
            // A node whose disk is new or a copy knows it, and answers no read before it is filled. Of
            // what a second process took in, it knows nothing.
            noticed: !writes_to_copy,
        };
        self.agree((fault != Fault::Copy || writes_to_copy).then_some(loss)).await;
        if !self.field.is_clean() {
            return Ok(());
        }
        self.note(format!("{fault:?} of {}", self.nodes.ip(index)));
        *self.done.entry(fault).or_default() += 1;
        let older = (fault == Fault::Older).then(|| self.nodes.copy_of_disk(index));
        match fault {
            Fault::Copy => {
                if self.rng.random_bool(0.6) {
                    self.strike_any().await?;
                }
                let work = self.millis(100, 2_000);
                self.pass(work).await?;
                self.copy(index, writes_to_copy).await?;
            }
            _ if self.rng.random_bool(0.5) => self.lose_between_others(index, older).await?,
            _ => self.lose_among_faults(index, older).await?,
        }
        self.agree(None).await;
        Ok(())
    }

    /// A disk is lost while other things break.
    async fn lose_among_faults(
        &mut self,
        index: usize,
        older: Option<MemoryEngine>,
    ) -> Result<(), String> {
        if self.rng.random_bool(0.6) {
            // What is written now may come to few.
            self.strike_any().await?;
        }
        let work = self.millis(100, 2_000);
        self.pass(work).await?;
        self.nodes.crash(index, false).await;
        self.nodes.put_disk(index, older);
        let away = self.millis(10, 1_500);
        self.pass(away).await?;
        self.begin(index);
        if self.rng.random_bool(0.6) {
            // While it is being filled.
            self.strike_any().await?;
            let work = self.millis(100, 2_000);
            self.pass(work).await?;
        }
        Ok(())
    }

    /// A disk is lost that some writes are on, and one other; then that other is out of reach, and the one
    /// that is not has none of them. A node that did not know of its loss would answer for both.
    async fn lose_between_others(
        &mut self,
        index: usize,
        older: Option<MemoryEngine>,
    ) -> Result<(), String> {
        let others = (0..self.nodes.len()).filter(|&other| other != index).collect::<Vec<_>>();
        let two: Vec<usize> = others.choose_multiple(&mut self.rng, 2).copied().collect();
        let links = [two[0], two[1]].map(|other| self.links_of(self.nodes.ip(other)));
        self.cut_all(&links[0], true);
        let work = self.millis(500, 3_000);
        self.pass(work).await?;
        self.nodes.crash(index, false).await;
        self.cut_all(&links[1], true);
        self.cut_all(&links[0], false);
        self.nodes.put_disk(index, older);
        self.begin(index);
        let work = self.millis(500, 4_000);
        self.pass(work).await?;
        self.cut_all(&links[1], false);
        Ok(())
    }

    fn cut_all(&self, links: &[(IpAddr, IpAddr)], cut: bool) {
        for &(from, to) in links {
            match cut {
                true => self.wire.cut(from, to),
                false => self.wire.join(from, to),
            }
        }
    }

    /// Two processes run under one node id for a while. They are started about the same time, and then
    /// one of them ends by itself; or so that nobody can know of the other before both have served
    /// for long, and then the one that started later ends.
    async fn copy(&mut self, index: usize, writes: bool) -> Result<(), String> {
        self.nodes.pause(index, false);
        if self.nodes.runs(index) {
            match self.rng.random_bool(0.5) {
                true => self.nodes.crash(index, false).await,
                false => self.nodes.stop(index).await?,
            }
        }
        let served_for_long = self.rng.random_bool(0.5);
        match self.rng.random_bool(0.5) {
            true => {
                self.begin(index);
                self.nodes.begin_copy(index);
            }
            false => {
                self.nodes.begin_copy(index);
                self.begin(index);
            }
        }
        let mut clients = None;
        if writes {
            let client = self.nodes.client_of_copy(self.clients, index, CALL).await;
            // One that has ended, or is about to, takes no client.
            if let Ok(client) = client {
                let here = tokio::runtime::Handle::current();
                let seed = self.rng.random();
                let handles = std::slice::from_ref(&client);
                clients = Some((Crowd::start(&here, self.field, handles, OF_COPY, seed), client));
            }
        }
        if served_for_long {
            // Nobody hears its answer that it runs, too.
            self.nodes.pause(index, true);
            self.pass(NEWCOMER).await?;
            self.nodes.pause(index, false);
        }
        let both = self.millis(500, 4_000);
        if self.rng.random_bool(0.3) {
            self.strike_any().await?;
        }
        self.pass(both).await?;
        let ended = if self.nodes.copy_yielded() { "has yielded" } else { "runs" };
        self.note(format!("the copy of {} {ended}", self.nodes.ip(index)));
        if let Some((crowd, client)) = clients {
            self.end_crowd(crowd, client).await;
        }
        self.nodes.end_copy().await;
        // A node that was told of it before may still end: it is waited for, and starts again.
        self.pass(GRACE).await?;
        match self.nodes.yields(index) {
            true => self.nodes.stop(index).await,
            false => Ok(()),
        }
    }

    async fn end_crowd(&mut self, crowd: Crowd, client: Client) {
        // Only these: the field goes on.
        crowd.leave().await;
        client.close().await;
    }

    fn begin(&mut self, index: usize) {
        if !self.nodes.runs(index) {
            self.nodes.begin(index);
        }
    }

    /// Mends all, lets every request end, waits until all owners agree, and goes on.
    async fn agree(&mut self, loses: Option<Loss>) {
        self.mend_all().await;
        let field = self.field.clone();
        let _closed = field.gate.write().await;
        let keys = field.ledger.take_touched();
        if let Err(violations) = settle(self.nodes, &self.client, &field, keys).await {
            violations.into_iter().for_each(|one| field.blame(one));
        }
        field.ledger.begin_epoch(loses);
    }
}

/// Numbers of the clients of a second process.
const OF_COPY: Range<usize> = 100..103;
/// The time of one call of a client of a second process.
const CALL: Duration = Duration::from_secs(2);
/// Longer than any datagram flies.
const GRACE: Duration = Duration::from_millis(500);
/// A process that has served for this long is no newcomer any more.
const NEWCOMER: Duration = Duration::from_secs(16);
