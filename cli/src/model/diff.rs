//! Two versions of DataModels compared for those who rely on them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use autonomy_crds::Model;
use autonomy_crds::compatibility::{self, Audience, Difference, Severity};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::resources::{self, Problems};

/// What is compared.
#[derive(Debug, Args)]
pub struct Options {
    /// The version there is: a YAML file with any number of documents, or a folder with YAML files at any depth. Models that are imported are among them.
    old: PathBuf,
    /// The version that comes.
    new: PathBuf,
    /// The form of the output.
    #[arg(short = 'o', long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// One JSON object with `breaking` and `differences`.
    Json,
}

/// Why two versions can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The files have faults.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// There is nothing to compare.
    #[error("{0} has no DataModel")]
    Empty(PathBuf),
    /// The differences can't be told.
    #[error("the differences can't be written")]
    Output(#[from] std::io::Error),
}

impl Options {
    /// Tells the differences; the exit code says whether one of them breaks somebody.
    ///
    /// # Errors
    /// When a version can't be read.
    pub fn run(self) -> Result<ExitCode, DiffError> {
        let differences = compatibility::compare(&read(&self.old)?, &read(&self.new)?);
        let breaking = differences.iter().any(|difference| difference.severity == Severity::Breaking);
        let mut out = std::io::stdout().lock();
        match self.output {
            Form::Table => write_table(&mut out, &differences)?,
            Form::Json => {
                let json = json!({"breaking": breaking, "differences": differences});
                serde_json::to_writer_pretty(&mut out, &json).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
        }
        Ok(ExitCode::from(u8::from(breaking)))
    }
}

fn read(path: &Path) -> Result<Vec<Model>, DiffError> {
    // Nothing is left out of a folder.
    let texts = resources::read(std::slice::from_ref(&path.to_owned()), Path::new(""))?;
    let models = resources::check_models(&texts)?;
    if models.is_empty() { Err(DiffError::Empty(path.to_owned())) } else { Ok(models) }
}

fn write_table(out: &mut impl Write, differences: &[Difference]) -> std::io::Result<()> {
    if differences.is_empty() {
        return writeln!(out, "no difference");
    }
    let width = differences.iter().map(|difference| difference.path.chars().count()).chain([4]).max().unwrap_or(4);
    writeln!(out, "{:<11} {:<width$} {:<29} CHANGE", "SEVERITY", "PATH", "BREAKS (MAY BREAK)")?;
    for difference in differences {
        writeln!(out, "{:<11} {:<width$} {:<29} {}", word(difference.severity), difference.path, hit(difference), difference.change)?;
        if difference.advice != "nothing" {
            writeln!(out, "{:<11} → {}", "", difference.advice)?;
        }
    }
    let count = |severity| differences.iter().filter(|difference| difference.severity == severity).count();
    let breaking = count(Severity::Breaking);
    writeln!(out, "{breaking} breaking, {} to look at, {} for information", count(Severity::Warning), count(Severity::Information))?;
    if breaking > 0 && std::io::stdout().is_terminal() {
        writeln!(out, "whoever is named under BREAKS has to change before this is applied")?;
    }
    Ok(())
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Breaking => "breaking",
        Severity::Warning => "warning",
        Severity::Information => "information",
    }
}

// Those it breaks, and in parentheses those it may break.
fn hit(difference: &Difference) -> String {
    let of = |severity| {
        [(Audience::Readers, "readers"), (Audience::Writers, "writers"), (Audience::Subscribers, "subscribers")]
            .into_iter()
            .filter(|(audience, _)| difference.effect_on(*audience) == Some(severity))
            .map(|(_, word)| word)
            .collect::<Vec<_>>()
    };
    let (breaks, warns) = (of(Severity::Breaking), of(Severity::Warning));
    match (breaks.is_empty(), warns.is_empty()) {
        (true, true) => "-".to_owned(),
        (false, true) => breaks.join(" "),
        (true, false) => format!("({})", warns.join(" ")),
        (false, false) => format!("{} ({})", breaks.join(" "), warns.join(" ")),
    }
}
