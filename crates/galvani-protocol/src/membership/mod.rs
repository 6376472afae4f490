//! Who can be expected to answer: suspicion shared by the nodes, and evidence of a lane's own.
//!
//! [`swim`] asks the other nodes and spreads what they found; one instance per node, on its lane 0.
//! [`score`] watches the asks of one lane. Neither moves data, and neither alone refuses a request:
//! they decide who is asked first, and whether a stand-in is asked at once.
//! Next to read: `swim.rs`, `score.rs`; who uses it: `put.rs`, `route.rs`.

pub(crate) mod codec;
pub(crate) mod score;
pub(crate) mod swim;
