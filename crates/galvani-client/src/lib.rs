//! Async client for Galvani, a leaderless replicated key-value store.
