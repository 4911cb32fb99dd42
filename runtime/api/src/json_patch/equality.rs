//! When two JSON values are equal (RFC 6902, section 4.6): numbers by their value, strings by their characters, objects whatever the order
//! of their members.

use std::borrow::Cow;
use std::collections::HashMap;

use super::node::{Budget, Node, Refusal};
use crate::value::Scalar;

/// Whether two values are equal.
pub(super) fn equal(one: &Node<'_>, other: &Node<'_>, budget: &mut Budget) -> Result<bool, Refusal> {
    if let (Node::Text(one), Node::Text(other)) = (one, other) {
        budget.spend(one.len().min(other.len()))?;
        if one == other {
            return Ok(true);
        }
        if !is_container(one) || !is_container(other) {
            return Ok(equal_scalars(one, other));
        }
    }
    let (one, other) = (opened(one, budget)?, opened(other, budget)?);
    match (one.as_ref(), other.as_ref()) {
        (Node::List(one), Node::List(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (one, other) in one.iter().zip(other) {
                if !equal(one, other, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Node::Object(one), Node::Object(other)) => {
            // Of members with the same name the last one counts.
            let by_name = |members| -> HashMap<&str, &Node<'_>> {
                let members: &Vec<(Cow<'_, str>, Node<'_>)> = members;
                members.iter().map(|(name, value)| (name.as_ref(), value)).collect()
            };
            let (one, other) = (by_name(one), by_name(other));
            if one.len() != other.len() {
                return Ok(false);
            }
            for (name, value) in one {
                match other.get(name) {
                    Some(there) if equal(value, there, budget)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn is_container(text: &str) -> bool {
    text.starts_with(['{', '['])
}

fn opened<'n, 't>(node: &'n Node<'t>, budget: &mut Budget) -> Result<Cow<'n, Node<'t>>, Refusal> {
    Ok(match node {
        Node::Text(text) => {
            let mut opened = Node::Text(text);
            opened.open(budget)?;
            Cow::Owned(opened)
        }
        opened => Cow::Borrowed(opened),
    })
}

fn equal_scalars(one: &str, other: &str) -> bool {
    match (Scalar::read(one), Scalar::read(other)) {
        (Ok(None), Ok(None)) => true,
        (Ok(Some(Scalar::Boolean(one))), Ok(Some(Scalar::Boolean(other)))) => one == other,
        (Ok(Some(Scalar::String(one))), Ok(Some(Scalar::String(other)))) => one == other,
        (Ok(Some(Scalar::Number(one))), Ok(Some(Scalar::Number(other)))) => equal_numbers(one, other),
        _ => false,
    }
}

// A number as its sign, its digits without zeros at either end, and the power of ten that the last digit stands at.
#[derive(PartialEq, Eq)]
struct Number<'d> {
    negative: bool,
    whole: &'d str,
    fraction: &'d str,
    power: i64,
}

/// Whether two JSON numbers are the same number, however they are written: `1`, `1.0` and `10e-1`.
pub(super) fn equal_numbers(one: &str, other: &str) -> bool {
    match (Number::read(one), Number::read(other)) {
        (Some(one), Some(other)) => {
            let digits = |number: &Number<'_>| -> Vec<u8> { number.whole.bytes().chain(number.fraction.bytes()).collect() };
            let (one_digits, other_digits) = (digits(&one), digits(&other));
            let (one_digits, one_power) = trimmed(&one_digits, one.power);
            let (other_digits, other_power) = trimmed(&other_digits, other.power);
            let both_zero = one_digits.is_empty() && other_digits.is_empty();
            both_zero || (one.negative == other.negative && one_digits == other_digits && one_power == other_power)
        }
        // An exponent beyond all measure.
        _ => one == other,
    }
}

fn trimmed(digits: &[u8], power: i64) -> (&[u8], i64) {
    let leading = digits.iter().take_while(|digit| **digit == b'0').count();
    let digits = &digits[leading..];
    let trailing = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    (&digits[..digits.len() - trailing], power + trailing as i64)
}

impl<'d> Number<'d> {
    fn read(text: &'d str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Some(Self { negative, whole, fraction, power: i64::from(exponent) - fraction.len() as i64 })
    }
}
