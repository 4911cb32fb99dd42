//! The functions of expressions. Each may be called either way: `trim(x)` or `x.trim()`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use regex::Regex;
use sha2::{Digest, Sha256};

use super::arithmetic::compare;
use super::evaluate::{EvaluationError, Identity};
use super::kind::Kind;
use super::value::Value;
use super::{numbers, texts, time};

/// A function.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// How it is called, for messages.
    pub(super) signature: &'static str,
    pub(super) arity: RangeInclusive<usize>,
    // What each argument must be; the last one holds for further ones.
    takes: &'static [Takes],
    gives: Gives,
    /// Whether the second argument is a regular expression.
    pub(super) takes_pattern: bool,
    body: fn(&Call<'_>) -> Outcome,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.signature)
    }
}

/// What a function works with.
pub(super) struct Call<'a> {
    pub(super) arguments: &'a [Value],
    pattern: Option<&'a Regex>,
    identity: &'a Identity<'a>,
}

/// A function's value, or a message.
pub(super) type Outcome = Result<Value, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Any,
    Text,
    Number,
    NumberOrText,
    Int,
    List,
    Sized,
    Object,
    Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Any,
    Text,
    Texts,
    Int,
    Ints,
    Decimal,
    Decimals,
    Bool,
    Timestamp,
    Duration,
    Object,
    // As the first argument.
    Same,
    // An element of the first argument.
    Item,
    // A number as the elements of the first argument are.
    Sum,
}

impl Takes {
    fn accepts(self, kind: &Kind) -> bool {
        match (self, kind) {
            (Self::Any, _) | (_, Kind::Any | Kind::Null) => true,
            (Self::Text, Kind::Text) => true,
            (Self::Number | Self::NumberOrText, kind) if kind.is_number() => true,
            (Self::NumberOrText, Kind::Text) => true,
            (Self::Int, Kind::Int) => true,
            (Self::List | Self::Sized, Kind::List(_)) => true,
            (Self::Sized, Kind::Text | Kind::Object(_)) => true,
            (Self::Object, Kind::Object(_)) => true,
            (Self::Moment, Kind::Text | Kind::Timestamp) => true,
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::NumberOrText => "a number or a string",
            Self::Int => "a whole number",
            Self::List => "a list",
            Self::Sized => "a string, a list or an object",
            Self::Object => "an object",
            Self::Moment => "a timestamp or a string with one",
        }
    }
}

impl Function {
    /// The first argument that can't be right, and what is taken there.
    pub(super) fn misfit<'k>(&self, kinds: &'k [Kind]) -> Option<(&'k Kind, &'static str)> {
        kinds.iter().enumerate().find_map(|(index, kind)| {
            let takes = self.takes.get(index).or(self.takes.last()).copied().unwrap_or(Takes::Any);
            (!takes.accepts(kind)).then_some((kind, takes.name()))
        })
    }

    /// What it gives for arguments of these kinds.
    pub(super) fn result(&self, kinds: &[Kind]) -> Kind {
        let first = kinds.first().cloned().unwrap_or(Kind::Any);
        match self.gives {
            Gives::Any => Kind::Any,
            Gives::Text => Kind::Text,
            Gives::Texts => Kind::List(Arc::new(Kind::Text)),
            Gives::Int => Kind::Int,
            Gives::Ints => Kind::List(Arc::new(Kind::Int)),
            Gives::Decimal => Kind::Decimal,
            Gives::Decimals => Kind::List(Arc::new(Kind::Decimal)),
            Gives::Bool => Kind::Bool,
            Gives::Timestamp => Kind::Timestamp,
            Gives::Duration => Kind::Duration,
            Gives::Object => Kind::Object(None),
            Gives::Same => first,
            Gives::Item => first.item(),
            Gives::Sum => Some(first.item()).filter(Kind::is_number).unwrap_or(Kind::Any),
        }
    }

    pub(super) fn call(&self, arguments: &[Value], pattern: Option<&Regex>, identity: &Identity<'_>) -> Result<Value, EvaluationError> {
        (self.body)(&Call { arguments, pattern, identity })
            .map_err(|message| EvaluationError::new(format!("{}: {message}", self.signature)))
    }
}

impl Call<'_> {
    /// An argument; null where it was left out.
    pub(super) fn argument(&self, index: usize) -> &Value {
        static NULL: Value = Value::Null;
        self.arguments.get(index).unwrap_or(&NULL)
    }

    pub(super) fn text(&self, index: usize) -> Result<&str, String> {
        let value = self.argument(index);
        value.as_text().ok_or_else(|| self.expected(index, "a string"))
    }

    pub(super) fn int(&self, index: usize) -> Result<i64, String> {
        match self.argument(index) {
            Value::Int(value) => Ok(*value),
            _ => Err(self.expected(index, "a whole number")),
        }
    }

    pub(super) fn list(&self, index: usize) -> Result<&[Value], String> {
        match self.argument(index) {
            Value::List(items) => Ok(items),
            _ => Err(self.expected(index, "a list")),
        }
    }

    pub(super) fn pattern(&self) -> Result<std::borrow::Cow<'_, Regex>, String> {
        match self.pattern {
            Some(pattern) => Ok(std::borrow::Cow::Borrowed(pattern)),
            None => pattern(self.text(1)?).map(std::borrow::Cow::Owned),
        }
    }

    pub(super) fn expected(&self, index: usize, what: &str) -> String {
        let place = match index {
            0 => "first",
            1 => "second",
            2 => "third",
            _ => "next",
        };
        format!("the {place} argument is {}, {what} is expected", self.argument(index).kind())
    }
}

/// A regular expression; bounded, so that no pattern takes much memory (matching takes time in step with the text, whatever the pattern).
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(text).size_limit(1 << 20).build().map_err(|error| {
        let reason = error.to_string();
        format!("{text:?} is no regular expression: {}", reason.lines().last().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// The function of that name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let special = ["has", "default", "all", "exists", "existsOne", "filter", "map", "sortBy", "groupBy"];
    FUNCTIONS.iter().map(|function| function.name).chain(special)
}

const fn function(
    name: &'static str,
    signature: &'static str,
    arity: RangeInclusive<usize>,
    takes: &'static [Takes],
    gives: Gives,
    body: fn(&Call<'_>) -> Outcome,
) -> Function {
    Function { name, signature, arity, takes, gives, takes_pattern: false, body }
}

const fn with_pattern(
    name: &'static str,
    signature: &'static str,
    arity: RangeInclusive<usize>,
    gives: Gives,
    body: fn(&Call<'_>) -> Outcome,
) -> Function {
    Function { name, signature, arity, takes: &[Takes::Text], gives, takes_pattern: true, body }
}

use Takes::{Any, Int, List, Moment, Number, NumberOrText, Object, Sized, Text};

static FUNCTIONS: &[Function] = &[
    // Conversion.
    function("string", "string(x)", 1..=1, &[Any], Gives::Text, texts::string),
    function("int", "int(x)", 1..=1, &[Any], Gives::Int, numbers::int),
    function("decimal", "decimal(x)", 1..=1, &[NumberOrText], Gives::Decimal, numbers::decimal),
    function("bool", "bool(x)", 1..=1, &[Any], Gives::Bool, bool),
    function("double", "double(x)", 1..=1, &[Any], Gives::Decimal, |_| Err("numbers are exact here; write decimal(x)".to_owned())),
    function("parseJson", "parseJson(text)", 1..=1, &[Text], Gives::Any, parse_json),
    function("toJson", "toJson(x)", 1..=1, &[Any], Gives::Text, |call| Ok(Value::text(call.argument(0).to_json()))),
    // Numbers.
    function("add", "add(x, y)", 2..=2, &[NumberOrText], Gives::Decimal, numbers::add),
    function("subtract", "subtract(x, y)", 2..=2, &[NumberOrText], Gives::Decimal, numbers::subtract),
    function("multiply", "multiply(x, y)", 2..=2, &[NumberOrText], Gives::Decimal, numbers::multiply),
    function("divide", "divide(x, y, scale)", 3..=3, &[NumberOrText, NumberOrText, Int], Gives::Decimal, numbers::divide),
    function("round", "round(x, scale, mode)", 1..=3, &[NumberOrText, Int, Text], Gives::Decimal, numbers::round),
    function("roundEven", "roundEven(x, scale)", 1..=2, &[NumberOrText, Int], Gives::Decimal, numbers::round_even),
    function("parseDecimal", "parseDecimal(text, point, separator)", 1..=3, &[Text], Gives::Decimal, numbers::parse),
    function("formatDecimal", "formatDecimal(x, scale, point, separator)", 2..=4, &[NumberOrText, Int, Text], Gives::Text, numbers::format),
    function("allocate", "allocate(amount, weights, scale)", 3..=3, &[NumberOrText, List, Int], Gives::Decimals, numbers::allocate),
    function("floor", "floor(x)", 1..=1, &[Number], Gives::Int, numbers::floor),
    function("ceil", "ceil(x)", 1..=1, &[Number], Gives::Int, numbers::ceil),
    function("abs", "abs(x)", 1..=1, &[Number], Gives::Same, numbers::abs),
    function("sum", "sum(list)", 1..=1, &[List], Gives::Sum, numbers::sum),
    function("min", "min(x, y, …) or min(list)", 1..=32, &[Any], Gives::Any, |call| extreme(call, std::cmp::Ordering::Less)),
    function("max", "max(x, y, …) or max(list)", 1..=32, &[Any], Gives::Any, |call| extreme(call, std::cmp::Ordering::Greater)),
    // Strings.
    function("trim", "trim(text)", 1..=1, &[Text], Gives::Text, |call| Ok(Value::text(call.text(0)?.trim()))),
    function("upper", "upper(text)", 1..=1, &[Text], Gives::Text, |call| Ok(Value::text(call.text(0)?.to_uppercase()))),
    function("lower", "lower(text)", 1..=1, &[Text], Gives::Text, |call| Ok(Value::text(call.text(0)?.to_lowercase()))),
    function("split", "split(text, separator)", 2..=2, &[Text], Gives::Texts, texts::split),
    function("join", "join(list, separator)", 1..=2, &[List, Text], Gives::Text, texts::join),
    function("substring", "substring(text, start, end)", 2..=3, &[Text, Int], Gives::Text, texts::substring),
    function("replace", "replace(text, from, to)", 3..=3, &[Text], Gives::Text, texts::replace),
    function("padStart", "padStart(text, length, with)", 2..=3, &[Text, Int, Text], Gives::Text, texts::pad_start),
    function("nullIfEmpty", "nullIfEmpty(text)", 1..=1, &[Text], Gives::Text, texts::null_if_empty),
    function("phone", "phone(text, callingCode)", 1..=2, &[Text], Gives::Text, texts::phone),
    function("email", "email(text)", 1..=1, &[Text], Gives::Text, texts::email),
    function("escapeXml", "escapeXml(text)", 1..=1, &[Text], Gives::Text, |call| Ok(Value::text(quick_xml::escape::escape(call.text(0)?)))),
    function("urlEncode", "urlEncode(text)", 1..=1, &[Text], Gives::Text, texts::url_encode),
    function("base64Encode", "base64Encode(text)", 1..=1, &[Text], Gives::Text, texts::base64_encode),
    function("base64Decode", "base64Decode(text)", 1..=1, &[Text], Gives::Text, texts::base64_decode),
    function("contains", "contains(text, part)", 2..=2, &[Text], Gives::Bool, |call| {
        Ok(Value::Bool(call.text(0)?.contains(call.text(1)?)))
    }),
    function("startsWith", "startsWith(text, start)", 2..=2, &[Text], Gives::Bool, |call| {
        Ok(Value::Bool(call.text(0)?.starts_with(call.text(1)?)))
    }),
    function("endsWith", "endsWith(text, end)", 2..=2, &[Text], Gives::Bool, |call| {
        Ok(Value::Bool(call.text(0)?.ends_with(call.text(1)?)))
    }),
    with_pattern("matches", "matches(text, pattern)", 2..=2, Gives::Bool, |call| Ok(Value::Bool(call.pattern()?.is_match(call.text(0)?)))),
    with_pattern("extract", "extract(text, pattern)", 2..=2, Gives::Text, texts::extract),
    // Lists and objects.
    function("size", "size(x)", 1..=1, &[Sized], Gives::Int, size),
    function("first", "first(list)", 1..=1, &[List], Gives::Item, |call| Ok(call.list(0)?.first().cloned().unwrap_or_default())),
    function("last", "last(list)", 1..=1, &[List], Gives::Item, |call| Ok(call.list(0)?.last().cloned().unwrap_or_default())),
    function("distinct", "distinct(list)", 1..=1, &[List], Gives::Same, distinct),
    function("flatten", "flatten(list)", 1..=1, &[List], Gives::Item, flatten),
    function("range", "range(count)", 1..=1, &[Int], Gives::Ints, range),
    function("keys", "keys(object)", 1..=1, &[Object], Gives::Texts, keys),
    function("merge", "merge(object, other)", 2..=2, &[Object], Gives::Object, merge),
    // Time.
    function("timestamp", "timestamp(x)", 1..=1, &[Moment], Gives::Timestamp, time::timestamp),
    function("parseDateTime", "parseDateTime(text, format, zone)", 2..=3, &[Text], Gives::Timestamp, time::parse_date_time),
    function("parseDate", "parseDate(text, format)", 2..=2, &[Text], Gives::Text, time::parse_date),
    function("formatDateTime", "formatDateTime(x, format, zone)", 2..=3, &[Moment, Text], Gives::Text, time::format_date_time),
    function("date", "date(x, zone)", 1..=2, &[Moment, Text], Gives::Text, time::local_date),
    function("localDate", "localDate(x, zone)", 1..=2, &[Moment, Text], Gives::Text, time::local_date),
    function("addDays", "addDays(date, days)", 2..=2, &[Text, Int], Gives::Text, time::add_days),
    function("addMonths", "addMonths(date, months)", 2..=2, &[Text, Int], Gives::Text, time::add_months),
    function("startOfMonth", "startOfMonth(date)", 1..=1, &[Text], Gives::Text, time::start_of_month),
    function("endOfMonth", "endOfMonth(date)", 1..=1, &[Text], Gives::Text, time::end_of_month),
    function("dayOfWeek", "dayOfWeek(date)", 1..=1, &[Text], Gives::Int, time::day_of_week),
    function("daysBetween", "daysBetween(from, to)", 2..=2, &[Text], Gives::Int, time::days_between),
    function("formatDate", "formatDate(date, format)", 2..=2, &[Text], Gives::Text, time::format_date),
    function("inTimeZone", "inTimeZone(x, zone)", 2..=2, &[Moment, Text], Gives::Text, time::in_time_zone),
    function("duration", "duration(text)", 1..=1, &[Any], Gives::Duration, time::duration),
    function("unixSeconds", "unixSeconds(x)", 1..=1, &[Moment], Gives::Int, time::unix_seconds),
    // Identity.
    function("uuid", "uuid(x, …)", 0..=16, &[Any], Gives::Text, |call| Ok(Value::text(uuid(call.arguments, Some(call.identity))))),
    function("stableUuid", "stableUuid(x, …)", 1..=16, &[Any], Gives::Text, |call| Ok(Value::text(uuid(call.arguments, None)))),
    function("sha256", "sha256(x)", 1..=1, &[Any], Gives::Text, sha256),
];

fn bool(call: &Call<'_>) -> Outcome {
    match call.argument(0) {
        Value::Bool(value) => Ok(Value::Bool(*value)),
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(Value::Bool(true)),
            "false" | "f" | "no" | "n" | "0" => Ok(Value::Bool(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        _ => Err(call.expected(0, "a boolean or a string")),
    }
}

fn parse_json(call: &Call<'_>) -> Outcome {
    Value::from_json(call.text(0)?.as_bytes()).map_err(|error| error.to_string())
}

fn size(call: &Call<'_>) -> Outcome {
    let size = match call.argument(0) {
        Value::Text(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Object(object) => object.len(),
        _ => return Err(call.expected(0, "a string, a list or an object")),
    };
    i64::try_from(size).map(Value::Int).map_err(|error| error.to_string())
}

fn extreme(call: &Call<'_>, wanted: std::cmp::Ordering) -> Outcome {
    let items = match call.arguments {
        [Value::List(items)] => items,
        arguments => arguments,
    };
    let mut items = items.iter().filter(|item| !item.is_null());
    let Some(mut best) = items.next() else { return Ok(Value::Null) };
    for item in items {
        match compare(item, best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return Err(format!("{} and {} have no order between them", item.kind(), best.kind())),
        }
    }
    Ok(best.clone())
}

fn distinct(call: &Call<'_>) -> Outcome {
    let mut seen = HashSet::new();
    Ok(Value::list(call.list(0)?.iter().filter(|item| seen.insert(item.group_key())).cloned()))
}

fn flatten(call: &Call<'_>) -> Outcome {
    let mut flat = Vec::new();
    for item in call.list(0)? {
        match item {
            Value::List(items) => flat.extend_from_slice(items),
            other => flat.push(other.clone()),
        }
    }
    Ok(Value::list(flat))
}

fn range(call: &Call<'_>) -> Outcome {
    let count = call.int(0)?;
    if !(0..=100_000).contains(&count) {
        return Err(format!("{count} is not between 0 and 100000"));
    }
    Ok(Value::list((0..count).map(Value::Int)))
}

fn keys(call: &Call<'_>) -> Outcome {
    match call.argument(0) {
        Value::Object(object) => Ok(Value::list(object.iter().map(|(name, _)| Value::text(name)))),
        _ => Err(call.expected(0, "an object")),
    }
}

fn merge(call: &Call<'_>) -> Outcome {
    let (Value::Object(object), Value::Object(other)) = (call.argument(0), call.argument(1)) else {
        return Err("two objects are expected".to_owned());
    };
    let own = object.iter().map(|(name, value)| (name, other.get(name).unwrap_or(value).clone()));
    let added = other.iter().filter(|(name, _)| object.get(name).is_none()).map(|(name, value)| (name, value.clone()));
    Ok(Value::object(own.chain(added)))
}

fn sha256(call: &Call<'_>) -> Outcome {
    let hash = match call.argument(0) {
        Value::Text(text) => Sha256::digest(text.as_bytes()),
        other => Sha256::digest(other.to_json().as_bytes()),
    };
    Ok(Value::text(hex(&hash)))
}

/// Hexadecimal digits in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// A uuid of version 8 from what is given: the same from the same, in every attempt and every worker.
fn uuid(parts: &[Value], identity: Option<&Identity<'_>>) -> String {
    let mut hash = Sha256::new();
    if let Some(identity) = identity {
        hash_part(&mut hash, b'i', identity.service);
        hash_part(&mut hash, b'i', identity.event);
    }
    for part in parts {
        match part.index_key() {
            Some(text) => hash_part(&mut hash, b's', &text),
            None => hash_part(&mut hash, b'j', &part.to_json()),
        }
    }
    uuid_of(hash)
}

/// The id that a `create` step gives an object: a uuid of version 8 from the service, the event, the place of the steps around, the step and the
/// element.
pub(crate) fn created_id(identity: &Identity<'_>, around: &[u64], step: usize, item: usize) -> String {
    let mut hash = Sha256::new();
    hash_part(&mut hash, b'c', identity.service);
    hash_part(&mut hash, b'c', identity.event);
    around.iter().for_each(|place| hash.update(place.to_be_bytes()));
    hash.update((step as u64).to_be_bytes());
    hash.update((item as u64).to_be_bytes());
    uuid_of(hash)
}

// With its length, so that no two lists of parts run together alike.
fn hash_part(hash: &mut Sha256, tag: u8, text: &str) {
    hash.update([tag]);
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

fn uuid_of(hash: Sha256) -> String {
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Uuid::new_v8(bytes).to_string()
}
