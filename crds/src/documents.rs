//! Reading resources from YAML text, as strictly as a cluster would.

use crate::{DataModel, DataPlatform, MicroService};

/// A resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// Where data lives.
    DataPlatform(DataPlatform),
    /// Business entities.
    DataModel(DataModel),
    /// Business logic.
    MicroService(MicroService),
}

/// What is wrong with a document, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// The file's name as given.
    pub source_name: String,
    /// The document's number in the file, from 1.
    pub document: usize,
    /// The line in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// The field, where it is known: `spec.entities[2].name`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.source_name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, " (document {})", self.document)?;
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Reads all documents of a YAML text. `source` is the file's name, for messages.
///
/// # Errors
/// Every fault of every document at once.
pub fn parse(source: &str, text: &str) -> Result<Vec<Resource>, Vec<DocumentError>> {
    let error = |document: usize, message: String| DocumentError {
        source_name: source.to_owned(),
        document,
        line: None,
        path: String::new(),
        message,
    };
    let values: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).map_err(|cause| vec![error(1, cause.to_string())])?;
    let mut resources = Vec::new();
    let mut errors = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let kind = value.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
        let read = match kind.as_str() {
            "DataPlatform" => serde_json::from_value(value).map(Resource::DataPlatform).map_err(|cause| cause.to_string()),
            "DataModel" => serde_json::from_value(value).map(Resource::DataModel).map_err(|cause| cause.to_string()),
            "MicroService" => serde_json::from_value(value).map(Resource::MicroService).map_err(|cause| cause.to_string()),
            _ => Err(format!("kind {kind:?} is not known; known are DataPlatform, DataModel and MicroService")),
        };
        match read {
            Ok(resource) => resources.push(resource),
            Err(message) => errors.push(error(index + 1, message)),
        }
    }
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}
