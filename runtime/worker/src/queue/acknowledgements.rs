//! Acknowledgements of a consumer's messages, gathered: many are sent together, and the server's confirmation of the last stands for all of
//! them, since it takes in their order what comes over a connection.

use std::sync::Arc;

use async_nats::client::{PublishError, RequestError, RequestErrorKind};
use async_nats::jetstream::message::AckKind;
use async_nats::{Client, Subject};
use tokio::sync::{mpsc, oneshot, watch};

const TOGETHER: usize = 256;

/// Why it is not known whether the server has an acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// It was not sent.
    #[error("it could not be sent")]
    Send(#[source] PublishError),
    /// The server did not confirm it.
    #[error("the server did not confirm it")]
    Confirm(#[source] RequestError),
    /// The connection was lost, and with it perhaps those that were sent before the confirmed one.
    #[error("the connection was lost meanwhile")]
    Interrupted,
    /// Nobody sends acknowledgements any more.
    #[error("the worker has stopped")]
    Stopped,
}

/// Acknowledges messages of one consumer.
#[derive(Clone, Debug)]
pub struct Acknowledgements(mpsc::UnboundedSender<Waiting>);

// As many as there are messages in hand, at the most.
#[derive(Debug)]
struct Waiting {
    reply: Subject,
    told: oneshot::Sender<Result<(), Arc<AcknowledgeError>>>,
}

impl Acknowledgements {
    /// Sends them until this and all its clones are gone. `interruptions` counts the client's lost connections.
    pub fn start(client: Client, interruptions: watch::Receiver<u64>) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        tokio::spawn(send(client, interruptions, waiting));
        Self(sender)
    }

    /// Acknowledges a message by its reply subject; done when the server has confirmed it.
    ///
    /// # Errors
    /// When it is not known whether the server has it.
    pub async fn acknowledge(&self, reply: Subject) -> Result<(), Arc<AcknowledgeError>> {
        let (told, confirmed) = oneshot::channel();
        let stopped = || Arc::new(AcknowledgeError::Stopped);
        self.0.send(Waiting { reply, told }).map_err(|_| stopped())?;
        confirmed.await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn send(client: Client, mut interruptions: watch::Receiver<u64>, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        interruptions.mark_unchanged();
        let mut result = confirm(&client, &together).await;
        if result.is_ok() && interruptions.has_changed().unwrap_or(true) {
            result = Err(AcknowledgeError::Interrupted);
        }
        let result = result.map_err(Arc::new);
        for Waiting { told, .. } in together.drain(..) {
            // Who no longer waits needs no answer.
            let _ = told.send(result.clone());
        }
    }
}

async fn confirm(client: &Client, together: &[Waiting]) -> Result<(), AcknowledgeError> {
    let Some((last, others)) = together.split_last() else { return Ok(()) };
    for Waiting { reply, .. } in others {
        client.publish(reply.clone(), AckKind::Ack.into()).await.map_err(AcknowledgeError::Send)?;
    }
    match client.request(last.reply.clone(), AckKind::Ack.into()).await {
        // Without its consumer a message is not delivered again.
        Err(error) if error.kind() != RequestErrorKind::NoResponders => Err(AcknowledgeError::Confirm(error)),
        _ => Ok(()),
    }
}
