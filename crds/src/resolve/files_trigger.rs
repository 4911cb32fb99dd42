//! A files trigger: where files are and how they are written.

use super::naming::list;
use crate::fault::Faults;
use crate::micro_service::{CsvFormat, FileFormat, FilesTrigger, FixedWidthField, FixedWidthFormat, FixedWidthType, S3Location};
use crate::names::parse_duration;

/// Checks a files trigger.
pub(super) fn check(files: &FilesTrigger, path: &str, faults: &mut Faults) {
    match (&files.directory, &files.s3) {
        (Some(directory), None) => {
            if directory.trim().is_empty() || directory.contains('\0') || directory.split('/').any(|part| part == "..") {
                faults.add(format!("{path}.directory"), "name a directory, without \"..\" in it");
            }
        }
        (None, Some(location)) => s3(location, &format!("{path}.s3"), faults),
        _ => faults.add(path, "files are in exactly one of directory and s3"),
    }
    if files.s3.is_some() && files.volume_claim.is_some() {
        faults.add(format!("{path}.volumeClaim"), "files in a bucket need no volume; take this away");
    }
    if let Err(message) = check_glob(&files.pattern) {
        faults.add(format!("{path}.pattern"), message);
    }
    for (field, text) in [("settle", &files.settle), ("incompleteAfter", &files.incomplete_after)] {
        if let Err(message) = parse_duration(text) {
            faults.add(format!("{path}.{field}"), message);
        }
    }
    if !files.has_one_format() {
        faults.add(path, "files have at most one format: csv, ndjson, json, xml or fixedWidth");
    }
    format(files, path, faults);
}

fn s3(location: &S3Location, path: &str, faults: &mut Faults) {
    let prefix = location.prefix.strip_suffix('/').unwrap_or(&location.prefix);
    if !location.prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let message = format!(
            "{:?} is no prefix of keys: it does not begin with \"/\", and has no empty part, for example \"stores/incoming/\"",
            location.prefix
        );
        faults.add(format!("{path}.prefix"), message);
    }
    if location.access_key_id_from.is_some() != location.secret_access_key_from.is_some() {
        faults.add(path, "give both accessKeyIdFrom and secretAccessKeyFrom, or neither");
    }
    if let Err(message) = parse_duration(&location.poll_interval) {
        faults.add(format!("{path}.pollInterval"), message);
    }
}

fn format(files: &FilesTrigger, path: &str, faults: &mut Faults) {
    let group_by = files.group_by.as_deref();
    match files.format() {
        FileFormat::Csv(csv) => delimiter(&csv, &format!("{path}.csv.delimiter"), faults),
        FileFormat::Ndjson | FileFormat::Xml(_) => {}
        FileFormat::Json(json) => {
            if let Some(records) = json.records.as_deref() {
                pointer(records, &format!("{path}.json.records"), faults);
            }
        }
        FileFormat::FixedWidth(fixed_width) => {
            self::fixed_width(&fixed_width, &format!("{path}.fixedWidth"), faults);
            if let Some(group_by) = group_by.filter(|group_by| fixed_width.fields.iter().all(|field| field.name != *group_by)) {
                let names = list(fixed_width.fields.iter().map(|field| field.name.as_str()));
                faults.add(format!("{path}.groupBy"), format!("there is no field {group_by:?}; there are: {names}"));
            }
        }
    }
    let members = matches!(files.format(), FileFormat::Ndjson | FileFormat::Json(_) | FileFormat::Xml(_));
    if let Some(group_by) = group_by.filter(|group_by| members && group_by.starts_with('/')) {
        pointer(group_by, &format!("{path}.groupBy"), faults);
    }
}

fn delimiter(csv: &CsvFormat, path: &str, faults: &mut Faults) {
    let delimiter = csv.delimiter.as_bytes();
    if delimiter.len() != 1 || !delimiter[0].is_ascii() || matches!(delimiter[0], b'"' | b'\r' | b'\n') {
        faults.add(path, "the delimiter is one character of ASCII, and neither a quote nor the end of a line");
    }
}

fn pointer(pointer: &str, path: &str, faults: &mut Faults) {
    let escapes_are_whole = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !(pointer.is_empty() || pointer.starts_with('/')) || !escapes_are_whole {
        faults.add(path, format!("{pointer:?} is no JSON Pointer: it begins with \"/\", for example \"/data/sales\", and has ~ as ~0"));
    }
}

fn fixed_width(format: &FixedWidthFormat, path: &str, faults: &mut Faults) {
    for (index, field) in format.fields.iter().enumerate() {
        let path = format!("{path}.fields[{index}]");
        if format.fields[..index].iter().any(|other| other.name == field.name) {
            faults.add(format!("{path}.name"), format!("there are two fields {:?}", field.name));
        }
        self::field(field, format.record_length, &path, faults);
    }
    if format.fields.is_empty() {
        faults.add(format!("{path}.fields"), "name at least one field");
    }
    if let Some(record_type) = &format.record_type {
        span((record_type.start, record_type.length), format.record_length, &format!("{path}.recordType"), faults);
    }
}

fn field(field: &FixedWidthField, record_length: Option<u32>, path: &str, faults: &mut Faults) {
    span((field.start, field.length), record_length, path, faults);
    let digits = match field.field_type {
        FixedWidthType::Text if field.scale > 0 => {
            faults.add(format!("{path}.scale"), "a text has no digits behind a decimal point; say type: zoned or packed");
            return;
        }
        FixedWidthType::Text => return,
        FixedWidthType::Zoned => field.length,
        FixedWidthType::Packed => field.length.saturating_mul(2).saturating_sub(1),
    };
    if digits > 63 {
        faults.add(format!("{path}.length"), format!("a decimal has at most 63 digits, this one would have {digits}"));
    } else if field.scale > digits {
        faults.add(format!("{path}.scale"), format!("the number has {digits} digits, so not {} behind the decimal point", field.scale));
    }
    if field.field_type == FixedWidthType::Packed && record_length.is_none() {
        let message = "a packed decimal can have any byte in it, also that of a line end: give fixedWidth.recordLength, for records without line ends";
        faults.add(format!("{path}.type"), message);
    }
}

fn span((start, length): (u32, u32), record_length: Option<u32>, path: &str, faults: &mut Faults) {
    if start == 0 || length == 0 {
        faults.add(path, "start counts from 1, and length is at least 1");
    } else if let Some(record_length) = record_length
        && u64::from(start) - 1 + u64::from(length) > u64::from(record_length)
    {
        faults.add(path, format!("it ends behind the record's {record_length} bytes"));
    }
}

/// Checks a glob on file names: `*`, `?`, `[…]` and `{…,…}`.
fn check_glob(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.contains(['/', '\0']) {
        return Err(format!("{pattern:?} is no pattern of file names: it has no \"/\", for example \"sales-*.csv\""));
    }
    let mut inside: Option<char> = None;
    for character in pattern.chars() {
        inside = match (inside, character) {
            (None, '[') => Some(']'),
            (None, '{') => Some('}'),
            (None, ']' | '}') => return Err(format!("{pattern:?} closes {character:?}, which it has not opened")),
            (Some(close), character) if character == close => None,
            (inside, _) => inside,
        };
    }
    match inside {
        Some(close) => Err(format!("{pattern:?} lacks a closing {close:?}")),
        None => Ok(()),
    }
}
