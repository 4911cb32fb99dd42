//! Documents of rows, and where they are put: what a service hands to other systems as files.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::S3Location;

/// A document with a line or an element for each row, in one of the formats. Numbers keep their digits; null is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("[has(self.csv), has(self.fixedWidth), has(self.ndjson), has(self.json)].filter(x, x).size() == 1", "a document has exactly one format: csv, fixedWidth, ndjson or json"))]
pub struct Document {
    /// The rows: a list, in CEL, for example `object.entries`.
    #[schemars(length(min = 1, max = 16384))]
    pub rows: String,
    /// CSV after RFC 4180.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvDocument>,
    /// Fields at fixed positions, a line for each row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_width: Option<FixedWidthDocument>,
    /// Each row as JSON on a line of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndjson: Option<JsonDocument>,
    /// All rows as one JSON array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonDocument>,
}

impl Document {
    /// Whether it has exactly one format, as it must.
    pub fn has_one_format(&self) -> bool {
        let formats = [self.csv.is_some(), self.fixed_width.is_some(), self.ndjson.is_some(), self.json.is_some()];
        formats.into_iter().filter(|given| *given).count() == 1
    }
}

/// Rows as CSV.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CsvDocument {
    /// The character between fields.
    #[serde(default = "comma")]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: String,
    /// Whether the first line has the columns' names.
    #[serde(default = "yes")]
    pub header: bool,
    /// The columns in order.
    #[schemars(length(min = 1, max = 256))]
    pub columns: Vec<DocumentColumn>,
}

/// A column of CSV.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DocumentColumn {
    /// Its name in the header.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its value, in CEL over the step's variables, `item` (the row) and `index` (its place, from 0).
    #[schemars(length(min = 1, max = 16384))]
    pub value: String,
}

/// Rows as lines of fixed width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedWidthDocument {
    /// The fields in order, one directly behind the other.
    #[schemars(length(min = 1, max = 256))]
    pub fields: Vec<DocumentField>,
}

/// A field of a line of fixed width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DocumentField {
    /// Its value, in CEL over the step's variables, `item` (the row) and `index` (its place, from 0).
    #[schemars(length(min = 1, max = 16384))]
    pub value: String,
    /// How many characters it has. A value that is longer fails the event: nothing is cut off.
    #[schemars(range(min = 1, max = 4096))]
    pub length: u32,
    /// Where the value stands in it.
    #[serde(default)]
    pub align: Alignment,
    /// The character around the value; with zeros before a number its sign comes first.
    #[serde(default = "blank")]
    #[schemars(length(min = 1, max = 1))]
    pub fill: String,
}

/// Where a value stands in its field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Alignment {
    /// At the left.
    #[default]
    Left,
    /// At the right.
    Right,
}

/// Rows as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JsonDocument {}

/// Puts a document into a bucket, once: an attempt after a crash finds the one that is there. The outcome has its `key` and how many `rows` it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutObjectStep {
    /// The bucket, and what its keys begin with. `pollInterval` means nothing here.
    pub s3: S3Location,
    /// The key below the prefix, in CEL; a string that no other event gives, for example `'batch-' + object.batchNumber + '.csv'`.
    #[schemars(length(min = 1, max = 16384))]
    pub key: String,
    /// What is put there.
    pub document: Document,
}

fn comma() -> String {
    ",".to_owned()
}

fn blank() -> String {
    " ".to_owned()
}

fn yes() -> bool {
    true
}
