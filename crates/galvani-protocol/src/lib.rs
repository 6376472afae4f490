//! The state machines of a lane: put, get, replicate, repair. Pure.
