//! A repair on demand, node by node.
//!
//! A node reads all it holds, mends what is damaged and compares it with the other owners; that
//! takes as long as it takes, so a call only starts it or asks how far it is.

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use galvani_model::ids::Partition;
use galvani_wire::Message;
use galvani_wire::repair::{Repair, RepairState};

impl Client {
    /// Starts a repair of node `name`: of `partition`, or of all it holds. Joins one that is under
    /// way. Answers at once, with how far it is; [`Client::repair_state`] tells more later. Needs the
    /// role `admin`. Asking again is harmless.
    pub async fn repair(&self, name: &str, partition: Option<Partition>) -> Result<RepairState> {
        self.ask_repair(name, Repair { start: true, partition }).await
    }

    /// How far node `name` is with the repair that was asked for last. Needs the role `admin`.
    pub async fn repair_state(&self, name: &str) -> Result<RepairState> {
        self.ask_repair(name, Repair { start: false, partition: None }).await
    }

    async fn ask_repair(&self, name: &str, repair: Repair) -> Result<RepairState> {
        const OP: &str = "repair";
        let partitions = self.shared.directory().view().layout.partitions();
        if let Some(Partition(beyond)) = repair.partition.filter(|one| one.0 >= partitions) {
            let last = partitions - 1;
            let what = format!("there is no partition {beyond}: they are 0 to {last}");
            return Err(Error::new(OP, name, ErrorKind::Setting { what }));
        }
        let changes = repair.start;
        let accept = |message| match message {
            Message::RepairState(state) => Ok(*state),
            other => Err(Box::new(other)),
        };
        self.ask_node(OP, name, changes, &Message::Repair(repair), accept).await
    }
}
