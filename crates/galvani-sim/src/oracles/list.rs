//! A listing shows only keys that were written, in order, each once.

use crate::world::World;
use galvani_wire::Message;

/// Checks an answer that is a listing.
pub(crate) fn check(world: &World, message: &Message) -> Result<(), String> {
    let Message::Listed(page) = message else { return Ok(()) };
    if !page.keys.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return Err(format!("a page is out of order: {:?}", page.keys));
    }
    let known = |key: &bytes::Bytes| world.keys.iter().any(|info| info.key.bytes() == key);
    match page.keys.iter().find(|(key, count)| !known(key) || *count == 0) {
        Some((key, count)) => Err(format!("a page shows {key:?} with {count} values")),
        None => Ok(()),
    }
}
