//! What the workers of a service agree on in a stream: the last message of a subject, and replacing it on condition that nobody else did, together
//! with other messages where there are some: all are stored, or none is (JetStream's atomic batches, ADR-50).

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, PublishError, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind, Stream};
use bytes::Bytes;

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    /// The subject.
    pub subject: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The data.
    pub payload: Bytes,
}

/// Why a batch was not stored, or why it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The subject of the last message is not where it was expected: somebody else has written to it. Nothing was stored.
    #[error("somebody else has written to the subject")]
    Overtaken,
    /// Something else; the batch may have been stored.
    #[error(transparent)]
    Unknown(#[from] PublishError),
}

/// The last message of a subject as the stream's leader has it; none where there is none.
///
/// # Errors
/// When the server does not tell.
pub async fn last(stream: &Stream<()>, subject: &str) -> Result<Option<StreamMessage>, LastRawMessageError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Publishes messages and, behind them, one on condition that its subject's last sequence is `expected` (0 where it must have none); gives its
/// new sequence.
///
/// # Errors
/// When nothing was stored, or it is not known.
pub async fn publish(jetstream: &Context, messages: Vec<Message>, mut last: Message, expected: u64) -> Result<u64, BatchError> {
    last.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string().as_str());
    if !messages.is_empty() {
        let id = format!("{:032x}", rand::random::<u128>());
        let client = jetstream.client();
        let count = messages.len();
        for (index, mut message) in messages.into_iter().enumerate() {
            message.headers.insert(NATS_BATCH_ID, id.as_str());
            message.headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string().as_str());
            client
                .publish_with_headers(message.subject, message.headers, message.payload)
                .await
                .map_err(|error| PublishError::with_source(PublishErrorKind::BrokenPipe, error))?;
        }
        last.headers.insert(NATS_BATCH_ID, id.as_str());
        last.headers.insert(NATS_BATCH_SEQUENCE, (count + 1).to_string().as_str());
        last.headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
    }
    let acknowledged = async { jetstream.publish_with_headers(last.subject, last.headers, last.payload).await?.await };
    match acknowledged.await {
        Ok(acknowledgement) => Ok(acknowledgement.sequence),
        Err(error) if is_overtaken(&error) => Err(BatchError::Overtaken),
        Err(error) => Err(BatchError::Unknown(error)),
    }
}

fn is_overtaken(error: &PublishError) -> bool {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    error.kind() == PublishErrorKind::WrongLastSequence
        || cause.is_some_and(|cause| cause.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}
