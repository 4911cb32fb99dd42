//! Types, limits and defaults of attributes.

use base64::Engine;
use regex::Regex;
use serde_json::Value;

use super::naming::{check_length, check_pascal, did_you_mean, list};
use super::scope::Scopes;
use crate::data_model::{self, Attribute};
use crate::fault::Faults;
use crate::resolved::{Enumeration, ValueType};
use crate::{DataModel, names};

const BUILT_IN: [&str; 9] = ["string", "uuid", "integer", "decimal", "boolean", "date", "dateTime", "json", "binary"];
// Compiled programs stay small: the API keeps one for every pattern.
const PATTERN_PROGRAM_BYTES: usize = 1 << 20;

/// The enumerations, checked.
pub(super) fn resolve_enumerations(declared: &[data_model::Enumeration], faults: &mut Faults) -> Vec<Enumeration> {
    let mut resolved = Vec::with_capacity(declared.len());
    for (index, enumeration) in declared.iter().enumerate() {
        let path = format!("spec.enumerations[{index}]");
        let name_path = format!("{path}.name");
        let type_name = names::snake_case(&enumeration.name);
        if check_pascal(&enumeration.name, &name_path, "enumeration", faults) {
            check_length(&type_name, &name_path, "type", faults);
        }
        if declared[..index].iter().any(|earlier| earlier.name == enumeration.name) {
            faults.add(&name_path, format!("there are two enumerations {:?}", enumeration.name));
        }
        if enumeration.values.is_empty() {
            faults.add(format!("{path}.values"), "an enumeration needs at least one value");
        }
        for (index, value) in enumeration.values.iter().enumerate() {
            let path = format!("{path}.values[{index}]");
            if value.trim() != value || value.is_empty() || value.chars().any(char::is_control) {
                faults.add(&path, format!("{value:?} can't be a value: it is empty, or has space around it or control characters in it"));
            } else {
                check_length(value, &path, "value", faults);
            }
            if enumeration.values[..index].contains(value) {
                faults.add(&path, format!("{value:?} is in the list twice"));
            }
        }
        resolved.push(Enumeration {
            name: enumeration.name.clone(),
            type_name,
            description: enumeration.description.clone(),
            values: enumeration.values.clone(),
        });
    }
    resolved
}

/// The attribute's type with its limits, seen from `model`, which declares it. `None` where the type is unknown.
pub(super) fn resolve_type<'a>(
    scopes: &Scopes<'a>,
    model: &'a DataModel,
    attribute: &Attribute,
    path: &str,
    faults: &mut Faults,
) -> Option<ValueType> {
    check_limits(attribute, path, faults);
    let value_type = match attribute.type_name.as_str() {
        "string" => {
            ValueType::String { min_length: attribute.min_length, max_length: attribute.max_length, pattern: attribute.pattern.clone() }
        }
        "uuid" => ValueType::Uuid,
        "integer" => ValueType::Integer { minimum: attribute.minimum, maximum: attribute.maximum },
        "decimal" => ValueType::Decimal {
            precision: attribute.precision,
            scale: attribute.scale,
            minimum: attribute.minimum,
            maximum: attribute.maximum,
        },
        "boolean" => ValueType::Boolean,
        "date" => ValueType::Date,
        "dateTime" => ValueType::DateTime,
        "json" => ValueType::Json,
        "binary" => ValueType::Binary { max_length: attribute.max_length },
        name => match scopes.enumeration(model, name) {
            Some((declaring, enumeration)) => ValueType::Enumeration {
                schema: names::snake_case(declaring),
                type_name: names::snake_case(name),
                enumeration: name.to_owned(),
                values: enumeration.values.clone(),
            },
            None => {
                unknown_type(scopes, model, name, &format!("{path}.type"), faults);
                return None;
            }
        },
    };
    Some(value_type)
}

fn unknown_type<'a>(scopes: &Scopes<'a>, model: &'a DataModel, name: &str, path: &str, faults: &mut Faults) {
    if scopes.entity(model, name).is_some() {
        faults.add(path, format!("{name:?} is an entity; to refer to one, declare a relationship with target {name:?}"));
        return;
    }
    let has = |other: &DataModel| other.spec.enumerations.iter().any(|enumeration| enumeration.name == name);
    if let Some(other) = scopes.model_with(has) {
        faults.add(path, format!("there is no type {name:?} here, but model {other:?} has this enumeration: import it under spec.imports"));
        return;
    }
    let usual = match name.to_ascii_lowercase().as_str() {
        "text" | "varchar" | "char" | "str" => Some("string"),
        "int" | "long" | "bigint" | "int32" | "int64" | "smallint" => Some("integer"),
        "number" | "numeric" | "float" | "double" | "money" | "real" => Some("decimal"),
        "bool" => Some("boolean"),
        "timestamp" | "timestamptz" | "time" | "instant" => Some("dateTime"),
        "jsonb" | "object" | "any" | "map" => Some("json"),
        "bytes" | "bytea" | "blob" => Some("binary"),
        _ => None,
    };
    let near = match usual {
        Some(usual) => format!(" (did you mean {usual:?}?)"),
        None => did_you_mean(name, BUILT_IN.into_iter().chain(model.spec.enumerations.iter().map(|each| each.name.as_str()))),
    };
    faults.add(path, format!("there is no type {name:?}{near}; known are {} and the model's enumerations", list(BUILT_IN)));
}

// Limits that don't fit the type, or one another.
fn check_limits(attribute: &Attribute, path: &str, faults: &mut Faults) {
    let type_name = attribute.type_name.as_str();
    let mut only_for = |given: bool, field: &str, types: &[&str]| {
        if given && !types.contains(&type_name) {
            let message = format!("{field} is for type {}, and this is of type {type_name}: take it away", types.join(" and "));
            faults.add(format!("{path}.{field}"), message);
        }
    };
    only_for(attribute.min_length.is_some(), "minLength", &["string"]);
    only_for(attribute.max_length.is_some(), "maxLength", &["string", "binary"]);
    only_for(attribute.pattern.is_some(), "pattern", &["string"]);
    only_for(attribute.precision.is_some(), "precision", &["decimal"]);
    only_for(attribute.scale.is_some(), "scale", &["decimal"]);
    only_for(attribute.minimum.is_some(), "minimum", &["integer", "decimal"]);
    only_for(attribute.maximum.is_some(), "maximum", &["integer", "decimal"]);
    match (attribute.precision, attribute.scale) {
        (None, Some(_)) => faults.add(format!("{path}.scale"), "scale needs precision: give the digits in all too"),
        (Some(precision), Some(scale)) if scale > precision => {
            faults.add(format!("{path}.scale"), format!("scale {scale} is larger than precision {precision}"));
        }
        (Some(0), _) => faults.add(format!("{path}.precision"), "precision is at least 1"),
        _ => {}
    }
    if attribute.max_length == Some(0) {
        faults.add(format!("{path}.maxLength"), "maxLength is at least 1");
    }
    if let (Some(least), Some(most)) = (attribute.min_length, attribute.max_length)
        && least > most
    {
        faults.add(format!("{path}.minLength"), format!("minLength {least} is larger than maxLength {most}"));
    }
    if let (Some(least), Some(most)) = (attribute.minimum, attribute.maximum)
        && least > most
    {
        faults.add(format!("{path}.minimum"), format!("minimum {least} is larger than maximum {most}"));
    }
    if let Some(pattern) = &attribute.pattern
        && let Err(message) = compile(pattern)
    {
        faults.add(format!("{path}.pattern"), message);
    }
}

/// The pattern as it is applied: to the whole string.
fn compile(pattern: &str) -> Result<Regex, String> {
    // Alone first, so that a stray `)` can't close the group.
    Regex::new(pattern)
        .and_then(|_| regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_PROGRAM_BYTES).build())
        .map_err(|cause| {
            format!("{pattern:?} is no regular expression that can be used here (no look-around, no back-references): {cause}")
        })
}

/// A default in the JSON form of its type.
///
/// # Errors
/// A message where the type or its limits refuse it.
pub(super) fn resolve_default(value: &Value, value_type: &ValueType) -> Result<Value, String> {
    let text = || value.as_str();
    match value_type {
        ValueType::String { min_length, max_length, pattern } => {
            let text = text().ok_or_else(|| expected("a string", value))?;
            let length = text.chars().count() as u64;
            if text.contains('\0') {
                return Err("a string can't hold the character NUL".to_owned());
            }
            if min_length.is_some_and(|least| length < u64::from(least)) || max_length.is_some_and(|most| length > u64::from(most)) {
                return Err(format!("the default has {length} characters, which minLength or maxLength refuses"));
            }
            if let Some(pattern) = pattern
                && compile(pattern).is_ok_and(|regex| !regex.is_match(text))
            {
                return Err(format!("the default {text:?} does not match the pattern {pattern:?}"));
            }
            Ok(Value::from(text))
        }
        ValueType::Uuid => text()
            .and_then(|text| uuid::Uuid::try_parse(text).ok())
            .map(|uuid| Value::from(uuid.hyphenated().to_string()))
            .ok_or_else(|| expected("a UUID, for example \"0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10\"", value)),
        ValueType::Integer { minimum, maximum } => {
            let number = value.as_i64().ok_or_else(|| expected("a whole number of 64 bits", value))?;
            if minimum.is_some_and(|least| number < least) || maximum.is_some_and(|most| number > most) {
                return Err(format!("the default {number} is outside minimum and maximum"));
            }
            Ok(Value::from(number))
        }
        ValueType::Decimal { precision, scale, minimum, maximum } => {
            let decimal = Decimal::of(value).ok_or_else(|| expected("a decimal number, for example \"12.50\"", value))?;
            decimal.check(*precision, *scale, *minimum, *maximum)?;
            let as_given = value.is_number() && value.to_string().as_str() == decimal.text;
            Ok(if as_given { value.clone() } else { Value::from(decimal.text) })
        }
        ValueType::Boolean => value.as_bool().map(Value::from).ok_or_else(|| expected("true or false", value)),
        ValueType::Date => text()
            .filter(|text| text.len() == 10)
            .and_then(|text| text.parse::<jiff::civil::Date>().ok())
            .map(|date| Value::from(date.to_string()))
            .ok_or_else(|| expected("a date, for example \"2026-11-25\"", value)),
        ValueType::DateTime => text()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map(|timestamp| Value::from(timestamp.to_string()))
            .ok_or_else(|| expected("a time with its offset, for example \"2026-11-25T03:05:19Z\"", value)),
        ValueType::Json => Ok(value.clone()),
        ValueType::Binary { max_length } => {
            let bytes = text()
                .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
                .ok_or_else(|| expected("bytes in base64, for example \"aGVsbG8=\"", value))?;
            if max_length.is_some_and(|most| bytes.len() as u64 > u64::from(most)) {
                return Err(format!("the default has {} bytes, which maxLength refuses", bytes.len()));
            }
            Ok(value.clone())
        }
        ValueType::Enumeration { enumeration, values, .. } => {
            let text = text().ok_or_else(|| expected(&format!("a value of {enumeration}"), value))?;
            if values.iter().any(|each| each == text) {
                return Ok(Value::from(text));
            }
            let near = did_you_mean(text, values.iter().map(String::as_str));
            Err(format!("{text:?} is no value of {enumeration}{near}; its values are {}", list(values.iter().map(String::as_str))))
        }
    }
}

fn expected(what: &str, value: &Value) -> String {
    format!("the default must be {what}, and is {value}")
}

// A decimal as its digits; never a float.
struct Decimal {
    // Plain digits with a point where there is a fraction.
    text: String,
    whole: String,
    fraction: String,
    negative: bool,
}

impl Decimal {
    fn of(value: &Value) -> Option<Self> {
        let given = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let (negative, digits) = match given.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, given.as_str()),
        };
        let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 400)?),
            None => (digits, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || mantissa.ends_with('.') || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // The point moves by the exponent.
        let all = format!("{whole}{fraction}");
        let point = whole.len() as i32 + exponent;
        let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
        let (whole, fraction) = if point <= 0 {
            ("0".to_owned(), zeros(-point) + &all)
        } else if point as usize >= all.len() {
            (all.clone() + &zeros(point - all.len() as i32), String::new())
        } else {
            (all[..point as usize].to_owned(), all[point as usize..].to_owned())
        };
        let trimmed = whole.trim_start_matches('0');
        let whole = if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() };
        let sign = if negative { "-" } else { "" };
        let text = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        Some(Self { text, whole, fraction, negative })
    }

    fn check(&self, precision: Option<u32>, scale: Option<u32>, minimum: Option<i64>, maximum: Option<i64>) -> Result<(), String> {
        let text = &self.text;
        if let Some(precision) = precision {
            let scale = scale.unwrap_or(0) as usize;
            let whole_digits = if self.whole == "0" { 0 } else { self.whole.len() };
            if self.fraction.trim_end_matches('0').len() > scale {
                return Err(format!("the default {text} has more than {scale} digits behind the point"));
            }
            if whole_digits + scale > precision as usize {
                return Err(format!("the default {text} does not fit into precision {precision} and scale {scale}"));
            }
        }
        if minimum.is_some_and(|least| self.cmp_integer(least).is_lt()) || maximum.is_some_and(|most| self.cmp_integer(most).is_gt()) {
            return Err(format!("the default {text} is outside minimum and maximum"));
        }
        Ok(())
    }

    fn cmp_integer(&self, other: i64) -> std::cmp::Ordering {
        let fraction = self.fraction.bytes().any(|byte| byte != b'0');
        let Ok(whole) = self.whole.parse::<i128>() else {
            return if self.negative { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
        };
        let whole = if self.negative { -whole } else { whole };
        whole.cmp(&i128::from(other)).then(match (fraction, self.negative) {
            (false, _) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Greater,
            (true, true) => std::cmp::Ordering::Less,
        })
    }
}
