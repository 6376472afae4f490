//! Numbers of variable length in tokens (LEB128).
//!
//! Only tokens that travel as bytes use it: contexts and positions in the feed. Messages and rows have
//! a codec of their own.

/// Takes the first bytes of `body`; `None` if there are not so many.
pub(crate) fn take<'a>(body: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = body.split_at_checked(count)?;
    *body = rest;
    Some(head)
}

/// Appends a number, seven bits a byte, low bits first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes such a number; `None` if it is cut off or larger than 64 bits.
pub(crate) fn take_varint(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(body, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
