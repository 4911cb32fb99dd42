//! What was committed before a file is taken, or a planned run begins, is in the caches before it is handled.

use std::time::Duration;

use autonomy_process::operations::Readiness;
use autonomy_process::telemetry::error_chain;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::worker::Context;

// Tells the position of a snapshot, and so of what is committed now.
const POSITION: &str = "autonomy-position";
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for caches.
pub struct Barrier {
    caches: Caches,
    client: reqwest::Client,
    url: Option<String>,
    readiness: Readiness,
    stop: CancellationToken,
}

impl Barrier {
    /// A barrier before these caches of the worker's service.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn new(context: &Context, caches: Caches) -> Result<Self, reqwest::Error> {
        let client = autonomy_process::http_client::builder().timeout(Duration::from_secs(10)).build()?;
        let url = context.service.caches.iter().find_map(|cache| {
            let entity = cache.model.entity(&cache.entity)?;
            let api = context.options.api_url.trim_end_matches('/');
            Some(format!("{api}/api/{}/{}?fields=id&limit=1", cache.model.name, entity.path))
        });
        Ok(Self { caches, client, url, readiness: context.readiness.clone(), stop: context.stop.clone() })
    }

    /// Waits until the caches are in sync; false when told to stop.
    pub async fn in_sync(&self) -> bool {
        loop {
            match self.caches.ready() {
                Ok(()) => return true,
                Err(reason) => self.readiness.not_ready(reason),
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = self.caches.wait_seen(1) => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Waits until the caches have seen everything that is committed now; false when told to stop.
    pub async fn pass(&self) -> bool {
        let Some(url) = &self.url else { return true };
        let position = loop {
            match self.position(url).await {
                Ok(position) => break position,
                Err(reason) => tracing::warn!("the API can't tell its position: {reason}; trying again"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.caches.wait_seen(position) => true,
        }
    }

    async fn position(&self, url: &str) -> Result<u64, String> {
        let request = self.client.get(url).header(reqwest::header::ACCEPT, "application/x-ndjson");
        let response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(|error| error_chain(&error))?;
        let header = response.headers().get(POSITION).and_then(|position| position.to_str().ok());
        header.and_then(|position| u64::from_str_radix(position, 16).ok()).ok_or_else(|| format!("its answer has no header {POSITION}"))
    }
}
