//! The media types that lists are answered in and bodies may have: JSON, NDJSON and CSV.

use autonomy_crds::object_json::Encoding;
use axum::http::{HeaderMap, header};

use crate::embed::{Embedded, Layout};
use crate::plan::EntityPlan;

/// A form of many objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// A JSON array.
    Json,
    /// A JSON object a line.
    NdJson,
    /// A heading with the members' names, then a line an object (RFC 4180). An empty cell is null.
    Csv,
}

impl Representation {
    const ALL: [Self; 3] = [Self::Json, Self::NdJson, Self::Csv];

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::NdJson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    /// The one of that media type, parameters aside.
    pub fn of_media_type(text: &str) -> Option<Self> {
        let text = bare(text);
        Self::ALL.into_iter().find(|representation| text.eq_ignore_ascii_case(representation.media_type()))
    }

    /// The first that a request says it accepts; JSON where it names none of them.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok()).flat_map(|accept| accept.split(','));
        ranges.filter_map(Self::of_media_type).next().unwrap_or(Self::Json)
    }
}

/// A media type, or range of them, without its parameters.
pub fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// What a request says that its body is; none where it does not say.
pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).map(|value| bare(value.to_str().unwrap_or_default()))
}

/// Writes rows of texts, as [`crate::sql::list`] selects them, a line each.
pub enum RowWriter {
    /// As NDJSON.
    NdJson(Layout, Vec<u8>),
    /// As CSV: how each column written is encoded, where it is, and the text written so far.
    Csv(Vec<(Encoding, usize)>, Box<csv::Writer<Vec<u8>>>),
}

impl RowWriter {
    /// A writer of the members `answered`, which rows begin with, and of what is embedded, from the column `first` on.
    pub fn new(representation: Representation, plan: &EntityPlan, answered: &[usize], embedded: &[Embedded], first: usize) -> Self {
        if representation != Representation::Csv {
            return Self::NdJson(Layout::new(plan, answered, embedded, first), Vec::new());
        }
        let mut heading: Vec<String> = answered.iter().map(|column| plan.columns[*column].member.clone()).collect();
        let mut columns: Vec<(Encoding, usize)> =
            answered.iter().enumerate().map(|(at, column)| (plan.columns[*column].encoding, at)).collect();
        flatten("", embedded, first, &mut heading, &mut columns);
        let mut writer = Box::new(csv::Writer::from_writer(Vec::new()));
        // Writing to memory does not fail, and the rows are as long as the heading.
        let _ = writer.write_record(&heading);
        Self::Csv(columns, writer)
    }

    /// Writes a row.
    pub fn write(&mut self, texts: &[Option<&str>]) {
        match self {
            Self::NdJson(layout, out) => {
                layout.write(texts, out);
                out.push(b'\n');
            }
            Self::Csv(columns, writer) => {
                let mut json = Vec::new();
                for (encoding, column) in columns {
                    let cell = match (texts[*column], &*encoding) {
                        (None, _) => &[],
                        (Some(text), Encoding::Text | Encoding::Number | Encoding::Json) => text.as_bytes(),
                        (Some(text), encoding) => {
                            json.clear();
                            encoding.write(text, &mut json);
                            // What is a string in JSON stands bare.
                            json.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(&json)
                        }
                    };
                    let _ = writer.write_field(cell);
                }
                let _ = writer.write_record(None::<&[u8]>);
            }
        }
    }

    /// How many bytes are written and not taken, about.
    pub fn written(&self) -> usize {
        match self {
            Self::NdJson(_, out) => out.len(),
            Self::Csv(_, writer) => writer.get_ref().len(),
        }
    }

    /// Takes what is written.
    pub fn take(&mut self) -> Vec<u8> {
        match self {
            // The next piece will be about as long.
            Self::NdJson(_, out) => std::mem::replace(out, Vec::with_capacity(out.capacity())),
            Self::Csv(_, writer) => {
                let written = std::mem::replace(writer, Box::new(csv::Writer::from_writer(Vec::new())));
                written.into_inner().unwrap_or_default()
            }
        }
    }
}

// The members of what is embedded get names like `customer.familyName`.
fn flatten(prefix: &str, embedded: &[Embedded], first: usize, heading: &mut Vec<String>, columns: &mut Vec<(Encoding, usize)>) -> usize {
    let mut next = first;
    for object in embedded {
        let prefix = format!("{prefix}{}.", object.member);
        for column in &object.plan.columns {
            heading.push(format!("{prefix}{}", column.member));
            columns.push((column.encoding, next));
            next += 1;
        }
        next = flatten(&prefix, &object.inside, next, heading, columns);
    }
    next
}
