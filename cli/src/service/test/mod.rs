//! `autonomy service test`: a service's YAML run against given events and stand-ins of web services, and its effects compared with what is
//! expected. Nothing else is needed: no cluster, no database, no NATS.

mod case;
mod comparison;
mod declared;
mod fixture;
mod report;
mod stand_in;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use autonomy_crds::documents::{self, Resource};
use autonomy_crds::{MicroService, Model, resolve};
use autonomy_worker::service::CompiledService;
use autonomy_worker::worker::resolve_config;
use clap::{Args, ValueEnum};

use crate::resources;
use declared::TestFile;
use report::{Report, Tested};

/// Runs services' tests.
#[derive(Debug, Args)]
pub struct Test {
    /// Test files, or folders with such (`*.yaml`).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only cases whose name has this text in it.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// How the outcome is told.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How the outcome is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// A JSON object.
    Json,
    /// JUnit's XML, as CI servers take it.
    Junit,
}

/// Why tests can't be run.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A file or what it names can't be read or is wrong.
    #[error("{}: {message}", file.display())]
    File {
        /// The test file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// There is nothing to test.
    #[error("there is no test file in {0}")]
    NoFile(String),
    /// No case has that name.
    #[error("no case has {0:?} in its name")]
    NoCase(String),
}

impl Test {
    /// Runs the tests and tells their outcome; the exit code is 1 where one failed.
    ///
    /// # Errors
    /// When a test file is wrong.
    pub async fn run(self) -> Result<ExitCode, TestError> {
        let mut report = Report::default();
        for file in test_files(&self.files)? {
            let tested = test(&file, self.case.as_deref()).await.map_err(|message| TestError::File { file: file.clone(), message })?;
            report.add(&file, tested);
        }
        if let Some(name) = self.case.filter(|_| report.is_empty()) {
            return Err(TestError::NoCase(name));
        }
        print!(
            "{}",
            match self.output {
                Output::Text => report.text(),
                Output::Json => report.json(),
                Output::Junit => report.junit(),
            }
        );
        Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn test_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, TestError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error: std::io::Error| TestError::File { file: path.clone(), message: error.to_string() };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?.path();
            if resources::is_yaml(&entry) {
                found.push(entry);
            }
        }
        found.sort();
        files.extend(found);
    }
    if files.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(TestError::NoFile(paths.join(", ")));
    }
    Ok(files)
}

async fn test(file: &Path, only: Option<&str>) -> Result<Vec<Tested>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let declared = TestFile::read(&text)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let models = models(&declared.models.iter().map(|path| folder.join(path)).collect::<Vec<_>>())?;
    let service = service(&folder.join(&declared.service))?;
    let compiled = compile(&declared, &service, &models)?;
    let mut tested = Vec::new();
    for case in &declared.cases {
        if only.is_none_or(|only| case.name.contains(only)) {
            tested.push(Tested { case: case.name.clone(), differences: case::run(&compiled, &models, &declared, case).await? });
        }
    }
    Ok(tested)
}

type Models = BTreeMap<String, Arc<Model>>;

fn models(paths: &[PathBuf]) -> Result<Models, String> {
    let texts = resources::read(paths, Path::new("")).map_err(|problems| problems.0.join("\n"))?;
    let models = resources::check_models(&texts).map_err(|problems| problems.0.join("\n"))?;
    Ok(models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect())
}

fn service(path: &Path) -> Result<MicroService, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("the service {} can't be read: {error}", path.display()))?;
    let resources = documents::parse(&path.display().to_string(), &text)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut services = resources.into_iter().filter_map(|resource| match resource {
        Resource::MicroService(service) => Some(service),
        _ => None,
    });
    match (services.next(), services.next()) {
        (Some(service), None) => Ok(service),
        (None, _) => Err(format!("{} has no MicroService", path.display())),
        (Some(_), Some(_)) => Err(format!("{} has several MicroServices; put each in a file of its own", path.display())),
    }
}

// As its worker would, with the test's values in its configuration.
fn compile(declared: &TestFile, service: &MicroService, models: &Models) -> Result<CompiledService, String> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let told = |faults: autonomy_crds::Faults| format!("the service {name} has faults:\n{faults}");
    resolve::check_service(service, models).map_err(told)?;
    if service.spec.has_embedded_logic() {
        let message = "is in a program of its own: test it there, with autonomy_worker::rehearsal, as examples/handlers/rust does";
        return Err(format!("the logic of the service {name} {message}"));
    }
    let mut config = service.spec.config.clone();
    for (key, value) in &declared.config {
        if config.insert(key.clone(), value.clone()).is_none() {
            return Err(format!("config: the service has no {key:?} in spec.config"));
        }
    }
    let config = resolve_config(&config, |_| None)
        .map_err(|faults| format!("{faults}\nA test gives such values itself: write them under config"))?;
    CompiledService::compile(&declared.namespace, name, &service.spec, models, &config).map_err(told)
}
