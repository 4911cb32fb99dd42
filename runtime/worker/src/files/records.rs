//! Records of a file: a row each, or the rows in a row that have the same value of a column.

use std::io::{self, BufRead};
use std::sync::Arc;

use autonomy_crds::micro_service::FilesTrigger;

use super::rows::{Row, RowReader};
use crate::expression::{Object, Shape, Value};

/// A record has this many rows at the most.
pub const MAX_ROWS: usize = 10_000;
/// A record has this many bytes at the most.
pub const MAX_BYTES: usize = 8 << 20;

/// How a file is read.
#[derive(Clone, Debug)]
pub struct Format {
    delimiter: u8,
    trailer: Option<String>,
    group_by: Option<String>,
}

impl Format {
    /// The format that a trigger declares.
    pub fn new(trigger: &FilesTrigger) -> Self {
        Self {
            delimiter: trigger.csv.delimiter.bytes().next().unwrap_or(b','),
            trailer: trigger.csv.trailer.clone(),
            group_by: trigger.group_by.clone(),
        }
    }

    /// Whether the end of a file is its trailer; true where none is declared.
    pub fn ends_whole(&self, end: &[u8]) -> bool {
        let Some(trailer) = &self.trailer else { return true };
        let line = end.rsplit(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).find(|line| !line.is_empty());
        let field = line.and_then(|line| line.split(|byte| *byte == self.delimiter).next());
        field.is_some_and(|field| field == trailer.as_bytes() || field == format!("\"{trailer}\"").as_bytes())
    }

    /// Whether files end with a trailer.
    pub fn has_trailer(&self) -> bool {
        self.trailer.is_some()
    }
}

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place in the file, from 0.
    pub number: u64,
    /// Its rows; at least one.
    pub rows: Vec<Row>,
    /// Whether it has more than [`MAX_ROWS`] rows or [`MAX_BYTES`] bytes; then only its first row is kept.
    pub too_large: bool,
}

impl Record {
    /// The line of its first row.
    pub fn line(&self) -> u64 {
        self.rows.first().map_or(0, |row| row.line)
    }
}

/// A good row as expressions see it; otherwise why it is a bad one.
pub fn row_value(shape: &Arc<Shape>, row: &Row) -> Result<Value, String> {
    match &row.fields {
        Ok(fields) if fields.len() == shape.names().len() => {
            let values = fields.iter().map(Value::text).collect();
            Ok(Value::Object(Arc::new(Object::new(shape.clone(), values))))
        }
        Ok(fields) => Err(format!("the row has {} fields, the header has {}", fields.len(), shape.names().len())),
        Err(bad) => Err(bad.reason.clone()),
    }
}

/// Why a file can't be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what the trigger declares.
    #[error("{0}")]
    Wrong(String),
}

fn wrong<T>(message: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::Wrong(message.into()))
}

/// Reads a file's records.
pub struct RecordReader<R> {
    rows: RowReader<R>,
    format: Format,
    shape: Arc<Shape>,
    group_column: Option<usize>,
    // The row that begins the next record.
    held: Option<Row>,
    next_number: u64,
    data_rows: u64,
    ended: bool,
}

impl<R: BufRead> RecordReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When there is none, or it is not fit.
    pub fn open(reader: R, format: &Format) -> Result<Self, FileError> {
        let mut rows = RowReader::new(reader, format.delimiter);
        let Some(header) = rows.next_row()? else {
            return wrong("the file is empty; a header row is expected");
        };
        let names = match header.fields {
            Ok(fields) => fields.iter().map(|field| Box::from(field.trim())).collect::<Vec<Box<str>>>(),
            Err(bad) => return wrong(format!("the header can't be read: {}", bad.reason)),
        };
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() {
                return wrong(format!("column {} of the header has no name", index + 1));
            }
            if names[..index].contains(name) {
                return wrong(format!("the header has the column {name} twice"));
            }
        }
        let shape = Shape::new(names);
        let group_column = match &format.group_by {
            Some(column) => match shape.position(column) {
                Some(position) => Some(position),
                None => return wrong(format!("the header has no column {column}, by which rows are grouped")),
            },
            None => None,
        };
        Ok(Self { rows, format: format.clone(), shape, group_column, held: None, next_number: 0, data_rows: 0, ended: false })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read, or its trailer does not fit.
    pub fn next_record(&mut self) -> Result<Option<Record>, FileError> {
        let first = match self.held.take() {
            Some(row) => row,
            None => match self.data_row()? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let key = self.group_key(&first);
        let mut bytes = first.raw.len();
        let mut too_large = false;
        let mut rows = vec![first];
        while let Some(key) = &key {
            let Some(row) = self.data_row()? else { break };
            if self.group_key(&row).as_ref() != Some(key) {
                self.held = Some(row);
                break;
            }
            bytes += row.raw.len();
            too_large |= rows.len() == MAX_ROWS || bytes > MAX_BYTES;
            if too_large {
                rows.truncate(1);
            } else {
                rows.push(row);
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        Ok(Some(Record { number, rows, too_large }))
    }

    /// The columns.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    // None where rows are not grouped, or the row does not tell.
    fn group_key(&self, row: &Row) -> Option<Box<str>> {
        let column = self.group_column?;
        match &row.fields {
            Ok(fields) => fields.get(column).cloned(),
            Err(bad) => bad.guess.get(column).cloned(),
        }
    }

    fn data_row(&mut self) -> Result<Option<Row>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let Some(row) = self.rows.next_row()? else {
            self.ended = true;
            return match &self.format.trailer {
                Some(trailer) => wrong(format!("the file has no trailer {trailer}: it was cut short")),
                None => Ok(None),
            };
        };
        if let (Some(trailer), Ok(fields)) = (&self.format.trailer, &row.fields)
            && fields.first().is_some_and(|field| **field == **trailer)
        {
            self.ended = true;
            return self.trailer(fields).map(|()| None);
        }
        self.data_rows += 1;
        Ok(Some(row))
    }

    fn trailer(&mut self, fields: &[Box<str>]) -> Result<(), FileError> {
        let told = fields.get(1).and_then(|count| count.trim().parse::<u64>().ok());
        match told {
            Some(count) if count == self.data_rows => {}
            Some(count) => {
                let found = self.data_rows;
                return wrong(format!("the trailer tells of {count} rows, the file has {found}: it was cut short or changed on its way"));
            }
            None => return wrong("the trailer has no number of rows"),
        }
        match self.rows.next_row()? {
            Some(row) => wrong(format!("line {} stands behind the trailer", row.line)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use autonomy_crds::micro_service::CsvFormat;

    fn format(group_by: Option<&str>, trailer: Option<&str>) -> Format {
        Format::new(&FilesTrigger {
            csv: CsvFormat { delimiter: ";".to_owned(), trailer: trailer.map(str::to_owned) },
            group_by: group_by.map(str::to_owned),
            ..FilesTrigger::default()
        })
    }

    fn read(text: &str, format: &Format) -> Result<Vec<(u64, Vec<u64>)>, String> {
        let mut reader = RecordReader::open(text.as_bytes(), format).map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        while let Some(record) = reader.next_record().map_err(|error| error.to_string())? {
            records.push((record.number, record.rows.iter().map(|row| row.line).collect()));
        }
        Ok(records)
    }

    #[test]
    fn rows_in_a_row_with_the_same_value_are_a_record() {
        let grouped = format(Some("sale"), None);
        let text = "sale;n\na;1\na;2\nb;1\na;3\nb\nb;2\n\"b\"\n";
        assert_eq!(read(text, &grouped), Ok(vec![(0, vec![2, 3]), (1, vec![4]), (2, vec![5]), (3, vec![6, 7, 8])]));
        assert_eq!(read(text, &format(None, None)).map(|records| records.len()), Ok(7));
        assert!(read("x;y\n", &grouped).is_err_and(|error| error.contains("no column sale")));
    }

    #[test]
    fn a_trailer_tells_whether_the_file_is_whole() {
        let trailed = format(None, Some("#END"));
        assert_eq!(read("a;b\n1;2\n3;4\n#END;2\n", &trailed).map(|records| records.len()), Ok(2));
        for (text, told) in [
            ("a;b\n1;2\n", "no trailer"),
            ("a;b\n1;2\n#END;2\n", "tells of 2 rows, the file has 1"),
            ("a;b\n1;2\n#END;1\n3;4\n", "behind the trailer"),
            ("a;b\n#END\n", "no number of rows"),
            ("", "empty"),
            ("a;a\n", "twice"),
            ("a;\n", "no name"),
        ] {
            assert!(read(text, &trailed).is_err_and(|error| error.contains(told)), "{text}");
        }
        assert!(trailed.ends_whole(b"1;2\r\n#END;1\r\n\n") && trailed.ends_whole(b"\"#END\";3"));
        assert!(!trailed.ends_whole(b"1;2\n#EN") && !trailed.ends_whole(b"") && !trailed.ends_whole(b"#END;1\n3;"));
        assert!(format(None, None).ends_whole(b"x"));
    }
}
