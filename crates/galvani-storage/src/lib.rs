//! Durable partition replicas over an embedded engine.
