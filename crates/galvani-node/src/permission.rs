//! What a certificate allows its holder to send.
//!
//! Nodes may send everything, in their own name only; clients what their role allows, and nothing
//! that only nodes say. Asked of every request before anything is done with it; it looks at no
//! data. Next to read: `lane_loop.rs`.

use galvani_model::feed::Shows;
use galvani_model::ids::NodeId;
use galvani_transport::{PeerIdentity, Role};
use galvani_wire::Message;

/// Whether a message may come from whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    Granted,
    /// A client asks for more than its role allows: a typed refusal.
    Denied,
    /// No honest program sends this with such a certificate: the link is closed.
    Hostile,
}

/// Who a message says it is from, where it says so.
fn sender(message: &Message) -> Option<NodeId> {
    match message {
        Message::Compare(compare) => Some(compare.node),
        Message::PullHints(pull) => Some(pull.node),
        Message::HintsWait(wait) => Some(wait.node),
        Message::AskClocks(ask) => Some(ask.node),
        _ => None,
    }
}

/// What the certificate of whoever sent a message allows.
pub(crate) fn permission(
    identity: &PeerIdentity,
    forwarded: bool,
    message: &Message,
) -> Permission {
    let role = match identity {
        PeerIdentity::Node { id } => {
            // Hints are given to whom they are for, and dropped at its word.
            let another = sender(message).is_some_and(|sender| sender.to_bytes() != *id);
            return if another { Permission::Hostile } else { Permission::Granted };
        }
        PeerIdentity::Client { role, .. } => *role,
    };
    if forwarded {
        return Permission::Hostile;
    }
    let needs = match message {
        Message::Describe | Message::Status => Role::ReadOnly,
        Message::Get(_) | Message::List(_) | Message::Explain(_) => Role::ReadOnly,
        Message::Put(_) => Role::ReadWrite,
        // Whole records say what buckets keep from the feed.
        Message::FeedOpen(open) if open.filter.shows == Shows::Records => Role::Admin,
        Message::FeedOpen(_) | Message::FeedNext(_) => Role::ReadOnly,
        Message::CreateBucket(_)
        | Message::SetFaults(_)
        | Message::Repair(_)
        | Message::ChangeLayout(_) => Role::Admin,
        Message::PutDone(_)
        | Message::GetDone(_)
        | Message::Failed(_)
        | Message::Described(_)
        | Message::Listed(_)
        | Message::BucketCreated
        | Message::Explained(_)
        | Message::StatusIs(_)
        | Message::FaultsSet(_)
        | Message::RepairState(_)
        | Message::FeedOpened(_)
        | Message::FeedPage(_)
        | Message::Replicate(_)
        | Message::Supply(_)
        | Message::Replicated(_)
        | Message::Fetch(_)
        | Message::Fetched(_)
        | Message::FetchPage(_)
        | Message::FetchedPage(_)
        | Message::DefineBucket(_)
        | Message::BucketDefined(_)
        | Message::AskKnown(_)
        | Message::Known(_)
        | Message::Compare(_)
        | Message::Compared(_)
        | Message::Pull(_)
        | Message::Pulled(_)
        | Message::AskSlice(_)
        | Message::SliceIs(_)
        | Message::Hint(_)
        | Message::PullHints(_)
        | Message::HintsPulled(_)
        | Message::HintsWait(_)
        | Message::AskClocks(_)
        | Message::Clocks(_)
        | Message::FindHints(_)
        | Message::HintsFound(_)
        | Message::Greet(_)
        | Message::Twin(_)
        | Message::LayoutChanged(_)
        | Message::AskLayout
        | Message::LayoutIs(_)
        | Message::Prepare(_)
        | Message::Accept(_)
        | Message::Voted(_)
        | Message::AskProgress(_)
        | Message::Progress(_)
        | Message::Announce(_)
        | Message::AskJoiner(_)
        | Message::JoinerIs(_)
        | Message::Noted => return Permission::Hostile,
    };
    // Roles are ordered from the one that may do everything to the one that may only read.
    if role <= needs { Permission::Granted } else { Permission::Denied }
}

#[cfg(test)]
mod tests {
    use super::{Permission, permission};
    use bytes::Bytes;
    use galvani_model::bucket::{BucketName, BucketProps};
    use galvani_model::hlc::Hlc;
    use galvani_model::ids::{LaneIndex, NodeId, RequestId};
    use galvani_model::key::Key;
    use galvani_model::request::{ReadOptions, WriteOptions};
    use galvani_model::version::Kind;
    use galvani_transport::{PeerIdentity, Role};
    use galvani_wire::Message;
    use galvani_wire::message::{Compare, CreateBucket, Get, HintsWait, PullHints, Put, SetFaults};
    use galvani_wire::repair::{Repair, RepairState};

    #[test]
    fn a_node_speaks_for_itself_only() {
        let me = PeerIdentity::Node { id: NodeId(3).to_bytes() };
        let lane = LaneIndex(0);
        for (node, expected) in [(NodeId(3), Permission::Granted), (NodeId(4), Permission::Hostile)]
        {
            let pull = PullHints { node, lane, taken: 0, refused: Vec::new(), credit: 1 };
            let messages = [
                Message::PullHints(pull),
                Message::HintsWait(HintsWait { node, lane }),
                Message::Compare(Compare { node, lane, shards: Vec::new() }),
            ];
            for message in messages {
                assert_eq!(permission(&me, false, &message), expected, "{}", message.name());
            }
        }
        assert_eq!(permission(&me, true, &Message::Describe), Permission::Granted);
    }

    #[test]
    fn a_client_sends_what_its_role_allows_and_nothing_of_nodes() {
        let client = |role| PeerIdentity::Client { name: "c".into(), role };
        let (reader, writer, admin) =
            (client(Role::ReadOnly), client(Role::ReadWrite), client(Role::Admin));
        let key = Key::new(BucketName::default_bucket(), "k").expect("a key");
        let get = Get { key: key.clone(), options: ReadOptions::default(), timeout_ms: 1 };
        let put = Put {
            key,
            kind: Kind::Put,
            rid: RequestId(1),
            issued: Hlc::from_unix_ms(1),
            retry: false,
            context: None,
            options: WriteOptions::default(),
            timeout_ms: 1,
            value: Bytes::new(),
            emits: Vec::new(),
        };
        let (name, props) = (BucketName::default_bucket(), BucketProps::with_copies(1));
        let bucket = CreateBucket { name, props, timeout_ms: 1 };
        let (granted, denied) = (Permission::Granted, Permission::Denied);
        // What each role may do: read-only, read-write, admin.
        let table = [
            (Message::Describe, [granted, granted, granted]),
            (Message::Get(get), [granted, granted, granted]),
            (Message::Put(put), [denied, granted, granted]),
            (Message::CreateBucket(bucket), [denied, denied, granted]),
        ];
        for (message, expected) in table {
            let got = [&reader, &writer, &admin].map(|who| permission(who, false, &message));
            assert_eq!(got, expected, "{}", message.name());
        }
        assert_eq!(permission(&reader, false, &Message::Status), Permission::Granted);
        assert_eq!(permission(&admin, false, &Message::Noted), Permission::Hostile);
        assert_eq!(permission(&admin, true, &Message::Status), Permission::Hostile, "sent on");
        let heal = Message::SetFaults(SetFaults { heal: true, links: Vec::new() });
        assert_eq!(permission(&admin, false, &heal), Permission::Granted);
        let writer = client(Role::ReadWrite);
        assert_eq!(permission(&writer, false, &heal), Permission::Denied);
        let repair = Message::Repair(Repair { start: true, partition: None });
        assert_eq!(permission(&admin, false, &repair), Permission::Granted);
        assert_eq!(permission(&writer, false, &repair), Permission::Denied);
        let state = Message::RepairState(Box::new(RepairState::of(NodeId(3))));
        assert_eq!(permission(&admin, false, &state), Permission::Hostile);
    }
}
