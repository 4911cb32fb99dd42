//! Which files a files trigger means: patterns of names (`*`, `?`, `[abc]`, `[!a-z]`, `{a,b}`), and names that say that a file is not finished.

use regex::Regex;

/// What a packed file's name may have behind the name that it has unpacked.
pub const PACKED_ENDS: [&str; 2] = [".gz", ".zip"];

/// Whether a name says that the file is hidden or still being written.
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') || [".tmp", ".part", ".filepart"].iter().any(|end| name.ends_with(end))
}

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
        let mut alternatives = false;
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
                '{' if alternatives => return Err(bad()),
                '{' => {
                    alternatives = true;
                    regex.push_str("(?:");
                }
                ',' if alternatives => regex.push('|'),
                '}' if alternatives => {
                    alternatives = false;
                    regex.push(')');
                }
                other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        if alternatives {
            return Err(bad());
        }
        regex.push('$');
        Regex::new(&regex).map(Self).map_err(|_| bad())
    }

    /// Whether a file that lies in the folder under this name waits to be loaded.
    pub fn takes(&self, name: &str) -> bool {
        !name.is_empty() && !name.contains('/') && !is_unfinished(name) && self.matches_packed(name)
    }

    /// Whether a file of this name is meant, also where it is packed and says so behind that name.
    pub fn matches_packed(&self, name: &str) -> bool {
        self.matches(name) || PACKED_ENDS.iter().any(|end| name.strip_suffix(end).is_some_and(|name| self.matches(name)))
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
        assert!(
            matches("{a*,b}.csv", "ax.csv") && matches("{a,b}.csv", "b.csv") && !matches("{a,b}.csv", "c.csv") && matches("a,b", "a,b")
        );
        let packed = |name: &str| Glob::new("*.csv").expect("pattern").matches_packed(name);
        assert!(packed("a.csv") && packed("a.csv.gz") && packed("a.csv.zip") && !packed("a.zip") && !packed("a.csv.gz.tmp"));
        let takes = |name: &str| Glob::new("*").expect("pattern").takes(name);
        assert!(takes("a.csv") && !takes(".a.csv") && !takes("a.csv.part") && !takes("processed/a.csv") && !takes(""));
        assert!(Glob::new("{a").is_err() && Glob::new("{a{b}}").is_err());
        assert!(Glob::new("[a").is_err() && Glob::new("a/b").is_err() && Glob::new("").is_err());
    }
}
