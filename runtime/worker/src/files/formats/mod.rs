//! The formats of files: each makes rows of what it reads, one by one.

mod code_pages;
mod csv;
mod decimals;
mod encoding;
mod fixed_width;
mod json;
mod lines;
mod member;
mod rows;
mod xml;

use std::io::{BufRead, Read};

use autonomy_crds::micro_service::{FileFormat, FilesTrigger, FixedWidthType};

pub use csv::write_field;
pub use rows::{FileError, Row, Rows};

use self::csv::CsvRows;
use self::encoding::TextEncoding;
use self::fixed_width::FixedWidthRows;
use self::json::{JsonRows, NdjsonRows};
use self::member::Member;
use self::xml::XmlRows;
use crate::expression::Kind;

/// How a trigger's files are written.
#[derive(Clone, Debug)]
pub struct Format {
    declared: FileFormat,
    // None: what a document says itself.
    encoding: Option<TextEncoding>,
    group_by: Option<String>,
}

impl Format {
    /// The format that a trigger declares.
    ///
    /// # Errors
    /// A message for the author where its encoding is not known.
    pub fn new(trigger: &FilesTrigger) -> Result<Self, String> {
        let encoding = trigger.encoding.as_deref().map(TextEncoding::of_label).transpose()?;
        Ok(Self { declared: trigger.format(), encoding, group_by: trigger.group_by.clone() })
    }

    /// The rows of a file.
    ///
    /// # Errors
    /// When its beginning is not what the format begins with.
    pub fn open<'a>(&self, reader: Box<dyn BufRead + 'a>) -> Result<Box<dyn Rows + 'a>, FileError> {
        let encoding = self.encoding.unwrap_or(TextEncoding::Utf8);
        let member = || self.group_by.as_deref().map(Member::new);
        Ok(match &self.declared {
            FileFormat::Csv(csv) => Box::new(CsvRows::open(encoding.reader(reader), csv, self.group_by.as_deref(), encoding.name())?),
            FileFormat::Ndjson => Box::new(NdjsonRows::new(encoding.reader(reader), member())),
            FileFormat::Json(json) => {
                Box::new(JsonRows::open(encoding.reader(reader), json.records.as_deref().unwrap_or_default(), member())?)
            }
            FileFormat::Xml(xml) => {
                let (encoding, reader) = match self.encoding {
                    Some(encoding) => (encoding, reader),
                    None => xml::declared_encoding(reader)?,
                };
                Box::new(XmlRows::new(encoding.reader(reader), &xml.record, member()))
            }
            FileFormat::FixedWidth(fixed_width) => Box::new(FixedWidthRows::new(reader, fixed_width, encoding, self.group_by.as_deref())),
        })
    }

    /// The trailer that files end with, where one is declared.
    pub fn trailer(&self) -> Option<&str> {
        match &self.declared {
            FileFormat::Csv(csv) => csv.trailer.as_deref(),
            _ => None,
        }
    }

    /// Whether the end of a file is its trailer; true where none is declared.
    pub fn ends_whole(&self, end: &[u8]) -> bool {
        let FileFormat::Csv(csv) = &self.declared else { return true };
        let mut text = Vec::new();
        let decoded = self.encoding.unwrap_or(TextEncoding::Utf8).reader(Box::new(end)).read_to_end(&mut text);
        decoded.is_ok() && self::csv::ends_whole(csv, &text)
    }

    /// Whether rows are grouped.
    pub fn is_grouped(&self) -> bool {
        self.group_by.is_some()
    }

    /// What is known beforehand of a row.
    pub fn row_kind(&self) -> Kind {
        match &self.declared {
            FileFormat::Csv(_) => Kind::Object(None),
            FileFormat::Ndjson | FileFormat::Json(_) | FileFormat::Xml(_) => Kind::Any,
            FileFormat::FixedWidth(fixed_width) => {
                let kind = |field_type| if field_type == FixedWidthType::Text { Kind::Text } else { Kind::Decimal };
                Kind::object("a row", fixed_width.fields.iter().map(|field| (&field.name, kind(field.field_type))))
            }
        }
    }
}
