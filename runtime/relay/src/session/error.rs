//! Why a stretch of work ends.

use autonomy_crds::event::Position;
use autonomy_process::options::NatsConnectError;
use pgwire_replication::PgWireError;

use crate::decode::DecodeError;
use crate::publish::PublishError;
use crate::repair::RepairError;
use crate::resume::ResumeError;
use crate::slot::SlotError;
use crate::state::StateError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Another relay works.
    #[error("another relay holds the replication slot")]
    Standby,
    /// NATS is not reached.
    #[error("NATS can't be reached")]
    Nats(#[from] NatsConnectError),
    /// The connection to NATS broke.
    #[error("the connection to NATS was lost")]
    NatsLost,
    /// The slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The relay's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A stream's end.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A repair.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The log's connection.
    #[error("the replication stream ended")]
    Replication(#[source] PgWireError),
    /// The log's connection was closed.
    #[error("PostgreSQL closed the replication stream")]
    ReplicationClosed,
    /// The log's content.
    #[error("the log can't be read")]
    Decode(#[from] DecodeError),
    /// A change of a table that the log has not described.
    #[error("the log has a change of table {0} before its description")]
    UnknownRelation(u32),
    /// A stream has other content than was acknowledged.
    #[error("stream {stream} ends at {found}, though {acknowledged} was acknowledged: it lost messages")]
    Shrunk {
        /// The stream.
        stream: String,
        /// Its last sequence.
        found: u64,
        /// The last sequence acknowledged.
        acknowledged: u64,
    },
    /// A stream is ahead of the database.
    #[error(
        "stream {stream} ends at position {position}, beyond the end of the database's log ({log_end:016X}): the database was restored from an older \
         backup or replaced. Remove the stream; it is then made anew and filled by a snapshot"
    )]
    Ahead {
        /// The stream.
        stream: String,
        /// Its last event.
        position: Position,
        /// The end of the log.
        log_end: u64,
    },
    /// A change that can't be published as an event; the stream is repaired next.
    #[error("stream {stream} has to be repaired by a snapshot: {reason}")]
    Drift {
        /// The stream.
        stream: String,
        /// Why.
        reason: String,
    },
}

impl SessionError {
    /// A short name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Nats(_) | Self::NatsLost => "nats",
            Self::Slot(_) => "slot",
            Self::State(_) => "state",
            Self::Resume(_) => "resume",
            Self::Publish(_) => "publish",
            Self::Repair(_) => "repair",
            Self::Replication(_) | Self::ReplicationClosed => "replication",
            Self::Decode(_) | Self::UnknownRelation(_) => "decode",
            Self::Shrunk { .. } | Self::Ahead { .. } => "stream",
            Self::Drift { .. } => "drift",
        }
    }
}
