//! Repair by snapshot: the tables at one exact place of the log are compared with the last event of each object in the stream, and the differences
//! are published as events. It serves the first start with rows there already, a slot that was lost, a stream that was removed or lost synced
//! messages, and changes that the log does not tell (TRUNCATE).
//!
//! The events' position is just before that place (`place - 1`: no log record begins there), so that what follows in the log follows in the stream,
//! and what came before is skipped. An interrupted repair is made again; what it has published is no difference then.

use std::borrow::Cow;
use std::fmt::Write as _;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use autonomy_crds::Model;
use autonomy_crds::event::{Position, header};
use autonomy_crds::micro_service::Operation;
use autonomy_crds::names::quote_identifier;
use autonomy_crds::resolved::{Entity, SYSTEM_COLUMNS};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row, ValueRef};

use crate::metrics::StreamLabels;
use crate::publish::{Acknowledged, PublishError, Publisher, Tail};
use crate::render::{Event, Place, Plan, Renderer};
use crate::session::Resources;
use crate::slot::SlotError;
use crate::state::{self, StateError};

/// Why a repair stopped. It is made again.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// No snapshot.
    #[error("no snapshot for the repair of streams")]
    Snapshot(#[source] SlotError),
    /// The catalog.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database.
    #[error("the tables of stream {stream} can't be compared with it")]
    Database {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The stream.
    #[error("stream {stream} can't be read for its repair")]
    Read {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

// The columns of every event that are compared.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamps<'a> {
    #[serde(borrow, default)]
    created_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    updated_at: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Before<'a> {
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
}

/// An event's data without its member `before`.
pub fn without_before(data: &[u8]) -> Cow<'_, [u8]> {
    const MEMBER: &[u8] = b",\"before\":";
    let Ok(Before { before: Some(before) }) = serde_json::from_slice::<Before<'_>>(data) else {
        return Cow::Borrowed(data);
    };
    // The member is the last one: what is in front of its value, without its name.
    let end = (before.get().as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
    match data.get(..end).and_then(|head| head.strip_suffix(MEMBER)) {
        Some(head) => {
            let mut object = head.to_vec();
            object.push(b'}');
            Cow::Owned(object)
        }
        None => Cow::Borrowed(data),
    }
}

struct Repairing<'a, F> {
    jetstream: &'a jetstream::Context,
    renderer: &'a mut Renderer,
    publisher: &'a mut Publisher,
    acknowledged: &'a mut F,
    place: Place,
    published: u64,
}

/// Brings streams to the state of their tables; gives their ends.
///
/// # Errors
/// When it could not be finished.
pub async fn repair(
    resources: &Resources,
    jetstream: &jetstream::Context,
    renderer: &mut Renderer,
    publisher: &mut Publisher,
    streams: &[String],
    acknowledged: &mut impl FnMut(Acknowledged),
) -> Result<Vec<(String, Tail)>, RepairError> {
    let snapshot = resources.slot.snapshot().await.map_err(RepairError::Snapshot)?;
    let position = Position { commit: snapshot.position.saturating_sub(1), index: 0 };
    let place = Place { position, time: jiff::Timestamp::now().to_string().into(), ..Place::default() };
    let mut repairing = Repairing { jetstream, renderer, publisher, acknowledged, place, published: 0 };
    let mut ends = Vec::new();
    for stream in streams {
        let database = |source| RepairError::Database { stream: stream.clone(), source };
        // A connection of its own, closed afterwards: its temporary tables go with it.
        let mut connection = PgConnection::connect_with(&resources.pool.connect_options()).await.map_err(database)?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{}'",
            snapshot.name.replace('\'', "")
        )))
        .execute(&mut connection)
        .await
        .map_err(database)?;
        let models = state::read_catalog(&mut connection).await?;
        let model = models.values().map(|entry| &entry.model).find(|model| model.stream == *stream);
        let Some(feed) = repairing.renderer.feeds().iter().position(|feed| feed.stream == *stream) else { continue };
        let labels = StreamLabels { stream: stream.clone() };
        resources.metrics.repairs.get_or_create(&labels).inc();
        repairing.published = 0;
        if let Some(model) = model {
            repairing.stream(&mut connection, model).await?;
        }
        repairing.settle().await?;
        repairing.publisher.raise_position(feed, Position { index: u32::MAX, ..position });
        resources.metrics.repaired_events.get_or_create(&labels).inc_by(repairing.published);
        tracing::info!(stream, events = repairing.published, position = %position, "the stream equals its tables as of this position");
        if let Some(tail) = repairing.publisher.acknowledged(feed) {
            ends.push((stream.clone(), tail.clone()));
        }
        let _ = connection.close().await;
    }
    Ok(ends)
}

impl<F: FnMut(Acknowledged)> Repairing<'_, F> {
    async fn stream(&mut self, connection: &mut PgConnection, model: &Model) -> Result<(), RepairError> {
        let stream = model.stream.as_str();
        let since = self.read_ends(connection, stream).await?;
        for entity in &model.entities {
            self.entity(connection, model, entity, since.as_deref()).await?;
        }
        Ok(())
    }

    // The last event of each object in the stream, set-wise into a temporary table. Gives the time of the oldest event where older ones have
    // expired: an object not changed since then may have had its event.
    async fn read_ends(&self, connection: &mut PgConnection, name: &str) -> Result<Option<String>, RepairError> {
        let database = |source| RepairError::Database { stream: name.to_owned(), source };
        let read = |source: async_nats::Error| RepairError::Read { stream: name.to_owned(), source };
        sqlx::raw_sql(
            "CREATE TEMP TABLE relay_seen (entity text, id uuid, sequence bigint, version bigint, created_at timestamptz, updated_at timestamptz, \
             deleted boolean)",
        )
        .execute(&mut *connection)
        .await
        .map_err(database)?;
        let stream = self.jetstream.get_stream(name).await.map_err(|error| read(error.into()))?;
        let state = stream.cached_info().state.clone();
        let mut since = None;
        if state.messages > 0 {
            let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
            let consumer = stream.create_consumer(config).await.map_err(|error| read(error.into()))?;
            let mut messages = consumer.messages().await.map_err(|error| read(error.into()))?;
            let mut copy = connection.copy_in_raw("COPY relay_seen FROM STDIN").await.map_err(database)?;
            let mut lines = String::new();
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| read(error.into()))?;
                let info = message.info().map_err(read)?;
                if since.is_none() && state.first_sequence > 1 {
                    let time = message.headers.as_ref().and_then(|headers| headers.get(header::TIME));
                    since = Some(time.map_or_else(String::new, |time| time.as_str().to_owned()));
                }
                write_seen(&message, info.stream_sequence, &mut lines);
                let last = info.pending == 0 || info.stream_sequence >= state.last_sequence;
                if lines.len() > 64 * 1024 || last {
                    copy.send(std::mem::take(&mut lines).into_bytes()).await.map_err(database)?;
                }
                if last {
                    break;
                }
            }
            copy.finish().await.map_err(database)?;
        }
        sqlx::raw_sql(
            "CREATE TEMP TABLE relay_end AS SELECT DISTINCT ON (entity, id) * FROM relay_seen ORDER BY entity, id, sequence DESC; ANALYZE relay_end",
        )
        .execute(connection)
        .await
        .map_err(database)?;
        Ok(since)
    }

    async fn entity(
        &mut self,
        connection: &mut PgConnection,
        model: &Model,
        entity: &Entity,
        since: Option<&str>,
    ) -> Result<(), RepairError> {
        let database = |source| RepairError::Database { stream: model.stream.clone(), source };
        let columns: Vec<String> = SYSTEM_COLUMNS
            .iter()
            .map(|(column, _)| (*column).to_owned())
            .chain(entity.columns.iter().map(|column| column.name.clone()))
            .collect();
        let plan = self.renderer.plan(model, entity, &columns);
        let sql = difference_sql(model, entity, &columns);
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&entity.name).bind(since);
        let mut rows = query.fetch(connection);
        while let Some(row) = rows.try_next().await.map_err(database)? {
            let get = |column: usize| row.try_get_raw(column).ok().filter(|value| !value.is_null()).and_then(|value| value.as_str().ok());
            let sequence: Option<i64> = row.try_get(columns.len()).map_err(database)?;
            let deleted: Option<bool> = row.try_get(columns.len() + 1).map_err(database)?;
            let last = match sequence {
                Some(sequence) if get(0).is_none() || deleted == Some(false) => {
                    Some(self.last_event(&model.stream, sequence as u64).await?)
                }
                _ => None,
            };
            let event = match (get(0), last) {
                (Some(_), None) => self.renderer.written(&plan, &self.place, get, None::<fn(usize) -> Option<&'static str>>),
                (Some(_), Some(last)) => self.renderer.updated_from(&plan, &self.place, get, &without_before(&last.payload)),
                (None, Some(last)) => self.deletion(&plan, &last),
                (None, None) => continue,
            };
            self.publish(event).await?;
        }
        Ok(())
    }

    // The deletion of an object that only the stream has any more.
    fn deletion(&mut self, plan: &Plan, last: &jetstream::message::StreamMessage) -> Event {
        let text = |name: &str| last.headers.get(name).map(|value| value.as_str()).unwrap_or_default();
        let subject = last.subject.as_str();
        let tokens = subject.rmatch_indices('.').nth(1).map_or("_.0", |(at, _)| &subject[at + 1..]);
        let data = without_before(&last.payload);
        self.renderer.deleted_from(plan, &self.place, text(header::SUBJECT), text(header::VERSION), tokens, &data)
    }

    async fn last_event(&self, stream: &str, sequence: u64) -> Result<jetstream::message::StreamMessage, RepairError> {
        let read = |source: async_nats::Error| RepairError::Read { stream: stream.to_owned(), source };
        let handle = self.jetstream.get_stream_no_info(stream).await.map_err(|error| read(error.into()))?;
        handle.get_raw_message(sequence).await.map_err(|error| read(error.into()))
    }

    async fn publish(&mut self, event: Event) -> Result<(), RepairError> {
        while !self.publisher.has_room() {
            self.answers().await?;
        }
        self.publisher.publish(event).await?;
        self.place.position.index += 1;
        self.published += 1;
        Ok(())
    }

    async fn answers(&mut self) -> Result<(), PublishError> {
        let patience = std::time::Duration::from_secs(1);
        self.publisher.flush().await?;
        match tokio::time::timeout(patience, self.publisher.answers(&mut self.acknowledged)).await {
            Ok(answered) => answered,
            Err(_) => self.publisher.check(),
        }
    }

    async fn settle(&mut self) -> Result<(), RepairError> {
        while self.publisher.in_flight() > 0 {
            self.answers().await?;
        }
        Ok(())
    }
}

// One line of COPY's text format. An event that is not the relay's is left out.
fn write_seen(message: &async_nats::Message, sequence: u64, lines: &mut String) {
    let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str());
    let mut tokens = message.subject.split('.').skip(3);
    let (Some(entity), Some(operation)) = (tokens.next(), tokens.next()) else { return };
    let Some(id) = header(header::SUBJECT).and_then(|id| id.parse::<uuid::Uuid>().ok()) else { return };
    let version = header(header::VERSION).and_then(|version| version.parse::<i64>().ok());
    let stamps = serde_json::from_slice::<Stamps<'_>>(&message.payload).ok();
    let plain = |text: &Cow<'_, str>| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":.+-".contains(&byte));
    let (created, updated) = stamps.map_or((None, None), |stamps| (stamps.created_at.filter(plain), stamps.updated_at.filter(plain)));
    let deleted = operation == Operation::Deleted.as_str();
    // Writing to a String does not fail.
    let _ = write!(lines, "{entity}\t{id}\t{sequence}\t");
    match version {
        Some(version) => drop(write!(lines, "{version}")),
        None => lines.push_str("\\N"),
    }
    let _ = writeln!(lines, "\t{}\t{}\t{deleted}", created.as_deref().unwrap_or("\\N"), updated.as_deref().unwrap_or("\\N"));
}

// Rows and last events that differ: $1 the entity, $2 the time of the oldest event where older ones have expired. After the table's columns as text
// come the last event's sequence and whether it is a deletion.
fn difference_sql(model: &Model, entity: &Entity, columns: &[String]) -> String {
    let mut sql = String::from("SELECT ");
    for column in columns {
        let _ = write!(sql, "t.{}::text, ", quote_identifier(column));
    }
    let _ = write!(
        sql,
        "e.sequence, e.deleted FROM {}.{} t FULL JOIN (SELECT * FROM relay_end WHERE entity = $1) e ON e.id = t.id \
         WHERE (t.id IS NULL AND NOT e.deleted) OR (e.id IS NULL AND ($2::timestamptz IS NULL OR t.updated_at >= $2::timestamptz)) \
         OR (t.id IS NOT NULL AND e.id IS NOT NULL AND (e.deleted OR t.version IS DISTINCT FROM e.version \
         OR t.created_at IS DISTINCT FROM e.created_at OR t.updated_at IS DISTINCT FROM e.updated_at))",
        quote_identifier(&model.schema),
        quote_identifier(&entity.table),
    );
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_an_update_is_what_is_in_front_of_before() {
        let data = br#"{"id":"x","note":",\"before\":{","before":{"id":"x","note":"a"}}"#;
        assert_eq!(&*without_before(data), br#"{"id":"x","note":",\"before\":{"}"#);
        assert_eq!(&*without_before(br#"{"id":"x"}"#), br#"{"id":"x"}"#);
    }
}
