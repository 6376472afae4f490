//! Messages between nodes and clients, and their bytes. Pure.
