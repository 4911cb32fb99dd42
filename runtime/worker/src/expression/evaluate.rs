//! Evaluating a compiled expression.

use std::cmp::Ordering;
use std::sync::Arc;

use super::arithmetic::{compare, negate};
use super::compile::{Loop, LoopKind, Node};
use super::value::{Object, Shape, Value};

/// Who evaluates, for functions that make identities.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// `{namespace}/{service}`.
    pub service: &'a str,
    /// The event's or record's id.
    pub event: &'a str,
}

/// An expression that can't be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    message: String,
    // Something is null or not there; `default(x, y)` passes over that.
    absent: bool,
}

impl EvaluationError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), absent: false }
    }

    fn absent(message: String) -> Self {
        Self { message, absent: true }
    }

    /// An error told in these words.
    pub(crate) fn told(message: impl Into<String>) -> Self {
        Self::new(message)
    }

    /// The error, for the element at this place.
    pub(crate) fn at_item(mut self, index: usize) -> Self {
        self.message = format!("element {index}: {}", self.message);
        self
    }

    pub(super) fn within(mut self, source: &str) -> Self {
        let source: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = source.chars().take(120).collect();
        let more = if shown.len() < source.len() { "…" } else { "" };
        self.message = format!("{} (in `{shown}{more}`)", self.message);
        self
    }
}

/// What an expression sees: variables, and the loop variables around.
pub(super) struct Scope<'a> {
    variables: &'a [Value],
    locals: Vec<Value>,
    pub(super) identity: &'a Identity<'a>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(variables: &'a [Value], identity: &'a Identity<'a>) -> Self {
        Self { variables, locals: Vec::new(), identity }
    }
}

static NULL: Value = Value::Null;

impl Node {
    pub(super) fn evaluate(&self, scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
        match self {
            Node::Constant(_) | Node::Variable(_) | Node::Local(_) => Ok(self.place(scope)?.unwrap_or(&NULL).clone()),
            Node::Member { of, name, label } => match self.place(scope)? {
                Some(value) => Ok(value.clone()),
                None => member(&of.evaluate(scope)?, name, label).cloned(),
            },
            Node::Has { of, name } => has(of, name, scope),
            Node::Index { of, index, label } => {
                let index = index.evaluate(scope)?;
                match of.place(scope)? {
                    Some(value) => element(value, &index, label),
                    None => element(&of.evaluate(scope)?, &index, label),
                }
            }
            Node::Not(operand) => Ok(Value::Bool(!operand.truth(scope)?)),
            Node::Negate(operand) => negate(&operand.evaluate(scope)?),
            Node::And(left, right) => decide(left, right, false, scope),
            Node::Or(left, right) => decide(left, right, true, scope),
            Node::Conditional { condition, yes, no } => {
                if condition.truth(scope)? {
                    yes.evaluate(scope)
                } else {
                    no.evaluate(scope)
                }
            }
            Node::Binary { operator, left, right } => {
                let right = right.evaluate(scope)?;
                match left.place(scope)? {
                    Some(left) => operator.apply(left, &right),
                    None => operator.apply(&left.evaluate(scope)?, &right),
                }
            }
            Node::List(items) => items.iter().map(|item| item.evaluate(scope)).collect::<Result<Arc<[Value]>, _>>().map(Value::List),
            Node::Object { shape, values } => {
                let values = values.iter().map(|value| value.evaluate(scope)).collect::<Result<Vec<Value>, _>>()?;
                Ok(Value::Object(Arc::new(Object::new(shape.clone(), values))))
            }
            Node::Map(entries) => map(entries, scope),
            Node::Default(value, otherwise) => match value.evaluate(scope) {
                Ok(Value::Null) => otherwise.evaluate(scope),
                Err(error) if error.absent => otherwise.evaluate(scope),
                other => other,
            },
            Node::Loop(looping) => looping.evaluate(scope),
            Node::Call { function, arguments, pattern } => {
                let arguments = arguments.iter().map(|argument| argument.evaluate(scope)).collect::<Result<Vec<Value>, _>>()?;
                function.call(&arguments, pattern.as_ref(), scope.identity)
            }
        }
    }

    // The value where it lies, without a copy; `None` where it has to be computed.
    fn place<'s>(&'s self, scope: &'s Scope<'_>) -> Result<Option<&'s Value>, EvaluationError> {
        match self {
            Node::Constant(value) => Ok(Some(value)),
            Node::Variable(slot) => Ok(Some(scope.variables.get(*slot).unwrap_or(&NULL))),
            Node::Local(slot) => Ok(Some(scope.locals.get(*slot).unwrap_or(&NULL))),
            Node::Member { of, name, label } => match of.place(scope)? {
                Some(value) => member(value, name, label).map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn truth(&self, scope: &mut Scope<'_>) -> Result<bool, EvaluationError> {
        match self.evaluate(scope)? {
            Value::Bool(value) => Ok(value),
            other => Err(EvaluationError::new(format!("true or false is expected, not {}", other.kind()))),
        }
    }
}

// `&&` (decided by false) and `||` (decided by true): an operand that fails doesn't matter where the other one decides.
fn decide(left: &Node, right: &Node, decisive: bool, scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
    match left.truth(scope) {
        Ok(value) if value == decisive => Ok(Value::Bool(decisive)),
        Ok(_) => right.truth(scope).map(Value::Bool),
        Err(error) => match right.truth(scope) {
            Ok(value) if value == decisive => Ok(Value::Bool(decisive)),
            _ => Err(error),
        },
    }
}

fn member<'v>(value: &'v Value, name: &str, label: &str) -> Result<&'v Value, EvaluationError> {
    match value {
        Value::Object(object) => object.get(name).ok_or_else(|| no_member(object.shape(), name, label)),
        Value::Null => Err(EvaluationError::absent(format!("{label} is null and has no member {name}"))),
        other => Err(EvaluationError::new(format!("{label} is {} and has no member {name}", other.kind()))),
    }
}

fn no_member(shape: &Shape, name: &str, label: &str) -> EvaluationError {
    let names: Vec<&str> = shape.names().iter().take(30).map(|name| &**name).collect();
    EvaluationError::absent(format!("{label} has no member {name}; it has {}", names.join(", ")))
}

// `has(a.b)`: whether b is there and not null. Objects of the platform write every member, so that only null says "not set".
fn has(of: &Node, name: &str, scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
    match of.evaluate(scope) {
        Ok(Value::Object(object)) => Ok(Value::Bool(object.get(name).is_some_and(|value| !value.is_null()))),
        Ok(Value::Null) => Ok(Value::Bool(false)),
        Ok(other) => Err(EvaluationError::new(format!("{} has no members", other.kind()))),
        Err(error) if error.absent => Ok(Value::Bool(false)),
        Err(error) => Err(error),
    }
}

fn element(value: &Value, index: &Value, label: &str) -> Result<Value, EvaluationError> {
    match (value, index) {
        (Value::Object(_), Value::Text(name)) => member(value, name, label).cloned(),
        (Value::List(items), Value::Int(position)) => usize::try_from(*position)
            .ok()
            .and_then(|position| items.get(position))
            .cloned()
            .ok_or_else(|| EvaluationError::absent(format!("{label} has {} elements; there is none at [{position}]", items.len()))),
        (Value::Null, _) => Err(EvaluationError::absent(format!("{label} is null and has no element [{index}]"))),
        (other, index) => Err(EvaluationError::new(format!("{label} is {} and can't be indexed by {}", other.kind(), index.kind()))),
    }
}

fn map(entries: &[(Node, Node)], scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
    let mut names: Vec<Box<str>> = Vec::with_capacity(entries.len());
    let mut values = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let name = name.evaluate(scope)?;
        let Some(text) = name.as_text() else {
            return Err(EvaluationError::new(format!("a member's name is a string, not {}", name.kind())));
        };
        if names.iter().any(|own| **own == *text) {
            return Err(EvaluationError::new(format!("the member {text} is given twice")));
        }
        names.push(text.into());
        values.push(value.evaluate(scope)?);
    }
    Ok(Value::Object(Arc::new(Object::new(Shape::new(names), values))))
}

impl Loop {
    fn evaluate(&self, scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
        let items = match self.over.evaluate(scope)? {
            Value::List(items) => items,
            // As CEL has it: over an object, the names.
            Value::Object(object) => object.iter().map(|(name, _)| Value::text(name)).collect(),
            Value::Null => return Err(EvaluationError::absent(format!("{} is null, not a list", self.label))),
            other => return Err(EvaluationError::new(format!("{} is {}, not a list", self.label, other.kind()))),
        };
        let depth = scope.locals.len();
        let result = self.run(&items, scope);
        scope.locals.truncate(depth);
        result
    }

    fn run(&self, items: &[Value], scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
        match self.kind {
            LoopKind::All => self.any(items, scope, false).map(|found| Value::Bool(!found)),
            LoopKind::Exists => self.any(items, scope, true).map(Value::Bool),
            LoopKind::ExistsOne => {
                let mut count = 0;
                for item in items {
                    count += usize::from(self.truth(item, scope)?);
                }
                Ok(Value::Bool(count == 1))
            }
            LoopKind::Filter => {
                let mut kept = Vec::new();
                for item in items {
                    if self.truth(item, scope)? {
                        kept.push(item.clone());
                    }
                }
                Ok(Value::list(kept))
            }
            LoopKind::Map => {
                let mut mapped = Vec::with_capacity(items.len());
                for item in items {
                    if let Some(condition) = &self.condition
                        && !self.body(condition, item, scope)?.is_true()?
                    {
                        continue;
                    }
                    mapped.push(self.body(&self.body, item, scope)?);
                }
                Ok(Value::list(mapped))
            }
            LoopKind::SortBy => self.sort(items, scope),
            LoopKind::GroupBy => self.group(items, scope),
        }
    }

    fn body(&self, node: &Node, item: &Value, scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
        scope.locals.push(item.clone());
        let value = node.evaluate(scope);
        scope.locals.pop();
        value
    }

    fn truth(&self, item: &Value, scope: &mut Scope<'_>) -> Result<bool, EvaluationError> {
        self.body(&self.body, item, scope)?.is_true()
    }

    // Whether the body is `wanted` for an item; one that fails doesn't matter where another one decides.
    fn any(&self, items: &[Value], scope: &mut Scope<'_>, wanted: bool) -> Result<bool, EvaluationError> {
        let mut failed = None;
        for item in items {
            match self.truth(item, scope) {
                Ok(value) if value == wanted => return Ok(true),
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    fn sort(&self, items: &[Value], scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            keyed.push((self.body(&self.body, item, scope)?, item.clone()));
        }
        let mut mismatch = None;
        keyed.sort_by(|(a, _), (b, _)| {
            compare(a, b).unwrap_or_else(|| {
                mismatch.get_or_insert_with(|| EvaluationError::new(format!("{} and {} have no order between them", a.kind(), b.kind())));
                Ordering::Equal
            })
        });
        match mismatch {
            Some(error) => Err(error),
            None => Ok(Value::list(keyed.into_iter().map(|(_, item)| item))),
        }
    }

    // Groups in the order of their first items: `[{key, items}, …]`.
    fn group(&self, items: &[Value], scope: &mut Scope<'_>) -> Result<Value, EvaluationError> {
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        let mut by_text = std::collections::HashMap::new();
        for item in items {
            let key = self.body(&self.body, item, scope)?;
            let position = *by_text.entry(key.group_key()).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[position].1.push(item.clone());
        }
        let shape = Shape::new(["key", "items"]);
        Ok(Value::list(
            groups.into_iter().map(|(key, items)| Value::Object(Arc::new(Object::new(shape.clone(), vec![key, Value::list(items)])))),
        ))
    }
}

impl Value {
    // Equal values have equal keys.
    pub(crate) fn group_key(&self) -> String {
        match (self, self.index_key()) {
            (Value::Int(_) | Value::Decimal(_) | Value::Digits(_), Some(key)) => key.into_owned(),
            (_, Some(key)) => format!("{}:{key}", self.kind()),
            (_, None) => self.to_json(),
        }
    }

    fn is_true(&self) -> Result<bool, EvaluationError> {
        match self {
            Value::Bool(value) => Ok(*value),
            other => Err(EvaluationError::new(format!("true or false is expected, not {}", other.kind()))),
        }
    }
}
