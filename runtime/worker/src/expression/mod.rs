//! CEL expressions over exact values. The crate `cel` gives the grammar; the evaluation is ours, because numbers must be exact (decimals, not
//! floats), data is shared and not copied, and what is wrong is told in the author's words, most of it before anything runs.
//!
//! `docs/expressions.md` describes the language for authors.

mod arithmetic;
mod compile;
mod evaluate;
pub(crate) mod functions;
mod json;
mod kind;
mod numbers;
mod texts;
mod time;
mod value;

pub use compile::{Names, compile};
pub use evaluate::{EvaluationError, Identity};
pub use json::{JsonError, ObjectReader};
pub use kind::{Kind, ObjectKind};
pub(crate) use texts::{email_address, phone_number};
pub use value::{Object, Shape, Value};

use compile::Node;
use evaluate::Scope;

/// An expression, parsed and checked.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    node: Node,
    kind: Kind,
}

impl Expression {
    /// As the author wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it gives, as far as is known beforehand.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether nothing speaks against its value being of this kind.
    pub fn may_be(&self, wanted: &Kind) -> bool {
        self.kind.may_be(wanted)
    }

    /// The members that it uses of the variable at that place; `None` where it takes the variable as a whole.
    pub fn members_of(&self, variable: usize) -> Option<Vec<String>> {
        let mut members = Vec::new();
        self.node.members_of(variable, &mut members).then_some(members)
    }

    /// The value, where the expression is a plain literal.
    pub fn constant(&self) -> Option<&Value> {
        match &self.node {
            Node::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The value for these variables, in the order of the [`Names`] that it was compiled with.
    ///
    /// # Errors
    /// What can't be evaluated, in words for the author; it names the expression.
    pub fn evaluate(&self, variables: &[Value], identity: &Identity<'_>) -> Result<Value, EvaluationError> {
        let mut scope = Scope::new(variables, identity);
        self.node.evaluate(&mut scope).map_err(|error| error.within(&self.source))
    }

    /// [`Self::evaluate`] for an expression that must be true or false.
    ///
    /// # Errors
    /// Also when it gives something else.
    pub fn evaluate_condition(&self, variables: &[Value], identity: &Identity<'_>) -> Result<bool, EvaluationError> {
        match self.evaluate(variables, identity)? {
            Value::Bool(value) => Ok(value),
            other => Err(EvaluationError::new(format!("true or false is expected, not {}", other.kind())).within(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests;
