//! Folders and small secret files of a server.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::ServerError;

pub(crate) fn create(path: &Path, mode: u32) -> Result<(), ServerError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(fault("can't create the folder", path))
}

// The absolute path without symbolic links; the folder must exist.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, ServerError> {
    path.canonicalize().map_err(fault("can't find the folder", path))
}

/// Writes a file that only its owner reads, in one move: a crash leaves the old one or the new one.
///
/// # Errors
/// When it can't be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), ServerError> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(fault("can't write", path))
}

/// The secret in the file; one is made where the file is not there.
///
/// # Errors
/// When the file can't be read or written.
pub fn secret(path: &Path) -> Result<String, ServerError> {
    match std::fs::read_to_string(path) {
        Ok(secret) if !secret.trim().is_empty() => return Ok(secret.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault("can't read", path)(error)),
        _ => {}
    }
    let secret = random_hex()?;
    write_private(path, &secret)?;
    Ok(secret)
}

// 128 random bits: letters and digits only, so that they stand in URLs and configuration files as they are.
pub(crate) fn random_hex() -> Result<String, ServerError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(fault("can't read", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn fault<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> ServerError + 'a {
    move |source| ServerError::Folder { doing, path: path.to_owned(), source }
}
