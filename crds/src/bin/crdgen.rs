//! Writes the CustomResourceDefinitions into the chart and their reference into the docs, of the project in the
//! current folder: `make crds`. With `--check` it writes nothing, and exits with 1 where a file differs from the types.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = match arguments.as_slice() {
        [] => false,
        [only] if only == "--check" => true,
        _ => {
            eprintln!("usage: crdgen [--check]");
            return ExitCode::from(2);
        }
    };
    // Not the folder that it was built in: checkouts share a build folder.
    let root = Path::new(".");
    if !root.join("charts/autonomy").is_dir() {
        eprintln!("crdgen: run it in the project's root folder");
        return ExitCode::from(2);
    }
    match run(root, check) {
        Ok(differing) if check && !differing.is_empty() => {
            for file in differing {
                eprintln!("{} is not what the types in crds/src say", file.display());
            }
            eprintln!("run `make crds` and commit what it writes");
            ExitCode::FAILURE
        }
        Ok(differing) => {
            for file in differing {
                println!("written: {}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(cause) => {
            eprintln!("crdgen: {cause}");
            ExitCode::FAILURE
        }
    }
}

// The files that differ; they are written unless `check`.
fn run(root: &Path, check: bool) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let definitions = root.join("charts/autonomy/files/crds");
    let mut files: Vec<(PathBuf, String)> =
        autonomy_crds::schema::chart_files()?.into_iter().map(|(file, text)| (definitions.join(file), text)).collect();
    files.push((root.join("docs/reference.md"), autonomy_crds::reference::markdown()));
    let mut differing = Vec::new();
    for (path, text) in files {
        if std::fs::read_to_string(&path).is_ok_and(|written| written == text) {
            continue;
        }
        if !check {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, text)?;
        }
        differing.push(path);
    }
    Ok(differing)
}
