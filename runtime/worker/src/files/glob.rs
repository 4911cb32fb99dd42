//! Patterns of file names: `*`, `?`, `[abc]`, `[!a-z]`.

use regex::Regex;

/// A pattern of file names.
#[derive(Clone, Debug)]
pub struct Glob(Regex);

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A message for the author where it is none.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let bad = || format!("{pattern:?} is no pattern of file names; write for example sales-*.csv");
        if pattern.is_empty() || pattern.contains('/') {
            return Err(bad());
        }
        let mut regex = String::from("^(?s)");
        let mut rest = pattern.chars().peekable();
        while let Some(one) = rest.next() {
            match one {
                '*' => regex.push_str(".*"),
                '?' => regex.push('.'),
                '[' => {
                    regex.push('[');
                    if rest.next_if(|next| matches!(next, '!' | '^')).is_some() {
                        regex.push('^');
                    }
                    loop {
                        match rest.next().ok_or_else(bad)? {
                            ']' => break,
                            '-' => regex.push('-'),
                            other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
                        }
                    }
                    regex.push(']');
                }
                other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        regex.push('$');
        Regex::new(&regex).map(Self).map_err(|_| bad())
    }

    /// Whether a file of this name is meant.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        let matches = |pattern: &str, name: &str| Glob::new(pattern).expect("pattern").matches(name);
        assert!(matches("sales-*.csv", "sales-042.csv") && matches("*", "x") && matches("s?", "sé"));
        assert!(matches("[ab]*", "b1") && !matches("[!ab]*", "b1") && matches("[0-9]", "7"));
        assert!(!matches("*.csv", "a.csv.tmp") && !matches("a.csv", "aXcsv"));
        assert!(Glob::new("[a").is_err() && Glob::new("a/b").is_err() && Glob::new("").is_err());
    }
}
