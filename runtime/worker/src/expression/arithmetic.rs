//! Operators on values. Whole numbers stay whole, whole numbers and decimals mix, and what does not fit fails: nothing is rounded in secret but
//! a quotient's digits beyond the 28th.

use std::cmp::Ordering;

use rust_decimal::Decimal;

use super::evaluate::EvaluationError;
use super::value::Value;

/// An operator with two operands that both are evaluated first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }

    /// The operator's value.
    pub(super) fn apply(self, left: &Value, right: &Value) -> Result<Value, EvaluationError> {
        let ordered = |wanted: fn(Ordering) -> bool| -> Result<Value, EvaluationError> {
            compare(left, right).map(|order| Value::Bool(wanted(order))).ok_or_else(|| self.mismatch(left, right))
        };
        match self {
            Self::Equal => Ok(Value::Bool(left == right)),
            Self::NotEqual => Ok(Value::Bool(left != right)),
            Self::Less => ordered(Ordering::is_lt),
            Self::LessOrEqual => ordered(Ordering::is_le),
            Self::Greater => ordered(Ordering::is_gt),
            Self::GreaterOrEqual => ordered(Ordering::is_ge),
            Self::In => self.contained(left, right),
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => self.calculate(left, right),
        }
    }

    fn contained(self, left: &Value, right: &Value) -> Result<Value, EvaluationError> {
        match right {
            Value::List(items) => Ok(Value::Bool(items.iter().any(|item| item == left))),
            Value::Object(object) => match left {
                Value::Text(name) => Ok(Value::Bool(object.get(name).is_some())),
                _ => Err(self.mismatch(left, right)),
            },
            _ => Err(self.mismatch(left, right)),
        }
    }

    fn calculate(self, left: &Value, right: &Value) -> Result<Value, EvaluationError> {
        match (left, right) {
            (Value::Int(a), Value::Int(b)) => self.whole(*a, *b).map(Value::Int),
            (Value::Decimal(a), Value::Decimal(b)) => self.decimal(*a, *b).map(Value::Decimal),
            (Value::Int(a), Value::Decimal(b)) => self.decimal(Decimal::from(*a), *b).map(Value::Decimal),
            (Value::Decimal(a), Value::Int(b)) => self.decimal(*a, Decimal::from(*b)).map(Value::Decimal),
            (Value::Text(a), Value::Text(b)) if self == Self::Add => Ok(Value::text([&**a, &**b].concat())),
            (Value::List(a), Value::List(b)) if self == Self::Add => Ok(Value::list(a.iter().chain(b.iter()).cloned())),
            (Value::Timestamp(a), Value::Duration(b)) | (Value::Duration(b), Value::Timestamp(a)) if self == Self::Add => {
                a.checked_add(*b).map(Value::Timestamp).map_err(|_| self.overflow(left, right))
            }
            (Value::Timestamp(a), Value::Duration(b)) if self == Self::Subtract => {
                a.checked_sub(*b).map(Value::Timestamp).map_err(|_| self.overflow(left, right))
            }
            (Value::Timestamp(a), Value::Timestamp(b)) if self == Self::Subtract => Ok(Value::Duration(a.duration_since(*b))),
            (Value::Duration(a), Value::Duration(b)) => match self {
                Self::Add => a.checked_add(*b).map(Value::Duration).ok_or_else(|| self.overflow(left, right)),
                Self::Subtract => a.checked_sub(*b).map(Value::Duration).ok_or_else(|| self.overflow(left, right)),
                _ => Err(self.mismatch(left, right)),
            },
            _ => Err(self.mismatch(left, right)),
        }
    }

    fn whole(self, a: i64, b: i64) -> Result<i64, EvaluationError> {
        if b == 0 && matches!(self, Self::Divide | Self::Remainder) {
            return Err(division_by_zero());
        }
        let value = match self {
            Self::Add => a.checked_add(b),
            Self::Subtract => a.checked_sub(b),
            Self::Multiply => a.checked_mul(b),
            Self::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        value.ok_or_else(|| self.overflow(&Value::Int(a), &Value::Int(b)))
    }

    fn decimal(self, a: Decimal, b: Decimal) -> Result<Decimal, EvaluationError> {
        if b.is_zero() && matches!(self, Self::Divide | Self::Remainder) {
            return Err(division_by_zero());
        }
        let value = match self {
            Self::Add => exact_sum(a, b),
            Self::Subtract => exact_sum(a, -b),
            Self::Multiply => exact_product(a, b),
            Self::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        value.ok_or_else(|| self.overflow(&Value::Decimal(a), &Value::Decimal(b)))
    }

    fn overflow(self, left: &Value, right: &Value) -> EvaluationError {
        EvaluationError::new(format!("{left} {} {right} has more digits than fit (64 bits, or 28 digits for decimals)", self.symbol()))
    }

    fn mismatch(self, left: &Value, right: &Value) -> EvaluationError {
        let hint = match (left, right) {
            (Value::Null, _) | (_, Value::Null) => "; test for null first, or give a value with default(x, …)",
            (Value::Text(_), Value::Int(_) | Value::Decimal(_)) | (Value::Int(_) | Value::Decimal(_), Value::Text(_)) => {
                "; convert with decimal(x), int(x) or string(x)"
            }
            (Value::Text(_), Value::Timestamp(_)) | (Value::Timestamp(_), Value::Text(_)) => "; convert with timestamp(x)",
            (Value::Digits(_), _) | (_, Value::Digits(_)) => "; decimals of up to 28 digits can be calculated with",
            _ => "",
        };
        EvaluationError::new(format!("{} can't be used with {} and {}{hint}", self.symbol(), left.kind(), right.kind()))
    }
}

/// How two values are ordered; `None` where they are of kinds that have no order between them.
pub(super) fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    Some(match (left, right) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Int(a), Value::Decimal(b)) => Decimal::from(*a).cmp(b),
        (Value::Decimal(a), Value::Int(b)) => a.cmp(&Decimal::from(*b)),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => return None,
    })
}

// `checked_add` and `checked_mul` round where digits don't fit; an amount must not lose digits unseen.
fn exact_sum(a: Decimal, b: Decimal) -> Option<Decimal> {
    let sum = a.checked_add(b)?;
    (sum.scale() == a.scale().max(b.scale())).then_some(sum)
}

fn exact_product(a: Decimal, b: Decimal) -> Option<Decimal> {
    let product = a.checked_mul(b)?;
    if product.scale() == a.scale() + b.scale() {
        return Some(product);
    }
    // With trailing zeros taken off, it may still be exact.
    let (a, b) = (a.normalize(), b.normalize());
    let product = a.checked_mul(b)?;
    (product.scale() == a.scale() + b.scale() || product.is_zero()).then_some(product)
}

fn division_by_zero() -> EvaluationError {
    EvaluationError::new("division by zero")
}

/// The negative of a number or duration.
pub(super) fn negate(value: &Value) -> Result<Value, EvaluationError> {
    match value {
        Value::Int(number) => number
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| EvaluationError::new(format!("-({value}) has more digits than fit in 64 bits"))),
        Value::Decimal(number) => Ok(Value::Decimal(-*number)),
        Value::Duration(duration) => Ok(Value::Duration(-*duration)),
        other => Err(EvaluationError::new(format!("- can't be used with {}", other.kind()))),
    }
}
