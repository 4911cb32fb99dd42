//! A document as a tree that is opened only where a patch goes; the rest stays the text that it was.

use std::borrow::Cow;

use autonomy_crds::object_json::write_string;

use super::pointer::{place, shown};
use crate::body::{self, MOST_DEPTH};

// What the operations of a patch may look at, move and copy together, in bytes.
const MOST_WORK: usize = 16 * 1024 * 1024;

/// What the operations of a patch may still cost.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MOST_WORK)
    }
}

impl Budget {
    /// Pays for so many bytes.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.0 = self.0.checked_sub(bytes).ok_or(Refusal::TooMuch)?;
        Ok(())
    }
}

/// Why an operation can't be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A `test` does not hold.
    Untrue,
    /// There is nothing at `path`, or at `from`.
    NotThere {
        /// Whether it is about `from`.
        of_from: bool,
        /// What is not there.
        detail: String,
    },
    /// The document would be too deep.
    TooDeep,
    /// It would cost too much.
    TooMuch,
    /// A member's name can't be read.
    Unreadable,
}

impl Refusal {
    fn not_there(detail: String) -> Self {
        Self::NotThere { of_from: false, detail }
    }

    /// The same of `from`.
    pub(super) fn of_from(self) -> Self {
        match self {
            Self::NotThere { detail, .. } => Self::NotThere { of_from: true, detail },
            other => other,
        }
    }
}

/// A value of the document.
#[derive(Clone, Debug)]
pub(super) enum Node<'t> {
    /// One that nobody has looked into, as JSON.
    Text(&'t str),
    /// A list that was opened.
    List(Vec<Node<'t>>),
    /// An object that was opened. Of members with the same name the last one counts.
    Object(Vec<(Cow<'t, str>, Node<'t>)>),
}

impl<'t> Node<'t> {
    /// Opens a list or an object by one level; other values stay as they are.
    pub(super) fn open(&mut self, budget: &mut Budget) -> Result<(), Refusal> {
        let Self::Text(text) = *self else { return Ok(()) };
        match text.as_bytes().first() {
            Some(b'[') => {
                budget.spend(text.len())?;
                let mut items = Vec::new();
                for item in sonic_rs::to_array_iter(text) {
                    budget.spend(size_of::<Self>())?;
                    let Ok(Cow::Borrowed(item)) = item.map(|item| item.as_raw_cow()) else { return Err(Refusal::Unreadable) };
                    items.push(Self::Text(item.trim_ascii()));
                }
                *self = Self::List(items);
            }
            Some(b'{') => {
                budget.spend(text.len())?;
                let mut members = Vec::new();
                for member in sonic_rs::to_object_iter(text) {
                    budget.spend(size_of::<(Cow<'_, str>, Self)>())?;
                    let (name, value) = member.map_err(|_| Refusal::Unreadable)?;
                    let Cow::Borrowed(value) = value.as_raw_cow() else { return Err(Refusal::Unreadable) };
                    members.push((name, Self::Text(value.trim_ascii())));
                }
                *self = Self::Object(members);
            }
            _ => {}
        }
        Ok(())
    }

    /// The value at a path.
    pub(super) fn enter(&mut self, path: &[String], budget: &mut Budget) -> Result<&mut Self, Refusal> {
        let mut here = self;
        for (level, token) in path.iter().enumerate() {
            here.open(budget)?;
            let nothing = || Refusal::not_there(format!("there is nothing at {:?}", shown(&path[..=level])));
            here = match here {
                Self::Object(members) => {
                    budget.spend(members.len())?;
                    members.iter_mut().rev().find(|(name, _)| name == token).map(|(_, value)| value).ok_or_else(nothing)?
                }
                Self::List(items) => place(token).and_then(|place| items.get_mut(place)).ok_or_else(nothing)?,
                Self::Text(_) => return Err(nothing()),
            };
        }
        Ok(here)
    }

    // What holds the value at a path, opened, and the last token.
    fn parent<'n, 'p>(&'n mut self, path: &'p [String], budget: &mut Budget) -> Result<Option<(&'n mut Self, &'p str)>, Refusal> {
        let Some((last, way)) = path.split_last() else { return Ok(None) };
        let parent = self.enter(way, budget)?;
        parent.open(budget)?;
        Ok(Some((parent, last)))
    }

    /// Puts a value at a path: a member is set, an item comes before the one that is there.
    pub(super) fn add(&mut self, path: &[String], value: Self, budget: &mut Budget) -> Result<(), Refusal> {
        let Some((parent, last)) = self.parent(path, budget)? else {
            *self = value;
            return Ok(());
        };
        match parent {
            Self::Object(members) => {
                budget.spend(members.len() + size_of::<(Cow<'_, str>, Self)>())?;
                match members.iter_mut().rev().find(|(name, _)| name == last) {
                    Some((_, there)) => *there = value,
                    None => members.push((Cow::Owned(last.to_owned()), value)),
                }
            }
            Self::List(items) => {
                let place = if last == "-" { Some(items.len()) } else { place(last) };
                let Some(place) = place.filter(|place| *place <= items.len()) else {
                    let count = items.len();
                    return Err(Refusal::not_there(format!("{last:?} is no place in a list of {count}; - stands for its end")));
                };
                budget.spend((items.len() - place + 1) * size_of::<Self>())?;
                items.insert(place, value);
            }
            Self::Text(_) => {
                return Err(Refusal::not_there(format!("{:?} is neither an object nor a list", shown(&path[..path.len() - 1]))));
            }
        }
        Ok(())
    }

    /// Takes the value at a path out.
    pub(super) fn remove(&mut self, path: &[String], budget: &mut Budget) -> Result<Self, Refusal> {
        let nothing = || Refusal::not_there(format!("there is nothing at {:?}", shown(path)));
        let Some((parent, last)) = self.parent(path, budget)? else { return Err(nothing()) };
        match parent {
            Self::Object(members) => {
                budget.spend(members.len() * size_of::<(Cow<'_, str>, Self)>())?;
                let place = members.iter().rposition(|(name, _)| name == last).ok_or_else(nothing)?;
                let (_, removed) = members.remove(place);
                members.retain(|(name, _)| name != last);
                Ok(removed)
            }
            Self::List(items) => {
                let place = place(last).filter(|place| *place < items.len()).ok_or_else(nothing)?;
                budget.spend((items.len() - place) * size_of::<Self>())?;
                Ok(items.remove(place))
            }
            Self::Text(_) => Err(nothing()),
        }
    }

    /// Whether the value may be put at a path; pays for its size.
    pub(super) fn check_depth(&self, path: &[String], budget: &mut Budget) -> Result<(), Refusal> {
        budget.spend(self.size())?;
        if self.is_deeper(MOST_DEPTH.saturating_sub(path.len())) { Err(Refusal::TooDeep) } else { Ok(()) }
    }

    // About how many bytes it takes, as text and in memory.
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(|item| item.size() + size_of::<Self>()).sum(),
            Self::Object(members) => {
                members.iter().map(|(name, value)| name.len() + value.size() + size_of::<(Cow<'_, str>, Self)>()).sum()
            }
        }
    }

    fn is_deeper(&self, most: usize) -> bool {
        let inside = |value: &Self| most == 0 || value.is_deeper(most - 1);
        match self {
            Self::Text(text) => body::is_deeper(text, most),
            Self::List(items) => most == 0 || items.iter().any(inside),
            Self::Object(members) => most == 0 || members.iter().any(|(_, value)| inside(value)),
        }
    }

    /// Writes it as JSON.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(name, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}
