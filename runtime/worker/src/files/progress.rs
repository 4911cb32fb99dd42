//! How far files are loaded, told on core NATS to whoever wants to know it now: nothing is stored.

use std::time::Duration;

use async_nats::Client;
use autonomy_crds::event::file_progress_subject;
use autonomy_crds::micro_service::FileProgress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

// Of what changes faster, only the last is told.
const PAUSE: Duration = Duration::from_secs(1);
const FAREWELL: Duration = Duration::from_secs(1);

/// Tells how far files are loaded; cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<Option<FileProgress>>);

impl Progress {
    /// Tells by this connection until `stop`.
    pub fn start(client: Client, namespace: &str, service: &str, stop: CancellationToken) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(publish(client, file_progress_subject(namespace, service), receiver, stop));
        Self(sender)
    }

    /// What is known of the file that is worked on.
    pub fn tell(&self, progress: FileProgress) {
        self.0.send_replace(Some(progress));
    }
}

async fn publish(client: Client, subject: String, mut latest: watch::Receiver<Option<FileProgress>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = latest.changed() => if changed.is_err() {
                break;
            },
        }
        tell(&client, &subject, &mut latest).await;
        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            break;
        }
    }
    // What became of the last file is told also by a worker that stops at once behind it.
    if latest.has_changed().unwrap_or(true) {
        tell(&client, &subject, &mut latest).await;
    }
    let _ = tokio::time::timeout(FAREWELL, client.flush()).await;
}

async fn tell(client: &Client, subject: &str, latest: &mut watch::Receiver<Option<FileProgress>>) {
    let text = latest.borrow_and_update().as_ref().and_then(|progress| serde_json::to_vec(progress).ok());
    let Some(text) = text else { return };
    if let Err(error) = client.publish(subject.to_owned(), text.into()).await {
        tracing::debug!(%error, "how far a file is loaded could not be told");
    }
}
