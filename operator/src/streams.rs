//! The JetStream streams: one for each model, the retries and the dead letters of a namespace.
//!
//! Streams are made where they are not there and brought to the settings wanted; deleted only with `deletionPolicy: Delete`. A stream that was made again begins empty at
//! sequence 1: the relay sees it by its own record of the stream (`autonomy.relay_stream`), which is further on than the stream.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    CreateStreamError, DeleteStreamError, DeleteStreamErrorKind, GetStreamError, GetStreamErrorKind, UpdateStreamError,
};
use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};
use autonomy_crds::data_platform::{NatsConnection, PersistMode};
use autonomy_crds::{Model, event};

// The least that a server takes. Events are published with the sequence expected, dead letters and retries one a subject: nothing relies on it.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// How streams are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// How many servers hold each stream: 1, 3 or 5.
    pub replicas: usize,
    /// How long events stay in the models' streams; for ever where none.
    pub retention: Option<Duration>,
    /// When events are written to the models' streams. A stream that is there keeps what it has.
    pub persist_mode: PersistMode,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self { replicas: 1, retention: None, persist_mode: PersistMode::Default }
    }
}

impl StreamSettings {
    /// What is declared with a connection to NATS; events stay for ever.
    pub fn of(nats: &NatsConnection) -> Self {
        Self { replicas: usize::from(nats.replicas), retention: None, persist_mode: nats.persist_mode }
    }
}

/// Why a stream can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Looking at it failed.
    #[error("stream {stream} can't be looked at")]
    Look {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: GetStreamError,
    },
    /// Making it failed.
    #[error("stream {stream} can't be made; does another stream listen to {subjects}, and is JetStream on?")]
    Make {
        /// The stream.
        stream: String,
        /// Its subjects.
        subjects: String,
        /// Why.
        #[source]
        source: CreateStreamError,
    },
    /// Deleting it failed.
    #[error("stream {stream} can't be deleted")]
    Remove {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: DeleteStreamError,
    },
    /// Changing it failed.
    #[error("stream {stream} can't be brought to the settings wanted ({changes})")]
    Change {
        /// The stream.
        stream: String,
        /// What was to change.
        changes: String,
        /// Why.
        #[source]
        source: UpdateStreamError,
    },
}

/// Makes the streams of a namespace's models, its retries and its dead letters, or brings them to the settings wanted.
///
/// # Errors
/// When JetStream does not answer or refuses, with the stream's name.
pub async fn ensure(jetstream: &Context, namespace: &str, models: &[Model], settings: &StreamSettings) -> Result<(), StreamError> {
    for model in models {
        ensure_one(jetstream, model_stream(model, settings)).await?;
    }
    ensure_one(jetstream, retry_stream(namespace, settings)).await?;
    ensure_one(jetstream, dead_letter_stream(namespace, settings)).await
}

/// Deletes a model's stream with all its events; nothing where it is not there.
///
/// # Errors
/// When JetStream does not answer or refuses.
pub async fn remove_model(jetstream: &Context, stream: &str) -> Result<(), StreamError> {
    remove_one(jetstream, stream).await
}

/// Deletes the streams that the models of a namespace share: retries and dead letters.
///
/// # Errors
/// When JetStream does not answer or refuses.
pub async fn remove_shared(jetstream: &Context, namespace: &str) -> Result<(), StreamError> {
    remove_one(jetstream, &event::retry_stream(namespace)).await?;
    remove_one(jetstream, &event::dead_letter_stream(namespace)).await
}

async fn remove_one(jetstream: &Context, stream: &str) -> Result<(), StreamError> {
    match jetstream.delete_stream(stream).await {
        Ok(_) => {
            tracing::info!(stream, "stream deleted");
            Ok(())
        }
        Err(error) if matches!(error.kind(), DeleteStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND) => {
            Ok(())
        }
        Err(source) => Err(StreamError::Remove { stream: stream.to_owned(), source }),
    }
}

fn model_stream(model: &Model, settings: &StreamSettings) -> Config {
    Config {
        description: Some(format!("Every committed change of DataModel {}", model.name)),
        // An event is a fact: single ones are not taken out. Purging stays possible for erasure by law.
        deny_delete: true,
        max_age: settings.retention.unwrap_or_default(),
        // Only for these streams: a retry or a dead letter is nowhere else once its event was acknowledged.
        persist_mode: (settings.persist_mode == PersistMode::Async).then_some(PersistenceMode::Async),
        ..base(model.stream.clone(), model.stream_subjects.clone(), settings)
    }
}

fn retry_stream(namespace: &str, settings: &StreamSettings) -> Config {
    Config {
        description: Some(format!("Events of namespace {namespace} that wait for another attempt")),
        max_messages_per_subject: 1,
        allow_message_schedules: true,
        // A planned run comes with the note that it was planned, or not at all.
        allow_atomic_publish: true,
        // The server sets it with schedules: a schedule's subject holds its last message only.
        allow_rollup: true,
        ..base(event::retry_stream(namespace), event::retry_stream_subjects(namespace), settings)
    }
}

fn dead_letter_stream(namespace: &str, settings: &StreamSettings) -> Config {
    Config {
        description: Some(format!("Events of namespace {namespace} that no attempt could handle")),
        max_messages_per_subject: 1,
        ..base(event::dead_letter_stream(namespace), event::dead_letter_stream_subjects(namespace), settings)
    }
}

fn base(name: String, subjects: String, settings: &StreamSettings) -> Config {
    Config {
        name,
        subjects: vec![subjects],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        ..Config::default()
    }
}

async fn ensure_one(jetstream: &Context, wanted: Config) -> Result<(), StreamError> {
    let stream = wanted.name.clone();
    match jetstream.get_stream(&stream).await {
        Ok(found) => {
            let current = found.cached_info().config.clone();
            let changes = differences(&current, &wanted);
            if changes.is_empty() {
                return Ok(());
            }
            let changes = changes.join(", ");
            jetstream.update_stream(changed(current, wanted)).await.map_err(|source| StreamError::Change {
                stream: stream.clone(),
                changes: changes.clone(),
                source,
            })?;
            tracing::info!(stream, changes, "stream changed");
            Ok(())
        }
        Err(error) if not_found(&error) => {
            let subjects = wanted.subjects.join(", ");
            // Another one may make the same stream in this moment: the server then answers with it.
            jetstream.create_stream(wanted).await.map_err(|source| StreamError::Make { stream: stream.clone(), subjects, source })?;
            tracing::info!(stream, "stream made");
            Ok(())
        }
        Err(source) => Err(StreamError::Look { stream, source }),
    }
}

fn not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

// The settings that are ours; whatever else an administrator set stays.
fn changed(current: Config, wanted: Config) -> Config {
    Config {
        description: wanted.description,
        subjects: wanted.subjects,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_age: wanted.max_age,
        num_replicas: wanted.num_replicas,
        duplicate_window: wanted.duplicate_window,
        deny_delete: current.deny_delete || wanted.deny_delete,
        allow_direct: wanted.allow_direct,
        allow_rollup: current.allow_rollup || wanted.allow_rollup,
        allow_atomic_publish: wanted.allow_atomic_publish,
        // Once on it can't be taken back.
        allow_message_schedules: current.allow_message_schedules || wanted.allow_message_schedules,
        ..current
    }
}

fn differences(current: &Config, wanted: &Config) -> Vec<&'static str> {
    [
        ("description", current.description != wanted.description),
        ("subjects", current.subjects != wanted.subjects),
        ("messages per subject", current.max_messages_per_subject != wanted.max_messages_per_subject),
        ("retention", current.max_age != wanted.max_age),
        ("replicas", current.num_replicas != wanted.num_replicas),
        ("duplicate window", current.duplicate_window != wanted.duplicate_window),
        ("deny delete", wanted.deny_delete && !current.deny_delete),
        ("direct get", current.allow_direct != wanted.allow_direct),
        ("atomic publish", current.allow_atomic_publish != wanted.allow_atomic_publish),
        ("schedules", wanted.allow_message_schedules && !current.allow_message_schedules),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}
