//! The `galvani` binary.
fn main() {}
