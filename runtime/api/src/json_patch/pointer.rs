//! JSON Pointers (RFC 6901).

use crate::body::MOST_DEPTH;

/// A pointer into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    /// Its reference tokens, unescaped.
    pub(super) tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("must be a JSON Pointer (RFC 6901), which begins with /");
        };
        let mut tokens = Vec::new();
        for token in rest.split('/') {
            // No document is deeper, and every level costs stack.
            if tokens.len() == MOST_DEPTH {
                return Err("leads deeper than any object is");
            }
            tokens.push(unescape(token).ok_or("must be a JSON Pointer, in which ~ stands only in ~0 and ~1")?);
        }
        Ok(Self { tokens })
    }

    /// Whether it points to something that holds what the other one points to.
    pub(super) fn is_above(&self, other: &Self) -> bool {
        self.tokens.len() < other.tokens.len() && other.tokens.starts_with(&self.tokens)
    }
}

/// Tokens as a pointer, for people: not longer than they read.
pub(super) fn shown(tokens: &[String]) -> String {
    const SHOWN: usize = 200;
    let text: String = tokens.iter().flat_map(|token| ['/'].into_iter().chain(token.chars())).take(SHOWN + 1).collect();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(letter) = rest.next() {
        text.push(match letter {
            '~' => match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(text)
}

/// The place in a list that a token means: digits without a leading zero.
pub(super) fn place(token: &str) -> Option<usize> {
    let plain = token == "0" || (!token.starts_with('0') && !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { token.parse().ok() } else { None }
}
