//! XML: the elements of a name, wherever they are in a document, one by one and never the whole document in memory.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::encoding::TextEncoding;
use super::lines::{MAX_ROW, SHOWN};
use super::member::Member;
use super::rows::{FileError, Row, Rows, cut_short, wrong};
use crate::expression::Value;

// Elements of a record inside each other.
const MAX_DEPTH: usize = 64;
// An XML declaration is looked for in this many bytes.
const HEAD: usize = 256;

/// The records of an XML document.
pub struct XmlRows<R: BufRead> {
    reader: Reader<Watched<R>>,
    record: Vec<u8>,
    group_by: Option<Member>,
    event: Vec<u8>,
    // Elements that are open around what is read now, the record's own included.
    depth: usize,
    any: bool,
    ended: bool,
}

// A record that is being read.
struct Reading {
    line: u64,
    // Those elements of it that are open; empty where only its end is looked for, because it is a bad one.
    open: Vec<Element>,
    depth: usize,
    bad: Option<String>,
}

impl<R: BufRead> XmlRows<R> {
    /// From the beginning of a document in UTF-8.
    pub fn new(reader: R, record: &str, group_by: Option<Member>) -> Self {
        let mut reader = Reader::from_reader(Watched { reader, line: 1, event: 0, kept: Vec::new(), length: 0 });
        reader.config_mut().check_end_names = true;
        Self { reader, record: record.as_bytes().to_vec(), group_by, event: Vec::new(), depth: 0, any: false, ended: false }
    }

    // Reads one thing of the document; gives the value of a record that it ends.
    fn step(&mut self, reading: &mut Option<Reading>) -> Result<Option<Row>, FileError> {
        self.event.clear();
        let source = self.reader.get_mut();
        source.event = 0;
        if reading.is_none() {
            source.keep_anew();
        }
        let line = source.line;
        let event = match self.reader.read_event_into(&mut self.event) {
            Ok(event) => event,
            Err(error) => return self.failed(&error, line),
        };
        match event {
            Event::Start(start) => {
                self.depth += 1;
                self.any = true;
                begin(reading, &start, &self.record, line);
                Ok(None)
            }
            Event::Empty(start) => {
                self.any = true;
                begin(reading, &start, &self.record, line);
                Ok(self.end(reading))
            }
            Event::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(self.end(reading))
            }
            Event::Text(text) => {
                add_text(reading, text.xml10_content().ok());
                Ok(None)
            }
            Event::CData(text) => {
                add_text(reading, text.xml10_content().ok());
                Ok(None)
            }
            Event::GeneralRef(reference) => {
                add_text(reading, resolved(&reference).map(Into::into));
                Ok(None)
            }
            Event::Eof => {
                self.ended = true;
                if self.depth > 0 {
                    return cut_short(format!("the document ends on line {line}, inside an element: it was cut short"));
                }
                if !self.any {
                    return cut_short("the document has no element");
                }
                Ok(None)
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => Ok(None),
        }
    }

    fn failed<T>(&self, error: &quick_xml::Error, line: u64) -> Result<T, FileError> {
        match error {
            quick_xml::Error::Io(error) => Err(io::Error::new(error.kind(), error.to_string()).into()),
            // All of these mean that the document's end came first.
            quick_xml::Error::Syntax(error) => cut_short(format!("line {line}: {error}; the document was cut short")),
            error => wrong(format!("line {line}: the document is no well-formed XML: {error}")),
        }
    }

    fn end(&mut self, reading: &mut Option<Reading>) -> Option<Row> {
        let record = reading.as_mut()?;
        record.depth -= 1;
        let whole = match record.open.pop() {
            Some(element) if record.bad.is_none() => {
                let (name, value) = element.into_value();
                match record.open.last_mut() {
                    Some(outer) => {
                        outer.add(name, value);
                        None
                    }
                    None => Some(value),
                }
            }
            _ => None,
        };
        if record.depth > 0 {
            return None;
        }
        let Reading { line, bad, .. } = reading.take()?;
        let (mut raw, length) = self.reader.get_mut().take_kept();
        let value = match (bad, whole) {
            _ if length > MAX_ROW => {
                raw.truncate(SHOWN);
                Err(format!("the element has more than {MAX_ROW} bytes"))
            }
            (Some(reason), _) => Err(reason),
            (None, whole) => Ok(whole.unwrap_or_default()),
        };
        let group = self.group_by.as_ref().zip(value.as_ref().ok()).and_then(|(member, value)| member.group_of(value));
        Some(Row { line, raw, value, group })
    }
}

impl<R: BufRead> Rows for XmlRows<R> {
    fn next_row(&mut self) -> Result<Option<Row>, FileError> {
        let mut reading = None;
        while !self.ended {
            if let Some(row) = self.step(&mut reading)? {
                return Ok(Some(row));
            }
            if self.reader.get_mut().length > MAX_ROW
                && let Some(record) = &mut reading
            {
                record.become_bad(format!("the element has more than {MAX_ROW} bytes"));
            }
        }
        Ok(None)
    }
}

fn begin(reading: &mut Option<Reading>, start: &BytesStart<'_>, record: &[u8], line: u64) {
    let reading = match reading {
        Some(reading) => reading,
        None if start.local_name().as_ref() == record => reading.insert(Reading { line, open: Vec::new(), depth: 0, bad: None }),
        None => return,
    };
    reading.depth += 1;
    if reading.depth > MAX_DEPTH {
        reading.become_bad(format!("there are more than {MAX_DEPTH} elements inside each other"));
    }
    if reading.bad.is_some() {
        return;
    }
    match Element::begin(start) {
        Ok(element) => reading.open.push(element),
        Err(reason) => reading.become_bad(reason),
    }
}

fn add_text(reading: &mut Option<Reading>, text: Option<std::borrow::Cow<'_, str>>) {
    let Some(reading) = reading else { return };
    match (text, reading.open.last_mut()) {
        (Some(text), Some(element)) => element.text.push_str(&text),
        (Some(_), None) => {}
        (None, _) => reading.become_bad("a text has bytes that are no characters, or an entity that XML does not know".to_owned()),
    }
}

fn resolved(reference: &quick_xml::events::BytesRef<'_>) -> Option<String> {
    if reference.is_char_ref() {
        return reference.resolve_char_ref().ok().flatten().map(String::from);
    }
    resolve_predefined_entity(&reference.decode().ok()?).map(str::to_owned)
}

impl Reading {
    fn become_bad(&mut self, reason: String) {
        self.open.clear();
        self.bad.get_or_insert(reason);
    }
}

// An element with what is in it so far.
#[derive(Default)]
struct Element {
    name: Box<str>,
    names: Vec<Box<str>>,
    values: Vec<Vec<Value>>,
    places: HashMap<Box<str>, usize>,
    text: String,
}

impl Element {
    fn begin(start: &BytesStart<'_>) -> Result<Self, String> {
        let utf8 = |bytes: &[u8]| {
            std::str::from_utf8(bytes).map(Box::<str>::from).map_err(|_| "a name has bytes that are no characters".to_owned())
        };
        let mut element = Self { name: utf8(start.local_name().as_ref())?, ..Self::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let name = utf8(attribute.key.local_name().as_ref())?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
            element.add(format!("@{name}").into(), Value::text(value));
        }
        Ok(element)
    }

    fn add(&mut self, name: Box<str>, value: Value) {
        match self.places.get(&name) {
            Some(place) => self.values[*place].push(value),
            None => {
                self.places.insert(name.clone(), self.names.len());
                self.names.push(name);
                self.values.push(vec![value]);
            }
        }
    }

    fn into_value(mut self) -> (Box<str>, Value) {
        if self.names.is_empty() {
            return (self.name, Value::text(self.text));
        }
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            self.add("#text".into(), Value::text(text.trim()));
        }
        let values = self.values.into_iter().map(|mut values| if values.len() == 1 { values.remove(0) } else { Value::list(values) });
        (self.name, Value::object(self.names.into_iter().zip(values)))
    }
}

// What the document is read from: it counts lines, keeps what a record has read so far, and lets nothing in it be longer than a row may be.
struct Watched<R> {
    reader: R,
    line: u64,
    // Bytes of the tag or text that is being read.
    event: usize,
    kept: Vec<u8>,
    // Of what is kept, had all of it been.
    length: usize,
}

impl<R> Watched<R> {
    fn keep_anew(&mut self) {
        self.kept.clear();
        self.length = 0;
    }

    fn take_kept(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.kept), std::mem::take(&mut self.length))
    }
}

impl<R: BufRead> BufRead for Watched<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.event > MAX_ROW {
            let message = format!("line {}: a tag, comment or text has more than {MAX_ROW} bytes", self.line);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // What is consumed is at hand, so nothing is read here.
        if let Ok(chunk) = self.reader.fill_buf() {
            let chunk = &chunk[..amount.min(chunk.len())];
            self.line += chunk.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
            self.event += chunk.len();
            self.length += chunk.len();
            let room = MAX_ROW.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&chunk[..room.min(chunk.len())]);
        }
        self.reader.consume(amount);
    }
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let read = chunk.len().min(buffer.len());
        buffer[..read].copy_from_slice(&chunk[..read]);
        self.consume(read);
        Ok(read)
    }
}

/// The encoding that a document names in its first bytes, and the document with these before it again.
///
/// # Errors
/// When it can't be read, or names an encoding that is not known.
pub fn declared_encoding<'a>(mut reader: Box<dyn BufRead + 'a>) -> Result<(TextEncoding, Box<dyn BufRead + 'a>), FileError> {
    let mut head = Vec::with_capacity(HEAD);
    reader.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let encoding = encoding_of(&head).map_err(FileError::Wrong)?;
    Ok((encoding, Box::new(io::BufReader::new(io::Cursor::new(head).chain(reader)))))
}

fn encoding_of(head: &[u8]) -> Result<TextEncoding, String> {
    let by_mark = match head {
        [0xFE, 0xFF, ..] => Some("utf-16be"),
        [0xFF, 0xFE, ..] => Some("utf-16le"),
        _ => None,
    };
    if let Some(label) = by_mark {
        return TextEncoding::of_label(label);
    }
    // `<?xm`: what a declaration is written with is alike in all EBCDIC code pages.
    let ebcdic = head.starts_with(&[0x4C, 0x6F, 0xA7, 0x94]);
    let text = if ebcdic { TextEncoding::of_label("ibm037")?.decode(head) } else { Some(String::from_utf8_lossy(head).into_owned()) };
    let text = text.unwrap_or_default();
    let declaration =
        text.trim_start_matches('\u{FEFF}').strip_prefix("<?xml").and_then(|text| text.split_once("?>")).map(|(text, _)| text);
    let label = declaration.and_then(|declaration| declaration.split_once("encoding")).and_then(|(_, rest)| {
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        rest[1..].split_once(quote).map(|(label, _)| label.to_ascii_lowercase())
    });
    match label {
        // It can't be UTF-16, since it could be read.
        Some(label) if !label.starts_with("utf-16") => TextEncoding::of_label(&label.replace("ebcdic-cp-us", "ibm037")),
        _ => Ok(TextEncoding::Utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8], group_by: Option<&str>) -> Result<Vec<(u64, String, String)>, FileError> {
        let reader: Box<dyn BufRead> = Box::new(io::BufReader::with_capacity(300, text));
        let (encoding, reader) = declared_encoding(reader)?;
        let mut rows = XmlRows::new(encoding.reader(reader), "sale", group_by.map(Member::new));
        let mut read = Vec::new();
        while let Some(row) = rows.next_row()? {
            let group = row.group.map(|group| format!(" of {group}")).unwrap_or_default();
            let value = row.value.map_or_else(|reason| format!("!{reason}"), |value| value.to_json());
            read.push((row.line, String::from_utf8_lossy(&row.raw).into_owned(), value + &group));
        }
        Ok(read)
    }

    fn values(text: &str) -> Vec<String> {
        rows(text.as_bytes(), None).expect("rows").into_iter().map(|(_, _, value)| value).collect()
    }

    #[test]
    fn a_record_is_an_object_of_what_is_in_it() {
        let text = "<?xml version='1.0'?>\n<!DOCTYPE day>\n<d:day xmlns:d='urn:d'><!-- <sale> -->\n  <d:sale n='1' d:at=\"a &amp;&#10;b\">\n    <line>é</line>\n    \
                    <line><![CDATA[<2>]]>&lt;&#x20AC;</line><store id='s'/> <note> x </note>here<empty/>\n  </d:sale><group><sale/><sale>t</sale></group></d:day>\n";
        let read = rows(text.as_bytes(), Some("@n")).expect("rows");
        assert_eq!(
            read[0].2,
            "{\"@n\":\"1\",\"@at\":\"a &\\nb\",\"line\":[\"é\",\"<2><€\"],\"store\":{\"@id\":\"s\"},\"note\":\" x \",\"empty\":\"\",\"#text\":\"here\"} of \"1\""
        );
        assert_eq!(read[0].0, 4);
        assert!(read[0].1.starts_with("<d:sale n='1'") && read[0].1.ends_with("</d:sale>"), "{}", read[0].1);
        assert_eq!((read[1].2.as_str(), read[1].1.as_str()), ("\"\"", "<sale/>"));
        assert_eq!((read[2].2.as_str(), read[2].1.as_str(), read[2].0), ("\"t\"", "<sale>t</sale>", 7));
        assert_eq!(values("<a><sale><sale>1</sale></sale></a>"), ["{\"sale\":\"1\"}"]);
    }

    #[test]
    fn a_bad_record_takes_no_other_with_it() {
        let read = values("<a><sale>&nope;</sale><sale a='1' a='2'><b/></sale><sale a='&x;'/><sale>2</sale></a>");
        assert!(
            read[0].contains("an entity that XML does not know") && read[1].contains("duplicate") && read[2].starts_with('!'),
            "{read:?}"
        );
        assert_eq!(read[3], "\"2\"");
        let deep = format!("<a><sale>{}{}</sale><sale/></a>", "<b>".repeat(70), "</b>".repeat(70));
        assert!(values(&deep)[0].contains("inside each other") && values(&deep)[1] == "\"\"");
        let many = format!("<a><sale>{}</sale><sale>1</sale></a>", "<b>x</b>".repeat(MAX_ROW / 7));
        let read = rows(many.as_bytes(), None).expect("rows");
        assert!(read[0].2.contains("more than") && read[0].1.len() == SHOWN && read[1].2 == "\"1\"", "{}", read[0].2);
    }

    #[test]
    fn a_document_that_is_not_whole_is_no_file() {
        for (text, whole) in
            [("", false), ("<a><sale>", false), ("<a><sale x='", false), ("<a><sale></a>", true), ("<a></b>", true), ("<a>&b</a>", true)]
        {
            match rows(text.as_bytes(), None) {
                Err(FileError::CutShort(_)) => assert!(!whole, "{text}"),
                Err(FileError::Wrong(reason)) => assert!(whole && reason.contains("line 1"), "{text}: {reason}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let endless = format!("<a><!-- {} --></a>", "x".repeat(MAX_ROW * 2));
        assert!(rows(endless.as_bytes(), None).is_err_and(|error| error.to_string().contains("more than")));
    }

    #[test]
    fn documents_tell_their_encoding() {
        let latin = b"<?xml version=\"1.0\" encoding='ISO-8859-15'?><a><sale>\xA4</sale></a>";
        assert_eq!(rows(latin, None).expect("rows")[0].2, "\"€\"");
        let utf16: Vec<u8> =
            "\u{FEFF}<?xml version=\"1.0\" encoding=\"UTF-16\"?><sale>€</sale>".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(rows(&utf16, None).expect("rows")[0].2, "\"€\"");
        // `<?xml version="1.0" encoding="IBM1141"?><sale>…</sale>` in EBCDIC.
        let ibm = b"\x4C\x6F\xA7\x94\x93\x40\xA5\x85\x99\xA2\x89\x96\x95\x7E\x7F\xF1\x4B\xF0\x7F\x40\x85\x95\x83\x96\x84\x89\x95\x87\x7E\x7F\xC9\xC2\xD4\xF1\xF1\xF4\xF1\x7F\x6F\x6E\x4C\xA2\x81\x93\x85\x6E\x9F\x4C\x61\xA2\x81\x93\x85\x6E";
        assert_eq!(rows(ibm, None).expect("rows")[0].2, "\"€\"");
        assert!(rows(b"<?xml version='1.0' encoding='klingon'?><sale/>", None).is_err_and(|error| error.to_string().contains("klingon")));
    }
}
