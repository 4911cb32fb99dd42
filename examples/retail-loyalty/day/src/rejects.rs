//! What the platform rejected of the stores' files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::platform::PlatformError;

/// What was rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// Receipts in reject files.
    pub receipts: u64,
    /// Files rejected as a whole.
    pub files: u64,
    /// Files whose content was loaded before, under another name.
    pub repeated: u64,
}

/// Reads the folders `rejected/` and `processed/` beside the stores' files.
///
/// # Errors
/// When it can't be read.
pub fn read(incoming: &Path) -> Result<Rejects, PlatformError> {
    let mut rejects = Rejects::default();
    each_file(&incoming.join("rejected"), |name, path| {
        if name.ends_with(".rejects.csv") {
            rejects.receipts += receipts(&fs::read_to_string(path)?);
        } else if name.ends_with(".csv") {
            rejects.files += 1;
        }
        Ok(())
    })?;
    each_file(&incoming.join("processed"), |name, _| {
        // The note says under which name the content was loaded.
        rejects.repeated += u64::from(name.ends_with(".note.txt"));
        Ok(())
    })?;
    Ok(rejects)
}

fn each_file(folder: &Path, mut take: impl FnMut(&str, &Path) -> io::Result<()>) -> Result<(), PlatformError> {
    let fault = |source| PlatformError::Folder { folder: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(fault)?,
    };
    for entry in entries {
        let path = entry.map_err(fault)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("sales-") {
            take(name, &path).map_err(fault)?;
        }
    }
    Ok(())
}

// The different receipts in a reject file (`line,reason,row`, where `row` is a row of the store's file as it stood there) of one store.
fn receipts(text: &str) -> u64 {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let rows = reader.records().filter_map(Result::ok);
    rows.filter_map(|reject| reject.get(2)?.split(',').nth(1).map(str::to_owned)).collect::<BTreeSet<String>>().len() as u64
}

#[cfg(test)]
mod tests {
    use super::receipts;

    #[test]
    fn rows_of_one_receipt_count_once() {
        let text =
            "line,reason,row\n7,two is no number,\"S001,000003,x\"\n8,\"its receipt, too\",\"S001,000003,y\"\n12,short,\"S001,000009\"\n";
        assert_eq!(receipts(text), 2);
    }
}
