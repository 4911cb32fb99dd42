//! How a session begins: the slot is there, and each stream is taken up at its end, repaired where the log can't mend it.

use std::collections::HashMap;
use std::time::Duration;

use autonomy_crds::micro_service::Operation;

use super::{Resources, SessionError, Work};
use crate::metrics::EventLabels;
use crate::publish::Tail;
use crate::render::Renderer;
use crate::repair;
use crate::resume::{ResumeError, entity_end, stream_end};
use crate::state::{self, CatalogEntry, Models, StateError};

// Makes the slot where it is missing or lost. All streams are then repaired by a snapshot.
pub(super) async fn ensure_slot(resources: &Resources) -> Result<(), SessionError> {
    let Resources { slot, pool, metrics, .. } = resources;
    let found = slot.inspect(pool).await?;
    let saved = match &found {
        Some(found) if found.active => return Err(SessionError::Standby),
        Some(found) if !found.lost => {
            let saved = state::read(pool).await?;
            if saved.started || !saved.streams.is_empty() {
                return Ok(());
            }
            saved
        }
        _ => state::read(pool).await?,
    };
    match found {
        Some(found) if found.lost => {
            metrics.slots_lost.inc();
            metrics.slot_in_danger.set(1);
            tracing::error!(
                slot = slot.name,
                "the replication slot is lost: it would have kept more log than max_slot_wal_keep_size allows. It is made anew, and every \
                 stream is compared with its tables and repaired; changes of changes in between become one event"
            );
            state::forget(pool).await?;
            slot.drop_slot(pool).await?;
        }
        // Made, but nothing was ever done with it.
        Some(_) => return Ok(()),
        None if !saved.started && saved.streams.is_empty() => tracing::info!(slot = slot.name, "first start: making the replication slot"),
        None => {
            metrics.slots_lost.inc();
            tracing::error!(
                slot = slot.name,
                "the replication slot is missing though this relay has worked before: it was dropped. It is made anew, and every stream is \
                 compared with its tables and repaired; changes of changes in between become one event"
            );
            state::forget(pool).await?;
        }
    }
    slot.create(pool).await?;
    Ok(())
}

impl Work<'_> {
    // Compares the streams with what is known of them, repairs those that lost more than the log still has, and takes up the others' ends.
    pub(super) async fn resume(&mut self) -> Result<(), SessionError> {
        let resources = self.resources;
        let saved = state::read(&resources.pool).await?;
        let log_end = resources.slot.inspect(&resources.pool).await?.map_or(0, |slot| slot.log_end);
        let first_start = !saved.started;
        let models = if first_start {
            let mut connection = resources.pool.acquire().await.map_err(StateError::from)?;
            state::read_catalog(&mut connection).await?
        } else {
            self.without_removed(saved.models.clone()).await?
        };
        self.renderer = Renderer::new(models);
        let mut damaged = Vec::new();
        for feed in self.renderer.feeds().to_vec() {
            let end = self.wait_for_stream(&feed.stream).await?;
            let row = saved.streams.get(&feed.stream).cloned().unwrap_or_default();
            if let Some(position) = end.tail.position
                && position.commit > log_end
            {
                return Err(SessionError::Ahead { stream: feed.stream, position, log_end });
            }
            let lost = end.tail.sequence < row.tail.sequence;
            // The place of the last message, or what is known where that message has expired.
            let position = end.tail.position.max(if lost { None } else { row.tail.position });
            let unknown = position.is_none() && end.tail.sequence > 0;
            if first_start || row.repairing || lost || unknown {
                if lost {
                    tracing::error!(
                        stream = feed.stream,
                        found = end.tail.sequence,
                        known = row.tail.sequence,
                        "the stream has lost messages that the log no longer has; it is compared with its tables and repaired"
                    );
                }
                damaged.push(feed.stream.clone());
            }
            tracing::debug!(stream = feed.stream, sequence = end.tail.sequence, position = ?position, "resuming");
            self.publisher.add(feed.stream.clone(), Tail { sequence: end.tail.sequence, position });
            self.saved_tails.insert(feed.stream, row.tail.sequence);
        }
        self.take_entities().await?;
        if !first_start {
            self.saved_models = Some(self.renderer.models().clone());
        }
        if !damaged.is_empty() || first_start {
            state::mark_repairing(&resources.pool, &damaged).await?;
            self.repair(&damaged).await?;
            if first_start {
                state::save(&resources.pool, &[], Some(self.renderer.models())).await?;
                state::mark_started(&resources.pool).await?;
                self.saved_models = Some(self.renderer.models().clone());
            }
        }
        Ok(())
    }

    // Brings streams to the state of their tables at one place of the log.
    async fn repair(&mut self, streams: &[String]) -> Result<(), SessionError> {
        let Self { resources, renderer, publisher, jetstream, sequences, counters, .. } = self;
        let mut acknowledged = |done: crate::publish::Acknowledged| {
            sequences[done.entity] = sequences[done.entity].max(done.sequence);
            counters[done.entity][done.operation as usize].inc();
        };
        let repaired = repair::repair(resources, jetstream, renderer, publisher, streams, &mut acknowledged).await?;
        state::save(&resources.pool, &repaired, None).await?;
        for (stream, tail) in repaired {
            self.saved_tails.insert(stream, tail.sequence);
        }
        Ok(())
    }

    // Without the models whose tables and stream were removed since: what the log still has of them has no place to go.
    async fn without_removed(&self, models: Models) -> Result<Models, SessionError> {
        let names: Vec<&str> = models.keys().map(String::as_str).collect();
        let uids = state::catalog_uids(&self.resources.pool, &names).await?;
        let mut there = Models::new();
        for (name, entry) in models {
            if self.is_removed(&entry, &uids).await? {
                tracing::info!(model = name, "the model and its stream were removed; the rest of its changes is passed over");
            } else {
                there.insert(name, entry);
            }
        }
        Ok(there)
    }

    // Whether another model of the name took its place, or neither the catalog has it any more nor NATS its stream.
    pub(super) async fn is_removed(&self, entry: &CatalogEntry, uids: &HashMap<String, String>) -> Result<bool, SessionError> {
        Ok(match uids.get(&entry.model.name) {
            Some(uid) => **uid != *entry.uid,
            None => matches!(stream_end(&self.jetstream, &entry.model.stream).await, Err(ResumeError::Missing { .. })),
        })
    }

    // Waits until the stream is there. The slot keeps the log meanwhile: no event is skipped.
    pub(super) async fn wait_for_stream(&self, stream: &str) -> Result<crate::resume::StreamEnd, SessionError> {
        let mut waited = Duration::ZERO;
        let mut warned = false;
        loop {
            match stream_end(&self.jetstream, stream).await {
                Err(error @ ResumeError::Missing { .. }) => {
                    if waited >= Duration::from_secs(2) && !warned {
                        tracing::error!(stream, "{error}");
                        warned = true;
                    }
                    let pause = Duration::from_millis(if warned { 500 } else { 50 });
                    tokio::select! {
                        () = self.resources.stop.cancelled() => return Err(error.into()),
                        () = tokio::time::sleep(pause) => waited += pause,
                    }
                }
                other => return Ok(other?),
            }
        }
    }

    // Reads where entities new to the renderer end.
    pub(super) async fn take_entities(&mut self) -> Result<(), SessionError> {
        for index in self.sequences.len()..self.renderer.entities().len() {
            let entity = &self.renderer.entities()[index];
            let feed = &self.renderer.feeds()[entity.feed];
            self.sequences.push(entity_end(&self.jetstream, feed, entity).await?);
            let counter = |operation: Operation| {
                self.resources.metrics.events.get_or_create_owned(&EventLabels {
                    model: feed.model.clone(),
                    entity: entity.entity.clone(),
                    operation: operation.as_str().to_owned(),
                })
            };
            self.counters.push([counter(Operation::Created), counter(Operation::Updated), counter(Operation::Deleted)]);
        }
        Ok(())
    }
}
