//! One Rust source, reduced to what the rules ask about.
//!
//! The text goes through a real lexer, so nothing inside a comment or a string counts as code, and
//! macro bodies count like any other code. Paths are gathered as they are written, with grouped
//! imports unfolded (`use std::{fs, net}` is `std::fs` and `std::net`); names are not resolved.
//! Next to read: `checks/mod.rs`.

use proc_macro2::{Delimiter, LineColumn, Spacing, TokenStream, TokenTree};

/// One path as written in code, such as `std::time::Instant`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathUse {
    /// Its segments; the last is `*` for a glob import.
    pub segments: Vec<String>,
    /// The line of its last segment.
    pub line: usize,
    /// True when a `!` follows: a macro call.
    pub is_macro: bool,
}

impl PathUse {
    /// True if `wanted` occurs in the path as consecutive segments.
    pub fn mentions(&self, wanted: &[&str]) -> bool {
        self.segments.windows(wanted.len()).any(|window| window == wanted)
    }

    /// The path with `::` between its segments.
    pub fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// One attribute: the identifiers inside its brackets, in order.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// All identifiers; the first is the attribute's name.
    pub words: Vec<String>,
    /// The line it starts on.
    pub line: usize,
}

impl Attribute {
    fn is_cfg_test(&self) -> bool {
        self.words.first().is_some_and(|word| word == "cfg")
            && self.words.iter().any(|word| word == "test")
            && !self.words.iter().any(|word| word == "not")
    }
}

/// One function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of the `fn` keyword.
    pub first_line: usize,
    /// How many lines it has from `fn` to the closing brace.
    pub line_count: usize,
}

/// A lexed source file.
#[derive(Debug)]
pub struct RustFile {
    /// The path relative to the repository root.
    pub path: String,
    /// The lines, without their ends.
    pub lines: Vec<String>,
    /// Every path in the code.
    pub paths: Vec<PathUse>,
    /// Every attribute, inner and outer.
    pub attributes: Vec<Attribute>,
    /// Every function that has a body.
    pub functions: Vec<Function>,
    /// Where the lexer stopped, if the file is not Rust.
    pub lex_error_line: Option<usize>,
    /// Modules declared under `#[cfg(test)]` that have files of their own.
    pub test_modules: Vec<String>,
    is_test_module: bool,
    test_lines: Vec<(usize, usize)>,
    strings: Vec<(LineColumn, LineColumn)>,
}

impl RustFile {
    /// Lexes `text`. A file that does not lex has lines only, and says where it broke.
    pub fn parse(path: &str, text: &str) -> Self {
        let mut file = Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            paths: Vec::new(),
            attributes: Vec::new(),
            functions: Vec::new(),
            lex_error_line: None,
            test_modules: Vec::new(),
            is_test_module: false,
            test_lines: Vec::new(),
            strings: Vec::new(),
        };
        match text.parse::<TokenStream>() {
            Ok(tokens) => file.visit(tokens),
            Err(error) => file.lex_error_line = Some(error.span().start().line),
        }
        file
    }

    /// True for a file that holds nothing but tests, or helpers of tests.
    pub fn is_test_file(&self) -> bool {
        self.is_test_module
            || self.path.starts_with("cluster-tests/")
            || self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Records that the file's parent declares it under `#[cfg(test)]`.
    pub fn mark_as_test_module(&mut self) {
        self.is_test_module = true;
    }

    /// Where the files of [`RustFile::test_modules`] may lie.
    pub fn test_module_paths(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let home = if matches!(name, "lib" | "main" | "mod") { folder } else { stem };
        let modules = self.test_modules.iter();
        modules.flat_map(|m| [format!("{home}/{m}.rs"), format!("{home}/{m}/mod.rs")]).collect()
    }

    /// True if `line` belongs to test code, here or in the whole file.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.is_test_file()
            || self.test_lines.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// True if a string literal touches `line` (counted from 1).
    pub fn has_string_on(&self, line: usize) -> bool {
        self.strings.iter().any(|(start, end)| (start.line..=end.line).contains(&line))
    }

    fn visit(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(ident) => {
                    if *ident == "fn" {
                        self.note_function(&tokens, at);
                    }
                    at = self.note_path(&tokens, at, &[]);
                }
                TokenTree::Group(group) => {
                    self.visit(group.stream());
                    at += 1;
                }
                TokenTree::Literal(literal) => {
                    self.note_literal(literal);
                    at += 1;
                }
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    at = self.note_attribute(&tokens, at);
                }
                TokenTree::Punct(_) => at += 1,
            }
        }
    }

    /// Notes the path that starts at `tokens[at]`, behind `prefix`; returns where it ends.
    fn note_path(&mut self, tokens: &[TokenTree], at: usize, prefix: &[String]) -> usize {
        let mut segments = prefix.to_vec();
        let mut at = at;
        let mut line = 1;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(ident)) => {
                    // `use a::{self}` names `a` itself.
                    if segments.is_empty() || *ident != "self" {
                        segments.push(ident.to_string());
                    }
                    line = ident.span().start().line;
                    at += 1;
                }
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                    segments.push("*".to_owned());
                    line = star.span().start().line;
                    at += 1;
                    break;
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.note_import_group(group.stream(), &segments);
                    return at + 1;
                }
                _ => break,
            }
            if !is_path_separator(tokens, at) {
                break;
            }
            at += 2;
        }
        let is_macro = is_punct(tokens, at, '!') && !is_punct(tokens, at + 1, '=');
        self.paths.push(PathUse { segments, line, is_macro });
        at
    }

    fn note_import_group(&mut self, group: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = group.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.note_path(&tokens, at, prefix);
            // On to the next item of the group, past `as name` and the comma.
            while at < tokens.len() && !is_punct(&tokens, at, ',') {
                at += 1;
            }
            at += 1;
        }
    }

    fn note_function(&mut self, tokens: &[TokenTree], at: usize) {
        let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else {
            return;
        };
        let Some(ItemEnd::Body(end)) = end_of_item(tokens, at) else {
            return;
        };
        let first_line = tokens[at].span().start().line;
        self.functions.push(Function {
            name: name.to_string(),
            first_line,
            line_count: end + 1 - first_line,
        });
    }

    fn note_literal(&mut self, literal: &proc_macro2::Literal) {
        let (start, end) = (literal.span().start(), literal.span().end());
        // Doc comments arrive as literals too; their text in the file starts with a slash.
        let line = self.lines.get(start.line - 1);
        let first = line.and_then(|line| line.chars().nth(start.column));
        if matches!(first, Some('"' | 'r' | 'b' | 'c')) {
            self.strings.push((start, end));
        }
    }

    fn note_attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let body = if is_punct(tokens, at + 1, '!') { at + 2 } else { at + 1 };
        let Some(TokenTree::Group(group)) = tokens.get(body) else {
            return at + 1;
        };
        if group.delimiter() != Delimiter::Bracket {
            return at + 1;
        }
        let line = tokens[at].span().start().line;
        let mut words = Vec::new();
        collect_words(group.stream(), &mut words);
        let attribute = Attribute { words, line };
        if attribute.is_cfg_test() {
            let last = match end_of_item(tokens, body + 1) {
                // `#![cfg(test)]` is about everything that follows.
                _ if body == at + 2 => self.lines.len(),
                Some(ItemEnd::Body(last) | ItemEnd::Semicolon(last)) => last,
                None => line,
            };
            self.test_lines.push((line, last));
            self.test_modules.extend(declared_module(&tokens[body + 1..]));
        }
        // `#[doc = ".."]` made from a comment has no words that count.
        if attribute.words.first().is_some_and(|word| word != "doc") {
            self.visit(group.stream());
        }
        self.attributes.push(attribute);
        body + 1
    }
}

/// Where the item at `tokens[from..]` ends.
enum ItemEnd {
    /// At the closing brace of its body, on this line.
    Body(usize),
    /// At its semicolon, on this line.
    Semicolon(usize),
}

/// The end of the item at `tokens[from..]`; `None` for what is no item (a field, an argument). A
/// block among generic arguments (`Foo<{ N }>`) is not the item's body.
fn end_of_item(tokens: &[TokenTree], from: usize) -> Option<ItemEnd> {
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let generic = at > 0 && is_punct(tokens, at - 1, '<')
                    || is_punct(tokens, at + 1, '>')
                    || is_punct(tokens, at + 1, ',');
                if !generic {
                    return Some(ItemEnd::Body(group.span_close().end().line));
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => {
                return Some(ItemEnd::Semicolon(punct.span().end().line));
            }
            TokenTree::Group(_)
            | TokenTree::Ident(_)
            | TokenTree::Punct(_)
            | TokenTree::Literal(_) => {}
        }
    }
    None
}

/// The name in `mod name;` at the start of `tokens`.
fn declared_module(tokens: &[TokenTree]) -> Option<String> {
    let at = tokens.iter().take_while(|token| token.to_string() != "mod").count();
    let before = &tokens[..at];
    // Only visibility may stand before `mod`: anything else is another item.
    let declares =
        before.iter().all(|t| matches!(t, TokenTree::Group(_)) || t.to_string() == "pub");
    let name = tokens.get(at + 1)?.to_string();
    (declares && is_punct(tokens, at + 2, ';')).then_some(name)
}

fn is_punct(tokens: &[TokenTree], at: usize, wanted: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    let joint = matches!(
        tokens.get(at),
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint
    );
    // `Vec::<u8>` goes on with arguments, not with a segment: the path ends there.
    joint && is_punct(tokens, at + 1, ':') && !is_punct(tokens, at + 2, '<')
}

fn collect_words(tokens: TokenStream, words: &mut Vec<String>) {
    let mut streams = vec![tokens.into_iter()];
    // Depth first and in order, so that the first word is the attribute's name.
    while let Some(token) = next_token(&mut streams) {
        match token {
            TokenTree::Ident(ident) => words.push(ident.to_string()),
            TokenTree::Group(group) => streams.push(group.stream().into_iter()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

fn next_token(streams: &mut Vec<proc_macro2::token_stream::IntoIter>) -> Option<TokenTree> {
    loop {
        match streams.last_mut()?.next() {
            Some(token) => return Some(token),
            None => drop(streams.pop()),
        }
    }
}

#[cfg(test)]
mod tests;
