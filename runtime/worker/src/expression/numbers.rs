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

/// `round(x, scale, mode)`: half away from zero, as money is rounded, where no mode is given.
pub(super) fn round(call: &Call<'_>) -> Outcome {
    let value = number(call, 0)?;
    let strategy = match call.argument(2) {
        Value::Null => RoundingStrategy::MidpointAwayFromZero,
        _ => match call.text(2)? {
            "halfUp" => RoundingStrategy::MidpointAwayFromZero,
            "halfDown" => RoundingStrategy::MidpointTowardZero,
            "halfEven" => RoundingStrategy::MidpointNearestEven,
            "up" => RoundingStrategy::AwayFromZero,
            "down" => RoundingStrategy::ToZero,
            "ceiling" => RoundingStrategy::ToPositiveInfinity,
            "floor" => RoundingStrategy::ToNegativeInfinity,
            other => {
                return Err(format!("{other:?} is no way to round; there are halfUp, halfDown, halfEven, up, down, ceiling and floor"));
            }
        },
    };
    Ok(Value::Decimal(rounded(as_decimal(&value), scale(call, 1)?, strategy)))
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

/// `parseDecimal(text, point, separator)`: a number as people write it, `1.234,50` with `','` and `'.'`; blanks are passed over.
pub(super) fn parse(call: &Call<'_>) -> Outcome {
    if call.argument(0).is_null() {
        return Ok(Value::Null);
    }
    let text = call.text(0)?;
    let point = if call.arguments.len() > 1 { call.text(1)? } else { "." };
    let separator = if call.arguments.len() > 2 { call.text(2)? } else { "" };
    if point.is_empty() || point == separator {
        return Err("the point is one character, and the separator another".to_owned());
    }
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (whole, fraction) = bare.split_once(point).map_or((bare.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let whole = if separator.is_empty() { whole.to_owned() } else { ungrouped(whole, separator).ok_or_else(|| no_number(text))? };
    // Accounts write the sign behind, too.
    let (sign, whole, fraction) = match fraction.and_then(|fraction| fraction.strip_suffix('-')) {
        Some(fraction) => ("-", whole, Some(fraction)),
        None => ("", whole, fraction),
    };
    let digits = match fraction {
        Some(fraction) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => format!("{sign}{whole}.{fraction}"),
        Some(_) => return Err(no_number(text)),
        None => whole,
    };
    parse_number(&digits).map(Value::Decimal).map_err(|_| no_number(text))
}

fn no_number(text: &str) -> String {
    format!("{text:?} is no number of up to 28 digits written so")
}

// Groups behind the first have three digits: `1.5` is no way to write 15.
fn ungrouped(whole: &str, separator: &str) -> Option<String> {
    let mut groups = whole.split(separator);
    let mut joined = groups.next()?.to_owned();
    for group in groups {
        if group.len() != 3 || joined.trim_start_matches(['-', '+']).is_empty() {
            return None;
        }
        joined.push_str(group);
    }
    Some(joined)
}

/// `formatDecimal(x, scale, point, separator)`: rounded half away from zero; `1.234,50` with `','` and `'.'`.
pub(super) fn format(call: &Call<'_>) -> Outcome {
    let value = rounded(as_decimal(&number(call, 0)?), scale(call, 1)?, RoundingStrategy::MidpointAwayFromZero);
    let point = if call.arguments.len() > 2 { call.text(2)? } else { "." };
    let separator = if call.arguments.len() > 3 { call.text(3)? } else { "" };
    let digits = value.abs().to_string();
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let mut text = String::with_capacity(digits.len() * 2);
    if value.is_sign_negative() && !value.is_zero() {
        text.push('-');
    }
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            text.push_str(separator);
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push_str(point);
        text.push_str(fraction);
    }
    Ok(Value::text(text))
}

/// `allocate(amount, weights, scale)`: the amount in shares by weight, whose sum is exactly the amount; what rounding leaves goes to the shares
/// that it cut most off, the first of equal ones.
pub(super) fn allocate(call: &Call<'_>) -> Outcome {
    let scale = scale(call, 2)?;
    let amount = as_decimal(&number(call, 0)?);
    let unit = Decimal::new(1, scale);
    if amount.round_dp(scale) != amount {
        return Err(format!("{amount} has more than {scale} digits behind the point"));
    }
    let weights: Vec<Decimal> = call
        .list(1)?
        .iter()
        .map(|weight| match weight {
            Value::Int(_) | Value::Decimal(_) if !as_decimal(weight).is_sign_negative() || as_decimal(weight).is_zero() => {
                Ok(as_decimal(weight))
            }
            other => Err(format!("a weight is a number of 0 or more, not {other}")),
        })
        .collect::<Result<_, String>>()?;
    let too_large = || "the amount and the weights have more digits than fit".to_owned();
    let total = weights.iter().try_fold(Decimal::ZERO, |sum, weight| sum.checked_add(*weight)).ok_or_else(too_large)?;
    if total.is_zero() {
        return Err("the weights add up to nothing".to_owned());
    }
    let mut shares = Vec::with_capacity(weights.len());
    let mut cut = Vec::with_capacity(weights.len());
    for weight in &weights {
        let exact = amount.checked_mul(*weight).and_then(|product| product.checked_div(total)).ok_or_else(too_large)?;
        let share = rounded(exact, scale, RoundingStrategy::ToZero);
        cut.push((exact - share).abs());
        shares.push(share);
    }
    let mut left = amount - shares.iter().sum::<Decimal>();
    let step = if left.is_sign_negative() { -unit } else { unit };
    let mut order: Vec<usize> = (0..shares.len()).filter(|place| !weights[*place].is_zero()).collect();
    order.sort_by(|a, b| cut[*b].cmp(&cut[*a]));
    for place in order.iter().cycle() {
        if left.is_zero() {
            break;
        }
        shares[*place] += step;
        left -= step;
    }
    Ok(Value::list(shares.into_iter().map(Value::Decimal)))
}
