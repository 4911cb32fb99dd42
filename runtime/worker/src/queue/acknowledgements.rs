//! Acknowledgements of a consumer's messages, gathered: many are sent together, and the server's confirmation of the last stands for all of
//! them, since a server takes in their order what comes over a connection. (Where a consumer of several replicas changes its leader in between,
//! some may be lost: their messages are delivered again, which does no harm but for calls made once more.)

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
    /// The connection was lost since it was to be sent: it was not, or those that were sent before the confirmed one may not have come.
    #[error("the connection was lost meanwhile")]
    Interrupted,
    /// Nobody sends acknowledgements any more.
    #[error("the worker has stopped")]
    Stopped,
}

/// Acknowledges messages of one consumer.
#[derive(Clone, Debug)]
pub struct Acknowledgements {
    client: Client,
    interruptions: watch::Receiver<u64>,
    // As many as there are messages in hand, at the most.
    waiting: mpsc::UnboundedSender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    reply: Subject,
    // Lost connections until then. Behind one that was lost since, the stream may have another event in the message's place.
    interruptions: u64,
    told: oneshot::Sender<Result<(), Arc<AcknowledgeError>>>,
}

impl Acknowledgements {
    /// Sends them until this and all its clones are gone. `interruptions` counts the client's lost connections.
    pub fn start(client: Client, interruptions: watch::Receiver<u64>) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        tokio::spawn(send(client.clone(), interruptions.clone(), waiting));
        Self { client, interruptions, waiting: sender }
    }

    /// Acknowledges a message by its reply subject, together with others; done when the server has confirmed it.
    ///
    /// # Errors
    /// When it is not known whether the server has it. It may be another's fault then: try [`Self::acknowledge_alone`].
    pub async fn acknowledge(&self, reply: Subject) -> Result<(), Arc<AcknowledgeError>> {
        let (told, confirmed) = oneshot::channel();
        let stopped = || Arc::new(AcknowledgeError::Stopped);
        let interruptions = *self.interruptions.borrow();
        self.waiting.send(Waiting { reply, interruptions, told }).map_err(|_| stopped())?;
        confirmed.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Acknowledges a message by itself. A server does not answer for a message that was delivered before its consumer was set back; with others
    /// such a one would hold them up.
    ///
    /// # Errors
    /// When it is not known whether the server has it.
    pub async fn acknowledge_alone(&self, reply: Subject) -> Result<(), Arc<AcknowledgeError>> {
        confirmed(&self.client, reply).await.map_err(Arc::new)
    }
}

async fn send(client: Client, mut interruptions: watch::Receiver<u64>, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut together, TOGETHER).await > 0 {
        let count = *interruptions.borrow_and_update();
        tell(together.extract_if(.., |waiting| waiting.interruptions != count), &Err(Arc::new(AcknowledgeError::Interrupted)));
        let mut result = confirm(&client, &together).await;
        if result.is_ok() && interruptions.has_changed().unwrap_or(true) {
            result = Err(AcknowledgeError::Interrupted);
        }
        tell(together.drain(..), &result.map_err(Arc::new));
    }
}

fn tell(waiting: impl Iterator<Item = Waiting>, result: &Result<(), Arc<AcknowledgeError>>) {
    for Waiting { told, .. } in waiting {
        // Who no longer waits needs no answer.
        let _ = told.send(result.clone());
    }
}

async fn confirm(client: &Client, together: &[Waiting]) -> Result<(), AcknowledgeError> {
    let Some((last, others)) = together.split_last() else { return Ok(()) };
    for Waiting { reply, .. } in others {
        client.publish(reply.clone(), AckKind::Ack.into()).await.map_err(AcknowledgeError::Send)?;
    }
    confirmed(client, last.reply.clone()).await
}

async fn confirmed(client: &Client, reply: Subject) -> Result<(), AcknowledgeError> {
    match client.request(reply, AckKind::Ack.into()).await {
        // Without its consumer a message is not delivered again.
        Err(error) if error.kind() != RequestErrorKind::NoResponders => Err(AcknowledgeError::Confirm(error)),
        _ => Ok(()),
    }
}
