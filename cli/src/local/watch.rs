//! Watching the YAML files: tells that something may have changed, when it has been quiet for a moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::resources::is_yaml;

// Editors write, rename and touch in a flurry.
const QUIET: Duration = Duration::from_millis(300);

/// A watch on the paths given to local mode.
pub struct FileWatch {
    // Watches as long as it lives.
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
}

impl FileWatch {
    /// Watches files (through their folders, since editors replace files) and whole folders.
    ///
    /// # Errors
    /// When the operating system gives no watch.
    pub fn start(paths: &[PathBuf]) -> notify::Result<Self> {
        // One waiting change is as good as many.
        let (sender, changes) = mpsc::channel(1);
        let named: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let files = named.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = match event {
                Ok(event) => !event.kind.is_access() && event.paths.iter().any(|path| is_yaml(path) || files.contains(path)),
                // An overflow, for example: look at everything.
                Err(_) => true,
            };
            if concerns {
                let _ = sender.try_send(());
            }
        })?;
        for path in &named {
            if path.is_dir() {
                watcher.watch(path, RecursiveMode::Recursive)?;
            } else {
                watcher.watch(path.parent().unwrap_or(Path::new("/")), RecursiveMode::NonRecursive)?;
            }
        }
        Ok(Self { _watcher: watcher, changes })
    }

    /// Waits for a change and for the quiet after it.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {}
    }
}
