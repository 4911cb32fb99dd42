//! Bodies: from JSON, NDJSON or CSV to typed rows in one pass, with every fault.

pub mod table;

use std::borrow::Cow;
use std::fmt;

use crate::new_id::new_id;
use crate::plan::{EntityPlan, ID, SYSTEM};
use crate::problem::{Fault, Intake, Path, Problem};
use crate::representation::Representation;
use crate::rows::{Rows, Value};
use crate::value::Scalar;
use axum::http::StatusCode;
use memchr::memchr2;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

// Deeper JSON is refused: every level costs stack.
const MOST_DEPTH: usize = 64;

/// What an object in a body is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new object: an id is made where none is given, and all that is required must be there.
    Create,
    /// The whole of an object whose id is in the path.
    Replace,
    /// Members of an object whose id is in the path.
    Patch,
    /// Members of an object, and its id.
    PatchWithId,
}

/// Whether a body holds one object or a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One object.
    One,
    /// A list of objects.
    List,
}

/// Checks that bytes are UTF-8 and no deeper than any body may be.
///
/// # Errors
/// A problem with status 400.
pub fn text(body: &[u8]) -> Result<&str, Problem> {
    let text = utf8(body)?;
    if is_too_deep(text) {
        return Err(malformed(format!("The body is nested deeper than {MOST_DEPTH} levels.")));
    }
    Ok(text)
}

/// Checks that bytes are UTF-8.
///
/// # Errors
/// A problem with status 400.
pub fn utf8(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| malformed(format!("The body is not UTF-8 (at byte {}).", error.valid_up_to())))
}

fn is_too_deep(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = behind_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                if depth > MOST_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

// The place behind the end of a string that begins at `start`.
fn behind_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(length) = memchr2(b'"', b'\\', &bytes[at..]) {
        at += length + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        // What is escaped ends nothing.
        at = (at + 1).min(bytes.len());
    }
    bytes.len()
}

/// A problem for a body that is no JSON.
pub fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-body", detail)
}

/// A problem for a body that does not come to its end.
pub fn unreadable() -> Problem {
    Problem::bad_request("The body can't be read to its end: the connection broke, or it is not coded as its Content-Encoding says.")
}

fn not_json(error: &sonic_rs::Error) -> Problem {
    malformed(format!("The body is not JSON: line {}, column {}.", error.line(), error.column()))
}

/// Reads one value with a seed, and nothing behind it.
///
/// # Errors
/// A problem with status 400 where the text is no JSON.
pub fn read<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, Problem> {
    if text.trim_ascii().is_empty() {
        return Err(malformed("The body is empty; JSON is expected."));
    }
    let mut deserializer = sonic_rs::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer).map_err(|error| not_json(&error))?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// Reads a body of one object (JSON only), or of a list of them, into `rows`. What is wrong with the objects is left in `intake`.
///
/// # Errors
/// Where the body is not what its media type says.
pub fn read_objects(
    body: &[u8],
    representation: Representation,
    plan: &EntityPlan,
    purpose: Purpose,
    rows: &mut Rows,
    intake: &mut Intake,
) -> Result<Shape, Problem> {
    match representation {
        Representation::Json => read(text(body)?, ObjectsSeed { plan, purpose, rows, intake }),
        Representation::NdJson => {
            read_lines(text(body)?, plan, purpose, Before::default(), rows, intake)?;
            Ok(Shape::List)
        }
        Representation::Csv => {
            let (table, lines) = table::Table::read_heading(utf8(body)?, plan)?;
            table.read(lines, plan, purpose, Before { objects: 0, lines: 1 }, rows, intake)?;
            Ok(Shape::List)
        }
    }
}

/// What of a body came before the piece that is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// Objects.
    pub objects: usize,
    /// Lines, a heading among them.
    pub lines: usize,
}

/// Reads lines of NDJSON into `rows`.
///
/// # Errors
/// Where a line is no JSON.
pub fn read_lines(
    text: &str,
    plan: &EntityPlan,
    purpose: Purpose,
    before: Before,
    rows: &mut Rows,
    intake: &mut Intake,
) -> Result<(), Problem> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    for (index, (number, line)) in lines.enumerate() {
        let path = Path::ROOT.index(before.objects + index);
        read_object(line, plan, purpose, &path, rows, intake).map_err(|mut problem| {
            problem.detail = format!("Line {} of the body: {}", before.lines + number + 1, problem.detail);
            problem
        })?;
    }
    Ok(())
}

/// Reads one object at `path` into `rows`, as one more row.
///
/// # Errors
/// Where the text is no JSON.
pub fn read_object(
    text: &str,
    plan: &EntityPlan,
    purpose: Purpose,
    path: &Path<'_>,
    rows: &mut Rows,
    intake: &mut Intake,
) -> Result<(), Problem> {
    read(text, ObjectSeed { plan, purpose, path, rows, intake })
}

// The values that are no objects and no lists, answered alike.
macro_rules! other_values {
    ($value:ty, $answer:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<$value, E> {
            Ok($answer(self))
        }
        fn visit_i64<E>(self, _: i64) -> Result<$value, E> {
            Ok($answer(self))
        }
        fn visit_u64<E>(self, _: u64) -> Result<$value, E> {
            Ok($answer(self))
        }
        fn visit_f64<E>(self, _: f64) -> Result<$value, E> {
            Ok($answer(self))
        }
        fn visit_str<E>(self, _: &str) -> Result<$value, E> {
            Ok($answer(self))
        }
        fn visit_unit<E>(self) -> Result<$value, E> {
            Ok($answer(self))
        }
    };
}

struct ObjectsSeed<'a> {
    plan: &'a EntityPlan,
    purpose: Purpose,
    rows: &'a mut Rows,
    intake: &'a mut Intake,
}

impl<'de> DeserializeSeed<'de> for ObjectsSeed<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectsSeed<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shape, A::Error> {
        ObjectSeed { plan: self.plan, purpose: self.purpose, path: &Path::ROOT, rows: self.rows, intake: self.intake }.visit_map(map)?;
        Ok(Shape::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut index = 0;
        loop {
            let path = Path::ROOT.index(index);
            let seed = ObjectSeed { plan: self.plan, purpose: self.purpose, path: &path, rows: &mut *self.rows, intake: &mut *self.intake };
            if list.next_element_seed(seed)?.is_none() {
                return Ok(Shape::List);
            }
            index += 1;
        }
    }

    other_values!(Shape, |seed: Self| {
        seed.intake.push(&Path::ROOT, "must be an object or a list of objects");
        Shape::One
    });
}

struct ObjectSeed<'a> {
    plan: &'a EntityPlan,
    purpose: Purpose,
    path: &'a Path<'a>,
    rows: &'a mut Rows,
    intake: &'a mut Intake,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.begin();
        // Most bodies have their members in the model's order.
        let mut likely = SYSTEM;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let value: LazyValue<'de> = map.next_value()?;
            let Some(column) = self.plan.column_of_member(&name, likely) else {
                self.intake.push(&self.path.member(&name), format!("is no member of {}", self.plan.entity().name));
                continue;
            };
            likely = column + 1;
            self.set(column, Scalar::read(value.as_raw_str()));
        }
        self.complete();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.refuse();
        Ok(())
    }

    other_values!((), |seed: Self| seed.refuse());
}

impl ObjectSeed<'_> {
    fn refuse(mut self) {
        self.begin();
        self.intake.push(self.path, "must be an object");
    }

    fn begin(&mut self) {
        self.rows.begin();
        self.intake.row = (self.rows.len() - 1) as u32;
    }

    fn set(&mut self, column: usize, value: Result<Option<Scalar<'_>>, &'static str>) {
        // The server keeps these; objects that were read may be sent back with them.
        if (1..SYSTEM).contains(&column) {
            return;
        }
        let row = self.rows.len() - 1;
        let plan = &self.plan.columns[column];
        let path = self.path.member(&plan.member);
        if self.rows.get(row, column) != Value::Absent {
            self.intake.push(&path, "is given twice");
            return;
        }
        self.intake.column = column as u16;
        match value {
            Ok(Some(scalar)) => {
                let intake = &mut *self.intake;
                self.rows.set(column, |out| plan.encoder.encode(&scalar, crate::value::Form::Binary, &path, intake, out));
                // A value with a fault stays absent; it is given all the same.
                if self.rows.get(row, column) == Value::Absent {
                    self.rows.set_null(column);
                }
            }
            Ok(None) if plan.required => {
                self.intake.push(&path, "must not be null");
                self.rows.set_null(column);
            }
            Ok(None) => self.rows.set_null(column),
            Err(detail) => {
                self.intake.push(&path, detail);
                self.rows.set_null(column);
            }
        }
    }

    fn complete(&mut self) {
        let row = self.rows.len() - 1;
        let has_id = self.rows.get(row, ID) != Value::Absent;
        match self.purpose {
            Purpose::Create if !has_id => self.rows.set(ID, |out| {
                out.extend_from_slice(new_id().as_bytes());
                true
            }),
            Purpose::PatchWithId if !has_id => self.intake.push(&self.path.member("id"), "must be given"),
            _ => {}
        }
        if matches!(self.purpose, Purpose::Create | Purpose::Replace) {
            for (at, column) in self.plan.columns.iter().enumerate().skip(SYSTEM) {
                if column.required && column.default.is_none() && self.rows.get(row, at) == Value::Absent {
                    self.intake.push(&self.path.member(&column.member), "must be given");
                }
            }
        }
    }
}

/// Reads a member's name.
pub struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Members of a JSON object as raw JSON, in their order; a fault at `path` where it is none.
pub fn members<'t>(raw: &'t str, path: &Path<'_>, intake: &mut Intake) -> Vec<(String, LazyValue<'t>)> {
    if !raw.starts_with('{') {
        intake.push(path, "must be an object");
        return Vec::new();
    }
    sonic_rs::to_object_iter(raw).filter_map(Result::ok).map(|(name, value)| (name.to_string(), value)).collect()
}

/// A JSON string's text; a fault at `path` where it is none.
pub fn string(raw: &str, path: &Path<'_>, intake: &mut Intake) -> Option<String> {
    match Scalar::read(raw) {
        Ok(Some(Scalar::String(text))) if !text.contains('\0') => Some(text.into_owned()),
        _ => {
            intake.push(path, "must be a string");
            None
        }
    }
}

/// A fault that the body is of another shape than this path takes.
pub fn wrong_shape(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The body has a fault.").with(Fault::at("", detail))
}
