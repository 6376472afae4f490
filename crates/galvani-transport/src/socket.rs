//! The UDP socket under an endpoint, with buffers large enough for bursts.
//!
//! A QUIC peer sends in bursts and this process may be away from the socket for milliseconds; what
//! the kernel cannot hold is lost and must be sent again. The kernel may grant less than asked
//! for, silently, so the grant is read back and reported once. Never fails over buffer sizes.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

/// Socket buffers as the kernel granted them, bytes in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// What the configuration asked for.
    pub wanted: usize,
    /// Granted for receiving.
    pub recv: usize,
    /// Granted for sending.
    pub send: usize,
}

impl SocketBuffers {
    /// Whether either direction got less than was asked for. On Linux `net.core.rmem_max` and
    /// `net.core.wmem_max` are the cure.
    pub fn short(&self) -> bool {
        self.recv < self.wanted || self.send < self.wanted
    }
}

/// Binds a non-blocking UDP socket on `addr` and asks for `wanted` bytes of buffer each way.
pub(crate) fn bind(addr: SocketAddr, wanted: usize) -> io::Result<(UdpSocket, SocketBuffers)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // A refusal to enlarge is not an error: the sizes read back below say what was granted.
    let asked =
        socket.set_recv_buffer_size(wanted).and_then(|()| socket.set_send_buffer_size(wanted));
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let buffers = SocketBuffers {
        wanted,
        recv: socket.recv_buffer_size()?,
        send: socket.send_buffer_size()?,
    };
    if buffers.short() {
        warn!(
            wanted,
            recv = buffers.recv,
            send = buffers.send,
            error = asked.err().map(|e| e.to_string()),
            "udp socket buffers are smaller than wanted; raise net.core.rmem_max and wmem_max"
        );
    }
    Ok((socket.into(), buffers))
}
