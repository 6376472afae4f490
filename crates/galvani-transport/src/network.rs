//! What an endpoint has from outside: sockets, timers, the wall clock and randomness.
//!
//! A server and an ordinary client use those of the operating system. Another network can be given
//! instead, for one in memory on a clock that is stood still: then nothing of the endpoint, nor of
//! the node or client above it, depends on anything else. Next to read: `endpoint.rs`, its user.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use rand::RngCore;

use crate::socket::{self, SocketBuffers};

/// A network that is not the operating system's.
///
/// Time between events is tokio's, which can be paused; [`CustomNetwork::runtime`] must tell the
/// same time.
pub trait CustomNetwork: fmt::Debug + Send + Sync + 'static {
    /// A socket bound to `addr`, whose port and address may be left open (0).
    fn bind(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Timers and tasks for QUIC.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// The wall clock, milliseconds since 1970.
    fn unix_ms(&self) -> u64;

    /// Fills `bytes` with randomness. Keys are made of it.
    fn fill_random(&self, bytes: &mut [u8]);
}

/// Where an endpoint's datagrams go, and where its time and randomness come from. Default: the
/// operating system. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct Network {
    custom: Option<Arc<dyn CustomNetwork>>,
}

impl Network {
    /// The operating system's.
    pub fn os() -> Network {
        Network::default()
    }

    /// Another one.
    pub fn custom(network: impl CustomNetwork) -> Network {
        Network { custom: Some(Arc::new(network)) }
    }

    /// The wall clock, milliseconds since 1970. It may jump.
    pub fn unix_ms(&self) -> u64 {
        match &self.custom {
            Some(custom) => custom.unix_ms(),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
        }
    }

    /// Fills `bytes` with randomness fit for keys.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        match &self.custom {
            Some(custom) => custom.fill_random(bytes),
            None => rand::rng().fill_bytes(bytes),
        }
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number.
    pub fn random_u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill_random(&mut bytes);
        u128::from_le_bytes(bytes)
    }

    /// A random number from 0 to `most`, both included; even enough for jitter.
    pub fn random_up_to(&self, most: u64) -> u64 {
        // The high half of a product: no division, and off by less than most / 2^64.
        let product = u128::from(self.random_u64()) * (u128::from(most) + 1);
        (product >> 64) as u64
    }

    /// What QUIC's own randomness starts from; `None`: the operating system's.
    pub(crate) fn quic_seed(&self) -> Option<[u8; 32]> {
        self.custom.as_ref().map(|custom| {
            let mut seed = [0; 32];
            custom.fill_random(&mut seed);
            seed
        })
    }

    /// Timers and tasks for QUIC.
    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        match &self.custom {
            Some(custom) => custom.runtime(),
            None => Arc::new(TokioRuntime),
        }
    }

    /// Binds a socket and asks for `wanted` bytes of buffer each way.
    pub(crate) fn bind(
        &self,
        addr: SocketAddr,
        wanted: usize,
    ) -> io::Result<(Arc<dyn AsyncUdpSocket>, SocketBuffers)> {
        match &self.custom {
            Some(custom) => {
                let buffers = SocketBuffers { wanted, recv: wanted, send: wanted };
                Ok((custom.bind(addr)?, buffers))
            }
            None => {
                let (socket, buffers) = socket::bind(addr, wanted)?;
                Ok((TokioRuntime.wrap_udp_socket(socket)?, buffers))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn random_numbers_reach_both_ends_and_no_further() {
        let network = Network::os();
        assert_eq!(network.random_up_to(0), 0);
        let drawn: Vec<u64> = (0..1_000).map(|_| network.random_up_to(3)).collect();
        assert_eq!(drawn.iter().min(), Some(&0));
        assert_eq!(drawn.iter().max(), Some(&3));
    }
}
