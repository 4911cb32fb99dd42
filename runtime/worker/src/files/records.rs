//! Records of a file: a row each, or the rows in a row that have the same value of a column or member.

use std::io::{BufRead, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::sync::Arc;

use autonomy_crds::micro_service::FilesTrigger;
use sha2::{Digest, Sha256};

use super::formats::{FileError, Format, Row, Rows};
use super::glob::Glob;
use super::unpack::{Packing, for_each_file, packing_error, unpacked};
use crate::expression::Value;
use crate::expression::functions::hex;
use crate::steps::RecordInput;

/// A record has this many rows at the most.
pub const MAX_ROWS: usize = 10_000;
/// A record has this many bytes at the most.
pub const MAX_BYTES: usize = 8 << 20;

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place in the file, from 0.
    pub number: u64,
    /// Its rows; at least one.
    pub rows: Vec<Row>,
    /// Whether it has more than [`MAX_ROWS`] rows or [`MAX_BYTES`] bytes; then only its first row is kept.
    pub too_large: bool,
    /// The file that it is in, where that is one of an archive's.
    pub entry: Option<Arc<str>>,
}

impl Record {
    /// The line of its first row.
    pub fn line(&self) -> u64 {
        self.rows.first().map_or(0, |row| row.line)
    }
}

/// Reads all records of a file that is no archive, and hands each on until told to stop.
///
/// # Errors
/// When the file can't be read, or is not what the trigger declares.
pub fn read(
    reader: impl BufRead,
    packing: Packing,
    format: &Format,
    mut each: impl FnMut(Record) -> ControlFlow<()>,
) -> Result<(), FileError> {
    let rows = format.open(unpacked(reader, packing));
    let records = rows.and_then(|rows| RecordReader::new(rows, format, 0, None).for_each(&mut each));
    records.map(drop).map_err(|error| packing_error(error, packing))
}

/// Reads all records of the files in an archive that the pattern means; they are counted through.
///
/// # Errors
/// When the archive or a file in it can't be read, or is not what the trigger declares.
pub fn read_archive(
    file: impl Read + Seek,
    pattern: &Glob,
    format: &Format,
    mut each: impl FnMut(Record) -> ControlFlow<()>,
) -> Result<(), FileError> {
    let mut next = Some(0);
    for_each_file(BufReader::with_capacity(1 << 16, file), pattern, |name, content| {
        // Told to stop in a file before.
        let Some(number) = next else { return Ok(()) };
        next = RecordReader::new(format.open(content)?, format, number, Some(name.into())).for_each(&mut each)?;
        Ok(())
    })
}

/// What the steps would run for if these bytes were a file of that name; for a record that can't be read, why.
///
/// # Errors
/// When the content is not what the trigger declares.
pub fn inputs(trigger: &FilesTrigger, name: &str, content: &[u8]) -> Result<Vec<Result<RecordInput, String>>, String> {
    let format = Format::new(trigger)?;
    let sha256 = hex(&Sha256::digest(content));
    let file = Value::object([("name", Value::text(name)), ("sha256", Value::text(&sha256))]);
    let mut inputs = Vec::new();
    let each = |record: Record| {
        inputs.push(record.input(&sha256, &file));
        ControlFlow::Continue(())
    };
    read(content, Packing::None, &format, each).map_err(|error| error.to_string())?;
    Ok(inputs)
}

impl Record {
    fn input(self, sha256: &str, file: &Value) -> Result<RecordInput, String> {
        if self.too_large {
            return Err(format!("the record has more than {MAX_ROWS} rows or {MAX_BYTES} bytes"));
        }
        let (id, line) = (format!("{sha256}/{}", self.number), self.line());
        let rows = self.rows.into_iter().map(|row| row.value.map_err(|error| format!("line {}: {error}", row.line)));
        let rows = rows.collect::<Result<Vec<Value>, String>>()?;
        Ok(RecordInput { id, row: rows.first().cloned().unwrap_or_default(), rows, file: file.clone(), line })
    }
}

struct RecordReader<'a> {
    rows: Box<dyn Rows + 'a>,
    grouped: bool,
    // The row that begins the next record.
    held: Option<Row>,
    next_number: u64,
    entry: Option<Arc<str>>,
}

impl<'a> RecordReader<'a> {
    fn new(rows: Box<dyn Rows + 'a>, format: &Format, first_number: u64, entry: Option<Arc<str>>) -> Self {
        Self { rows, grouped: format.is_grouped(), held: None, next_number: first_number, entry }
    }

    // Gives the number of the record behind the last; none when told to stop.
    fn for_each(mut self, each: &mut impl FnMut(Record) -> ControlFlow<()>) -> Result<Option<u64>, FileError> {
        while let Some(record) = self.next_record()? {
            if each(record).is_break() {
                return Ok(None);
            }
        }
        Ok(Some(self.next_number))
    }

    fn next_record(&mut self) -> Result<Option<Record>, FileError> {
        let first = match self.held.take() {
            Some(row) => row,
            None => match self.rows.next_row()? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let key = first.group.clone().filter(|_| self.grouped);
        let mut bytes = first.raw.len();
        let mut too_large = false;
        let mut rows = vec![first];
        while key.is_some() {
            let Some(row) = self.rows.next_row()? else { break };
            if row.group != key {
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
        Ok(Some(Record { number, rows, too_large, entry: self.entry.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use autonomy_crds::micro_service::{CsvFormat, NdjsonFormat};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn format(group_by: Option<&str>, trailer: Option<&str>) -> Format {
        Format::new(&FilesTrigger {
            csv: Some(CsvFormat { delimiter: ";".to_owned(), trailer: trailer.map(str::to_owned) }),
            group_by: group_by.map(str::to_owned),
            ..FilesTrigger::default()
        })
        .expect("format")
    }

    fn gather(gathered: &mut Vec<(u64, Vec<u64>)>) -> impl FnMut(Record) -> ControlFlow<()> {
        |record| {
            gathered.push((record.number, record.rows.iter().map(|row| row.line).collect()));
            ControlFlow::Continue(())
        }
    }

    fn read_text(text: &str, format: &Format) -> Result<Vec<(u64, Vec<u64>)>, String> {
        let mut records = Vec::new();
        read(text.as_bytes(), Packing::None, format, gather(&mut records)).map_err(|error| error.to_string())?;
        Ok(records)
    }

    #[test]
    fn rows_in_a_row_with_the_same_value_are_a_record() {
        let grouped = format(Some("sale"), None);
        let text = "sale;n\na;1\na;2\nb;1\na;3\nb\nb;2\n\"b\"\n";
        assert_eq!(read_text(text, &grouped), Ok(vec![(0, vec![2, 3]), (1, vec![4]), (2, vec![5]), (3, vec![6, 7, 8])]));
        assert_eq!(read_text(text, &format(None, None)).map(|records| records.len()), Ok(7));
        assert!(read_text("x;y\n", &grouped).is_err_and(|error| error.contains("no column sale")));
        let ndjson = FilesTrigger { ndjson: Some(NdjsonFormat {}), group_by: Some("sale".to_owned()), ..FilesTrigger::default() };
        let ndjson = Format::new(&ndjson).expect("format");
        let text = "{\"sale\":1}\n{\"sale\":1}\n{\"sale\":\"1\"}\n{}\n{}\n";
        assert_eq!(read_text(text, &ndjson), Ok(vec![(0, vec![1, 2]), (1, vec![3]), (2, vec![4]), (3, vec![5])]));
    }

    #[test]
    fn a_trailer_tells_whether_the_file_is_whole() {
        let trailed = format(None, Some("#END"));
        assert_eq!(read_text("a;b\n1;2\n3;4\n#END;2\n", &trailed).map(|records| records.len()), Ok(2));
        for (text, told) in [
            ("a;b\n1;2\n", "no trailer"),
            ("a;b\n1;2\n#END;2\n", "tells of 2 rows, the file has 1"),
            ("a;b\n1;2\n#END;1\n3;4\n", "behind the trailer"),
            ("a;b\n#END\n", "no number of rows"),
            ("", "empty"),
            ("a;a\n", "twice"),
            ("a;\n", "no name"),
        ] {
            assert!(read_text(text, &trailed).is_err_and(|error| error.contains(told)), "{text}");
        }
        assert!(trailed.ends_whole(b"1;2\r\n#END;1\r\n\n") && trailed.ends_whole(b"\"#END\";3"));
        assert!(!trailed.ends_whole(b"1;2\n#EN") && !trailed.ends_whole(b"") && !trailed.ends_whole(b"#END;1\n3;"));
        assert!(format(None, None).ends_whole(b"x"));
        let csv = Some(CsvFormat { delimiter: ";".to_owned(), trailer: Some("#END".to_owned()) });
        let utf16 = Format::new(&FilesTrigger { csv, encoding: Some("utf-16le".to_owned()), ..FilesTrigger::default() }).expect("format");
        let end: Vec<u8> = "1;2\n#END;1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(utf16.ends_whole(&end) && !utf16.ends_whole(&end[..14]));
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).expect("write");
        encoder.finish().expect("finish")
    }

    #[test]
    fn gzip_is_unpacked_while_it_is_read() {
        // In two members, as `cat a.gz b.gz` makes them.
        let packed = [gzip("a;b\n1;2\n"), gzip("3;4\n")].concat();
        assert_eq!(Packing::of("x", &packed).expect("packing"), Packing::Gzip);
        let mut records = Vec::new();
        read(&packed[..], Packing::Gzip, &format(None, None), gather(&mut records)).expect("read");
        assert_eq!(records, [(0, vec![2]), (1, vec![3])]);
        let mut damaged = packed.clone();
        damaged[12] ^= 0xFF;
        let failed = |bytes: &[u8]| read(bytes, Packing::Gzip, &format(None, None), |_| ControlFlow::Continue(()));
        assert!(matches!(failed(&packed[..packed.len() - 9]), Err(FileError::CutShort(_))));
        assert!(matches!(failed(&damaged), Err(FileError::Wrong(reason)) if reason.contains("damaged")));
        assert!(matches!(Packing::of("x.gz", b"a;b\n"), Err(FileError::CutShort(_))) && Packing::of("x", b"a").is_ok());
        // A bomb is a row that is too long, and is not held.
        let bomb = gzip(&format!("a\n{}\nx\n", "0".repeat(64 << 20)));
        assert!(bomb.len() < 1 << 20);
        let mut bad = Vec::new();
        let each = |record: Record| {
            bad.push((record.rows[0].value.is_err(), record.rows[0].raw.len()));
            ControlFlow::Continue(())
        };
        read(&bomb[..], Packing::Gzip, &format(None, None), each).expect("read");
        assert_eq!(bad, [(true, 1024), (false, 1)]);
    }

    fn zip(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in files {
            writer.start_file(*name, SimpleFileOptions::default()).expect("file");
            writer.write_all(text.as_bytes()).expect("write");
        }
        writer.finish().expect("finish").into_inner()
    }

    type Found = Vec<(u64, Option<String>, u64)>;

    fn read_zip(bytes: &[u8], pattern: &str) -> Result<Found, FileError> {
        let mut records = Vec::new();
        let each = |record: Record| {
            records.push((record.number, record.entry.as_deref().map(str::to_owned), record.line()));
            ControlFlow::Continue(())
        };
        read_archive(Cursor::new(bytes), &Glob::new(pattern).expect("pattern"), &format(None, None), each)?;
        Ok(records)
    }

    #[test]
    fn of_an_archive_the_files_that_fit_are_read() {
        let archive = zip(&[
            ("day/a.csv", "x;y\n1;2\n3;4\n"),
            ("readme.txt", "-"),
            ("__MACOSX/._a.csv", "-"),
            ("day/.b.csv", "-"),
            ("b.csv", "x\n5\n"),
        ]);
        assert_eq!(Packing::of("x.zip", &archive[..HEAD_OF_ZIP]).expect("packing"), Packing::Zip);
        let found = |number, entry: &str, line| (number, Some(entry.to_owned()), line);
        assert_eq!(read_zip(&archive, "*.csv").expect("read"), [found(0, "a.csv", 2), found(1, "a.csv", 3), found(2, "b.csv", 2)]);
        assert!(matches!(read_zip(&archive, "*.xml"), Err(FileError::Wrong(reason)) if reason.contains("3 files in the archive")));
        assert_eq!(read_zip(&zip(&[("other", "x\n1\n")]), "*.csv").expect("read"), [found(0, "other", 2)]);
        assert!(matches!(read_zip(&zip(&[]), "*"), Err(FileError::Wrong(reason)) if reason.contains("no file")));
        assert!(matches!(read_zip(&archive[..archive.len() / 2], "*"), Err(FileError::CutShort(_))));
        let wrong = zip(&[("a.csv", "x;x\n")]);
        assert!(matches!(read_zip(&wrong, "*"), Err(FileError::Wrong(reason)) if reason.starts_with("a.csv in the archive: ")));
    }

    const HEAD_OF_ZIP: usize = super::super::unpack::HEAD;
}
