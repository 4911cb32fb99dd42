//! The reject file of a file: `line,reason,row`, written aside and published when it is whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use super::directory::{Directory, publish};
use super::rows::{Row, write_field};

/// A row that was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Its line.
    pub line: u64,
    /// Why.
    pub reason: String,
    /// As it stands in the file.
    pub row: Vec<u8>,
}

impl Reject {
    /// A row with the reason.
    pub fn new(row: &Row, reason: impl Into<String>) -> Self {
        Self { line: row.line, reason: reason.into(), row: row.raw.clone() }
    }
}

/// Gathers rejects in a file of its own. A restart begins it anew: the file is read again from its first row, so the rejects are whole again.
pub struct Rejects {
    folder: PathBuf,
    temporary: PathBuf,
    writer: Option<BufWriter<File>>,
    count: u64,
}

impl Rejects {
    /// None so far. The content's hash keeps two files of one name apart.
    pub fn new(directory: &Directory, name: &str, sha256: &str) -> Self {
        let folder = directory.folder("rejected");
        let temporary = folder.join(format!(".{name}.{}.rejects.tmp", &sha256[..sha256.len().min(16)]));
        Self { folder, temporary, writer: None, count: 0 }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn add(&mut self, rejects: &[Reject]) -> io::Result<()> {
        for reject in rejects {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                None => {
                    let mut writer = BufWriter::new(File::create(&self.temporary)?);
                    writer.write_all(b"line,reason,row\n")?;
                    self.writer.insert(writer)
                }
            };
            let mut line = reject.line.to_string().into_bytes();
            line.push(b',');
            write_field(&reject.reason, &mut line);
            line.push(b',');
            write_field(&String::from_utf8_lossy(&reject.row), &mut line);
            line.push(b'\n');
            writer.write_all(&line)?;
            self.count += 1;
        }
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Publishes them as `{name}.rejects.csv`, where there are any.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn publish(self, name: &str) -> io::Result<()> {
        let Some(writer) = self.writer else { return Ok(()) };
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        publish(&self.temporary, &self.folder, name, ".rejects.csv").map(drop)
    }

    /// Throws them away.
    pub fn discard(self) {
        if self.writer.is_some() {
            // A leftover is hidden, and begun anew the next time.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
