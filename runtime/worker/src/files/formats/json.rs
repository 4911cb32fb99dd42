//! JSON: a value on each line (NDJSON), or the elements of an array somewhere in a document, one by one and never the whole document in memory.

use std::io::BufRead;

use super::lines::{LineEnd, Lines, MAX_ROW, SHOWN};
use super::member::Member;
use super::rows::{FileError, Row, Rows, cut_short, wrong};
use crate::expression::Value;

/// The values of an NDJSON file.
pub struct NdjsonRows<R> {
    lines: Lines<R>,
    group_by: Option<Member>,
}

impl<R: BufRead> NdjsonRows<R> {
    /// From the beginning of a file.
    pub fn new(reader: R, group_by: Option<Member>) -> Self {
        Self { lines: Lines::new(reader, LineEnd::Ascii), group_by }
    }
}

impl<R: BufRead> Rows for NdjsonRows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        while let Some(line) = self.lines.next_line()? {
            if line.too_long {
                return Ok(Some(too_long(line.number, line.text)));
            }
            if !line.text.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(row(line.number, line.text, self.group_by.as_ref())));
            }
        }
        Ok(None)
    }
}

fn row(line: u64, raw: Vec<u8>, group_by: Option<&Member>) -> Row {
    let value = Value::from_json(&raw).map_err(|error| format!("this can't be read as JSON: {error}"));
    let group = group_by.zip(value.as_ref().ok()).and_then(|(member, value)| member.group_of(value));
    Row { line, raw, value, group }
}

fn too_long(line: u64, raw: Vec<u8>) -> Row {
    Row { line, raw, value: Err(format!("the value has more than {MAX_ROW} bytes")), group: None }
}

/// The elements of an array in a JSON document.
pub struct JsonRows<R> {
    bytes: Bytes<R>,
    group_by: Option<Member>,
    // Objects and arrays around the array.
    around: usize,
    first: bool,
    ended: bool,
}

impl<R: BufRead> JsonRows<R> {
    /// Reads up to the array that the JSON Pointer leads to.
    ///
    /// # Errors
    /// When it leads nowhere, or not to an array.
    pub fn open(reader: R, records: &str, group_by: Option<Member>) -> Result<Self, FileError> {
        let mut bytes = Bytes { reader, line: 1 };
        bytes.pass_over_byte_order_mark()?;
        let mut around = 0;
        for token in records.split('/').skip(1) {
            bytes.descend(&token.replace("~1", "/").replace("~0", "~"), records)?;
            around += 1;
        }
        match bytes.peek_token()? {
            b'[' => bytes.consume(1)?,
            _ if records.is_empty() => return wrong("the document is no array; json.records names where in it the array is"),
            _ => return wrong(format!("there is no array at {records}")),
        }
        Ok(Self { bytes, group_by, around, first: true, ended: false })
    }

    // Behind the array, the document must be whole too.
    fn end(&mut self) -> Result<(), FileError> {
        self.ended = true;
        let mut rest = Scan { depth: self.around, ..Scan::default() };
        while rest.depth > 0 {
            self.bytes.pass_over(&mut rest)?;
        }
        match self.bytes.peek()? {
            None => Ok(()),
            Some(_) => wrong(format!("line {}: something stands behind the document's end", self.bytes.line)),
        }
    }
}

impl<R: BufRead> Rows for JsonRows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let mut next = self.bytes.peek_token()?;
        if next == b']' {
            self.bytes.consume(1)?;
            self.end()?;
            return Ok(None);
        }
        if !std::mem::take(&mut self.first) {
            if next != b',' {
                return self.bytes.unexpected(next, "a comma or the end of the array");
            }
            self.bytes.consume(1)?;
            next = self.bytes.peek_token()?;
        }
        if matches!(next, b',' | b']' | b'}' | b':') {
            return self.bytes.unexpected(next, "a value");
        }
        let line = self.bytes.line;
        let (raw, whole) = self.bytes.value()?;
        Ok(Some(if whole { row(line, raw, self.group_by.as_ref()) } else { too_long(line, raw) }))
    }
}

// The document's bytes with the line that they are in.
struct Bytes<R> {
    reader: R,
    line: u64,
}

impl<R: BufRead> Bytes<R> {
    fn pass_over_byte_order_mark(&mut self) -> Result<(), FileError> {
        if self.reader.fill_buf()?.starts_with(&[0xEF, 0xBB, 0xBF]) {
            self.reader.consume(3);
        }
        Ok(())
    }

    // The next byte that is no blank, left where it is; none at the end.
    fn peek(&mut self) -> Result<Option<u8>, FileError> {
        loop {
            let chunk = self.reader.fill_buf()?;
            let blanks = chunk.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            let next = chunk.get(blanks).copied();
            let at_end = chunk.is_empty();
            self.consume(blanks)?;
            if next.is_some() || at_end {
                return Ok(next);
            }
        }
    }

    fn peek_token(&mut self) -> Result<u8, FileError> {
        match self.peek()? {
            Some(byte) => Ok(byte),
            None => cut_short(format!("the document ends on line {}, in the middle: it was cut short", self.line)),
        }
    }

    // As many bytes as are there.
    fn consume(&mut self, count: usize) -> Result<(), FileError> {
        let chunk = self.reader.fill_buf()?;
        self.line += newlines(&chunk[..count.min(chunk.len())]);
        self.reader.consume(count);
        Ok(())
    }

    fn unexpected<T>(&self, found: u8, expected: &str) -> Result<T, FileError> {
        let found = char::from(found).escape_default();
        wrong(format!("line {}: {expected} is expected, and there is {found}", self.line))
    }

    // Goes to a member of the object, or an element of the array, that comes next.
    fn descend(&mut self, token: &str, pointer: &str) -> Result<(), FileError> {
        let not_there = || wrong(format!("there is nothing at {pointer}"));
        let open = self.peek_token()?;
        if !matches!(open, b'{' | b'[') {
            return not_there();
        }
        self.consume(1)?;
        let place = token.parse::<usize>().ok();
        for index in 0.. {
            let next = self.peek_token()?;
            if matches!(next, b'}' | b']') {
                return not_there();
            }
            if index > 0 {
                if next != b',' {
                    return self.unexpected(next, "a comma");
                }
                self.consume(1)?;
                self.peek_token()?;
            }
            let found = if open == b'{' { self.name()?.is_some_and(|name| name == token) } else { place == Some(index) };
            if found {
                return Ok(());
            }
            self.skip_value()?;
        }
        not_there()
    }

    // A member's name and its colon; none where the name is longer than any that is looked for.
    fn name(&mut self) -> Result<Option<String>, FileError> {
        let next = self.peek_token()?;
        if next != b'"' {
            return self.unexpected(next, "a member's name");
        }
        let (raw, whole) = self.value()?;
        let name = if whole { serde_json::from_slice(&raw).ok() } else { None };
        match self.peek_token()? {
            b':' => self.consume(1)?,
            other => return self.unexpected(other, "a colon"),
        }
        Ok(name)
    }

    fn skip_value(&mut self) -> Result<(), FileError> {
        self.peek_token()?;
        let mut scan = Scan::default();
        while !scan.ended {
            self.pass_over(&mut scan)?;
        }
        Ok(())
    }

    fn pass_over(&mut self, scan: &mut Scan) -> Result<(), FileError> {
        self.scanned(scan, |_| {})
    }

    // The value that comes next; where it has more than `MAX_ROW` bytes only its beginning, and false.
    fn value(&mut self) -> Result<(Vec<u8>, bool), FileError> {
        let mut scan = Scan::default();
        let mut raw = Vec::new();
        let mut length = 0;
        while !scan.ended {
            self.scanned(&mut scan, |bytes| {
                length += bytes.len();
                if length <= MAX_ROW {
                    raw.extend_from_slice(bytes);
                } else {
                    let shown = SHOWN.saturating_sub(raw.len()).min(bytes.len());
                    raw.extend_from_slice(&bytes[..shown]);
                    raw.truncate(SHOWN);
                }
            })?;
        }
        Ok((raw, length <= MAX_ROW))
    }

    // Scans what is at hand, and hands it on.
    fn scanned(&mut self, scan: &mut Scan, take: impl FnOnce(&[u8])) -> Result<(), FileError> {
        let chunk = self.reader.fill_buf()?;
        if chunk.is_empty() {
            if scan.is_whole_at_end() {
                scan.ended = true;
                return Ok(());
            }
            return cut_short(format!("the document ends on line {}, in the middle: it was cut short", self.line));
        }
        let count = scan.over(chunk);
        take(&chunk[..count]);
        self.line += newlines(&chunk[..count]);
        self.reader.consume(count);
        Ok(())
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

// Finds the end of a value. Whether it is a good one is seen when it is read.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    // A number, or a word such as `true`.
    in_word: bool,
    ended: bool,
}

impl Scan {
    // How many of the bytes belong to the value.
    fn over(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        self.ended = self.depth == 0;
                    }
                    _ => {}
                }
            } else {
                match byte {
                    b'"' if !self.in_word => self.in_string = true,
                    b'{' | b'[' if !self.in_word => self.depth += 1,
                    b'}' | b']' if self.depth > 0 => {
                        self.depth -= 1;
                        self.ended = self.depth == 0;
                    }
                    // What follows a number or a word belongs to it no more.
                    b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'{' | b'[' if self.in_word => {
                        self.ended = true;
                        return index;
                    }
                    _ => self.in_word = self.depth == 0,
                }
            }
            if self.ended {
                return index + 1;
            }
        }
        bytes.len()
    }

    fn is_whole_at_end(&self) -> bool {
        self.depth == 0 && !self.in_string && self.in_word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, records: &str, group_by: Option<&str>) -> Result<Vec<(u64, String)>, String> {
        // A small buffer, so that everything is cut somewhere.
        let reader = std::io::BufReader::with_capacity(7, text.as_bytes());
        let group_by = group_by.map(Member::new);
        let mut rows = JsonRows::open(reader, records, group_by).map_err(|error| error.to_string())?;
        let mut read = Vec::new();
        while let Some(row) = rows.next_row().map_err(|error| error.to_string())? {
            let group = row.group.map(|group| format!(" of {group}")).unwrap_or_default();
            let value =
                row.value.map_or_else(|reason| format!("!{}: {reason}", String::from_utf8_lossy(&row.raw)), |value| value.to_json());
            read.push((row.line, format!("{value}{group}")));
        }
        Ok(read)
    }

    fn texts(texts: &[(u64, &str)]) -> Result<Vec<(u64, String)>, String> {
        Ok(texts.iter().map(|(line, text)| (*line, (*text).to_owned())).collect())
    }

    #[test]
    fn elements_are_found_wherever_the_array_is() {
        assert_eq!(rows(" [ ] ", "", None), texts(&[]));
        assert_eq!(
            rows("\u{FEFF}[1,\n true,\"a]\\\"\" ,{\"b\":[1.10,{}]}]", "", None),
            texts(&[(1, "1"), (2, "true"), (2, "\"a]\\\"\""), (2, "{\"b\":[1.10,{}]}"),])
        );
        let document =
            r#"{"skipped": {"data": [9]}, "n": -1.5e3, "da\u0074a": [0, {"sa/les": [{"r": {"n": 1}}, {"r": {"n": 1}}, 5]}], "more": [[]]}"#;
        assert_eq!(
            rows(document, "/data/1/sa~1les", Some("/r/n")),
            texts(&[(1, "{\"r\":{\"n\":1}} of 1"), (1, "{\"r\":{\"n\":1}} of 1"), (1, "5"),])
        );
    }

    #[test]
    fn a_bad_element_is_a_bad_row_and_a_bad_document_is_no_file() {
        let read = rows(r#"[{"a":},{"a" 1},2]"#, "", None).expect("rows");
        assert!(read[0].1.starts_with("!{\"a\":}: this can't be read as JSON"), "{read:?}");
        assert!(read[1].1.starts_with('!') && read[2].1 == "2" && read.len() == 3, "{read:?}");
        for (text, records, told) in [
            ("", "", "cut short"),
            ("[1, {\"a\": \"b", "", "cut short"),
            ("[1, 2", "", "cut short"),
            ("{\"a\": [1]", "/a", "cut short"),
            ("[1]\n[2]", "", "line 2: something stands behind"),
            ("[1 2]", "", "a comma or the end of the array is expected, and there is 2"),
            ("[1,]", "", "a value is expected"),
            ("{\"a\": 1}", "/b", "nothing at /b"),
            ("{\"a\": 1}", "/a", "no array at /a"),
            ("{\"a\": 1}", "/a/b", "nothing at /a/b"),
            ("{\"a\": 1}", "", "json.records"),
            ("[[1]]", "/3", "nothing at /3"),
        ] {
            let read = rows(text, records, None);
            assert!(read.as_ref().is_err_and(|error| error.contains(told)), "{text}: {read:?}");
        }
    }

    #[test]
    fn memory_is_bounded_by_long_values() {
        let text = format!("{{\"x\": \"{0}\", \"rows\": [\"{0}\", 1]}}", "y".repeat(MAX_ROW));
        let mut rows = JsonRows::open(text.as_bytes(), "/rows", None).expect("rows");
        let long = rows.next_row().expect("read").expect("a row");
        assert!(long.value.is_err_and(|reason| reason.contains("more than")) && long.raw.len() == SHOWN);
        assert!(rows.next_row().expect("read").expect("a row").value.is_ok_and(|value| value.to_json() == "1"));
        assert!(rows.next_row().expect("read").is_none());
    }

    #[test]
    fn ndjson_has_a_value_on_each_line() {
        let mut rows = NdjsonRows::new(&b"{\"a\":1}\r\n \n{\"a\":\n\xFF\n[2]"[..], Some(Member::new("a")));
        let read: Vec<_> =
            std::iter::from_fn(|| rows.next_row().expect("read")).map(|row| (row.line, row.value.is_ok(), row.group)).collect();
        assert_eq!(read, [(1, true, Some("1".into())), (3, false, None), (4, false, None), (5, true, None)]);
    }
}
