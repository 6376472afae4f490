//! One node: lane loops over storage and transport.
