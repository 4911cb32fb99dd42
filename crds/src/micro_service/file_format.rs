//! How files are written: one of CSV, NDJSON, JSON, XML and fixed width.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a trigger's files are written.
#[derive(Clone, Debug, PartialEq)]
pub enum FileFormat {
    /// Rows with a delimiter between fields, under a header row.
    Csv(CsvFormat),
    /// A JSON value on each line.
    Ndjson,
    /// The elements of an array in a JSON document.
    Json(JsonFormat),
    /// The elements of a name in an XML document.
    Xml(XmlFormat),
    /// Fields at fixed positions.
    FixedWidth(FixedWidthFormat),
}

/// A CSV file with a header row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CsvFormat {
    /// The character between fields.
    #[serde(default = "comma")]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: String,
    /// The first field of the file's last row, whose second field is the number of data rows, for example `#END`. A file without it is
    /// not complete and is not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub trailer: Option<String>,
}

fn comma() -> String {
    ",".to_owned()
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self { delimiter: comma(), trailer: None }
    }
}

/// A file with a JSON value on each line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NdjsonFormat {}

/// A JSON document with an array of records, which are read one by one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JsonFormat {
    /// Where the array is: a JSON Pointer (RFC 6901), for example `/data/sales`. The document itself where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub records: Option<String>,
}

/// An XML document with an element for each record, which are read one by one. A record has its attributes under `@name`, its elements under
/// their local names (those that come several times as a list) and its text under `#text`; an element that has nothing but text is a string.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct XmlFormat {
    /// The local name of the elements that are records, for example `sale`, wherever they are in the document.
    #[schemars(length(min = 1, max = 256))]
    pub record: String,
}

/// A file whose fields are found by their positions, as an AS/400 or a mainframe writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedWidthFormat {
    /// The fields that are read; they may overlap, and what none of them has is passed over.
    #[schemars(length(min = 1, max = 1024))]
    pub fields: Vec<FixedWidthField>,
    /// The length of a record in bytes, for files without line ends. Where left out, a record is a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub record_length: Option<u32>,
    /// Records at the beginning and at the end that are no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkippedRecords>,
    /// Takes only the records of a type; others are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_type: Option<RecordType>,
}

/// How many records are passed over, whatever is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkippedRecords {
    /// At the beginning.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub first: u32,
    /// At the end.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub last: u32,
}

/// Where a record tells its type, and which types are data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordType {
    /// The type's first position, from 1.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub start: u32,
    /// How many positions it has.
    #[schemars(range(min = 1, max = 256))]
    pub length: u32,
    /// The types that are taken, compared without blanks around them.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub values: Vec<String>,
}

/// A field of a record. Positions are bytes; in lines of UTF-8 and of other encodings with several bytes a character, they are characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedWidthField {
    /// Its name, under which `row` has it.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Its first position, from 1.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub start: u32,
    /// How many positions it has.
    #[schemars(range(min = 1, max = 65_536))]
    pub length: u32,
    /// What is in it; `text` where left out.
    #[serde(default, rename = "type")]
    pub field_type: FixedWidthType,
    /// How many of a number's digits are behind the decimal point, which is not written.
    #[serde(default)]
    #[schemars(range(max = 28))]
    pub scale: u32,
    /// Whether blanks around a text are taken away.
    #[serde(default = "yes")]
    pub trim: bool,
}

fn yes() -> bool {
    true
}

/// What is in a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FixedWidthType {
    /// Characters: a string.
    #[default]
    Text,
    /// A zoned decimal (`PIC S9…`, DDS type S): a digit a byte, the sign in the last one's zone or as `-` or `+` before or behind. Blanks are null.
    Zoned,
    /// A packed decimal (COMP-3, DDS type P): two digits a byte, the sign in the last half. Blanks are null. It needs `recordLength`.
    Packed,
}
