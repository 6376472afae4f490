//! The bytes of liveness datagrams, and the only members they may name.
//!
//! Fixed layout, big-endian; `docs/protocol.md` has the table. A datagram that names a node which is
//! no member is refused whole, so nobody enters the list by hearsay. Next to read: `swim.rs`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foca::{Codec, Header, Identity, Member, Message, State};
use galvani_model::ids::NodeId;
use std::collections::BTreeSet;

/// The first byte of every datagram: the version of what follows.
const VERSION: u8 = 1;
/// Bytes of an [`Alias`].
const ALIAS_BYTES: usize = 24;

/// A node in one of its lives. The youngest one counts; a life that was declared over is followed
/// by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    /// The node.
    pub(crate) node: NodeId,
    /// Grows with every life; begins with the wall clock's milliseconds, so that a restarted node
    /// is younger than anything said of it. 0: nothing is known of the node yet.
    pub(crate) life: u64,
}

impl Identity for Alias {
    type Addr = NodeId;

    fn renew(&self) -> Option<Alias> {
        Some(Alias { node: self.node, life: self.life.checked_add(1)? })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Alias) -> bool {
        self.life > adversary.life
    }
}

/// Why a datagram is dropped. Nothing of it was heeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDatagram {
    #[error("cut short")]
    Short,
    #[error("another version or kind")]
    Unknown,
    #[error("names a node that is no member")]
    Stranger,
    #[error("does not fit")]
    Full,
}

/// Writes and reads datagrams among known members.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    /// Everybody, this node included.
    pub(crate) known: BTreeSet<NodeId>,
}

impl Members {
    /// The gossip that tells a suspect of nothing but the suspicion, and to whom it goes.
    pub(crate) fn suspicion(
        &mut self,
        src: Alias,
        suspect: &Member<Alias>,
    ) -> Option<(NodeId, Bytes)> {
        // The least incarnation says nothing new of this node.
        let header =
            Header { src, src_incarnation: 0, dst: *suspect.id(), message: Message::Gossip };
        let mut bytes = BytesMut::new();
        self.encode_header(&header, &mut bytes).ok()?;
        bytes.put_u16(1);
        self.encode_member(suspect, &mut bytes).ok()?;
        Some((suspect.id().node, bytes.freeze()))
    }

    fn read(&self, buf: &mut impl Buf) -> Result<Alias, BadDatagram> {
        let node = NodeId(buf.try_get_u128().map_err(|_| BadDatagram::Short)?);
        let life = buf.try_get_u64().map_err(|_| BadDatagram::Short)?;
        if !self.known.contains(&node) {
            return Err(BadDatagram::Stranger);
        }
        Ok(Alias { node, life })
    }
}

fn write(alias: Alias, buf: &mut impl BufMut) {
    buf.put_u128(alias.node.0);
    buf.put_u64(alias.life);
}

fn room(buf: &impl BufMut, bytes: usize) -> Result<(), BadDatagram> {
    if buf.remaining_mut() < bytes { Err(BadDatagram::Full) } else { Ok(()) }
}

impl Codec<Alias> for Members {
    type Error = BadDatagram;

    fn encode_header(
        &mut self,
        header: &Header<Alias>,
        mut buf: impl BufMut,
    ) -> Result<(), BadDatagram> {
        room(&buf, 1 + 2 * ALIAS_BYTES + 2 + 2 + ALIAS_BYTES)?;
        buf.put_u8(VERSION);
        write(header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        write(header.dst, &mut buf);
        let (kind, number, third) = match header.message {
            Message::Ping(number) => (1, Some(number), None),
            Message::Ack(number) => (2, Some(number), None),
            Message::PingReq { target, probe_number } => (3, Some(probe_number), Some(target)),
            Message::IndirectPing { origin, probe_number } => (4, Some(probe_number), Some(origin)),
            Message::IndirectAck { target, probe_number } => (5, Some(probe_number), Some(target)),
            Message::ForwardedAck { origin, probe_number } => (6, Some(probe_number), Some(origin)),
            Message::Announce => (7, None, None),
            Message::Feed => (8, None, None),
            Message::Gossip => (9, None, None),
            Message::TurnUndead => (10, None, None),
            // Nothing is ever broadcast.
            Message::Broadcast => return Err(BadDatagram::Unknown),
        };
        buf.put_u8(kind);
        if let Some(number) = number {
            buf.put_u8(number);
        }
        if let Some(third) = third {
            write(third, &mut buf);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Alias>, BadDatagram> {
        if buf.try_get_u8().map_err(|_| BadDatagram::Short)? != VERSION {
            return Err(BadDatagram::Unknown);
        }
        let src = self.read(&mut buf)?;
        let src_incarnation = buf.try_get_u16().map_err(|_| BadDatagram::Short)?;
        let dst = self.read(&mut buf)?;
        let kind = buf.try_get_u8().map_err(|_| BadDatagram::Short)?;
        let mut number = 0;
        if let 1..=6 = kind {
            number = buf.try_get_u8().map_err(|_| BadDatagram::Short)?;
        }
        let message = match kind {
            1 => Message::Ping(number),
            2 => Message::Ack(number),
            3 => Message::PingReq { target: self.read(&mut buf)?, probe_number: number },
            4 => Message::IndirectPing { origin: self.read(&mut buf)?, probe_number: number },
            5 => Message::IndirectAck { target: self.read(&mut buf)?, probe_number: number },
            6 => Message::ForwardedAck { origin: self.read(&mut buf)?, probe_number: number },
            7 => Message::Announce,
            8 => Message::Feed,
            9 => Message::Gossip,
            10 => Message::TurnUndead,
            _ => return Err(BadDatagram::Unknown),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Alias>,
        mut buf: impl BufMut,
    ) -> Result<(), BadDatagram> {
        room(&buf, ALIAS_BYTES + 3)?;
        write(*member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Alias>, BadDatagram> {
        let alias = self.read(&mut buf)?;
        let incarnation = buf.try_get_u16().map_err(|_| BadDatagram::Short)?;
        let state = match buf.try_get_u8().map_err(|_| BadDatagram::Short)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(BadDatagram::Unknown),
        };
        Ok(Member::new(alias, incarnation, state))
    }
}

#[cfg(test)]
mod tests {
    use super::{Alias, BadDatagram, Members};
    use foca::{Codec, Header, Member, Message, State};
    use galvani_model::ids::NodeId;

    fn members() -> Members {
        Members { known: [NodeId(1), NodeId(2), NodeId(3)].into() }
    }

    fn alias(node: u128) -> Alias {
        Alias { node: NodeId(node), life: 0x0102_0304 }
    }

    fn headers() -> Vec<Header<Alias>> {
        let (third, probe_number) = (alias(3), 9);
        let messages = [
            Message::Ping(7),
            Message::Ack(8),
            Message::PingReq { target: third, probe_number },
            Message::IndirectPing { origin: third, probe_number },
            Message::IndirectAck { target: third, probe_number },
            Message::ForwardedAck { origin: third, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ];
        let header = |message| Header { src: alias(1), src_incarnation: 5, dst: alias(2), message };
        messages.into_iter().map(header).collect()
    }

    #[test]
    fn what_is_written_is_read_and_every_cut_is_refused() {
        for header in headers() {
            let mut bytes = Vec::new();
            members().encode_header(&header, &mut bytes).expect("room");
            assert_eq!(members().decode_header(&bytes[..]), Ok(header));
            for cut in 0..bytes.len() {
                assert_eq!(members().decode_header(&bytes[..cut]), Err(BadDatagram::Short));
            }
        }
        for state in [State::Alive, State::Suspect, State::Down] {
            let member = Member::new(alias(3), 6, state);
            let mut bytes = Vec::new();
            members().encode_member(&member, &mut bytes).expect("room");
            assert_eq!(members().decode_member(&bytes[..]), Ok(member));
        }
    }

    #[test]
    fn the_bytes_of_a_ping_are_these() {
        let mut bytes = Vec::new();
        members().encode_header(&headers()[0], &mut bytes).expect("room");
        let alias = |node: u8| [&[0; 15][..], &[node, 0, 0, 0, 0, 1, 2, 3, 4]].concat();
        let expected = [&[1][..], &alias(1), &[0, 5], &alias(2), &[1, 7]].concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn strangers_and_unknown_kinds_are_refused() {
        let mut bytes = Vec::new();
        members().encode_header(&headers()[2], &mut bytes).expect("room");
        let few = Members { known: [NodeId(1), NodeId(2)].into() };
        assert_eq!(few.clone().decode_header(&bytes[..]), Err(BadDatagram::Stranger));
        let mut member = Vec::new();
        members().encode_member(&Member::alive(alias(3)), &mut member).expect("room");
        assert_eq!(few.clone().decode_member(&member[..]), Err(BadDatagram::Stranger));
        let (mut other_version, mut other_kind) = (bytes.clone(), bytes);
        other_version[0] = 2;
        other_kind[51] = 11;
        assert_eq!(members().decode_header(&other_version[..]), Err(BadDatagram::Unknown));
        assert_eq!(members().decode_header(&other_kind[..]), Err(BadDatagram::Unknown));
    }
}
