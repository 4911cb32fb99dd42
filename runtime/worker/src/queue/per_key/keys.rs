//! The events of keys that are tried again, in the retry stream: of each such key the head, which is tried again, and its followers, which wait.
//!
//! A key has followers only as long as it has a head, so that whoever takes a partition over finds its waiting keys by their heads alone. A head is
//! replaced by its first follower before that one is deleted, and by a mark when it has none.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use autonomy_crds::event::{DeliveryHistory, HISTORY_HEADER, Ordered, ordered_subject};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;

use super::super::event::Event;
use super::super::publish::own_headers;
use super::record::Error;
use crate::atomic::{self, Message};
use crate::retry::{ATTEMPTS_BEFORE_HEADER, TRIED_SINCE_HEADER};

// When a head is tried again, RFC 3339.
const RETRY_AT_HEADER: &str = "autonomy-retry-at";
// A head that is done with and has no follower.
const DONE_HEADER: &str = "autonomy-done";

/// The waiting keys of one partition.
#[derive(Clone, Debug)]
pub struct Keys {
    pub retries: Stream<()>,
    pub namespace: String,
    pub service: String,
    pub partition: u64,
}

/// How long a head still waits; none where its time has come.
pub fn waits(head: &StreamMessage) -> Option<Duration> {
    let at: Timestamp = head.headers.get(RETRY_AT_HEADER)?.as_str().parse().ok()?;
    Duration::try_from(at.duration_since(Timestamp::now())).ok().filter(|wait| !wait.is_zero())
}

impl Keys {
    fn subject(&self, kept: Ordered<'_>) -> String {
        ordered_subject(&self.namespace, &self.service, kept)
    }

    fn message(&self, kept: Ordered<'_>, event: &Event, history: Option<&DeliveryHistory>) -> Message {
        let mut headers = own_headers(&event.headers);
        if let Some(history) = history {
            headers.insert(HISTORY_HEADER, serde_json::to_string(history).unwrap_or_default().as_str());
        }
        if event.attempts_before > 0 {
            headers.insert(ATTEMPTS_BEFORE_HEADER, event.attempts_before.to_string().as_str());
        }
        if let Some(since) = event.tried_since {
            headers.insert(TRIED_SINCE_HEADER, since.to_string().as_str());
        }
        Message { subject: self.subject(kept), headers, payload: event.payload.clone() }
    }

    /// The message by which an event becomes its key's head, or stays it, to be tried again after a while.
    pub fn head(&self, key: &str, event: &Event, history: &DeliveryHistory, wait: Duration) -> Message {
        let mut message = self.message(Ordered::Head(self.partition, key), event, Some(history));
        let now = Timestamp::now();
        let at = jiff::SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Timestamp::MAX);
        message.headers.insert(RETRY_AT_HEADER, at.to_string().as_str());
        message.headers.insert(TRIED_SINCE_HEADER, event.tried_since.unwrap_or(now).to_string().as_str());
        message
    }

    /// The message by which an event waits behind its key's head.
    pub fn follower(&self, key: &str, event: &Event) -> Message {
        self.message(Ordered::Follower(self.partition, key, event.place.sequence), event, Some(&event.history))
    }

    /// The message by which an event is kept until its dead letter is safe.
    pub fn dying(&self, event: &Event, history: &DeliveryHistory) -> Message {
        self.message(Ordered::Dying(self.partition, &event.id), event, Some(history))
    }

    /// The message by which a follower becomes its key's head.
    pub fn promoted(&self, key: &str, follower: &StreamMessage) -> Message {
        let mut headers = own_headers(&follower.headers);
        if let Some(history) = follower.headers.get(HISTORY_HEADER) {
            headers.insert(HISTORY_HEADER, history.clone());
        }
        Message { subject: self.subject(Ordered::Head(self.partition, key)), headers, payload: follower.payload.clone() }
    }

    /// The mark that a key no longer waits.
    pub fn done(&self, key: &str) -> Message {
        let mut headers = HeaderMap::new();
        headers.insert(DONE_HEADER, "true");
        Message { subject: self.subject(Ordered::Head(self.partition, key)), headers, payload: Bytes::new() }
    }

    /// A key's head; none where it does not wait.
    ///
    /// # Errors
    /// When the server does not tell.
    pub async fn head_of(&self, key: &str) -> Result<Option<StreamMessage>, Error> {
        let head = atomic::last(&self.retries, &self.subject(Ordered::Head(self.partition, key))).await?;
        Ok(head.filter(|head| head.headers.get(DONE_HEADER).is_none()))
    }

    /// A key's first follower.
    ///
    /// # Errors
    /// When the server does not tell.
    pub async fn first_follower(&self, key: &str) -> Result<Option<StreamMessage>, Error> {
        let any = self.subject(Ordered::Follower(self.partition, key, 0));
        let any = format!("{}*", any.trim_end_matches(|c: char| c.is_ascii_digit()));
        match self.retries.get_first_raw_message_by_subject(any, 1).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a mark away.
    pub async fn remove_mark(&self, key: &str) {
        let subject = self.subject(Ordered::Head(self.partition, key));
        if let Ok(Some(mark)) = atomic::last(&self.retries, &subject).await
            && mark.headers.get(DONE_HEADER).is_some()
        {
            self.remove(mark.sequence).await;
        }
    }

    /// Takes a message away, which nobody needs any more.
    pub async fn remove(&self, sequence: u64) {
        if let Err(error) = self.retries.delete_message(sequence).await {
            tracing::debug!(sequence, %error, "a message of the retry stream stays");
        }
    }

    /// An event that is becoming a dead letter.
    ///
    /// # Errors
    /// When the server does not tell.
    pub async fn dying_of(&self, event_id: &str) -> Result<Option<StreamMessage>, Error> {
        atomic::last(&self.retries, &self.subject(Ordered::Dying(self.partition, event_id))).await.map_err(Into::into)
    }

    /// The keys that wait, and the events that are becoming dead letters.
    ///
    /// # Errors
    /// When the server does not tell.
    pub async fn all(&self) -> Result<(Vec<String>, Vec<String>), Error> {
        let keys = self.last_tokens(&self.subject(Ordered::Head(self.partition, "*"))).await?;
        let dying = self.last_tokens(&self.subject(Ordered::Dying(self.partition, "*"))).await?;
        Ok((keys, dying))
    }

    async fn last_tokens(&self, filter: &str) -> Result<Vec<String>, Error> {
        let subjects = self.retries.info_with_subjects(filter).await?;
        let last = |subject: String| subject.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(subjects.map_ok(|(subject, _)| last(subject)).try_collect().await?)
    }
}
