//! A command as words: a verb, plain words, and `name=value` words.

use core::fmt::Display;
use core::str::FromStr;

/// One command, taken apart.
pub(crate) struct Words<'a> {
    pub(crate) verb: &'a str,
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    /// Takes a command apart.
    pub(crate) fn parse(command: &'a str) -> Result<Words<'a>, String> {
        let mut words = command.split_whitespace();
        let verb = words.next().ok_or("an empty command")?;
        let (mut plain, mut named) = (Vec::new(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some(pair) => named.push(pair),
                None => plain.push(word),
            }
        }
        Ok(Words { verb, plain, named })
    }

    /// The plain word at a position.
    pub(crate) fn plain(&self, at: usize) -> Result<&'a str, String> {
        self.plain.get(at).copied().ok_or(format!("{} needs more words", self.verb))
    }

    /// The plain word at a position, as a number.
    pub(crate) fn number<T: FromStr>(&self, at: usize) -> Result<T, String> {
        let word = self.plain(at)?;
        word.parse().map_err(|_| format!("{word} is not a number"))
    }

    /// The node that the plain word at a position names.
    pub(crate) fn node(&self, at: usize) -> Result<usize, String> {
        node_of(self.plain(at)?)
    }

    /// Whether a plain word stands there.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.plain.contains(&name)
    }

    /// The value under a name, if it is there.
    pub(crate) fn maybe(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The value under a name, understood, if it is there.
    pub(crate) fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        let parse = |value: &str| value.parse().map_err(|error| format!("{name}: {error}"));
        self.maybe(name).map(parse).transpose()
    }

    /// The value under a name, understood, or a default.
    pub(crate) fn value_or<T: FromStr>(&self, name: &str, default: T) -> Result<T, String>
    where
        T::Err: Display,
    {
        Ok(self.optional(name)?.unwrap_or(default))
    }
}

/// The node that a word such as `n2` names.
pub(crate) fn node_of(word: &str) -> Result<usize, String> {
    let number = word.strip_prefix('n').and_then(|number| number.parse().ok());
    number.ok_or(format!("{word} is not a node: say n0, n1, ..."))
}
