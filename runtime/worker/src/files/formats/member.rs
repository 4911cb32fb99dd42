//! The member by which rows of JSON and XML are grouped.

use crate::expression::Value;

/// A member of a row: its name, or a JSON Pointer to one further down.
#[derive(Clone, Debug)]
pub struct Member {
    path: Vec<String>,
}

impl Member {
    /// The member that `groupBy` names.
    pub fn new(group_by: &str) -> Self {
        let path = match group_by.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect(),
            None => vec![group_by.to_owned()],
        };
        Self { path }
    }

    /// What stands for its value; none where the row has no such member, or null.
    pub fn group_of(&self, row: &Value) -> Option<Box<str>> {
        let mut value = row;
        for name in &self.path {
            value = match value {
                Value::List(elements) => elements.get(name.parse::<usize>().ok()?)?,
                value => value.member(name)?,
            };
        }
        (!matches!(value, Value::Null)).then(|| value.to_json().into())
    }
}
