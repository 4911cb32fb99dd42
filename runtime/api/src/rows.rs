//! Rows read from bodies: each value in PostgreSQL's binary form, in one arena, ready for COPY and for list parameters.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

use crate::value::PgType;

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The body did not say.
    Absent,
    /// NULL.
    Null,
    /// A value in binary form.
    Bytes(&'a [u8]),
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    start: u32,
    // -1: NULL, -2: absent.
    length: i32,
}

/// Rows of one entity.
#[derive(Debug, Default)]
pub struct Rows {
    width: usize,
    arena: Vec<u8>,
    cells: Vec<Cell>,
}

impl Rows {
    /// For rows of so many columns.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Adds a row of absent values.
    pub fn begin(&mut self) {
        self.cells.resize(self.cells.len() + self.width, Cell { start: 0, length: -2 });
    }

    /// Writes a value of the last row; where `write` says no, the value stays absent.
    pub fn set(&mut self, column: usize, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.arena.len();
        if write(&mut self.arena) {
            let length = (self.arena.len() - start) as i32;
            self.put(column, Cell { start: start as u32, length });
        } else {
            self.arena.truncate(start);
        }
    }

    /// Sets a value of the last row to NULL.
    pub fn set_null(&mut self, column: usize) {
        self.put(column, Cell { start: 0, length: -1 });
    }

    /// Adds the rows of another list of the same columns.
    pub fn append(&mut self, other: &Self) {
        let moved = self.arena.len() as u32;
        self.arena.extend_from_slice(&other.arena);
        self.cells.extend(other.cells.iter().map(|cell| Cell { start: cell.start + moved, length: cell.length }));
    }

    fn put(&mut self, column: usize, cell: Cell) {
        let at = self.cells.len() - self.width + column;
        self.cells[at] = cell;
    }

    /// A value.
    pub fn get(&self, row: usize, column: usize) -> Value<'_> {
        let cell = self.cells[row * self.width + column];
        match usize::try_from(cell.length) {
            Ok(length) => Value::Bytes(&self.arena[cell.start as usize..cell.start as usize + length]),
            Err(_) if cell.length == -1 => Value::Null,
            Err(_) => Value::Absent,
        }
    }

    /// A row's id; nil where it has none.
    pub fn id(&self, row: usize) -> [u8; 16] {
        match self.get(row, 0) {
            Value::Bytes(bytes) => bytes.try_into().unwrap_or_default(),
            _ => [0; 16],
        }
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.arena.len() + self.cells.len() * size_of::<Cell>()
    }
}

/// A parameter in binary form, of any type.
#[derive(Clone, Debug)]
pub struct Param {
    oid: u32,
    bytes: Option<Vec<u8>>,
}

impl Param {
    /// One value.
    pub fn value(pg_type: &PgType, bytes: Option<Vec<u8>>) -> Self {
        Self { oid: pg_type.oid, bytes }
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { oid: 25, bytes: Some(text.into().into_bytes()) }
    }

    /// A list of values.
    pub fn list<'a>(pg_type: &PgType, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) -> Self {
        let count = values.len() as i32;
        let mut bytes = Vec::with_capacity(20 + values.len() * 20);
        let dimensions: i32 = if count == 0 { 0 } else { 1 };
        bytes.extend_from_slice(&dimensions.to_be_bytes());
        // Whether there are NULLs; patched below.
        bytes.extend_from_slice(&0_i32.to_be_bytes());
        bytes.extend_from_slice(&pg_type.oid.to_be_bytes());
        if count > 0 {
            bytes.extend_from_slice(&count.to_be_bytes());
            bytes.extend_from_slice(&1_i32.to_be_bytes());
        }
        let mut has_nulls = false;
        for value in values {
            match value {
                Some(value) => {
                    bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
                    bytes.extend_from_slice(value);
                }
                None => {
                    has_nulls = true;
                    bytes.extend_from_slice(&(-1_i32).to_be_bytes());
                }
            }
        }
        if has_nulls {
            bytes[7] = 1;
        }
        Self { oid: pg_type.array_oid, bytes: Some(bytes) }
    }

    /// A list of ids.
    pub fn ids(ids: &[[u8; 16]]) -> Self {
        Self::list(&PgType::uuid(), ids.iter().map(|id| Some(id.as_slice())))
    }

    /// A list of booleans.
    pub fn booleans(values: &[bool]) -> Self {
        let boolean = PgType { oid: 16, array_oid: 1000, cast: None, name: "boolean".to_owned() };
        let bytes = |value: &bool| -> &'static [u8] { if *value { &[1] } else { &[0] } };
        Self::list(&boolean, values.iter().map(|value| Some(bytes(value))))
    }

    /// A list of byte strings.
    pub fn byte_strings<'a>(values: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        Self::list(&PgType::bytea(), values.map(Some))
    }

    /// A list of texts.
    pub fn texts<'a>(values: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let text = PgType { oid: 25, array_oid: 1009, cast: None, name: "text".to_owned() };
        Self::list(&text, values.map(|value| Some(value.as_bytes())))
    }
}

impl Type<Postgres> for Param {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for Param {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.bytes {
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.oid)))
    }

    fn size_hint(&self) -> usize {
        self.bytes.as_ref().map_or(0, Vec::len)
    }
}
