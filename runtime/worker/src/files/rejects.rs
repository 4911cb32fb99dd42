//! The rejects of a file: lines of `line,reason,row`.

use super::formats::write_field;
use super::place::{PlaceError, RejectFile};
use super::records::Record;

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
    /// A record's rows with the reason of each; of an archive, the file that they are in is told.
    pub fn of(record: &Record, mut reason: impl FnMut(usize) -> String) -> Vec<Self> {
        let place = record.entry.as_ref().map(|entry| format!("{entry}: ")).unwrap_or_default();
        let rows = record.rows.iter().enumerate();
        rows.map(|(index, row)| Self { line: row.line, reason: format!("{place}{}", reason(index)), row: row.raw.clone() }).collect()
    }
}

/// Gathers rejects in a reject file.
pub struct Rejects<F> {
    file: F,
    count: u64,
}

impl<F: RejectFile> Rejects<F> {
    /// None so far.
    pub fn new(file: F) -> Self {
        Self { file, count: 0 }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When they can't be written.
    pub async fn add(&mut self, rejects: &[Reject]) -> Result<(), PlaceError> {
        for reject in rejects {
            let mut line = if self.count == 0 { b"line,reason,row\n".to_vec() } else { Vec::new() };
            line.extend_from_slice(reject.line.to_string().as_bytes());
            line.push(b',');
            write_field(&reject.reason, &mut line);
            line.push(b',');
            write_field(&String::from_utf8_lossy(&reject.row), &mut line);
            line.push(b'\n');
            self.file.write(&line).await?;
            self.count += 1;
        }
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Publishes them, where there are any.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn publish(self) -> Result<(), PlaceError> {
        if self.count == 0 { Ok(()) } else { self.file.publish().await }
    }

    /// Throws them away.
    pub async fn discard(self) {
        self.file.discard().await;
    }
}
