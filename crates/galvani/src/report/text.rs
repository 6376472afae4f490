//! How values, times and sizes are written for people.
//!
//! Everything that came from outside is escaped before it meets a terminal: a value cannot move
//! the cursor or change a title.

use jiff::Timestamp;
use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;
use std::time::SystemTime;

// Errors of the client say in the same words how long something took.
pub(crate) use galvani_model::span::Span;

/// Bytes as one line of text: what is not printable is escaped, cut after `max` characters.
pub(crate) fn printable(bytes: &[u8], max: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
            count += 1;
            if count >= max {
                return cut(out, bytes.len());
            }
        }
        for byte in chunk.invalid() {
            let _infallible = write!(out, "\\x{byte:02x}");
            count += 1;
        }
    }
    out
}

fn cut(mut out: String, len: usize) -> String {
    if out.len() < len {
        let _infallible = write!(out, "... ({})", Size(len as u64));
    }
    out
}

/// A key as people type it.
pub(crate) fn key(bytes: &[u8]) -> String {
    printable(bytes, usize::MAX)
}

/// A value in quotes, cut short.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", printable(bytes, VALUE_CHARS_SHOWN))
}

/// One word for a POSIX shell, quoted where needed. Bytes that are not text are escaped for `$''`.
pub(crate) fn shell(bytes: &[u8]) -> Cow<'_, str> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(b);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(plain) => text.into(),
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', "'\\''")).into()
        }
        Ok(_) | Err(_) => {
            let escaped: String = bytes.iter().map(|b| b.escape_ascii().to_string()).collect();
            format!("$'{}'", escaped.replace("\\\"", "\"")).into()
        }
    }
}

/// A long duration: `41 d`, `3 h 5 m`, `4 m 12 s`, `9 s`.
pub(crate) struct Age(pub(crate) u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        match s {
            172_800.. => write!(f, "{} d", s / 86_400),
            3600.. => write!(f, "{} h {} m", s / 3600, s % 3600 / 60),
            60.. => write!(f, "{} m {} s", s / 60, s % 60),
            _ => write!(f, "{s} s"),
        }
    }
}

/// A number of bytes: `17 B`, `1.0 KiB`, `5.2 MiB`.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        if size < 1024.0 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = "B";
        for bigger in ["KiB", "MiB", "GiB", "TiB"] {
            if size < 1024.0 {
                break;
            }
            size /= 1024.0;
            unit = bigger;
        }
        match size.fract() {
            0.0 => write!(f, "{size:.0} {unit}"),
            _ => write!(f, "{size:.1} {unit}"),
        }
    }
}

/// A count with its noun: `1 value`, `2 values`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{} {noun}s", grouped(number)),
    }
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// The time of day in UTC, for events of today: `05:31:07Z`.
pub(crate) fn clock(at: SystemTime) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => at.strftime("%H:%M:%SZ").to_string(),
        Err(_) => "?".to_owned(),
    }
}

const VALUE_CHARS_SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use super::{Age, Size, clock, count, grouped, printable, quoted, shell};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn what_came_from_outside_cannot_drive_a_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n\\", 99), "a\\u{1b}[2Jb\\n\\\\");
        assert_eq!(printable(b"\xff\xc3", 99), "\\xff\\xc3");
        let long = "x".repeat(100);
        assert_eq!(quoted(long.as_bytes()), format!("\"{}... (100 B)\"", "x".repeat(60)));
    }

    #[test]
    fn words_survive_a_shell() {
        for (word, expected) in [
            ("cart/42", "cart/42"),
            ("a b", "'a b'"),
            ("", "''"),
            ("it's", "'it'\\''s'"),
            ("a\nb", "$'a\\nb'"),
        ] {
            assert_eq!(shell(word.as_bytes()), expected);
        }
        assert_eq!(shell(b"\xff'\""), "$'\\xff\\'\"'");
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(Age(252).to_string(), "4 m 12 s");
        assert_eq!(Age(3_542_400).to_string(), "41 d");
        assert_eq!(Size(17).to_string(), "17 B");
        assert_eq!(Size(1 << 20).to_string(), "1 MiB");
        assert_eq!(Size(5_452_595).to_string(), "5.2 MiB");
        assert_eq!(grouped(599_870), "599 870");
        assert_eq!(count(1, "value"), "1 value");
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(19_867)), "05:31:07Z");
    }
}
