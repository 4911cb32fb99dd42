//! Rows of a CSV file (RFC 4180), in bounded memory, and never lost by a bad one: a row that can't be read is a bad row with its line and raw text,
//! and reading goes on with the next line.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

// A line has this many bytes at the most; what is beyond is not kept.
const MAX_LINE: usize = 1 << 20;
// A quoted field goes on over this many lines and bytes at the most; beyond, its quote is taken for one that was never closed.
const MAX_CONTINUED_LINES: usize = 100;
const MAX_CONTINUED_BYTES: usize = 64 << 10;
// Of a line too long, this much is shown.
const SHOWN: usize = 1024;

/// A row as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its first line, from 1.
    pub line: u64,
    /// As it stands in the file, without the line end.
    pub raw: Vec<u8>,
    /// Its fields, or why they can't be read.
    pub fields: Result<Vec<Box<str>>, BadRow>,
}

/// A row that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Why.
    pub reason: String,
    /// The fields as far as they can be told, to know the record that the row belongs to.
    pub guess: Vec<Box<str>>,
}

/// Reads rows.
pub struct RowReader<R> {
    reader: R,
    delimiter: u8,
    next_line: u64,
    // Lines read ahead of an unclosed quote.
    ahead: VecDeque<Line>,
}

struct Line {
    number: u64,
    text: Vec<u8>,
    too_long: bool,
}

impl<R: BufRead> RowReader<R> {
    /// A reader from the beginning of a file.
    pub fn new(reader: R, delimiter: u8) -> Self {
        Self { reader, delimiter, next_line: 1, ahead: VecDeque::new() }
    }

    /// The next row that is not blank; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        while let Some(line) = self.line()? {
            if line.text.is_empty() && !line.too_long {
                continue;
            }
            return self.row(line).map(Some);
        }
        Ok(None)
    }

    fn row(&mut self, first: Line) -> io::Result<Row> {
        if first.too_long {
            let reason = format!("the line has more than {MAX_LINE} bytes");
            return Ok(bad(first.number, first.text, reason, self.delimiter));
        }
        let mut continued: Vec<Line> = Vec::new();
        let mut text = Cow::Borrowed(first.text.as_slice());
        loop {
            match split(&text, self.delimiter) {
                Split::Fields(fields) => {
                    let fields: Option<Vec<Box<str>>> = fields.iter().map(|field| std::str::from_utf8(field).ok().map(Box::from)).collect();
                    return Ok(match fields {
                        Some(fields) => Row { line: first.number, raw: text.into_owned(), fields: Ok(fields) },
                        None => bad(first.number, text.into_owned(), "the row is not UTF-8".to_owned(), self.delimiter),
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
        let mut text = Vec::new();
        let read = self.reader.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        let number = self.next_line;
        self.next_line += 1;
        let too_long = read > MAX_LINE && text.last() != Some(&b'\n');
        if too_long {
            text.truncate(SHOWN);
            self.reader.skip_until(b'\n')?;
        }
        for end in [b'\n', b'\r'] {
            if text.last() == Some(&end) {
                text.pop();
            }
        }
        // A byte order mark belongs to no field.
        if number == 1 && text.starts_with(&[0xEF, 0xBB, 0xBF]) {
            text.drain(..3);
        }
        Ok(Some(Line { number, text, too_long }))
    }
}

fn bad(line: u64, raw: Vec<u8>, reason: String, delimiter: u8) -> Row {
    let guess = match split(&raw, delimiter) {
        Split::Fields(fields) => fields.iter().map(|field| String::from_utf8_lossy(field).into()).collect(),
        Split::Unclosed | Split::AfterQuote => {
            raw.split(|byte| *byte == delimiter).map(|field| String::from_utf8_lossy(field).trim_matches('"').into()).collect()
        }
    };
    Row { line, raw, fields: Err(BadRow { reason, guess }) }
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
        let mut reader = RowReader::new(text, b',');
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
        let mut text = vec![b'x'; MAX_LINE * 2];
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
