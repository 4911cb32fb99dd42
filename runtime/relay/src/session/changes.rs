//! From the log's messages to events.

use std::collections::HashMap;
use std::sync::Arc;

use autonomy_crds::event::{CONTEXT_MESSAGE_PREFIX, Position, TransactionContext, WriteContext};
use bytes::Bytes;
use pgwire_replication::{PgWireError, ReplicationEvent};
use uuid::Uuid;

use super::{SessionError, Work};
use crate::decode::{self, Change, Old};
use crate::render::{CatalogColumns, Event, Place, Plan, Table, commit_time, row};
use crate::state;

// What a transaction tells of all its changes.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) open: bool,
    place: Place,
    pub(super) micros: i64,
    // Of objects whose unit told more than the transaction's own context.
    contexts: HashMap<Uuid, Arc<WriteContext>>,
}

impl Transaction {
    pub(super) fn tell(&mut self, context: TransactionContext) {
        self.place.context = Arc::new(context.shared);
        self.contexts.clear();
        for unit in context.units {
            let context = Arc::new(unit.context);
            self.contexts.extend(unit.objects.into_iter().map(|object| (object, context.clone())));
        }
    }
}

impl Work<'_> {
    pub(super) async fn take(&mut self, event: Result<Option<ReplicationEvent>, PgWireError>) -> Result<(), SessionError> {
        match event.map_err(SessionError::Replication)?.ok_or(SessionError::ReplicationClosed)? {
            ReplicationEvent::XLogData { data, .. } => self.change(&data).await?,
            ReplicationEvent::Begin { final_lsn, commit_time_micros, .. } => {
                self.transaction = Transaction {
                    open: true,
                    place: Place {
                        position: Position { commit: final_lsn.as_u64(), index: 0 },
                        time: commit_time(commit_time_micros).into(),
                        context: Arc::default(),
                    },
                    micros: commit_time_micros,
                    contexts: HashMap::new(),
                };
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.transaction.open = false;
                self.settling.mark(end_lsn.as_u64(), self.publisher.sent_count(), self.renderer.models());
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                // Within a transaction it tells nothing of that transaction.
                if !self.transaction.open {
                    self.settling.mark(wal_end.as_u64(), self.publisher.sent_count(), self.renderer.models());
                }
            }
            ReplicationEvent::Message { transactional: true, prefix, content, .. } if prefix == CONTEXT_MESSAGE_PREFIX => {
                match serde_json::from_slice(&content) {
                    Ok(context) => self.transaction.tell(context),
                    Err(error) => tracing::warn!(%error, "a transaction's context is not the JSON expected; its events go without"),
                }
            }
            ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {}
        }
        Ok(())
    }

    async fn change(&mut self, data: &Bytes) -> Result<(), SessionError> {
        match decode::decode(data, &mut self.new, &mut self.old)? {
            Change::Relation(relation) => self.renderer.set_relation(relation),
            Change::Insert { relation } => match self.table(relation)? {
                Table::Entity(plan) => self.created(&plan, data).await?,
                Table::Catalog(columns) => self.catalog_changed(data, columns).await?,
                Table::Ignored => {}
            },
            Change::Update { relation, old } => match self.table(relation)? {
                Table::Entity(plan) => {
                    let whole = old == Old::Full && self.new.settle(&self.old);
                    if !whole {
                        return self
                            .drift(&plan, "an update came without the whole row of before: the table is not REPLICA IDENTITY FULL")
                            .await;
                    }
                    self.updated(&plan, data).await?;
                }
                Table::Catalog(columns) => {
                    self.new.settle(&self.old);
                    self.catalog_changed(data, columns).await?;
                }
                Table::Ignored => {}
            },
            Change::Delete { relation, old } => match self.table(relation)? {
                Table::Entity(plan) => {
                    if old != Old::Full {
                        return self
                            .drift(&plan, "a delete came without the whole row of before: the table is not REPLICA IDENTITY FULL")
                            .await;
                    }
                    self.deleted(&plan, data).await?;
                }
                Table::Catalog(CatalogColumns { model, .. }) => {
                    if let Some(name) = self.old.text(data, model) {
                        self.renderer.remove_model(name);
                    }
                }
                Table::Ignored => {}
            },
            Change::Truncate { relations } => {
                for relation in relations {
                    if let Table::Entity(plan) = self.table(relation)? {
                        self.drift(&plan, "a table was emptied by TRUNCATE, which tells nothing of its rows").await?;
                    }
                }
            }
            Change::Other => {}
        }
        Ok(())
    }

    fn table(&self, relation: u32) -> Result<Table, SessionError> {
        self.renderer.relation(relation).map(|(_, table)| table.clone()).ok_or(SessionError::UnknownRelation(relation))
    }

    // Gives the next position of the transaction to an event; false where the stream has it already.
    fn place_next(&mut self, plan: &Plan) -> bool {
        let position = self.transaction.place.position;
        self.transaction.place.position.index += 1;
        self.publisher.sent(plan.feed) < Some(position)
    }

    // The place of the event that `place_next` was called for; the event is of the object with this id.
    fn place(&self, id: Option<&str>) -> Place {
        let mut place = self.transaction.place.clone();
        place.position.index -= 1;
        if !self.transaction.contexts.is_empty()
            && let Some(context) = id.and_then(|id| id.parse().ok()).and_then(|id: Uuid| self.transaction.contexts.get(&id))
        {
            place.context = context.clone();
        }
        place
    }

    async fn created(&mut self, plan: &Plan, data: &[u8]) -> Result<(), SessionError> {
        if self.place_next(plan) {
            let place = self.place(plan.id(row(data, &self.new)));
            let event = self.renderer.written(plan, &place, row(data, &self.new), None::<fn(usize) -> Option<&'static str>>);
            self.publish(event).await?;
        }
        Ok(())
    }

    async fn updated(&mut self, plan: &Plan, data: &[u8]) -> Result<(), SessionError> {
        if plan.id(row(data, &self.new)) != plan.id(row(data, &self.old)) {
            // Another id is another object.
            self.deleted(plan, data).await?;
            return self.created(plan, data).await;
        }
        if self.place_next(plan) {
            let place = self.place(plan.id(row(data, &self.new)));
            let event = self.renderer.written(plan, &place, row(data, &self.new), Some(row(data, &self.old)));
            self.publish(event).await?;
        }
        Ok(())
    }

    async fn deleted(&mut self, plan: &Plan, data: &[u8]) -> Result<(), SessionError> {
        if self.place_next(plan) {
            let place = self.place(plan.id(row(data, &self.old)));
            let event = self.renderer.deleted(plan, &place, row(data, &self.old));
            self.publish(event).await?;
        }
        Ok(())
    }

    async fn publish(&mut self, event: Event) -> Result<(), SessionError> {
        Ok(self.publisher.publish(event).await?)
    }

    async fn catalog_changed(&mut self, data: &[u8], columns: CatalogColumns) -> Result<(), SessionError> {
        let text = |column| self.new.text(data, column);
        let (Some(name), Some(uid), Some(resolved)) = (text(columns.model), text(columns.uid), text(columns.resolved)) else {
            return Ok(());
        };
        let entry = state::parse_entry(name, uid, resolved)?;
        // What follows may wait for a stream.
        self.publisher.flush().await?;
        let uids = state::catalog_uids(&self.resources.pool, &[name]).await?;
        if self.is_removed(&entry, &uids).await? {
            tracing::info!(model = name, "the model was removed since, and its stream; its changes are passed over");
            return Ok(());
        }
        tracing::info!(model = name, position = %self.transaction.place.position, "the catalog changed");
        self.renderer.set_model(entry);
        for index in self.publisher.streams()..self.renderer.feeds().len() {
            let stream = self.renderer.feeds()[index].stream.clone();
            let end = self.wait_for_stream(&stream).await?;
            self.publisher.add(stream, end.tail);
        }
        self.take_entities().await
    }

    // A change that no event can tell of: unless a repair was made since, the stream is repaired now.
    async fn drift(&mut self, plan: &Plan, reason: &str) -> Result<(), SessionError> {
        let position = self.transaction.place.position;
        if self.publisher.sent(plan.feed) >= Some(position) {
            return Ok(());
        }
        let stream = self.renderer.feeds()[plan.feed].stream.clone();
        state::mark_repairing(&self.resources.pool, std::slice::from_ref(&stream)).await?;
        Err(SessionError::Drift { stream, reason: reason.to_owned() })
    }
}
