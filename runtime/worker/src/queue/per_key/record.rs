//! What is kept of a partition in the retry stream: who has it, and how far it is.

use async_nats::HeaderMap;
use autonomy_crds::event::{Ordered, ordered_subject};
use serde::{Deserialize, Serialize};

use super::window::Progress;
use crate::atomic::Message;

/// Who has a partition, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The worker that has it; none where it is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Counts what the owner wrote, so that it knows its own writing again.
    #[serde(default)]
    pub writes: u64,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
}

impl Record {
    /// Its message.
    pub fn message(&self, namespace: &str, service: &str, partition: u64) -> Message {
        Message {
            subject: ordered_subject(namespace, service, Ordered::Partition(partition)),
            headers: HeaderMap::new(),
            // Strings and numbers only: that does not fail.
            payload: serde_json::to_vec(self).unwrap_or_default().into(),
        }
    }
}

/// What NATS did not do; it is tried again, or the partition is let go.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
