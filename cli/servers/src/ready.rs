//! Waiting until a server that was just started answers.

use std::time::{Duration, Instant};

use crate::ServerError;
use crate::child::Child;
use crate::log_file::LogFile;

const PAUSE: Duration = Duration::from_millis(20);

/// A server that is starting.
pub(crate) struct Starting<'a> {
    /// What it is called in errors.
    pub server: &'static str,
    /// Its process.
    pub child: &'a Child,
    /// Its log.
    pub log: &'a LogFile,
    /// Where this start begins in the log.
    pub log_from: u64,
    /// How long it may take.
    pub seconds: u64,
    /// How long one probe may take.
    pub probe_limit: Duration,
}

impl Starting<'_> {
    /// Waits until `probe` succeeds.
    ///
    /// # Errors
    /// When the process ends or its time is over; both with the end of its log.
    pub async fn until_ready<E, Probe>(&self, probe: impl Fn() -> Probe) -> Result<(), ServerError>
    where
        E: std::fmt::Display,
        Probe: Future<Output = Result<(), E>>,
    {
        let Self { server, child, log, log_from, seconds, probe_limit } = *self;
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed().as_secs() < seconds {
            if let Some(status) = child.exited() {
                return Err(ServerError::Ended { server, status, log: log.path().to_owned(), tail: log.tail(log_from) });
            }
            match tokio::time::timeout(probe_limit, probe()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer".to_owned(),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ServerError::NotReady { server, seconds, last, log: log.path().to_owned(), tail: log.tail(log_from) })
    }
}
