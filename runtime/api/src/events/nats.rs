//! The connection that all subscribers share.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use autonomy_process::options::{NatsConnectError, nats_connect_options};
use tokio::sync::watch;

// Apart from all others', so that a user may be given these alone.
const INBOX: &str = "_INBOX.api";
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to NATS; its server may be away.
pub struct Nats {
    /// JetStream.
    pub jetstream: Context,
    interruptions: watch::Receiver<u64>,
}

impl Nats {
    /// Begins to connect, and goes on trying.
    ///
    /// # Errors
    /// When the URL is none.
    pub async fn connect(url: &str) -> Result<Self, NatsConnectError> {
        let (lost, interruptions) = watch::channel(0);
        let client = nats_connect_options(url)?
            .event_callback(move |event| {
                if matches!(event, async_nats::Event::Disconnected) {
                    lost.send_modify(|count| *count += 1);
                }
                std::future::ready(())
            })
            .name("autonomy-api")
            .custom_inbox_prefix(INBOX)
            .retry_on_initial_connect()
            .ping_interval(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(|attempts| Duration::from_millis(50 * u64::try_from(attempts.min(20)).unwrap_or(20)))
            .connect(url)
            .await?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(PATIENCE);
        Ok(Self { jetstream, interruptions })
    }

    /// Whether a server is there now.
    pub fn is_connected(&self) -> bool {
        self.jetstream.client().connection_state() == State::Connected
    }

    /// Tells each loss of the connection from here on.
    pub fn interruptions(&self) -> watch::Receiver<u64> {
        let mut interruptions = self.interruptions.clone();
        interruptions.mark_unchanged();
        interruptions
    }
}
