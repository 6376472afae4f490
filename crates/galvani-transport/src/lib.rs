//! QUIC endpoints, identities and coalesced streams.
