//! From a row change to a message: subject, headers and data, by the catalog as it was at that place of the log.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use async_nats::header::{HeaderMap, HeaderName};
use async_nats::{HeaderValue, Subject};
use autonomy_crds::Model;
use autonomy_crds::event::{Position, WriteContext, header, partition, routing_token};
use autonomy_crds::micro_service::Operation;
use autonomy_crds::object_json::{Encoding, ObjectWriter};
use autonomy_crds::resolved::{Entity, SYSTEM_COLUMNS};
use bytes::{Bytes, BytesMut};

use crate::decode::{Relation, Tuple};
use crate::state::{CatalogEntry, Models};

/// The schema and table of the compiled catalog.
pub const CATALOG: (&str, &str) = ("autonomy", "catalog");

// Buffers of messages are cut from blocks of this size.
const BLOCK: usize = 256 * 1024;

const SPEC_VERSION: HeaderName = HeaderName::from_static(header::SPEC_VERSION);
const ID: HeaderName = HeaderName::from_static(header::ID);
const SOURCE: HeaderName = HeaderName::from_static(header::SOURCE);
const TYPE: HeaderName = HeaderName::from_static(header::TYPE);
const SUBJECT: HeaderName = HeaderName::from_static(header::SUBJECT);
const TIME: HeaderName = HeaderName::from_static(header::TIME);
const CONTENT_TYPE: HeaderName = HeaderName::from_static(header::CONTENT_TYPE);
const VERSION: HeaderName = HeaderName::from_static(header::VERSION);
const TRACEPARENT: HeaderName = HeaderName::from_static(header::TRACEPARENT);
const ACTOR: HeaderName = HeaderName::from_static(header::ACTOR);
const CAUSATION_ID: HeaderName = HeaderName::from_static(header::CAUSATION_ID);

/// A stream that events go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The stream's name.
    pub stream: String,
    /// The namespace of its model.
    pub namespace: String,
    /// Its model.
    pub model: String,
}

/// An entity as the relay counts its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityKey {
    /// The index of its [`Feed`].
    pub feed: usize,
    /// Its name.
    pub entity: String,
    /// Its key in a watermark, `{model}/{Entity}`.
    pub key: String,
    /// All subjects of its events.
    pub subjects: String,
}

/// How rows of a table become events of an entity.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The index of the [`Feed`].
    pub feed: usize,
    /// The index of the [`EntityKey`].
    pub entity: usize,
    subject_heads: [String; 3],
    types: [HeaderValue; 3],
    source: HeaderValue,
    writer: ObjectWriter,
    // The table's column of each member.
    columns: Vec<usize>,
    id: Option<usize>,
    version: Option<usize>,
    routing: Option<usize>,
    partition: Option<usize>,
}

impl Plan {
    /// The id of a row.
    pub fn id<'a>(&self, row: impl Fn(usize) -> Option<&'a str>) -> Option<&'a str> {
        self.id.and_then(row)
    }
}

/// The places of the catalog's columns.
#[derive(Clone, Copy, Debug)]
pub struct CatalogColumns {
    /// The model's name.
    pub model: usize,
    /// The entry's uid.
    pub uid: usize,
    /// The resolved model.
    pub resolved: usize,
}

/// What a relation is to the relay.
#[derive(Clone, Debug)]
pub enum Table {
    /// The compiled catalog.
    Catalog(CatalogColumns),
    /// An entity's table.
    Entity(Arc<Plan>),
    /// Nothing the relay publishes.
    Ignored,
}

/// Where and when a change was committed, and who made it. Each event has one, so a copy of it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The event's position.
    pub position: Position,
    /// Commit time, RFC 3339 UTC.
    pub time: Arc<str>,
    /// What the writer told.
    pub context: Arc<WriteContext>,
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Event {
    /// The index of the [`Feed`].
    pub feed: usize,
    /// The index of the [`EntityKey`].
    pub entity: usize,
    /// What happened.
    pub operation: Operation,
    /// Its position.
    pub position: Position,
    /// Its subject.
    pub subject: Subject,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its data.
    pub data: Bytes,
}

/// The catalog at a place of the log, the tables that the log has described so far, and the way from their rows to messages.
#[derive(Default)]
pub struct Renderer {
    models: Arc<Models>,
    relations: HashMap<u32, (Relation, Table)>,
    feeds: Vec<Feed>,
    entities: Vec<EntityKey>,
    scratch: Vec<u8>,
    subject: String,
    block: BytesMut,
}

fn operation_index(operation: Operation) -> usize {
    match operation {
        Operation::Created => 0,
        Operation::Updated => 1,
        Operation::Deleted => 2,
    }
}

// A header can't hold a line break.
fn header_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Renderer {
    /// A renderer with the catalog given.
    pub fn new(models: Models) -> Self {
        let mut renderer = Self { models: Arc::new(models), ..Self::default() };
        renderer.plan_all();
        renderer
    }

    /// The catalog.
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// The streams known so far; an index stays what it is.
    pub fn feeds(&self) -> &[Feed] {
        &self.feeds
    }

    /// The entities known so far; an index stays what it is.
    pub fn entities(&self) -> &[EntityKey] {
        &self.entities
    }

    /// Takes a model into the catalog, in place of the one of that name.
    pub fn set_model(&mut self, entry: CatalogEntry) {
        Arc::make_mut(&mut self.models).insert(entry.model.name.clone(), entry);
        self.plan_all();
    }

    /// Takes a model out of the catalog: its rows are no longer published.
    pub fn remove_model(&mut self, name: &str) {
        Arc::make_mut(&mut self.models).remove(name);
        self.plan_all();
    }

    /// Takes a table's description.
    pub fn set_relation(&mut self, relation: Relation) {
        let table = self.table_of(&relation);
        self.relations.insert(relation.id, (relation, table));
    }

    /// What the relation is, with its description.
    pub fn relation(&self, id: u32) -> Option<&(Relation, Table)> {
        self.relations.get(&id)
    }

    fn plan_all(&mut self) {
        let models: Vec<_> = self.models.values().map(|entry| entry.model.clone()).collect();
        for model in models {
            let feed = self.feed(&model);
            for entity in &model.entities {
                self.entity(feed, &model, entity);
            }
        }
        for (id, (relation, _)) in std::mem::take(&mut self.relations) {
            let table = self.table_of(&relation);
            self.relations.insert(id, (relation, table));
        }
    }

    fn table_of(&mut self, relation: &Relation) -> Table {
        if (relation.schema.as_str(), relation.table.as_str()) == CATALOG {
            let column = |name| relation.columns.iter().position(|column| column == name);
            return match (column("model"), column("uid"), column("resolved")) {
                (Some(model), Some(uid), Some(resolved)) => Table::Catalog(CatalogColumns { model, uid, resolved }),
                _ => Table::Ignored,
            };
        }
        let found = self.models.values().find_map(|CatalogEntry { model, .. }| {
            let entity = model.entities.iter().position(|entity| entity.table == relation.table)?;
            (model.schema == relation.schema).then(|| (model.clone(), entity))
        });
        match found {
            Some((model, entity)) => Table::Entity(Arc::new(self.plan(&model, &model.entities[entity], &relation.columns))),
            None => Table::Ignored,
        }
    }

    fn feed(&mut self, model: &Model) -> usize {
        if let Some(index) = self.feeds.iter().position(|feed| feed.stream == model.stream) {
            return index;
        }
        self.feeds.push(Feed { stream: model.stream.clone(), namespace: model.namespace.clone(), model: model.name.clone() });
        self.feeds.len() - 1
    }

    fn entity(&mut self, feed: usize, model: &Model, entity: &Entity) -> usize {
        if let Some(index) = self.entities.iter().position(|known| known.feed == feed && known.entity == entity.name) {
            return index;
        }
        self.entities.push(EntityKey {
            feed,
            entity: entity.name.clone(),
            key: model.watermark_key(&entity.name),
            subjects: format!("{}.>", model.entity_subject(&entity.name)),
        });
        self.entities.len() - 1
    }

    /// How rows with these columns become events. A member whose column is not among them is left out: the row is older than the attribute. A
    /// column under its former name counts.
    pub fn plan(&mut self, model: &Model, entity: &Entity, columns: &[String]) -> Plan {
        let place = |name: &str| columns.iter().position(|column| column == name);
        let mut members = Vec::new();
        let mut places = Vec::new();
        for (column, member) in SYSTEM_COLUMNS {
            let encoding = match column {
                "id" => Encoding::Text,
                "version" => Encoding::Number,
                _ => Encoding::DateTime,
            };
            if let Some(at) = place(column) {
                members.push((member, encoding));
                places.push(at);
            }
        }
        for column in &entity.columns {
            if let Some(at) = place(&column.name).or_else(|| column.renamed_from.as_deref().and_then(place)) {
                members.push((column.member.as_str(), Encoding::of(column)));
                places.push(at);
            }
        }
        let feed = self.feed(model);
        let operations = [Operation::Created, Operation::Updated, Operation::Deleted];
        Plan {
            feed,
            entity: self.entity(feed, model, entity),
            subject_heads: operations.map(|operation| format!("{}.{}.", model.entity_subject(&entity.name), operation.as_str())),
            types: operations.map(|operation| HeaderValue::from(model.event_type(entity, operation).as_str())),
            source: HeaderValue::from(model.source().as_str()),
            writer: ObjectWriter::of_members(members),
            columns: places,
            id: place("id"),
            version: place("version"),
            routing: entity.routing.as_deref().and_then(place),
            partition: entity.partition_key.as_deref().and_then(place),
        }
    }

    /// The event of a row created (`old` absent) or updated, its values given by the column's index.
    pub fn written<'a>(
        &mut self,
        plan: &Plan,
        place: &Place,
        new: impl Fn(usize) -> Option<&'a str>,
        old: Option<impl Fn(usize) -> Option<&'a str>>,
    ) -> Event {
        self.scratch.clear();
        self.scratch.push(b'{');
        plan.writer.write_members(plan.columns.iter().map(|&column| new(column)), &mut self.scratch);
        let operation = match old {
            Some(old) => {
                self.scratch.extend_from_slice(b",\"before\":");
                plan.writer.write(plan.columns.iter().map(|&column| old(column)), &mut self.scratch);
                Operation::Updated
            }
            None => Operation::Created,
        };
        self.scratch.push(b'}');
        self.finish(plan, place, operation, new)
    }

    /// The event of a row updated whose object before is at hand as JSON.
    pub fn updated_from<'a>(&mut self, plan: &Plan, place: &Place, new: impl Fn(usize) -> Option<&'a str>, before: &[u8]) -> Event {
        self.scratch.clear();
        self.scratch.push(b'{');
        plan.writer.write_members(plan.columns.iter().map(|&column| new(column)), &mut self.scratch);
        self.scratch.extend_from_slice(b",\"before\":");
        self.scratch.extend_from_slice(before);
        self.scratch.push(b'}');
        self.finish(plan, place, Operation::Updated, new)
    }

    /// The event of a row deleted.
    pub fn deleted<'a>(&mut self, plan: &Plan, place: &Place, old: impl Fn(usize) -> Option<&'a str>) -> Event {
        self.scratch.clear();
        plan.writer.write(plan.columns.iter().map(|&column| old(column)), &mut self.scratch);
        self.finish(plan, place, Operation::Deleted, old)
    }

    /// The event of an object deleted of which the stream has the last state: its `data`, and the last two tokens of its subject.
    pub fn deleted_from(&mut self, plan: &Plan, place: &Place, id: &str, version: &str, tokens: &str, data: &[u8]) -> Event {
        self.subject.clear();
        self.subject.push_str(&plan.subject_heads[operation_index(Operation::Deleted)]);
        self.subject.push_str(tokens);
        self.scratch.clear();
        self.scratch.extend_from_slice(data);
        self.assemble(plan, place, Operation::Deleted, id, version)
    }

    // The subject by the row's values, then the rest.
    fn finish<'a>(&mut self, plan: &Plan, place: &Place, operation: Operation, row: impl Fn(usize) -> Option<&'a str>) -> Event {
        let id = plan.id.and_then(&row).unwrap_or_default();
        let routing = plan.routing.and_then(&row);
        // A row without a value of its partition key is ordered by its id.
        let key = plan.partition.and_then(&row).unwrap_or(id);
        self.subject.clear();
        self.subject.push_str(&plan.subject_heads[operation_index(operation)]);
        match routing {
            // What needs no encoding is not copied on the way.
            Some(value)
                if value != "_" && !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') =>
            {
                self.subject.push_str(value);
            }
            Some(value) => self.subject.push_str(&routing_token(Some(value))),
            None => self.subject.push('_'),
        }
        // Writing to a String does not fail.
        let _ = write!(self.subject, ".{}", partition(key));
        let version = plan.version.and_then(&row).unwrap_or_default();
        self.assemble(plan, place, operation, id, version)
    }

    fn assemble(&mut self, plan: &Plan, place: &Place, operation: Operation, id: &str, version: &str) -> Event {
        let mut headers = HeaderMap::new();
        headers.insert(SPEC_VERSION, "1.0");
        headers.insert(ID, place.position.to_string());
        headers.insert(SOURCE, plan.source.clone());
        headers.insert(TYPE, plan.types[operation_index(operation)].clone());
        headers.insert(SUBJECT, id);
        headers.insert(TIME, &*place.time);
        headers.insert(CONTENT_TYPE, "application/json");
        headers.insert(VERSION, version);
        let context =
            [(TRACEPARENT, &place.context.traceparent), (ACTOR, &place.context.actor), (CAUSATION_ID, &place.context.causation_id)];
        for (name, value) in context {
            if let Some(value) = value {
                headers.insert(name, header_text(value));
            }
        }
        let subject_bytes = self.cut(|renderer, block| block.extend_from_slice(renderer.subject.as_bytes()));
        let data = self.cut(|renderer, block| block.extend_from_slice(&renderer.scratch));
        // The subject is ASCII.
        let subject = Subject::from_utf8(subject_bytes).unwrap_or_else(|_| Subject::from(self.subject.clone()));
        Event { feed: plan.feed, entity: plan.entity, operation, position: place.position, subject, headers, data }
    }

    // Bytes of their own, cut from the block, so that not each message needs an allocation.
    fn cut(&mut self, fill: impl FnOnce(&Self, &mut BytesMut)) -> Bytes {
        let mut block = std::mem::take(&mut self.block);
        if block.capacity() < self.scratch.len() + self.subject.len() {
            block = BytesMut::with_capacity(BLOCK.max(self.scratch.len() + self.subject.len()));
        }
        fill(self, &mut block);
        let bytes = block.split().freeze();
        self.block = block;
        bytes
    }
}

/// The values of a tuple, by column.
pub fn row<'a>(data: &'a [u8], tuple: &'a Tuple) -> impl Fn(usize) -> Option<&'a str> + Copy {
    move |column| tuple.text(data, column)
}

/// PostgreSQL's time (microseconds since 2000-01-01) as RFC 3339 in UTC.
pub fn commit_time(micros: i64) -> String {
    const EPOCH_2000: i64 = 946_684_800_000_000;
    jiff::Timestamp::from_microsecond(micros.saturating_add(EPOCH_2000)).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_times_are_rfc_3339() {
        assert_eq!(commit_time(0), "2000-01-01T00:00:00Z");
        assert_eq!(commit_time(1_500_000), "2000-01-01T00:00:01.5Z");
    }

    #[test]
    fn header_texts_are_one_line() {
        assert_eq!(header_text("a\r\nce-id: 1"), "a  ce-id: 1");
    }
}
