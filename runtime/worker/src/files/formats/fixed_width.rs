//! Fields at fixed positions, in lines or in records of one length, with packed and zoned decimals, as an AS/400 or a mainframe writes them.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::sync::Arc;

use autonomy_crds::micro_service::{FixedWidthField, FixedWidthFormat, FixedWidthType, RecordType};

use super::decimals::{hex, packed, zoned};
use super::encoding::TextEncoding;
use super::lines::{Line, LineEnd, Lines, MAX_ROW};
use super::rows::{FileError, Row, Rows, cut_short};
use crate::expression::{Object, Shape, Value};

/// The records of a file that are data.
pub struct FixedWidthRows<R> {
    records: Records<R>,
    layout: Layout,
    skip_first: u32,
    skip_last: usize,
    // Read ahead, so that the last ones are known.
    ahead: VecDeque<Line>,
}

enum Records<R> {
    Lines(Lines<R>),
    Blocks { reader: R, length: usize, next: u64 },
}

impl<'a> FixedWidthRows<Box<dyn BufRead + 'a>> {
    /// From the beginning of a file.
    pub fn new(reader: Box<dyn BufRead + 'a>, format: &FixedWidthFormat, encoding: TextEncoding, group_by: Option<&str>) -> Self {
        let length = format.record_length.and_then(|length| usize::try_from(length).ok());
        let (records, positions) = match length {
            Some(length) => (Records::Blocks { reader, length, next: 1 }, Positions::Bytes(encoding)),
            // A signed digit is another character in each code page, so these lines are looked at as they are.
            None if encoding.is_ebcdic() => (Records::Lines(Lines::new(reader, LineEnd::Ebcdic)), Positions::Bytes(encoding)),
            None => (Records::Lines(Lines::new(encoding.reader(reader), LineEnd::Ascii)), Positions::Characters(encoding)),
        };
        let skip = format.skip.clone().unwrap_or_default();
        let skip_last = usize::try_from(skip.last).unwrap_or(usize::MAX);
        Self { records, layout: Layout::new(format, positions, group_by), skip_first: skip.first, skip_last, ahead: VecDeque::new() }
    }
}

impl<R: BufRead> Rows for FixedWidthRows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        loop {
            while self.ahead.len() <= self.skip_last {
                let Some(record) = self.records.next_record()? else { return Ok(None) };
                if self.skip_first > 0 {
                    self.skip_first -= 1;
                } else {
                    self.ahead.push_back(record);
                }
            }
            let Some(record) = self.ahead.pop_front() else { return Ok(None) };
            if let Some(row) = self.layout.row(record) {
                return Ok(Some(row));
            }
        }
    }
}

impl<R: BufRead> Records<R> {
    // The next record that is not an empty line.
    fn next_record(&mut self) -> Result<Option<Line>, FileError> {
        match self {
            Self::Lines(lines) => loop {
                match lines.next_line()? {
                    Some(line) if line.text.is_empty() && !line.too_long => {}
                    line => return Ok(line),
                }
            },
            Self::Blocks { reader, length, next } => {
                let mut text = Vec::with_capacity(*length);
                reader.by_ref().take(*length as u64).read_to_end(&mut text)?;
                let number = *next;
                *next += 1;
                if text.len() == *length {
                    return Ok(Some(Line { number, text, too_long: false }));
                }
                // A line end or an end-of-file mark that a transfer left behind the last record.
                if text.len() <= 2 && text.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0x15 | 0x1A | 0x25)) {
                    return Ok(None);
                }
                cut_short(format!("record {number} has {} bytes in place of {length}: the file was cut short", text.len()))
            }
        }
    }
}

// What positions count.
#[derive(Clone, Copy)]
enum Positions {
    // Bytes as they are in the file.
    Bytes(TextEncoding),
    // Characters of a line that became UTF-8; the encoding is the file's.
    Characters(TextEncoding),
}

struct Layout {
    fields: Vec<FixedWidthField>,
    shape: Arc<Shape>,
    group_field: Option<usize>,
    record_type: Option<RecordType>,
    positions: Positions,
    has_packed: bool,
}

impl Layout {
    fn new(format: &FixedWidthFormat, positions: Positions, group_by: Option<&str>) -> Self {
        Self {
            fields: format.fields.clone(),
            shape: Shape::new(format.fields.iter().map(|field| field.name.as_str())),
            group_field: group_by.and_then(|name| format.fields.iter().position(|field| field.name == name)),
            record_type: format.record_type.clone(),
            positions,
            has_packed: format.fields.iter().any(|field| field.field_type == FixedWidthType::Packed),
        }
    }

    // None for a record of another type.
    fn row(&self, record: Line) -> Option<Row> {
        let Line { number, text, too_long } = record;
        let cells = match self.cells(&text) {
            Ok(cells) => cells,
            Err(reason) => return Some(Row { line: number, raw: text, value: Err(reason), group: None }),
        };
        if let Some(record_type) = &self.record_type {
            let found = cells.text(record_type.start, record_type.length).unwrap_or_default();
            if !record_type.values.iter().any(|value| value.trim() == found.trim()) {
                return None;
            }
        }
        let values: Vec<Result<Value, String>> = self.fields.iter().map(|field| value(field, &cells)).collect();
        let group = self.group_field.and_then(|field| values[field].as_ref().ok()).map(|value| value.to_json().into());
        let value = if too_long {
            Err(format!("the line has more than {MAX_ROW} bytes"))
        } else {
            let named =
                values.into_iter().zip(&self.fields).map(|(value, field)| value.map_err(|reason| format!("{}: {reason}", field.name)));
            named.collect::<Result<Vec<Value>, String>>().map(|values| Value::Object(Arc::new(Object::new(self.shape.clone(), values))))
        };
        let raw = self.shown(text);
        Some(Row { line: number, raw, value, group })
    }

    fn cells<'r>(&self, text: &'r [u8]) -> Result<Cells<'r>, String> {
        match self.positions {
            Positions::Bytes(encoding) => Ok(Cells::Bytes(text, encoding)),
            // Bytes and characters are the same, and cost nothing to count.
            Positions::Characters(_) if text.is_ascii() => Ok(Cells::Bytes(text, TextEncoding::Utf8)),
            Positions::Characters(encoding) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Cells::Characters(text.char_indices().map(|(place, _)| place).chain([text.len()]).collect(), text)),
                Err(_) => Err(format!("the row is not {}", encoding.name())),
            },
        }
    }

    // For the reject file: characters, or hexadecimal digits where some of the bytes are none.
    fn shown(&self, text: Vec<u8>) -> Vec<u8> {
        match self.positions {
            Positions::Bytes(_) if self.has_packed => hex(&text).into_bytes(),
            Positions::Bytes(encoding) => encoding.decode(&text).map_or(text, String::into_bytes),
            Positions::Characters(_) => text,
        }
    }
}

// A record, to be cut at positions.
enum Cells<'r> {
    Bytes(&'r [u8], TextEncoding),
    // Where each character begins, and where the last one ends.
    Characters(Vec<usize>, &'r str),
}

impl Cells<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes, _) => bytes.len(),
            Self::Characters(places, _) => places.len() - 1,
        }
    }

    // What is there of a span.
    fn bytes(&self, start: u32, length: u32) -> &[u8] {
        let begin = (start as usize).saturating_sub(1).min(self.length());
        let end = begin.saturating_add(length as usize).min(self.length());
        match self {
            Self::Bytes(bytes, _) => &bytes[begin..end],
            Self::Characters(places, text) => &text.as_bytes()[places[begin]..places[end]],
        }
    }

    fn text(&self, start: u32, length: u32) -> Option<String> {
        let encoding = match self {
            Self::Bytes(_, encoding) => *encoding,
            Self::Characters(..) => TextEncoding::Utf8,
        };
        encoding.decode(self.bytes(start, length))
    }

    fn is_ebcdic(&self) -> bool {
        matches!(self, Self::Bytes(_, encoding) if encoding.is_ebcdic())
    }
}

fn value(field: &FixedWidthField, cells: &Cells<'_>) -> Result<Value, String> {
    let FixedWidthField { start, length, scale, .. } = *field;
    if field.field_type == FixedWidthType::Text {
        let Some(text) = cells.text(start, length) else { return Err("its bytes are no characters".to_owned()) };
        // Blanks at the end of a line are often not written.
        return Ok(Value::text(if field.trim { text.trim() } else { &text }));
    }
    let bytes = cells.bytes(start, length);
    if bytes.len() < length as usize {
        return Err(format!("the record has {} positions and ends before the field does", cells.length()));
    }
    match field.field_type {
        FixedWidthType::Packed => packed(bytes, scale, cells.is_ebcdic()),
        _ => zoned(bytes, scale, cells.is_ebcdic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use autonomy_crds::micro_service::SkippedRecords;

    fn field(name: &str, start: u32, length: u32, field_type: FixedWidthType, scale: u32) -> FixedWidthField {
        FixedWidthField { name: name.to_owned(), start, length, field_type, scale, trim: true }
    }

    fn format(fields: Vec<FixedWidthField>) -> FixedWidthFormat {
        FixedWidthFormat { fields, ..FixedWidthFormat::default() }
    }

    fn rows(bytes: &[u8], format: &FixedWidthFormat, encoding: &str, group_by: Option<&str>) -> Result<Vec<(u64, String)>, FileError> {
        let encoding = TextEncoding::of_label(encoding).expect("an encoding");
        let mut rows = FixedWidthRows::new(Box::new(bytes), format, encoding, group_by);
        let mut read = Vec::new();
        while let Some(row) = rows.next_row()? {
            let group = row.group.map(|group| format!(" of {group}")).unwrap_or_default();
            let value = row.value.map_or_else(|reason| format!("!{reason}!{}", String::from_utf8_lossy(&row.raw)), |value| value.to_json());
            read.push((row.line, format!("{value}{group}")));
        }
        Ok(read)
    }

    fn texts(texts: &[(u64, &str)]) -> Vec<(u64, String)> {
        texts.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn lines_are_cut_at_characters() {
        let mut sales = format(vec![
            field("name", 1, 6, FixedWidthType::Text, 0),
            field("amount", 7, 5, FixedWidthType::Zoned, 2),
            field("code", 12, 3, FixedWidthType::Text, 0),
        ]);
        sales.fields[2].trim = false;
        let text = "Zoë   0012C  x\r\n\nAnn   00123\nBob   12\nEve   x0123  y\n";
        let expected = texts(&[
            (1, "{\"name\":\"Zoë\",\"amount\":1.23,\"code\":\"  x\"} of \"Zoë\""),
            (3, "{\"name\":\"Ann\",\"amount\":1.23,\"code\":\"\"} of \"Ann\""),
            (4, "!amount: the record has 8 positions and ends before the field does!Bob   12 of \"Bob\""),
            (5, "!amount: \"x0123\" is no zoned decimal!Eve   x0123  y of \"Eve\""),
        ]);
        assert_eq!(rows(text.as_bytes(), &sales, "utf-8", Some("name")).expect("rows"), expected);
        let latin: Vec<u8> = text.chars().map(|character| u8::try_from(u32::from(character)).expect("latin")).collect();
        assert_eq!(rows(&latin, &sales, "windows-1252", Some("name")).expect("rows"), expected);
        assert!(rows(b"Zo\xFF  ", &sales, "utf-8", None).expect("rows")[0].1.starts_with("!the row is not UTF-8!"));
    }

    #[test]
    fn records_of_an_as_400() {
        let mut sales = format(vec![
            field("store", 2, 3, FixedWidthType::Text, 0),
            field("amount", 5, 3, FixedWidthType::Packed, 2),
            field("count", 8, 2, FixedWidthType::Zoned, 0),
        ]);
        sales.record_length = Some(9);
        sales.record_type = Some(RecordType { start: 1, length: 1, values: vec!["D".to_owned()] });
        // Type D, store "Ä1 " in code page 273, amounts with bytes that are line ends elsewhere.
        let good = [0xC4, 0x4A, 0xF1, 0x40, 0x15, 0x25, 0x0D, 0xF0, 0xF7];
        let other = [0xE7; 9];
        let bad = [0xC4, 0x4A, 0xF2, 0x40, 0x15, 0x25, 0x00, 0xF0, 0xD7];
        let bytes = [&good[..], &other, &bad, b"\x1A"].concat();
        let expected = texts(&[
            (1, "{\"store\":\"Ä1\",\"amount\":-152.50,\"count\":7}"),
            (3, "!amount: 152500 is no packed decimal!C44AF240152500F0D7"),
        ]);
        assert_eq!(rows(&bytes, &sales, "ibm273", None).expect("rows"), expected);
        assert!(matches!(rows(&bytes[..25], &sales, "ibm273", None), Err(FileError::CutShort(reason)) if reason.contains("record 3")));
    }

    #[test]
    fn lines_of_ebcdic_with_a_header_and_a_trailer() {
        let mut sales = format(vec![field("store", 1, 2, FixedWidthType::Text, 0), field("amount", 3, 2, FixedWidthType::Zoned, 1)]);
        sales.skip = Some(SkippedRecords { first: 1, last: 2 });
        let line = |text: &[u8]| [text, &[0x15]].concat();
        let bytes = [line(b"\xC8"), line(b"\xC1\xC2\xF1\xD2"), line(b"\xC1\xC3\xF1\x6F"), line(b"\xE3"), line(b"\xE3\xE3")].concat();
        assert_eq!(
            rows(&bytes, &sales, "ibm037", Some("store")).expect("rows"),
            texts(&[(2, "{\"store\":\"AB\",\"amount\":-1.2} of \"AB\""), (3, "!amount: F16F is no zoned decimal!AC1? of \"AC\"")])
        );
        // Fewer records than are passed over are none.
        assert_eq!(rows(&line(b"\xC8"), &sales, "ibm037", None).expect("rows"), texts(&[]));
    }
}
