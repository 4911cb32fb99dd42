//! Rows: what every format makes of a file.

use std::io;

use crate::expression::Value;

/// A row as read.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its first line, from 1; its number in a file without lines.
    pub line: u64,
    /// As it stands in the file, for the reject file.
    pub raw: Vec<u8>,
    /// What expressions see of it, or why it can't be read.
    pub value: Result<Value, String>,
    /// What it says of the record that it belongs to; none where rows are not grouped, or where it does not tell.
    pub group: Option<Box<str>>,
}

/// The rows of a file from its first to its last, in bounded memory.
pub trait Rows {
    /// The next row; `None` at the end of a file that is whole. A row that can't be read is a row all the same, so that none is lost by another.
    ///
    /// # Errors
    /// What makes the file unfit as a whole. No row is asked for after that.
    fn next_row(&mut self) -> Result<Option<Row>, FileError>;
}

/// Why a file can't be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what the trigger declares.
    #[error("{0}")]
    Wrong(String),
    /// It ends too early: the rest may still come.
    #[error("{0}")]
    CutShort(String),
}

/// A file that is not what the trigger declares.
pub(super) fn wrong<T>(message: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::Wrong(message.into()))
}

/// A file that ends too early.
pub(super) fn cut_short<T>(message: impl Into<String>) -> Result<T, FileError> {
    Err(FileError::CutShort(message.into()))
}
