//! What is seen of a running service: its newest failure, and how far its files are loaded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MicroServiceStatus;

/// A failed attempt at an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When it failed, RFC 3339.
    pub time: String,
    /// The event's id, as `autonomy dead-letters show` takes it.
    pub event_id: String,
    /// Why it failed.
    pub message: String,
    /// Whether the event became a dead letter; otherwise it is tried again.
    pub dead_letter: bool,
}

/// How far a file is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileProgress {
    /// The file's name.
    pub file: String,
    /// What is done with it.
    pub state: FileState,
    /// How many records it has.
    pub records: i64,
    /// How many are loaded, those of an earlier attempt included.
    pub loaded: i64,
    /// How many are rejected.
    pub rejected: i64,
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FileState {
    /// It is being loaded.
    #[default]
    Loading,
    /// It was loaded, and lies in `processed`.
    Processed,
    /// It could not be loaded as a whole, and lies in `rejected`.
    Rejected,
}

impl MicroServiceStatus {
    /// Without what changes all the time while the service runs, and is written by whoever looks at that.
    pub fn without_observations(self) -> Self {
        Self { lag: None, dead_letters: None, last_error: None, file: None, ..self }
    }
}
