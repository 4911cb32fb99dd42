//! The file a server logs to.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::ServerError;

// A log that has grown beyond this is put aside when its server starts.
const ROTATE_BYTES: u64 = 16 << 20;
const TAIL_BYTES: u64 = 16 << 10;
const TAIL_LINES: usize = 15;

/// A log file, appended to; put aside as `….log.1` when it has grown beyond 16 MiB.
#[derive(Clone, Debug)]
pub struct LogFile(PathBuf);

impl LogFile {
    /// The log at that path; nothing is made yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens it to append; the position is where the new lines will begin.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(&self) -> Result<(File, u64), ServerError> {
        let fault = |source| ServerError::Folder { doing: "can't write the log", path: self.0.clone(), source };
        if std::fs::metadata(&self.0).is_ok_and(|metadata| metadata.len() > ROTATE_BYTES) {
            std::fs::rename(&self.0, self.0.with_extension("log.1")).map_err(fault)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).map_err(fault)?;
        let from = file.seek(SeekFrom::End(0)).map_err(fault)?;
        Ok((file, from))
    }

    /// The last lines written since the position `from`.
    pub fn tail(&self, from: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.0)?;
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if tail.is_empty() { "(the log is empty)".to_owned() } else { tail.join("\n") }
    }
}
