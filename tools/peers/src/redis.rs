//! Redis, alone or as a cluster: one connection to each master, keys by slot.
//!
//! The layout of a cluster is read once; a load during which it changes fails. Next to read: `resp.rs`.

use crate::error::PeerError;
use crate::resp::{Reply, decode, encode};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections of one worker.
#[derive(Debug)]
pub(crate) struct Redis {
    masters: Vec<Master>,
}

/// A master and the slots it has, both ends in it.
type Owned = (String, (u16, u16));

#[derive(Debug)]
struct Master {
    /// Slots, both ends in it; a server alone has all.
    slots: Vec<(u16, u16)>,
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
}

impl Redis {
    /// Connects to the server at `addr`; with `cluster` to all masters that it names.
    pub(crate) async fn connect(addr: &str, cluster: bool) -> Result<Redis, PeerError> {
        let mut first = Master::connect(addr, vec![(0, SLOTS - 1)]).await?;
        if !cluster {
            return Ok(Redis { masters: vec![first] });
        }
        let layout = first.ask(&[b"CLUSTER", b"SLOTS"]).await?;
        let mut masters: Vec<(String, Vec<(u16, u16)>)> = Vec::new();
        for (master, slots) in parse_slots(&layout)? {
            match masters.iter_mut().find(|(addr, _)| *addr == master) {
                Some((_, all)) => all.push(slots),
                None => masters.push((master, vec![slots])),
            }
        }
        let mut connected = Vec::new();
        for (addr, slots) in masters {
            connected.push(Master::connect(&addr, slots).await?);
        }
        Ok(Redis { masters: connected })
    }

    pub(crate) async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), PeerError> {
        match self.master_of(key)?.ask(&[b"SET", key.as_bytes(), value]).await? {
            Reply::Simple(_) => Ok(()),
            other => Err(PeerError::Refused(format!("{other:?}"))),
        }
    }

    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<Bytes>, PeerError> {
        match self.master_of(key)?.ask(&[b"GET", key.as_bytes()]).await? {
            Reply::Bulk(value) => Ok(value),
            other => Err(PeerError::Refused(format!("{other:?}"))),
        }
    }

    fn master_of(&mut self, key: &str) -> Result<&mut Master, PeerError> {
        let slot = crc16(key.as_bytes()) % SLOTS;
        let has = |master: &&mut Master| {
            master.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let nobody = || PeerError::Refused(format!("no master has slot {slot}"));
        self.masters.iter_mut().find(has).ok_or_else(nobody)
    }
}

impl Master {
    async fn connect(addr: &str, slots: Vec<(u16, u16)>) -> Result<Master, PeerError> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Master { slots, stream, input: BytesMut::new(), output: Vec::new() })
    }

    async fn ask(&mut self, parts: &[&[u8]]) -> Result<Reply, PeerError> {
        self.output.clear();
        encode(parts, &mut self.output);
        self.stream.write_all(&self.output).await?;
        loop {
            if let Some(reply) = decode(&mut self.input)? {
                return Ok(reply);
            }
            self.input.reserve(8 << 10);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(PeerError::Refused("the connection ended".to_owned()));
            }
        }
    }
}

/// Masters and their slots, from the answer to `CLUSTER SLOTS`.
fn parse_slots(reply: &Reply) -> Result<Vec<Owned>, PeerError> {
    let odd = || PeerError::Refused(format!("CLUSTER SLOTS: {reply:?}"));
    let Reply::Array(Some(ranges)) = reply else { return Err(odd()) };
    let mut found = Vec::new();
    for range in ranges {
        let Reply::Array(Some(range)) = range else { return Err(odd()) };
        let [Reply::Integer(first), Reply::Integer(last), Reply::Array(Some(master)), ..] =
            &range[..]
        else {
            return Err(odd());
        };
        let [Reply::Bulk(Some(host)), Reply::Integer(port), ..] = &master[..] else {
            return Err(odd());
        };
        let slots = (u16::try_from(*first), u16::try_from(*last));
        let (Ok(first), Ok(last)) = slots else { return Err(odd()) };
        found.push((format!("{}:{port}", String::from_utf8_lossy(host)), (first, last)));
    }
    Ok(found)
}

/// CRC-16/XMODEM, by which a cluster finds the slot of a key.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

const SLOTS: u16 = 16_384;

#[cfg(test)]
mod tests {
    use super::{crc16, parse_slots};
    use crate::resp::decode;
    use bytes::BytesMut;

    #[test]
    fn slots_are_found_as_the_specification_says() {
        // The check value of the Redis cluster specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b"foo") % super::SLOTS, 12_182);
    }

    #[test]
    fn masters_are_read_from_the_layout_and_replicas_passed_over() {
        let text = "*2\r\n\
            *4\r\n:0\r\n:5460\r\n*2\r\n$9\r\n127.0.0.1\r\n:7001\r\n*2\r\n$9\r\n127.0.0.1\r\n:7004\r\n\
            *3\r\n:5461\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7002\r\n";
        let reply = decode(&mut BytesMut::from(text)).expect("well formed").expect("whole");
        let want = [
            ("127.0.0.1:7001".to_owned(), (0, 5460)),
            ("127.0.0.1:7002".to_owned(), (5461, 16383)),
        ];
        assert_eq!(parse_slots(&reply).expect("a layout"), want);
        let error = decode(&mut BytesMut::from("-ERR\r\n")).expect("well formed").expect("whole");
        assert!(parse_slots(&error).is_err());
    }
}
