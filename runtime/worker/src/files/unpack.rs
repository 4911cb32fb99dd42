//! Files as they are packed: not at all, by gzip, or as an archive of zip. They are unpacked while they are read, so nothing is held but a row.

use std::io::{self, BufRead, BufReader, Read, Seek};

use flate2::bufread::MultiGzDecoder;
use zip::ZipReadOptions;
use zip::read::Config;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use super::formats::FileError;
use super::glob::Glob;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// As an archive of files.
    Zip,
}

/// How many of a file's first bytes tell how it is packed.
pub const HEAD: usize = 4;

impl Packing {
    /// Tells it from a file's first bytes, and from its name.
    ///
    /// # Errors
    /// When the name says otherwise than the bytes.
    pub fn of(name: &str, head: &[u8]) -> Result<Self, FileError> {
        match head {
            // The third byte is the method, of which there is one.
            [0x1F, 0x8B, 8, ..] => Ok(Self::Gzip),
            // An archive begins with its first file, or is empty.
            [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6] => Ok(Self::Zip),
            _ if name.ends_with(".gz") => Err(FileError::CutShort("the file is called .gz and does not begin as gzip does".to_owned())),
            _ if name.ends_with(".zip") => {
                Err(FileError::CutShort("the file is called .zip and does not begin as an archive does".to_owned()))
            }
            _ => Ok(Self::None),
        }
    }
}

/// Reads a file that is no archive.
pub fn unpacked<'a>(reader: impl BufRead + 'a, packing: Packing) -> Box<dyn BufRead + 'a> {
    match packing {
        Packing::Gzip => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))),
        Packing::None | Packing::Zip => Box::new(reader),
    }
}

/// What a packed file's error means for the file.
pub fn packing_error(error: FileError, packing: Packing) -> FileError {
    let what = match packing {
        Packing::None => return error,
        Packing::Gzip => "gzip",
        Packing::Zip => "zip",
    };
    match error {
        FileError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            FileError::CutShort(format!("what {what} packed ends in the middle: the file was cut short"))
        }
        FileError::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            FileError::Wrong(format!("what {what} packed is damaged: {error}"))
        }
        error => error,
    }
}

/// Hands on each file of an archive whose name fits, in their order; where none fits, the one that is there. The archive's list is read from its
/// place in the file, not held.
///
/// # Errors
/// When the archive can't be read, or no file in it is meant; otherwise what `each` gives.
pub fn for_each_file<R: Read + Seek>(
    file: R,
    pattern: &Glob,
    mut each: impl FnMut(&str, Box<dyn BufRead + '_>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let mut archive = ZipIterable::try_new(file, Config::default()).map_err(zip_error)?;
    let (mut all, mut fitting) = (0_u64, 0_u64);
    for entry in archive.files().map_err(zip_error)? {
        let entry = entry.map_err(zip_error)?;
        let Some(name) = file_name(&entry.name().map_err(zip_error)?) else { continue };
        all += 1;
        fitting += u64::from(pattern.matches(&name));
    }
    if fitting == 0 && all != 1 {
        return Err(FileError::Wrong(match all {
            0 => "there is no file in the archive".to_owned(),
            all => format!("there are {all} files in the archive, and the pattern fits none of them"),
        }));
    }
    let entries = archive.files().map_err(zip_error)?;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(zip_error)?;
        let Some(name) = file_name(&entry.name().map_err(zip_error)?) else { continue };
        if fitting > 0 && !pattern.matches(&name) {
            continue;
        }
        let content = entry.with_reader(entries.reader_mut(), ZipReadOptions::new()).map_err(|error| within(&name, zip_error(error)))?;
        each(&name, Box::new(BufReader::with_capacity(1 << 16, content))).map_err(|error| within(&name, error))?;
    }
    Ok(())
}

// The last part of an entry's name; none for folders, hidden files and what macOS puts beside.
fn file_name(entry: &str) -> Option<String> {
    let name = entry.rsplit(['/', '\\']).next().unwrap_or_default();
    (!name.is_empty() && !name.starts_with('.') && !entry.starts_with("__MACOSX/")).then(|| name.to_owned())
}

fn within(name: &str, error: FileError) -> FileError {
    match packing_error(error, Packing::Zip) {
        FileError::Wrong(reason) => FileError::Wrong(format!("{name} in the archive: {reason}")),
        FileError::CutShort(reason) => FileError::CutShort(format!("{name} in the archive: {reason}")),
        error => error,
    }
}

fn zip_error(error: ZipError) -> FileError {
    match error {
        ZipError::Io(error) => packing_error(FileError::Io(error), Packing::Zip),
        // Its list is at the end, and is not there.
        ZipError::InvalidArchive(reason) => {
            FileError::CutShort(format!("the archive can't be read: {reason}; it is damaged or was cut short"))
        }
        error => FileError::Wrong(format!("the archive can't be read: {error}")),
    }
}
