//! The replication slot: made, inspected and, where it is lost, made anew; and connections that speak the replication protocol.

use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationConfig};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

/// Why the slot can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The database did not answer as expected.
    #[error("replication slot {slot} can't be inspected or made")]
    Database {
        /// The slot.
        slot: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The slot belongs to something else.
    #[error("replication slot {slot} is of database {database:?} and plugin {plugin:?}; choose another name with --slot-name")]
    Foreign {
        /// The slot.
        slot: String,
        /// Its database.
        database: String,
        /// Its output plugin.
        plugin: String,
    },
    /// The replication connection failed.
    #[error("the replication connection failed")]
    Connection(#[from] PgWireError),
    /// A snapshot's answer that can't be read.
    #[error("PostgreSQL's answer to CREATE_REPLICATION_SLOT is not understood")]
    Answer,
    /// The URL can't be used for replication.
    #[error("AUTONOMY_DATABASE_URL can't be used for replication: {0}")]
    Url(String),
}

/// The slot as the server shows it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Whether a connection uses it.
    pub active: bool,
    /// Whether its log is gone.
    pub lost: bool,
    /// Whether its log may soon be gone.
    pub in_danger: bool,
    /// Where it would start again.
    pub confirmed: u64,
    /// How much log it keeps, in bytes.
    pub retained_bytes: i64,
    /// The end of the log.
    pub log_end: u64,
}

/// What names the slot and reaches it.
#[derive(Clone)]
pub struct SlotAccess {
    /// The slot's name.
    pub name: String,
    /// The publication.
    pub publication: String,
    config: ReplicationConfig,
}

// Database, plugin, active, wal_status, confirmed position, bytes retained, end of the log, this database.
type Row = (Option<String>, Option<String>, bool, Option<String>, Option<i64>, Option<i64>, i64, String);

impl SlotAccess {
    /// Access by this database URL.
    ///
    /// # Errors
    /// When the URL is not of a kind that replication can use.
    pub fn new(url: &str, name: &str, publication: &str) -> Result<Self, SlotError> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(legal) {
            return Err(SlotError::Url(format!("{name:?} is no name for a slot: lower-case letters, digits and underscores are")));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| SlotError::Url(error.to_string()))?;
        let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
        let config = ReplicationConfig::new(
            host,
            options.get_username(),
            password(url).unwrap_or_default(),
            options.get_database().unwrap_or_else(|| options.get_username()),
            name,
            publication,
        )
        .with_port(options.get_port())
        .with_application_name(format!("autonomy-relay/{name}"))
        // The JSON form of values relies on these.
        .with_options("-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c bytea_output=hex -c extra_float_digits=3")
        // A status update wakes the server's sender, which then tells how far it is: an idle database's position advances by that.
        .with_status_interval(Duration::from_millis(100))
        .with_wakeup_interval(Duration::from_millis(100))
        // At most this many messages wait in memory.
        .with_buffer_size(1024);
        Ok(Self { name: name.to_owned(), publication: publication.to_owned(), config })
    }

    fn database(&self) -> impl FnOnce(sqlx::Error) -> SlotError {
        let slot = self.name.clone();
        move |source| SlotError::Database { slot, source }
    }

    /// Looks at the slot; `None` where there is none.
    ///
    /// # Errors
    /// When it can't be read, or is no slot of the relay's.
    pub async fn inspect(&self, pool: &PgPool) -> Result<Option<Slot>, SlotError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT database::text, plugin::text, active, wal_status, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint, \
             (pg_current_wal_lsn() - restart_lsn)::bigint, (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint, \
             current_database()::text FROM pg_replication_slots WHERE slot_name = $1",
        )
        .bind(&self.name)
        .fetch_optional(pool)
        .await
        .map_err(self.database())?;
        let Some((database, plugin, active, status, confirmed, retained, log_end, here)) = row else { return Ok(None) };
        if database.as_deref() != Some(here.as_str()) || plugin.as_deref() != Some("pgoutput") {
            return Err(SlotError::Foreign {
                slot: self.name.clone(),
                database: database.unwrap_or_default(),
                plugin: plugin.unwrap_or_default(),
            });
        }
        let status = status.as_deref();
        Ok(Some(Slot {
            active,
            lost: status == Some("lost"),
            in_danger: matches!(status, Some("lost" | "unreserved")),
            confirmed: confirmed.unwrap_or(0) as u64,
            retained_bytes: retained.unwrap_or(0),
            log_end: log_end as u64,
        }))
    }

    /// Makes the slot. It begins where no transaction is open, so this waits for those that are.
    ///
    /// # Errors
    /// When it can't be made, or another relay makes it.
    pub async fn create(&self, pool: &PgPool) -> Result<(), SlotError> {
        sqlx::query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')")
            .bind(&self.name)
            .execute(pool)
            .await
            .map_err(self.database())?;
        Ok(())
    }

    /// Drops the slot.
    ///
    /// # Errors
    /// When it can't be dropped.
    pub async fn drop_slot(&self, pool: &PgPool) -> Result<(), SlotError> {
        sqlx::query("SELECT pg_drop_replication_slot($1)").bind(&self.name).execute(pool).await.map_err(self.database())?;
        Ok(())
    }

    /// Begins to stream from the confirmed position; the slot is this connection's from then on.
    ///
    /// # Errors
    /// When the connection fails or the slot is in use.
    pub async fn stream(&self) -> Result<ReplicationClient, SlotError> {
        let mut client = ReplicationClient::connect(self.config.clone().with_ack_lsn(Lsn::ZERO)).await?;
        client.wait_started().await?;
        Ok(client)
    }

    /// A snapshot of the database at an exact place of the log: all that was committed before it and nothing else. It can be taken up by other
    /// connections as long as the [`ExportedSnapshot`] lives.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn snapshot(&self) -> Result<ExportedSnapshot, SlotError> {
        let mut client = ReplicationClient::connect_gated(self.config.clone()).await?;
        let name = format!("{}_snapshot_{}", self.name, std::process::id());
        let command = format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT");
        let rows = client.simple_query(&command).await?;
        let row = rows.into_iter().next().ok_or(SlotError::Answer)?;
        let text = |index: usize| row.get(index).cloned().flatten().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let position = text(1).and_then(|text| Lsn::parse(&text).ok()).ok_or(SlotError::Answer)?;
        let name = text(2).ok_or(SlotError::Answer)?;
        Ok(ExportedSnapshot { position: position.as_u64(), name, _client: client })
    }
}

/// A snapshot at an exact place of the log.
pub struct ExportedSnapshot {
    /// All commits whose record begins before it are in the snapshot.
    pub position: u64,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub name: String,
    // Its session keeps the snapshot (and a temporary slot) until it ends.
    _client: ReplicationClient,
}

// `postgres://user:password@host…`: sqlx does not give the password back.
fn password(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    percent_decode_str(password).decode_utf8().ok().map(|password| password.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_come_from_the_url() {
        assert_eq!(password("postgres://u:p%40ss@h:5/d?x=y").as_deref(), Some("p@ss"));
        assert_eq!(password("postgres://u@h/d"), None);
    }

    #[test]
    fn slot_names_are_checked() {
        assert!(SlotAccess::new("postgres://u@h/d", "autonomy; DROP", "p").is_err());
        assert!(SlotAccess::new("postgres://u@h/d", "autonomy", "p").is_ok());
    }
}
