//! Secrets as Kubernetes mounts them, `{folder}/{secret}/{key}`: files that change in place while the worker runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use autonomy_crds::data_platform::SecretKeyReference;

// A change is seen after this long; between, a busy step reads no files.
const FRESH: Duration = Duration::from_secs(1);

/// Why a Secret can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The worker was started without the folder of Secrets.
    #[error("the Secret {name}'s key {key} is needed; give the worker --secrets-dir")]
    NoFolder {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
    },
    /// The reference would lead out of the folder.
    #[error("the Secret {name}'s key {key} is no name of a Secret")]
    NoName {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
    },
    /// The file is not there, or is no text; it may come.
    #[error("the Secret {name}'s key {key} can't be read: {source}")]
    Unreadable {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
        /// Why.
        source: std::io::Error,
    },
}

impl SecretError {
    /// Whether it may pass: a Secret that is not there may be made.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}

// When each was read, and what it was.
type Read = HashMap<SecretKeyReference, (Instant, Arc<str>)>;

/// The worker's Secrets; cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets {
    folder: Option<PathBuf>,
    read: Arc<Mutex<Read>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Those below a folder, where there is one.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, ..Self::default() }
    }

    /// The text of a Secret's key without the blanks and line ends around it, as it was at most a second ago.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn text(&self, reference: &SecretKeyReference) -> Result<Arc<str>, SecretError> {
        let held = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned();
        if let Some((at, text)) = held
            && at.elapsed() < FRESH
        {
            return Ok(text);
        }
        let (name, key) = (reference.secret_name.clone(), reference.key.clone());
        let Some(folder) = &self.folder else { return Err(SecretError::NoFolder { name, key }) };
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0']);
        if !plain(&name) || !plain(&key) {
            return Err(SecretError::NoName { name, key });
        }
        let text = match tokio::fs::read_to_string(folder.join(&name).join(&key)).await {
            Ok(text) => Arc::from(text.trim()),
            Err(source) => return Err(SecretError::Unreadable { name, key, source }),
        };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.clone(), (Instant::now(), Arc::clone(&text)));
        Ok(text)
    }
}
