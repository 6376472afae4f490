//! Groups of consumers: the events of a feed spread over the members of a group, each delivered until
//! one of them says that it is done with it.
//!
//! Servers know nothing of groups. Members share out the shards by their heartbeats, and keep positions,
//! dead letters and all else as ordinary data in the store, which merges: two members may work on one
//! shard for a moment and nothing is lost or left out, only delivered twice. `member.rs` is what a
//! consumer sees, `driver.rs` the task behind it, `ledger.rs` the rules of one shard.
//! Source: algorithms 4.8.

mod agenda;
mod assign;
mod builder;
mod driver;
mod ledger;
mod letters;
mod member;
mod names;
mod record;
mod round;
mod shards;
mod status;
mod store;
mod wary;

pub use builder::GroupBuilder;
pub use ledger::OnPoison;
pub use letters::{DeadLetter, LetterChoice};
pub use member::{Delivery, Member};
pub use status::{GroupMember, GroupShard, GroupStatus};

use crate::error::{Error, ErrorKind};

/// Positions of a member that leaves could not be kept in time.
fn not_kept(group: &names::GroupName) -> Error {
    let detail = "positions could not be kept before the member left".to_owned();
    let after = std::time::Duration::ZERO;
    Error::new("leave group", group.as_str(), ErrorKind::Timeout { after, detail })
}
