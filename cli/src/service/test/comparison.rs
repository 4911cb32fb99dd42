//! Comparing what is expected with what is found, each difference told by its JSON Pointer.

use std::collections::BTreeMap;

use autonomy_worker::expression::Value;

/// What differs, and the values that placeholders stand for: `${name}` is any value, the same wherever it stands; `${*}` is any value.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub differences: Vec<String>,
    bound: BTreeMap<String, Value>,
}

/// Whether a member that is null and one that is not there are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nulls {
    Count,
    AreNothing,
}

impl Comparison {
    pub fn note(&mut self, pointer: &str, message: impl std::fmt::Display) {
        self.differences.push(format!("{pointer}: {message}"));
    }

    /// Notes how `found` differs from `expected`.
    pub fn compare(&mut self, expected: &Value, found: &Value, pointer: &str, nulls: Nulls) {
        if let Some(name) = expected.as_text().and_then(placeholder) {
            return self.bind(name, found, pointer);
        }
        match (expected, found) {
            (Value::Object(wanted), Value::Object(object)) => {
                for (name, value) in wanted.iter() {
                    let pointer = format!("{pointer}/{}", escaped(name));
                    match object.get(name) {
                        Some(found) => self.compare(value, found, &pointer, nulls),
                        None if value.is_null() && nulls == Nulls::AreNothing => {}
                        None => self.note(&pointer, format!("{value} is expected, and it is not there")),
                    }
                }
                for (name, value) in object.iter() {
                    if wanted.get(name).is_none() && !(value.is_null() && nulls == Nulls::AreNothing) {
                        self.note(&format!("{pointer}/{}", escaped(name)), format!("{value} is there, and it is not expected"));
                    }
                }
            }
            (Value::List(wanted), Value::List(items)) => {
                for (index, (wanted, item)) in wanted.iter().zip(items.iter()).enumerate() {
                    self.compare(wanted, item, &format!("{pointer}/{index}"), nulls);
                }
                if wanted.len() != items.len() {
                    self.note(pointer, format!("{} elements are expected, {} are found", wanted.len(), items.len()));
                }
            }
            (expected, found) if expected == found => {}
            (expected, found) => self.note(pointer, format!("{expected} is expected, {found} is found")),
        }
    }

    fn bind(&mut self, name: &str, found: &Value, pointer: &str) {
        if name == "*" {
            return;
        }
        match self.bound.get(name) {
            Some(before) if before == found => {}
            Some(before) => {
                let message = format!("{found} is found, and ${{{name}}} was {before} before");
                self.note(pointer, message);
            }
            None => drop(self.bound.insert(name.to_owned(), found.clone())),
        }
    }
}

fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}')
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(expected: &str, found: &str) -> Vec<String> {
        let value = |json: &str| Value::from_json(json.as_bytes()).expect("JSON");
        let mut comparison = Comparison::default();
        comparison.compare(&value(expected), &value(found), "", Nulls::Count);
        comparison.differences
    }

    #[test]
    fn differences_are_told_by_their_place() {
        assert_eq!(differences(r#"{"a": 1.50, "b": [1, {"c": null}]}"#, r#"{"b": [1.0, {"c": null}], "a": 1.5}"#), Vec::<String>::new());
        assert_eq!(
            differences(r#"{"a/b": 1, "c": [1, 2], "d": 1}"#, r#"{"a/b": 2, "c": [1], "e": null}"#),
            [
                "/a~1b: 1 is expected, 2 is found",
                "/c: 2 elements are expected, 1 are found",
                "/d: 1 is expected, and it is not there",
                "/e: null is there, and it is not expected",
            ]
        );
        assert_eq!(differences(r#"["${id}", "${id}", "${*}"]"#, r#"[1, 1, {}]"#), Vec::<String>::new());
        assert_eq!(differences(r#"["${id}", "${id}"]"#, r#"[1, 2]"#), ["/1: 2 is found, and ${id} was 1 before"]);
    }
}
