//! Bringing the reference data into the platform through its API, and the stores' files into its folder as stores do.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::platform::{Platform, PlatformError};
use crate::written::{REFERENCE, reference_file};

// Objects in a request.
const CHUNK: usize = 1_000;
// Stores that send at the same time.
const SENDERS: usize = 4;

/// Why the day can't be brought in.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A file can't be read or written.
    #[error("{} can't be read or written", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The platform does not take it.
    #[error("the platform does not take the reference data")]
    Platform(#[from] PlatformError),
}

fn at(file: &Path) -> impl FnOnce(io::Error) -> SeedError {
    let file = file.to_owned();
    move |source| SeedError::File { file, source }
}

/// Posts the reference data of a day's folder; gives how many objects it was. Objects that are there already stay as they are.
///
/// # Errors
/// When a file can't be read or the API refuses it.
pub async fn seed(platform: &Platform, folder: &Path) -> Result<u64, SeedError> {
    let mut count = 0;
    for (model, path) in REFERENCE {
        let file = reference_file(folder, model, path);
        let mut chunk: Vec<Value> = Vec::with_capacity(CHUNK);
        let mut lines = BufReader::new(fs::File::open(&file).map_err(at(&file))?).lines();
        loop {
            let line = lines.next().transpose().map_err(at(&file))?;
            let last = line.is_none();
            if let Some(line) = line {
                chunk.push(serde_json::from_str(&line).map_err(io::Error::other).map_err(at(&file))?);
            }
            if chunk.len() == CHUNK || (last && !chunk.is_empty()) {
                count += chunk.len() as u64;
                platform.post(&format!("/api/{model}/{path}"), &chunk).await?;
                chunk.clear();
            }
            if last {
                break;
            }
        }
    }
    Ok(count)
}

/// Puts the stores' files of a day's folder into `incoming` as stores do: some at once, some piece by piece, some under another name first.
/// A file that is noted in `dropped.txt` of the day's folder was put there before and is not put there again.
///
/// # Errors
/// When a file can't be read or written.
pub async fn drop_files(folder: &Path, incoming: &Path) -> Result<(), SeedError> {
    let stores = folder.join("stores");
    let noted = folder.join("dropped.txt");
    let dropped = match fs::read_to_string(&noted) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(at(&noted))?,
    };
    let read = || -> io::Result<Vec<PathBuf>> { fs::read_dir(&stores)?.map(|entry| Ok(entry?.path())).collect() };
    let mut files = read().map_err(at(&stores))?;
    // All stores send their first file first; the day goes on from there.
    files.sort_by_key(|file| {
        let name = name_of(file).to_owned();
        (name.trim_start_matches("sales-").split_once('-').map(|(_, rest)| rest.to_owned()), name)
    });
    files.retain(|file| !dropped.lines().any(|line| line == name_of(file)));
    fs::create_dir_all(incoming).map_err(at(incoming))?;
    futures::stream::iter(files.into_iter().enumerate())
        .map(|(index, file)| {
            let noted = &noted;
            async move {
                send(&file, incoming, index).await.map_err(at(&file))?;
                note(noted, name_of(&file)).map_err(at(noted))
            }
        })
        .buffer_unordered(SENDERS)
        .try_collect()
        .await
}

fn name_of(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn note(noted: &Path, name: &str) -> io::Result<()> {
    writeln!(fs::OpenOptions::new().create(true).append(true).open(noted)?, "{name}")
}

async fn send(file: &Path, incoming: &Path, index: usize) -> io::Result<()> {
    let bytes = fs::read(file)?;
    let target = incoming.join(name_of(file));
    match index % 3 {
        // Under another name first, as careful senders do.
        0 => {
            let part = incoming.join(format!("{}.part", name_of(file)));
            fs::write(&part, &bytes)?;
            fs::rename(&part, &target)
        }
        // Piece by piece, with pauses at any place in a row.
        1 => {
            let mut out = fs::File::create(&target)?;
            let piece = (bytes.len() / 5).max(1);
            for (number, piece) in bytes.chunks(piece).enumerate() {
                if number > 0 {
                    tokio::time::sleep(Duration::from_millis(if number == 3 { 900 } else { 120 })).await;
                }
                out.write_all(piece)?;
            }
            Ok(())
        }
        _ => fs::write(&target, &bytes),
    }
}
