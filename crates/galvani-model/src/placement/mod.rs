//! Who owns a key.
