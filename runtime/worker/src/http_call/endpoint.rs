//! A web service as one step calls it: who calls, whom they trust, how many at a time, and whether it is left alone for now.

use autonomy_crds::data_platform::SecretKeyReference;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::breaker::{Breaker, Leave};
use super::call_log::CallLog;
use super::credentials::Credentials;
use super::rate_limit::{RateLimit, Timelines};
use super::trust::TlsClient;
use crate::steps::Failure;

/// What holds for all calls of a step.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// The step, in messages and metrics.
    pub(crate) name: String,
    pub(crate) credentials: Credentials,
    pub(crate) signing_secret: Option<SecretKeyReference>,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) permits: Option<Semaphore>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) log: Option<CallLog>,
}

/// The leave to call an endpoint now.
pub(super) struct Admission<'a> {
    _worker: SemaphorePermit<'a>,
    _endpoint: Option<SemaphorePermit<'a>>,
    leave: Option<Leave<'a>>,
}

impl Endpoint {
    /// The container beside the worker.
    pub(crate) fn of_handler() -> Self {
        Self { name: "handler".to_owned(), ..Self::default() }
    }

    /// Whatever takes tickets.
    pub(super) fn of_tickets() -> Self {
        Self { name: "ticket".to_owned(), ..Self::default() }
    }

    /// Waits for a place among the worker's calls and the endpoint's own, for a turn where calls are limited, and until the endpoint's breaker lets
    /// calls through. While it waits for that it holds no place.
    pub(super) async fn admit<'a>(&'a self, worker: &'a Semaphore, timelines: Option<&Timelines>) -> Result<Admission<'a>, Failure> {
        let closed = |_| Failure::retryable("the worker stops");
        loop {
            if let Some(breaker) = &self.breaker {
                breaker.wait().await;
            }
            let endpoint = match &self.permits {
                Some(permits) => Some(permits.acquire().await.map_err(closed)?),
                None => None,
            };
            if let (Some(limit), Some(timelines)) = (&self.rate_limit, timelines) {
                limit.turn(timelines).await;
            }
            let worker = worker.acquire().await.map_err(closed)?;
            let leave = match self.breaker.as_ref().map(Breaker::try_leave) {
                // It opened in the meantime.
                Some(None) => continue,
                Some(leave) => leave,
                None => None,
            };
            return Ok(Admission { _worker: worker, _endpoint: endpoint, leave });
        }
    }
}

impl Admission<'_> {
    /// The call's outcome. True where it opened the breaker.
    pub(super) fn tell(self, answered: bool) -> bool {
        self.leave.is_some_and(|leave| leave.tell(answered))
    }
}
