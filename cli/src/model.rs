//! `autonomy model plan`: what a change of DataModels would do to the database of a running local mode, without doing it. `autonomy model diff`:
//! what it means to those who use the API and its events.

mod diff;

use std::path::PathBuf;
use std::process::ExitCode;

use autonomy_operator::apply::{self, ApplyError};
use autonomy_operator::catalog::{self, CatalogError};
use autonomy_operator::plan::Plan;
use clap::{Args, Subcommand};

use crate::local::data_folder::{DataFolderError, LocalFile};
use crate::resources::{self, Problems};

/// Looks at what a change of DataModels would do.
#[derive(Debug, Args)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows the plan from what a running local mode serves to what the files declare; changes nothing.
    Plan(PlanOptions),
    /// Tells the differences between two versions of DataModels, and which of them break readers of the API, writers of the API, or subscribers
    /// to events. Exits with 0 where none breaks anybody, with 1 where one does, and with 2 where they can't be compared.
    Diff(diff::Options),
}

#[derive(Debug, Args)]
struct PlanOptions {
    /// A YAML file, or a folder with YAML files at any depth; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The data folder of the local mode.
    #[arg(long, value_name = "DIR", default_value = ".autonomy/local")]
    data_dir: PathBuf,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files have faults.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// No local mode runs.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// The database did not answer.
    #[error("PostgreSQL did not answer as expected")]
    Database(#[from] sqlx::Error),
    /// The catalog can't be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A plan could not be made.
    #[error(transparent)]
    Plan(#[from] ApplyError),
    /// Two versions can't be compared.
    #[error(transparent)]
    Diff(#[from] diff::DiffError),
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no plan to show, or nothing to compare.
    pub async fn run(self) -> Result<ExitCode, ModelError> {
        let options = match self.action {
            Action::Plan(options) => options,
            Action::Diff(options) => return Ok(options.run()?),
        };
        let folder = options.data_dir.canonicalize().unwrap_or_else(|_| options.data_dir.clone());
        let resources = resources::check(&resources::read(&options.files, &folder)?)?;
        let pool = crate::local::admin_pool(&LocalFile::read(&options.data_dir)?).await?;
        let catalog = catalog::read(&pool).await?;
        for model in &resources.models {
            let plan = apply::plan_model(&pool, &catalog, model, &resources.models).await?;
            print(&plan);
        }
        for name in catalog.keys().filter(|name| !resources.models.iter().any(|model| model.name == **name)) {
            println!("model {name}: not declared in these files; it stays as it is");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(plan: &Plan) {
    let name = &plan.wanted.name;
    if plan.is_empty() {
        println!("model {name}: no change");
        return;
    }
    let verdict = if plan.is_safe() { "safe: it would be applied" } else { "hazardous: it would be refused" };
    println!("model {name}: {verdict} (plan {})", plan.sha256());
    for line in plan.to_string().lines() {
        println!("  {line}");
    }
}
