//! What objects are looked up by: members, one or several, as they are or made alike, or a value that is worked out.

use std::borrow::Cow;

use autonomy_crds::micro_service::Normalization;

use crate::expression::{Expression, Identity, Kind, Value, email_address, phone_number};

/// An index of a cache, compiled.
#[derive(Debug)]
pub struct CompiledIndex {
    /// What `lookup` calls it: the member's name, or its own.
    pub name: String,
    /// What a lookup's key must be.
    pub(crate) kind: Kind,
    pub(crate) key: IndexKey,
}

#[derive(Debug)]
pub(crate) enum IndexKey {
    /// Members, made alike as said.
    Members { members: Vec<String>, alike: Alike },
    /// An expression over `object`, `config` and `service`.
    Expression(Expression),
}

/// How texts are made alike.
#[derive(Clone, Debug)]
pub(crate) enum Alike {
    AsTheyAre,
    Trim,
    Lowercase,
    Email,
    Phone(Option<String>),
}

impl Alike {
    /// The declared one.
    pub(crate) fn new(normalization: Option<Normalization>, calling_code: Option<&str>) -> Self {
        match normalization {
            None => Self::AsTheyAre,
            Some(Normalization::Trim) => Self::Trim,
            Some(Normalization::Lowercase) => Self::Lowercase,
            Some(Normalization::Email) => Self::Email,
            Some(Normalization::Phone) => Self::Phone(calling_code.map(str::to_owned)),
        }
    }

    // None where nothing is left of it.
    fn apply<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        match self {
            Self::AsTheyAre => Some(Cow::Borrowed(text)),
            Self::Trim => Some(text.trim()).filter(|text| !text.is_empty()).map(Cow::Borrowed),
            Self::Lowercase => Some(text.trim().to_lowercase()).filter(|text| !text.is_empty()).map(Cow::Owned),
            Self::Email => email_address(text).map(Cow::Owned),
            Self::Phone(code) => phone_number(text, code.as_deref()).map(Cow::Owned),
        }
    }
}

impl CompiledIndex {
    /// The members that it is made of; none where that is not known.
    pub(crate) fn members(&self) -> Option<Vec<String>> {
        match &self.key {
            IndexKey::Members { members, .. } => Some(members.clone()),
            IndexKey::Expression(expression) => expression.members_of(0),
        }
    }

    /// Whether members are enough, so that nothing must be evaluated.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.key, IndexKey::Members { .. })
    }

    /// Writes the text under which the object is found; false where it is not in the index. `around` are `config` and `service`.
    pub(crate) fn of_object(&self, object: &Value, around: &[Value; 2], out: &mut String) -> bool {
        out.clear();
        match &self.key {
            IndexKey::Members { members, alike } => {
                let texts = members.iter().map(|member| object.member(member).and_then(Value::index_key));
                join(texts, members.len(), alike, out)
            }
            IndexKey::Expression(expression) => {
                let variables = [object.clone(), around[0].clone(), around[1].clone()];
                // An object for which it can't be worked out is not found by it.
                let value = expression.evaluate(&variables, &Identity::default()).unwrap_or_default();
                write(value.index_key(), out)
            }
        }
    }

    /// [`Self::of_object`] from the texts of the members, in their order; only where [`Self::is_plain`].
    pub(crate) fn of_texts<'t>(&self, text: impl Fn(&str) -> Option<Cow<'t, str>>, out: &mut String) -> bool {
        out.clear();
        match &self.key {
            IndexKey::Members { members, alike } => join(members.iter().map(|member| text(member)), members.len(), alike, out),
            IndexKey::Expression(_) => false,
        }
    }

    /// Writes the text that a lookup's key stands for; false where nothing can be found by it.
    pub(crate) fn of_lookup(&self, key: &Value, out: &mut String) -> bool {
        out.clear();
        match &self.key {
            IndexKey::Members { members, alike } if members.len() > 1 => {
                join(members.iter().map(|member| key.member(member).and_then(Value::index_key)), members.len(), alike, out)
            }
            IndexKey::Members { alike, .. } => join(std::iter::once(key.index_key()), 1, alike, out),
            IndexKey::Expression(_) => write(key.index_key(), out),
        }
    }
}

fn write(text: Option<Cow<'_, str>>, out: &mut String) -> bool {
    text.map(|text| out.push_str(&text)).is_some()
}

// Each of several with its length, so that no two lists of texts are alike.
fn join<'t>(texts: impl Iterator<Item = Option<Cow<'t, str>>>, count: usize, alike: &Alike, out: &mut String) -> bool {
    use std::fmt::Write;
    for text in texts {
        let Some(text) = text else { return false };
        let Some(text) = alike.apply(&text) else { return false };
        if count > 1 {
            // Writing to a string does not fail.
            let _ = write!(out, "{}:", text.len());
        }
        out.push_str(&text);
    }
    true
}
