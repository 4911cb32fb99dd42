//! Where the streams end: read at the start of each session, so that what is there is not published again and what was lost is.

use async_nats::jetstream;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind};
use autonomy_crds::event::{Position, header};

use crate::publish::Tail;
use crate::render::{EntityKey, Feed};

/// Why a stream's end can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// There is no such stream.
    #[error("stream {stream} is missing; the operator makes it. No event is skipped: the relay waits for it")]
    Missing {
        /// The stream.
        stream: String,
    },
    /// JetStream did not answer as expected.
    #[error("stream {stream} can't be read")]
    Read {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// The last message has no position.
    #[error(
        "message {sequence} of stream {stream} is no event of the relay (it has no position in its header ce-id); \
         only the relay may write to this stream: remove the message or the stream"
    )]
    Foreign {
        /// The stream.
        stream: String,
        /// The message.
        sequence: u64,
    },
}

/// A stream's end, and what its beginning lacks.
#[derive(Clone, Debug, Default)]
pub struct StreamEnd {
    /// The last sequence and its event's position; no position where the last message is gone (or there never was one).
    pub tail: Tail,
    /// The first sequence still there.
    pub first: u64,
}

fn read_error(stream: &str) -> impl FnOnce(async_nats::Error) -> ResumeError {
    move |source| ResumeError::Read { stream: stream.to_owned(), source }
}

/// Reads the end of a stream.
///
/// # Errors
/// When the stream is missing or can't be read.
pub async fn stream_end(jetstream: &jetstream::Context, name: &str) -> Result<StreamEnd, ResumeError> {
    let stream = match jetstream.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) => {
            let missing = matches!(
                error.kind(),
                jetstream::context::GetStreamErrorKind::JetStream(ref error)
                    if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
            );
            return Err(if missing { ResumeError::Missing { stream: name.to_owned() } } else { read_error(name)(error.into()) });
        }
    };
    let state = &stream.cached_info().state;
    let (sequence, first) = (state.last_sequence, state.first_sequence);
    if sequence == 0 || state.messages == 0 {
        return Ok(StreamEnd { tail: Tail { sequence, position: None }, first });
    }
    let message = match stream.get_raw_message(sequence).await {
        Ok(message) => message,
        // Expired or removed.
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
            return Ok(StreamEnd { tail: Tail { sequence, position: None }, first });
        }
        Err(error) => return Err(read_error(name)(error.into())),
    };
    let position = message.headers.get(header::ID).and_then(|id| id.as_str().parse::<Position>().ok());
    let position = position.ok_or(ResumeError::Foreign { stream: name.to_owned(), sequence })?;
    Ok(StreamEnd { tail: Tail { sequence, position: Some(position) }, first })
}

/// The sequence of an entity's last event; 0 where there is none.
///
/// # Errors
/// When the stream can't be read.
pub async fn entity_end(jetstream: &jetstream::Context, feed: &Feed, entity: &EntityKey) -> Result<u64, ResumeError> {
    let read = read_error(&feed.stream);
    let stream = match jetstream.get_stream_no_info(&feed.stream).await {
        Ok(stream) => stream,
        Err(error) => return Err(read(error.into())),
    };
    match stream.get_last_raw_message_by_subject(&entity.subjects).await {
        Ok(message) => Ok(message.sequence),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
        Err(error) => Err(read(error.into())),
    }
}
