//! CSV (RFC 4180) with a header row, never lost by a bad row: one that can't be read is a bad row with its line and raw text, and reading goes on with
//! the next line.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::sync::Arc;

use autonomy_crds::micro_service::CsvFormat;

use super::lines::{Line, LineEnd, Lines, MAX_ROW};
use super::rows::{FileError, Row, Rows, cut_short, wrong};
use crate::expression::{Object, Shape, Value};

// A quoted field goes on over this many lines and bytes at the most; beyond, its quote is taken for one that was never closed.
const MAX_CONTINUED_LINES: usize = 100;
const MAX_CONTINUED_BYTES: usize = 64 << 10;

/// The data rows of a file between its header and its trailer.
pub struct CsvRows<R> {
    reader: RowReader<R>,
    trailer: Option<String>,
    shape: Arc<Shape>,
    group_column: Option<usize>,
    data_rows: u64,
    ended: bool,
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header. `encoding` is named to who reads of a row that is not written in it.
    ///
    /// # Errors
    /// When there is none, or it is not fit.
    pub fn open(reader: R, format: &CsvFormat, group_by: Option<&str>, encoding: &'static str) -> Result<Self, FileError> {
        let mut reader = RowReader::new(reader, delimiter(format), encoding);
        let Some(header) = reader.next_row()? else {
            return cut_short("the file is empty; a header row is expected");
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
        let group_column = match group_by {
            Some(column) => match shape.position(column) {
                Some(position) => Some(position),
                None => return wrong(format!("the header has no column {column}, by which rows are grouped")),
            },
            None => None,
        };
        Ok(Self { reader, trailer: format.trailer.clone(), shape, group_column, data_rows: 0, ended: false })
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
        match self.reader.next_row()? {
            Some(row) => wrong(format!("line {} stands behind the trailer", row.line)),
            None => Ok(()),
        }
    }

    fn row(&self, row: CsvRow) -> Row {
        let names = self.shape.names().len();
        let column = |fields: &[Box<str>]| fields.get(self.group_column?).cloned();
        let (value, group) = match &row.fields {
            Ok(fields) if fields.len() == names => {
                let values = fields.iter().map(Value::text).collect();
                (Ok(Value::Object(Arc::new(Object::new(self.shape.clone(), values)))), column(fields))
            }
            Ok(fields) => (Err(format!("the row has {} fields, the header has {names}", fields.len())), column(fields)),
            Err(bad) => (Err(bad.reason.clone()), column(&bad.guess)),
        };
        Row { line: row.line, raw: row.raw, value, group }
    }
}

impl<R: BufRead> Rows for CsvRows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let Some(row) = self.reader.next_row()? else {
            self.ended = true;
            return match &self.trailer {
                Some(trailer) => cut_short(format!("the file has no trailer {trailer}: it was cut short")),
                None => Ok(None),
            };
        };
        if let (Some(trailer), Ok(fields)) = (&self.trailer, &row.fields)
            && fields.first().is_some_and(|field| **field == **trailer)
        {
            self.ended = true;
            return self.trailer(fields).map(|()| None);
        }
        self.data_rows += 1;
        Ok(Some(self.row(row)))
    }
}

fn delimiter(format: &CsvFormat) -> u8 {
    format.delimiter.bytes().next().unwrap_or(b',')
}

/// Whether the end of a file is its trailer; true where none is declared.
pub fn ends_whole(format: &CsvFormat, end: &[u8]) -> bool {
    let Some(trailer) = &format.trailer else { return true };
    let line = end.rsplit(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).find(|line| !line.is_empty());
    let field = line.and_then(|line| line.split(|byte| *byte == delimiter(format)).next());
    field.is_some_and(|field| field == trailer.as_bytes() || field == format!("\"{trailer}\"").as_bytes())
}

struct CsvRow {
    // Its first line, from 1.
    line: u64,
    // As it stands in the file, without the line end.
    raw: Vec<u8>,
    fields: Result<Vec<Box<str>>, BadRow>,
}

struct BadRow {
    reason: String,
    // The fields as far as they can be told, to know the record that the row belongs to.
    guess: Vec<Box<str>>,
}

struct RowReader<R> {
    lines: Lines<R>,
    delimiter: u8,
    encoding: &'static str,
    // Lines read ahead of an unclosed quote.
    ahead: VecDeque<Line>,
}

impl<R: BufRead> RowReader<R> {
    fn new(reader: R, delimiter: u8, encoding: &'static str) -> Self {
        Self { lines: Lines::new(reader, LineEnd::Ascii), delimiter, encoding, ahead: VecDeque::new() }
    }

    // The next row that is not blank; `None` at the end.
    fn next_row(&mut self) -> io::Result<Option<CsvRow>> {
        while let Some(line) = self.line()? {
            if line.text.is_empty() && !line.too_long {
                continue;
            }
            return self.row(line).map(Some);
        }
        Ok(None)
    }

    fn row(&mut self, first: Line) -> io::Result<CsvRow> {
        if first.too_long {
            let reason = format!("the line has more than {MAX_ROW} bytes");
            return Ok(bad(first.number, first.text, reason, self.delimiter));
        }
        let mut continued: Vec<Line> = Vec::new();
        let mut text = Cow::Borrowed(first.text.as_slice());
        loop {
            match split(&text, self.delimiter) {
                Split::Fields(fields) => {
                    let fields: Option<Vec<Box<str>>> = fields.iter().map(|field| std::str::from_utf8(field).ok().map(Box::from)).collect();
                    return Ok(match fields {
                        Some(fields) => CsvRow { line: first.number, raw: text.into_owned(), fields: Ok(fields) },
                        None => bad(first.number, text.into_owned(), format!("the row is not {}", self.encoding), self.delimiter),
                    });
                }
                // A quote that closes lines later, in the middle of a text, is another one: the first was never closed.
                Split::AfterQuote if !continued.is_empty() => break,
                Split::AfterQuote => {
                    let reason = "there is text behind a closing quote; a quote in a field is written twice".to_owned();
                    return Ok(bad(first.number, text.into_owned(), reason, self.delimiter));
                }
                Split::Unclosed => {}
            }
            let more = if continued.len() < MAX_CONTINUED_LINES && text.len() < MAX_CONTINUED_BYTES { self.line()? } else { None };
            match more {
                Some(line) => {
                    let text = text.to_mut();
                    text.push(b'\n');
                    text.extend_from_slice(&line.text);
                    continued.push(line);
                }
                None => break,
            }
        }
        // Only the first line is bad, as far as can be told.
        for line in continued.into_iter().rev() {
            self.ahead.push_front(line);
        }
        drop(text);
        Ok(bad(first.number, first.text, "a quote is not closed".to_owned(), self.delimiter))
    }

    fn line(&mut self) -> io::Result<Option<Line>> {
        if let Some(line) = self.ahead.pop_front() {
            return Ok(Some(line));
        }
        self.lines.next_line()
    }
}

fn bad(line: u64, raw: Vec<u8>, reason: String, delimiter: u8) -> CsvRow {
    let guess = match split(&raw, delimiter) {
        Split::Fields(fields) => fields.iter().map(|field| String::from_utf8_lossy(field).into()).collect(),
        Split::Unclosed | Split::AfterQuote => {
            raw.split(|byte| *byte == delimiter).map(|field| String::from_utf8_lossy(field).trim_matches('"').into()).collect()
        }
    };
    CsvRow { line, raw, fields: Err(BadRow { reason, guess }) }
}

enum Split<'a> {
    Fields(Vec<Cow<'a, [u8]>>),
    Unclosed,
    AfterQuote,
}

fn split(text: &[u8], delimiter: u8) -> Split<'_> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if rest.first() == Some(&b'"') {
            match quoted(&rest[1..]) {
                Some(parts) => parts,
                None => return Split::Unclosed,
            }
        } else {
            let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
            (Cow::Borrowed(&rest[..end]), &rest[end..])
        };
        fields.push(field);
        match after.first() {
            None => return Split::Fields(fields),
            Some(byte) if *byte == delimiter => rest = &after[1..],
            Some(_) => return Split::AfterQuote,
        }
    }
}

// A quoted field without its quotes, and what follows.
fn quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut field: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = text;
    loop {
        let quote = rest.iter().position(|byte| *byte == b'"')?;
        let part = &rest[..quote];
        if field.is_empty() {
            field = Cow::Borrowed(part)
        } else {
            field.to_mut().extend_from_slice(part)
        }
        rest = &rest[quote + 1..];
        if rest.first() != Some(&b'"') {
            return Some((field, rest));
        }
        field.to_mut().push(b'"');
        rest = &rest[1..];
    }
}

/// Writes a field, quoted where it must be.
pub fn write_field(field: &str, out: &mut Vec<u8>) {
    if field.contains([',', '"', '\n', '\r']) {
        out.push(b'"');
        out.extend_from_slice(field.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(field.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8]) -> Vec<(u64, Result<Vec<String>, String>)> {
        let mut reader = RowReader::new(text, b',', "UTF-8");
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row().expect("read") {
            let fields = row.fields.map(|fields| fields.iter().map(ToString::to_string).collect()).map_err(|bad| bad.reason);
            rows.push((row.line, fields));
        }
        rows
    }

    fn fields(fields: &[&str]) -> Result<Vec<String>, String> {
        Ok(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn quotes_line_ends_and_blank_lines() {
        let text = b"\xEF\xBB\xBFa,b\r\n\r\n\"x,\"\"y\"\"\",\"two\nlines\"\n,\n5\" disk,z";
        assert_eq!(
            rows(text),
            [(1, fields(&["a", "b"])), (3, fields(&["x,\"y\"", "two\nlines"])), (5, fields(&["", ""])), (6, fields(&["5\" disk", "z"])),]
        );
    }

    #[test]
    fn a_bad_row_takes_no_other_with_it() {
        let read = rows(b"a,\"open\nb,c\n\xFF,d\n\"x\"y,e\nf,g\n");
        assert_eq!(read[0], (1, Err("a quote is not closed".to_owned())));
        assert_eq!(read[1], (2, fields(&["b", "c"])));
        assert_eq!(read[2], (3, Err("the row is not UTF-8".to_owned())));
        assert!(read[3].1.as_ref().is_err_and(|reason| reason.contains("behind a closing quote")));
        assert_eq!(read[4], (5, fields(&["f", "g"])));
    }

    #[test]
    fn memory_is_bounded_by_long_lines_and_open_quotes() {
        let mut text = vec![b'x'; MAX_ROW * 2];
        text.extend_from_slice(b"\nok,1\n\"");
        text.extend_from_slice("y,\n".repeat(50_000).as_bytes());
        let read = rows(&text);
        assert!(read[0].1.as_ref().is_err_and(|reason| reason.contains("more than")));
        assert_eq!(read[1], (2, fields(&["ok", "1"])));
        assert_eq!(read[2], (3, Err("a quote is not closed".to_owned())));
        assert_eq!(read.len(), 2 + 50_000);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut out = Vec::new();
        write_field("a\"b,c\nd", &mut out);
        assert_eq!(rows(&out), [(1, fields(&["a\"b,c\nd"]))]);
    }
}
