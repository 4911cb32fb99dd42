//! Reading resources from YAML files and folders, and checking all of them before anything is touched.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use autonomy_crds::documents::{self, Resource};
use autonomy_crds::resolve::{self, DEFAULT_NAMESPACE};
use autonomy_crds::{DataModel, DataPlatform, Faults, GROUP, MicroService, Model, webhook};
use autonomy_worker::service::CompiledService;
use autonomy_worker::worker::resolve_config;

/// Everything that is declared, checked.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The namespace of all of them.
    pub namespace: String,
    /// The models, those that others import first.
    pub models: Vec<Model>,
    /// The services by name.
    pub services: BTreeMap<String, MicroService>,
    /// The DataPlatform, where one is declared.
    pub platform: Option<DataPlatform>,
    /// What was left aside and why.
    pub notes: Vec<String>,
}

/// What is wrong with the files: every fault of all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the YAML; nothing was changed:", if self.0.len() == 1 { "a fault" } else { "faults" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// The text of every file, by its path: what [`read`] found and [`check`] takes.
pub type Texts = BTreeMap<PathBuf, String>;

/// Reads the files named, and every `*.yaml` and `*.yml` below the folders named. Hidden folders and `except` are passed over.
///
/// # Errors
/// Every path that can't be read.
pub fn read(paths: &[PathBuf], except: &Path) -> Result<Texts, Problems> {
    let mut texts = Texts::new();
    let mut problems = Vec::new();
    for path in paths {
        if let Err(error) = read_path(path, except, true, &mut texts) {
            problems.push(error);
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(Problems(problems)) }
}

fn read_path(path: &Path, except: &Path, named: bool, texts: &mut Texts) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("{} can't be read: {error}", path.display());
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        // Editors remove and make files as they save.
        Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault(error)),
    };
    if metadata.is_dir() {
        if path.canonicalize().is_ok_and(|path| path == except) {
            return Ok(());
        }
        for entry in std::fs::read_dir(path).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                read_path(&entry.path(), except, false, texts)?;
            }
        }
    } else if named || is_yaml(path) {
        match std::fs::read_to_string(path) {
            Ok(text) => drop(texts.insert(path.to_owned(), text)),
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
        }
    }
    Ok(())
}

/// Whether a file's name is that of a YAML file.
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Checks everything: the documents, the models with their imports, the services with their expressions. Nothing is touched.
///
/// # Errors
/// All faults of all files at once, each with its file, resource and field.
pub fn check(texts: &Texts) -> Result<Resources, Problems> {
    Declared::of(texts).resolve()
}

/// Checks the models alone, with their imports; what else is declared is passed over.
///
/// # Errors
/// All faults of all files at once, each with its file, resource and field.
pub fn check_models(texts: &Texts) -> Result<Vec<Model>, Problems> {
    let mut declared = Declared::of(texts);
    declared.services.clear();
    declared.resolve().map(|resources| resources.models)
}

/// Checks a service against the models: what it refers to, and its expressions, as its worker will.
///
/// # Errors
/// All its faults.
pub fn check_service(namespace: &str, service: &MicroService, models: &BTreeMap<String, Arc<Model>>) -> Result<(), Faults> {
    resolve::check_service(service, models)?;
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let config = resolve_config(&service.spec.config, |variable| std::env::var(variable).ok())?;
    CompiledService::compile(namespace, name, &service.spec, models, &config).map(|_| ())
}

// What the files declare, before it is resolved.
#[derive(Default)]
struct Declared {
    models: Vec<DataModel>,
    services: BTreeMap<String, MicroService>,
    platform: Option<DataPlatform>,
    // The file of each resource, by kind and name.
    files: BTreeMap<(&'static str, String), String>,
    namespaces: BTreeMap<String, String>,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Declared {
    fn of(texts: &Texts) -> Self {
        let mut declared = Self::default();
        for (path, text) in texts {
            declared.add_file(path, text);
        }
        declared
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let file = path.display().to_string();
        if !text.lines().any(is_our_version) {
            self.notes.push(format!("{file} is passed over: it has no resource of {GROUP}"));
            return;
        }
        match documents::parse(&file, text) {
            Ok(resources) => resources.into_iter().for_each(|resource| self.add(&file, resource)),
            Err(errors) => self.problems.extend(errors.iter().map(ToString::to_string)),
        }
    }

    fn add(&mut self, file: &str, resource: Resource) {
        let (kind, metadata) = match &resource {
            Resource::DataPlatform(platform) => ("DataPlatform", &platform.metadata),
            Resource::DataModel(model) => ("DataModel", &model.metadata),
            Resource::MicroService(service) => ("MicroService", &service.metadata),
        };
        let name = metadata.name.clone().unwrap_or_default();
        let namespace = metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        self.namespaces.entry(namespace).or_insert_with(|| format!("{file}: {kind} {name}"));
        if let Some(other) = self.files.insert((kind, name.clone()), file.to_owned()) {
            self.problems.push(format!("{file}: {kind} {name} is declared a second time; the first is in {other}"));
            return;
        }
        match resource {
            Resource::DataPlatform(platform) => self.platform = Some(platform),
            Resource::DataModel(model) => self.models.push(model),
            Resource::MicroService(service) => drop(self.services.insert(name, service)),
        }
    }

    fn resolve(mut self) -> Result<Resources, Problems> {
        if self.namespaces.len() > 1 {
            let places: Vec<String> = self.namespaces.iter().map(|(namespace, place)| format!("{namespace} ({place})")).collect();
            self.problems.push(format!("the resources are of several namespaces, and local mode runs one: {}", places.join(", ")));
        }
        let namespace = self.namespaces.keys().next().cloned().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        match resolve::resolve_all(&self.models) {
            Ok(models) => {
                self.check_services(&namespace, &models);
                self.add_webhooks(&namespace, &models);
                if self.problems.is_empty() {
                    let Self { services, platform, notes, .. } = self;
                    return Ok(Resources { namespace, models, services, platform, notes });
                }
            }
            Err(faults) => faults.into_iter().for_each(|(name, faults)| self.add_faults("DataModel", &name, &faults)),
        }
        Err(Problems(self.problems))
    }

    fn check_services(&mut self, namespace: &str, models: &[Model]) {
        let by_name = models.iter().map(|model| (model.name.clone(), Arc::new(model.clone()))).collect();
        let faulty: Vec<(String, Faults)> = self
            .services
            .iter()
            .filter_map(|(name, service)| Some((name.clone(), check_service(namespace, service, &by_name).err()?)))
            .collect();
        faulty.iter().for_each(|(name, faults)| self.add_faults("MicroService", name, faults));
    }

    // Each webhook is a service beside those that are declared.
    fn add_webhooks(&mut self, namespace: &str, models: &[Model]) {
        let by_name = models.iter().map(|model| (model.name.clone(), Arc::new(model.clone()))).collect();
        let declared = std::mem::take(&mut self.models);
        for model in &declared {
            let model_name = model.metadata.name.clone().unwrap_or_default();
            for (index, mut service) in webhook::services(model, |_| None).into_iter().enumerate() {
                let name = service.metadata.name.clone().unwrap_or_default();
                // There is no DataModel in a cluster that it could belong to.
                service.metadata.owner_references = None;
                let mut faults = check_service(namespace, &service, &by_name).err().map(|faults| webhook::faults_of_model(index, faults));
                match self.services.entry(name) {
                    Entry::Occupied(taken) => {
                        let name = taken.key();
                        let message =
                            format!("its service would be named {name}, and there is a MicroService of that name; rename one of them");
                        faults.get_or_insert_default().add(format!("spec.webhooks[{index}].name"), message);
                    }
                    Entry::Vacant(place) if faults.is_none() => drop(place.insert(service)),
                    Entry::Vacant(_) => {}
                }
                if let Some(faults) = faults {
                    self.add_faults("DataModel", &model_name, &faults);
                }
            }
        }
        self.models = declared;
    }

    fn add_faults(&mut self, kind: &'static str, name: &str, faults: &Faults) {
        let file = self.files.get(&(kind, name.to_owned())).cloned().unwrap_or_default();
        self.problems.extend(faults.0.iter().map(|fault| format!("{file}: {kind} {name}: {fault}")));
    }
}

fn is_our_version(line: &str) -> bool {
    line.trim_start().strip_prefix("apiVersion:").is_some_and(|version| {
        let version = version.trim().trim_matches(|c| c == '"' || c == '\'');
        version.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/'))
    })
}
