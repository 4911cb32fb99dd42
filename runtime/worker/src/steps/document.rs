//! Documents of rows: CSV, lines of fixed width, NDJSON and JSON.

use std::sync::Arc;

use autonomy_crds::Faults;
use autonomy_crds::micro_service::{self, Alignment};

use crate::expression::{EvaluationError, Expression, Identity, Kind, Names, Value, compile};

// A document has this many bytes at the most: it is held in memory.
const MAX_LENGTH: usize = 64 << 20;

/// A document, compiled.
#[derive(Debug)]
pub(super) struct Document {
    rows: Expression,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Csv { delimiter: u8, header: Option<Vec<String>>, columns: Vec<Expression> },
    FixedWidth(Vec<Field>),
    Ndjson,
    Json,
}

#[derive(Debug)]
struct Field {
    value: Expression,
    length: usize,
    right: bool,
    fill: char,
}

/// A document's text, and how many rows it has.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) rows: usize,
}

impl Document {
    /// Compiles a document whose expressions see `names`; none after a fault.
    pub(super) fn compile(declared: &micro_service::Document, names: &Names, path: &str, faults: &mut Faults) -> Option<Self> {
        let known = faults.0.len();
        let rows_path = format!("{path}.rows");
        let rows = compile(&declared.rows, names, &rows_path).map_err(|wrong| faults.0.extend(wrong.0)).ok();
        let kind = rows.as_ref().map_or(&Kind::Any, Expression::kind);
        if rows.as_ref().is_some_and(|rows| !rows.may_be(&Kind::List(Arc::new(Kind::Any)))) {
            faults.add(rows_path, format!("a list is expected, `{}` gives {kind}", declared.rows));
        }
        let mut names = names.clone();
        names.push("item", if let Kind::List(item) = kind { (**item).clone() } else { Kind::Any });
        names.push("index", Kind::Int);
        let mut value = |source: &str, path: String| compile(source, &names, &path).map_err(|wrong| faults.0.extend(wrong.0)).ok();
        let format = if let Some(csv) = &declared.csv {
            let columns = csv.columns.iter().enumerate();
            let columns =
                columns.filter_map(|(index, column)| value(&column.value, format!("{path}.csv.columns[{index}].value"))).collect();
            let header = csv.header.then(|| csv.columns.iter().map(|column| column.name.clone()).collect());
            Some(Format::Csv { delimiter: csv.delimiter.bytes().next().unwrap_or(b','), header, columns })
        } else if let Some(fixed) = &declared.fixed_width {
            let fields = fixed.fields.iter().enumerate().filter_map(|(index, field)| {
                Some(Field {
                    value: value(&field.value, format!("{path}.fixedWidth.fields[{index}].value"))?,
                    length: usize::try_from(field.length).unwrap_or(usize::MAX),
                    right: field.align == Alignment::Right,
                    fill: field.fill.chars().next().unwrap_or(' '),
                })
            });
            Some(Format::FixedWidth(fields.collect()))
        } else if declared.ndjson.is_some() {
            Some(Format::Ndjson)
        } else {
            declared.json.as_ref().map(|_| Format::Json)
        };
        if !declared.has_one_format() {
            faults.add(path, "a document has exactly one format: csv, fixedWidth, ndjson or json");
        }
        if declared.csv.as_ref().is_some_and(|csv| csv.delimiter.len() != 1 || "\"\r\n".contains(&csv.delimiter)) {
            faults.add(format!("{path}.csv.delimiter"), "the delimiter is one ASCII character, and no quote or line end");
        }
        if faults.0.len() > known {
            return None;
        }
        Some(Self { rows: rows?, format: format? })
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self.format {
            Format::Csv { .. } => "text/csv; charset=utf-8",
            Format::FixedWidth(_) => "text/plain; charset=utf-8",
            Format::Ndjson => "application/x-ndjson",
            Format::Json => "application/json",
        }
    }

    /// The document for these variables.
    ///
    /// # Errors
    /// When an expression can't be evaluated, a value does not fit, or the whole is too long.
    pub(super) fn write(&self, variables: &[Value], identity: &Identity<'_>) -> Result<Written, EvaluationError> {
        let rows = match self.rows.evaluate(variables, identity)? {
            Value::List(rows) => rows,
            other => {
                return Err(EvaluationError::told(format!(
                    "a document needs a list of rows, `{}` gives {}",
                    self.rows.source(),
                    other.kind()
                )));
            }
        };
        let written = match &self.format {
            Format::Csv { delimiter, header, columns } => csv_text(*delimiter, header.as_deref(), columns, &rows, variables, identity)?,
            _ => self.lines(&rows, variables, identity)?,
        };
        let text = String::from_utf8(written).map_err(told)?;
        Ok(Written { text, rows: rows.len() })
    }

    // What is not CSV.
    fn lines(&self, rows: &[Value], variables: &[Value], identity: &Identity<'_>) -> Result<Vec<u8>, EvaluationError> {
        let mut out = Vec::new();
        each_row(rows, variables, |row, index, variables| {
            match &self.format {
                Format::FixedWidth(fields) => {
                    for field in fields {
                        field.write(&field.value.evaluate(variables, identity)?.to_plain_text(), &mut out)?;
                    }
                    out.extend_from_slice(b"\r\n");
                }
                Format::Json => {
                    out.extend_from_slice(if index > 0 { b",\n" } else { b"[" });
                    row.write_json(&mut out);
                }
                _ => {
                    row.write_json(&mut out);
                    out.push(b'\n');
                }
            }
            Ok(out.len())
        })?;
        if matches!(self.format, Format::Json) {
            out.extend_from_slice(if rows.is_empty() { b"[]\n" } else { b"]\n" });
        }
        Ok(out)
    }
}

// Hands each row on with what its expressions see; `write` gives how long the document is by now.
fn each_row(
    rows: &[Value],
    variables: &[Value],
    mut write: impl FnMut(&Value, usize, &[Value]) -> Result<usize, EvaluationError>,
) -> Result<(), EvaluationError> {
    let mut variables = variables.to_vec();
    let base = variables.len();
    for (index, row) in rows.iter().enumerate() {
        variables.truncate(base);
        variables.extend([row.clone(), Value::Int(i64::try_from(index).unwrap_or(i64::MAX))]);
        if write(row, index, &variables).map_err(|error| error.at_item(index))? > MAX_LENGTH {
            return Err(told(format!("the document has more than {MAX_LENGTH} bytes")));
        }
    }
    Ok(())
}

fn csv_text(
    delimiter: u8,
    header: Option<&[String]>,
    columns: &[Expression],
    rows: &[Value],
    variables: &[Value],
    identity: &Identity<'_>,
) -> Result<Vec<u8>, EvaluationError> {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if let Some(names) = header {
        writer.write_record(names).map_err(told)?;
    }
    each_row(rows, variables, |_, _, variables| {
        for column in columns {
            writer.write_field(column.evaluate(variables, identity)?.to_plain_text().as_bytes()).map_err(told)?;
        }
        writer.write_record(None::<&[u8]>).map_err(told)?;
        Ok(writer.get_ref().len())
    })?;
    writer.into_inner().map_err(told)
}

fn told(error: impl std::fmt::Display) -> EvaluationError {
    EvaluationError::told(error.to_string())
}

impl Field {
    fn write(&self, value: &str, out: &mut Vec<u8>) -> Result<(), EvaluationError> {
        let length = value.chars().count();
        let wrong = |what: &str| EvaluationError::told(format!("`{}` gives {value:?}, {what}", self.value.source()));
        let Some(room) = self.length.checked_sub(length) else {
            return Err(wrong(&format!("which is longer than the field of {}", self.length)));
        };
        if value.contains(['\r', '\n']) {
            return Err(wrong("which has a line end"));
        }
        let fill = self.fill.to_string().repeat(room);
        let (sign, digits) = match value.strip_prefix('-') {
            Some(digits) if self.right && self.fill == '0' => ("-", digits),
            _ => ("", value),
        };
        for part in if self.right { [sign, &fill, digits] } else { [sign, digits, &fill] } {
            out.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }
}
