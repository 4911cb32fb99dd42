//! Functions on numbers.

use rust_decimal::{Decimal, RoundingStrategy};

use super::arithmetic::{Operator, negate};
use super::functions::{Call, Outcome};
use super::json::parse_decimal;
use super::value::Value;

const MAX_SCALE: i64 = 28;

/// A number of an argument; a string is taken for its number.
fn number(call: &Call<'_>, index: usize) -> Result<Value, String> {
    match call.argument(index) {
        value @ (Value::Int(_) | Value::Decimal(_)) => Ok(value.clone()),
        Value::Text(text) => parse_number(text).map(Value::Decimal),
        Value::Digits(_) => Err("decimals of up to 28 digits can be calculated with".to_owned()),
        _ => Err(call.expected(index, "a number")),
    }
}

fn parse_number(text: &str) -> Result<Decimal, String> {
    let trimmed = text.trim();
    // rust_decimal takes underscores; business data does not.
    if !trimmed.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E')) {
        return Err(format!("{text:?} is no number"));
    }
    parse_decimal(trimmed.strip_prefix('+').unwrap_or(trimmed)).ok_or_else(|| format!("{text:?} is no number of up to 28 digits"))
}

fn as_decimal(value: &Value) -> Decimal {
    match value {
        Value::Int(value) => Decimal::from(*value),
        Value::Decimal(value) => *value,
        _ => Decimal::ZERO,
    }
}

/// `decimal(x)`.
pub(super) fn decimal(call: &Call<'_>) -> Outcome {
    number(call, 0).map(|value| Value::Decimal(as_decimal(&value)))
}

/// `int(x)`: a fraction is cut off, as CEL has it.
pub(super) fn int(call: &Call<'_>) -> Outcome {
    match call.argument(0) {
        Value::Int(value) => Ok(Value::Int(*value)),
        Value::Bool(value) => Ok(Value::Int(i64::from(*value))),
        Value::Timestamp(value) => Ok(Value::Int(value.as_second())),
        Value::Text(text) => text.trim().parse().map(Value::Int).map_err(|_| format!("{text:?} is no whole number of up to 64 bits")),
        Value::Decimal(value) => whole(value.trunc()),
        _ => Err(call.expected(0, "a number or a string")),
    }
}

fn whole(value: Decimal) -> Outcome {
    i64::try_from(value).map(Value::Int).map_err(|_| format!("{value} does not fit in 64 bits"))
}

fn calculate(call: &Call<'_>, operator: Operator) -> Outcome {
    let (left, right) = (number(call, 0)?, number(call, 1)?);
    operator.apply(&Value::Decimal(as_decimal(&left)), &Value::Decimal(as_decimal(&right))).map_err(|error| error.to_string())
}

/// `add(x, y)`.
pub(super) fn add(call: &Call<'_>) -> Outcome {
    calculate(call, Operator::Add)
}

/// `subtract(x, y)`.
pub(super) fn subtract(call: &Call<'_>) -> Outcome {
    calculate(call, Operator::Subtract)
}

/// `multiply(x, y)`.
pub(super) fn multiply(call: &Call<'_>) -> Outcome {
    calculate(call, Operator::Multiply)
}

/// `divide(x, y, scale)`: rounded half away from zero.
pub(super) fn divide(call: &Call<'_>) -> Outcome {
    let scale = scale(call, 2)?;
    let (left, right) = (as_decimal(&number(call, 0)?), as_decimal(&number(call, 1)?));
    let (Some(quotient), Some(remainder)) = (left.checked_div(right), left.checked_rem(right)) else {
        return Err(format!("{left} can't be divided by {right}"));
    };
    // A quotient that was itself rounded to 28 digits must not be rounded twice: its last digit decides nothing, unless exactly half way.
    let rounded = rounded(quotient, scale, RoundingStrategy::MidpointAwayFromZero);
    if remainder.is_zero() {
        return Ok(Value::Decimal(rounded));
    }
    Ok(Value::Decimal(settle_half(left, right, quotient, scale).unwrap_or(rounded)))
}

// The quotient, looked at again where its 28 digits end in an exact half at the scale: whether the true quotient is below.
fn settle_half(left: Decimal, right: Decimal, quotient: Decimal, scale: u32) -> Option<Decimal> {
    let cut = quotient.trunc_with_scale(scale);
    let rest = (quotient - cut).abs();
    let half = Decimal::new(5, scale.checked_add(1).filter(|scale| *scale <= 28)?);
    if rest != half {
        return None;
    }
    let exact = quotient.checked_mul(right)?;
    // The stored quotient is above the true one: the true one lies below the half.
    (exact.abs() > left.abs()).then(|| rounded(cut, scale, RoundingStrategy::ToZero))
}

fn scale(call: &Call<'_>, index: usize) -> Result<u32, String> {
    if index >= call.arguments.len() {
        return Ok(0);
    }
    let scale = call.int(index)?;
    if !(0..=MAX_SCALE).contains(&scale) {
        return Err(format!("a scale is between 0 and {MAX_SCALE}, not {scale}"));
    }
    u32::try_from(scale).map_err(|error| error.to_string())
}

// With exactly `scale` digits behind the point, where they fit.
fn rounded(value: Decimal, scale: u32, strategy: RoundingStrategy) -> Decimal {
    let mut value = value.round_dp_with_strategy(scale, strategy);
    value.rescale(scale);
    value
}

/// `round(x, scale)`: half away from zero, as money is rounded.
pub(super) fn round(call: &Call<'_>) -> Outcome {
    let value = number(call, 0)?;
    Ok(Value::Decimal(rounded(as_decimal(&value), scale(call, 1)?, RoundingStrategy::MidpointAwayFromZero)))
}

/// `roundEven(x, scale)`: half to the even neighbour, as accounting sometimes wants it.
pub(super) fn round_even(call: &Call<'_>) -> Outcome {
    let value = number(call, 0)?;
    Ok(Value::Decimal(rounded(as_decimal(&value), scale(call, 1)?, RoundingStrategy::MidpointNearestEven)))
}

/// `floor(x)`.
pub(super) fn floor(call: &Call<'_>) -> Outcome {
    whole(as_decimal(&number(call, 0)?).floor())
}

/// `ceil(x)`.
pub(super) fn ceil(call: &Call<'_>) -> Outcome {
    whole(as_decimal(&number(call, 0)?).ceil())
}

/// `abs(x)`.
pub(super) fn abs(call: &Call<'_>) -> Outcome {
    match number(call, 0)? {
        value @ Value::Int(number) if number < 0 => negate(&value).map_err(|error| error.to_string()),
        Value::Decimal(value) => Ok(Value::Decimal(value.abs())),
        value => Ok(value),
    }
}

/// `sum(list)`: nulls count for nothing; of no numbers, 0.
pub(super) fn sum(call: &Call<'_>) -> Outcome {
    let mut total = Value::Int(0);
    for item in call.list(0)? {
        match item {
            Value::Null => continue,
            Value::Int(_) | Value::Decimal(_) => {}
            other => return Err(format!("the list has {}; numbers are expected", other.kind())),
        }
        total = Operator::Add.apply(&total, item).map_err(|error| error.to_string())?;
    }
    Ok(total)
}
