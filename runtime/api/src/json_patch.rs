//! JSON Patch (RFC 6902) on JSON as text: what a patch does not touch stays as it was written, every number with its digits.
//!
//! A patch is read first, with all that is wrong with it told at once; then it is applied to a document, and the first operation that can't
//! be done ends it. What it may cost is bounded: so many operations, and so many bytes looked at, moved and copied by them together.

mod equality;
mod node;
mod pointer;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use axum::http::StatusCode;
use sonic_rs::LazyValue;

use crate::body::{self, MOST_DEPTH};
use crate::problem::{Fault, Intake, Path, Problem};
use crate::value::Scalar;
use equality::equal;
use node::{Budget, Node, Refusal};
use pointer::Pointer;

/// The media type.
pub const MEDIA_TYPE: &str = "application/json-patch+json";

/// The most operations of a patch.
pub const MOST_OPERATIONS: usize = 1_000;

/// A patch that is well-formed.
#[derive(Debug)]
pub struct Patch<'t> {
    operations: Vec<Operation<'t>>,
}

#[derive(Debug)]
struct Operation<'t> {
    action: Action<'t>,
    path: Pointer,
}

#[derive(Debug)]
enum Action<'t> {
    Add(&'t str),
    Remove,
    Replace(&'t str),
    Move(Pointer),
    Copy(Pointer),
    Test(&'t str),
}

/// What a patch makes of a document.
#[derive(Debug, PartialEq, Eq)]
pub enum Patched {
    /// It says the same as before.
    Unchanged,
    /// Another document.
    Changed(String),
}

impl<'t> Patch<'t> {
    /// Reads a patch. Members of the document in `kept` may be tested, but no operation may write them.
    ///
    /// # Errors
    /// A problem with all that is wrong with the patch.
    pub fn read(text: &'t str, kept: &[&str]) -> Result<Self, Problem> {
        // All of it is JSON; its parts are read from the text itself.
        let _: LazyValue<'_> = body::read(text, std::marker::PhantomData)?;
        let text = text.trim_ascii();
        if !text.starts_with('[') {
            return Err(body::wrong_shape("must be a list of operations (JSON Patch, RFC 6902)"));
        }
        let mut intake = Intake::default();
        let mut operations = Vec::new();
        for (index, item) in sonic_rs::to_array_iter(text).filter_map(Result::ok).enumerate() {
            if index == MOST_OPERATIONS {
                intake.push(&Path::ROOT, format!("must have at most {MOST_OPERATIONS} operations"));
                break;
            }
            operations.extend(read_operation(&item, kept, &Path::ROOT.index(index), &mut intake));
        }
        if intake.faults.is_empty() { Ok(Self { operations }) } else { Err(intake.faults.into_problem()) }
    }

    /// Applies the patch to a document, all of it or nothing.
    ///
    /// # Errors
    /// A problem that points to the operation that can't be done: 409 where a `test` does not hold, 422 where there is nothing at a path.
    pub fn apply(&self, document: &str) -> Result<Patched, Problem> {
        let mut budget = Budget::default();
        let mut root = Node::Text(document.trim_ascii());
        for (index, operation) in self.operations.iter().enumerate() {
            operation.apply(&mut root, &mut budget).map_err(|refusal| problem(index, refusal))?;
        }
        let only_tests = self.operations.iter().all(|operation| matches!(operation.action, Action::Test(_)));
        // Where it would cost too much to see that nothing has changed, it counts as changed.
        if only_tests || equal(&root, &Node::Text(document.trim_ascii()), &mut budget).unwrap_or(false) {
            return Ok(Patched::Unchanged);
        }
        let mut text = Vec::with_capacity(document.len());
        root.write(&mut text);
        String::from_utf8(text).map(Patched::Changed).map_err(|_| Problem::internal())
    }
}

fn read_operation<'t>(item: &LazyValue<'t>, kept: &[&str], here: &Path<'_>, intake: &mut Intake) -> Option<Operation<'t>> {
    let Cow::Borrowed(raw) = item.as_raw_cow() else { return None };
    if !raw.starts_with('{') {
        intake.push(here, "must be an object");
        return None;
    }
    let faults_before = intake.faults.count();
    let (mut op, mut path, mut from, mut value) = (None, None, None, None);
    for (name, given) in sonic_rs::to_object_iter(raw).filter_map(Result::ok) {
        let place = match name.as_ref() {
            "op" => &mut op,
            "path" => &mut path,
            "from" => &mut from,
            "value" => &mut value,
            // What an operation does not define is passed over (RFC 6902, section 4).
            _ => continue,
        };
        let Cow::Borrowed(given) = given.as_raw_cow() else { continue };
        if place.replace(given).is_some() {
            intake.push(&here.member(&name), "is given twice");
        }
    }
    let path_here = here.member("path");
    let path = read_pointer(path, &path_here, intake);
    let valued = |make: fn(&'t str) -> Action<'t>, intake: &mut Intake| match value {
        Some(value) => Some(make(value)),
        None => {
            intake.push(&here.member("value"), "must be given");
            None
        }
    };
    let op = op.and_then(|raw| Scalar::read(raw).ok().flatten());
    let action = match &op {
        Some(Scalar::String(op)) => match op.as_ref() {
            "add" => valued(Action::Add, intake),
            "replace" => valued(Action::Replace, intake),
            "test" => valued(Action::Test, intake),
            "remove" => Some(Action::Remove),
            "move" => read_pointer(from, &here.member("from"), intake).map(Action::Move),
            "copy" => read_pointer(from, &here.member("from"), intake).map(Action::Copy),
            _ => {
                intake.push(&here.member("op"), "must be add, remove, replace, move, copy or test");
                None
            }
        },
        _ => {
            intake.push(&here.member("op"), "must be add, remove, replace, move, copy or test");
            None
        }
    };
    let operation = Operation { action: action?, path: path? };
    operation.check(kept, here, intake);
    (intake.faults.count() == faults_before).then_some(operation)
}

fn read_pointer(raw: Option<&str>, here: &Path<'_>, intake: &mut Intake) -> Option<Pointer> {
    let Some(raw) = raw else {
        intake.push(here, "must be given");
        return None;
    };
    let read = match Scalar::read(raw) {
        Ok(Some(Scalar::String(text))) => Pointer::parse(&text),
        _ => Err("must be a string with a JSON Pointer (RFC 6901)"),
    };
    read.map_err(|detail| intake.push(here, detail)).ok()
}

impl Operation<'_> {
    // What can be told without the document.
    fn check(&self, kept: &[&str], here: &Path<'_>, intake: &mut Intake) {
        let written = |pointer: &Pointer, member: &str, intake: &mut Intake| {
            if let Some(name) = pointer.tokens.first().filter(|name| kept.contains(&name.as_str())) {
                intake.push(&here.member(member), format!("writes {name}, which is the server's own and can only be tested"));
            }
        };
        match &self.action {
            Action::Test(_) => return,
            Action::Move(from) => {
                written(from, "from", intake);
                if from.is_above(&self.path) {
                    intake.push(&here.member("path"), "is inside of what is moved");
                }
            }
            Action::Remove if self.path.tokens.is_empty() => {
                intake.push(&here.member("path"), "is the whole object, which DELETE removes");
            }
            Action::Add(value) | Action::Replace(value) if body::is_deeper(value, MOST_DEPTH.saturating_sub(self.path.tokens.len())) => {
                intake.push(&here.member("value"), format!("would be nested deeper than {MOST_DEPTH} levels"));
            }
            _ => {}
        }
        written(&self.path, "path", intake);
    }

    fn apply<'d>(&'d self, root: &mut Node<'d>, budget: &mut Budget) -> Result<(), Refusal> {
        let path = &self.path.tokens;
        match &self.action {
            Action::Add(value) => root.add(path, Node::Text(value), budget),
            Action::Remove => root.remove(path, budget).map(|_| ()),
            Action::Replace(value) => {
                *root.enter(path, budget)? = Node::Text(value);
                Ok(())
            }
            Action::Move(from) => {
                let moved = if from == &self.path {
                    // It stays where it is; but it must be there.
                    return root.enter(path, budget).map(|_| ()).map_err(Refusal::of_from);
                } else {
                    root.remove(&from.tokens, budget).map_err(Refusal::of_from)?
                };
                moved.check_depth(path, budget)?;
                root.add(path, moved, budget)
            }
            Action::Copy(from) => {
                let source = root.enter(&from.tokens, budget).map_err(Refusal::of_from)?;
                source.check_depth(path, budget)?;
                let copied = source.clone();
                root.add(path, copied, budget)
            }
            Action::Test(value) => {
                let found = root.enter(path, budget)?;
                if equal(found, &Node::Text(value), budget)? { Ok(()) } else { Err(Refusal::Untrue) }
            }
        }
    }
}

fn problem(index: usize, refusal: Refusal) -> Problem {
    let at = |member: &str| Path::ROOT.index(index).member(member).pointer();
    let unprocessable = |kind, detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, detail);
    match refusal {
        Refusal::Untrue => {
            Problem::new(StatusCode::CONFLICT, "test-failed", format!("The object is not as operation {index} of the patch expects it."))
                .with(Fault::at(at("path"), "the value there is not the one expected"))
        }
        Refusal::NotThere { of_from, detail } => unprocessable("nothing-there", "A path of the patch leads to nothing.".to_owned())
            .with(Fault::at(at(if of_from { "from" } else { "path" }), detail)),
        Refusal::TooDeep => unprocessable("invalid-body", "The patch can't be applied.".to_owned())
            .with(Fault::at(at("path"), format!("the object would be nested deeper than {MOST_DEPTH} levels"))),
        Refusal::TooMuch => unprocessable("invalid-body", "The patch does too much for one request.".to_owned())
            .with(Fault::at(at("op"), "looks at, moves or copies too much, together with the operations before it")),
        Refusal::Unreadable => unprocessable("invalid-body", "The patch can't be applied.".to_owned())
            .with(Fault::at(at("path"), "leads through a member whose name has an escape that is no character")),
    }
}
