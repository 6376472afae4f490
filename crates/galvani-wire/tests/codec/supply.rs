//! Records that a read found a replica to lack, as a message.
//!
//! Next to read: `main.rs`, which sends it there and back.

use crate::head;
use bytes::Bytes;
use galvani_model::ids::{Partition, Shard};
use galvani_wire::message::{Message, Supply};

pub(crate) fn message() -> Message {
    let value = Bytes::from_static(b"milk\neggs");
    let shard = Shard { partition: Partition(5), n: 3 };
    let (heads, values) = (vec![head(&value), head(&value)], vec![value.clone(), value]);
    Message::Supply(Supply { shard, heads, epoch: 1, timeout_ms: 10, values })
}
