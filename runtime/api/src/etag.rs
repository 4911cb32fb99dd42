//! ETags: an object's version in quotes.

use crate::plan::{ID, VERSION};
use crate::sql::Condition;

/// What a client says of the object it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `*`: that there is one.
    Any,
    /// An ETag: its version.
    Version(i64),
}

impl Tag {
    /// Reads an ETag or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "*" => Some(Self::Any),
            tag => version_of(tag).map(Self::Version),
        }
    }

    /// What must hold for a row about the object with this id.
    pub fn condition(self, row: u32, id: [u8; 16]) -> Condition {
        match self {
            Self::Any => Condition { row, column: ID, expected: Some(id.to_vec()) },
            Self::Version(version) => Condition { row, column: VERSION, expected: Some(version.to_be_bytes().to_vec()) },
        }
    }
}

/// The version that an ETag stands for.
pub fn version_of(tag: &str) -> Option<i64> {
    let tag = tag.trim();
    let digits = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    // As GET answers it: parsing would take a sign too.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_a_version_in_quotes() {
        assert_eq!(Tag::parse("\"3\""), Some(Tag::Version(3)));
        assert_eq!(Tag::parse(" W/\"3\""), Some(Tag::Version(3)));
        assert_eq!(Tag::parse("*"), Some(Tag::Any));
        for other in ["3", "\"+3\"", "\"-3\"", "\"\"", "\"3", "\"3\", \"4\"", "\"99999999999999999999\""] {
            assert_eq!(Tag::parse(other), None, "{other}");
        }
    }
}
