//! Models made ready to serve: each entity with its columns' encoders, its writer, and its quoted names.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use autonomy_crds::Model;
use autonomy_crds::names::quote_identifier;
use autonomy_crds::object_json::{Encoding, ObjectWriter};
use autonomy_crds::resolved::{ColumnKind, Entity, EntityReference, SYSTEM_COLUMNS};
use autonomy_process::catalog::Catalog;
use bytes::Bytes;

use crate::part::encode_default;
use crate::value::{Encoder, Form, PgType};

/// How many columns come before an entity's own: `id`, `version`, `createdAt`, `updatedAt`.
pub const SYSTEM: usize = SYSTEM_COLUMNS.len();
/// The column `id`.
pub const ID: usize = 0;
/// The column `version`.
pub const VERSION: usize = 1;

/// A column made ready.
#[derive(Debug)]
pub struct ColumnPlan {
    /// The column's name.
    pub name: String,
    /// The name, quoted.
    pub quoted: String,
    /// The JSON member.
    pub member: String,
    /// How values are checked and written.
    pub encoder: Encoder,
    /// Its type in PostgreSQL.
    pub pg_type: PgType,
    /// How its text becomes JSON.
    pub encoding: Encoding,
    /// Whether a value must be there.
    pub required: bool,
    /// The value where a new object gives none, in binary form.
    pub default: Option<Vec<u8>>,
    /// The entity referred to.
    pub target: Option<EntityReference>,
}

/// Where an entity's former versions are.
#[derive(Debug)]
pub struct HistoryPlan {
    /// Schema and table, quoted.
    pub table: String,
    /// Whether every former version is kept, so that objects can be read as of a moment.
    pub complete: bool,
    /// Whether deleted objects are told from those that never were.
    pub tells_deleted: bool,
    /// Columns by name with what they hold in versions from before they were there; none where all of them are null then.
    pub unknown: Option<String>,
}

impl HistoryPlan {
    fn of(model: &Model, entity: &Entity) -> Option<Self> {
        let table = entity.history_table()?;
        // A list of parts is never null.
        let parts = entity.columns.iter().filter(|column| matches!(column.kind, ColumnKind::Parts { .. }));
        let unknown: serde_json::Map<String, serde_json::Value> =
            parts.map(|column| (column.name.clone(), serde_json::Value::Array(Vec::new()))).collect();
        Some(Self {
            table: format!("{}.{}", quote_identifier(&model.schema), quote_identifier(&table)),
            complete: entity.history,
            tells_deleted: entity.soft_delete,
            unknown: (!unknown.is_empty()).then(|| serde_json::Value::Object(unknown).to_string()),
        })
    }
}

/// An entity made ready.
#[derive(Debug)]
pub struct EntityPlan {
    /// Its model.
    pub model: Arc<Model>,
    /// The model's revision in the catalog.
    pub revision: i64,
    /// Which of the model's entities.
    index: usize,
    /// Schema and table, quoted.
    pub table: String,
    /// The system columns, then the entity's own.
    pub columns: Vec<ColumnPlan>,
    /// Writes whole objects.
    pub writer: ObjectWriter,
    /// The natural key's columns.
    pub key: Vec<usize>,
    /// Its former versions, where it keeps any.
    pub history: Option<HistoryPlan>,
    members: HashMap<String, usize>,
}

impl EntityPlan {
    /// The entity.
    pub fn entity(&self) -> &Entity {
        &self.model.entities[self.index]
    }

    /// The column of a member; `likely` is tried first.
    pub fn column_of_member(&self, member: &str, likely: usize) -> Option<usize> {
        match self.columns.get(likely) {
            Some(column) if column.member == member => Some(likely),
            _ => self.members.get(member).copied(),
        }
    }

    /// The column of that name in the table.
    pub fn column_of_name(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The columns that a writer gives: the id and the entity's own.
    pub fn writable(&self) -> impl Iterator<Item = usize> + use<> {
        std::iter::once(ID).chain(SYSTEM..self.columns.len())
    }

    fn new(model: &Arc<Model>, revision: i64, index: usize) -> Result<Self, regex::Error> {
        let entity = &model.entities[index];
        let mut columns: Vec<ColumnPlan> = SYSTEM_COLUMNS.iter().map(|(name, member)| system_column(name, member)).collect();
        for column in &entity.columns {
            let (encoder, pg_type) = Encoder::of(column)?;
            let default = match &column.kind {
                ColumnKind::Parts { .. } => Some(b"\x01[]".to_vec()),
                _ => column.default.as_ref().and_then(|value| encode_default(&encoder, value, Form::Binary)),
            };
            let (required, target) = match &column.kind {
                ColumnKind::Attribute { .. } => (column.required, None),
                ColumnKind::Relationship { target, .. } => (column.required, Some(target.clone())),
                ColumnKind::Parts { .. } => (true, None),
            };
            // A list that may not be empty has no default.
            let default = default.filter(|_| !matches!(&column.kind, ColumnKind::Parts { min_items, .. } if *min_items > 0));
            columns.push(ColumnPlan {
                name: column.name.clone(),
                quoted: quote_identifier(&column.name),
                member: column.member.clone(),
                encoder,
                pg_type,
                encoding: Encoding::of(column),
                required,
                default,
                target,
            });
        }
        let members = columns.iter().enumerate().map(|(at, column)| (column.member.clone(), at)).collect();
        let key = entity.key.iter().filter_map(|name| columns.iter().position(|column| column.name == *name)).collect();
        Ok(Self {
            model: model.clone(),
            revision,
            index,
            table: format!("{}.{}", quote_identifier(&model.schema), quote_identifier(&entity.table)),
            writer: ObjectWriter::new(entity),
            columns,
            key,
            history: HistoryPlan::of(model, entity),
            members,
        })
    }
}

fn system_column(name: &str, member: &str) -> ColumnPlan {
    let (encoder, pg_type, encoding) = match name {
        "id" => (Encoder::Uuid, PgType::uuid(), Encoding::Text),
        "version" => (Encoder::Integer { min: None, max: None }, PgType::bigint(), Encoding::Number),
        _ => (Encoder::DateTime, PgType::timestamp(), Encoding::DateTime),
    };
    ColumnPlan {
        name: name.to_owned(),
        quoted: quote_identifier(name),
        member: member.to_owned(),
        encoder,
        pg_type,
        encoding,
        required: true,
        default: None,
        target: None,
    }
}

/// A model made ready.
#[derive(Debug)]
pub struct ModelPlan {
    /// The model.
    pub model: Arc<Model>,
    /// The resolved model as JSON.
    pub json: Bytes,
    /// Its description for OpenAPI.
    pub openapi: Bytes,
    /// The description of its events for AsyncAPI.
    pub asyncapi: Bytes,
    /// Its entities.
    pub entities: Vec<Arc<EntityPlan>>,
}

impl ModelPlan {
    fn new(model: &Arc<Model>, revision: i64) -> Result<Self, regex::Error> {
        let entities: Result<Vec<_>, _> =
            (0..model.entities.len()).map(|index| EntityPlan::new(model, revision, index).map(Arc::new)).collect();
        let entities = entities?;
        Ok(Self {
            model: model.clone(),
            json: serde_json::to_vec(model.as_ref()).unwrap_or_default().into(),
            openapi: serde_json::to_vec(&crate::openapi::document(model, &entities)).unwrap_or_default().into(),
            asyncapi: serde_json::to_vec(&crate::asyncapi::document(model)).unwrap_or_default().into(),
            entities,
        })
    }

    /// The entity at that path segment.
    pub fn by_path(&self, path: &str) -> Option<&Arc<EntityPlan>> {
        self.entities.iter().find(|plan| plan.entity().path == path)
    }

    /// The entity of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<EntityPlan>> {
        self.entities.iter().find(|plan| plan.entity().name == name)
    }
}

/// The whole catalog made ready.
#[derive(Debug, Default)]
pub struct Plans {
    /// By the model's name.
    pub models: BTreeMap<String, Arc<ModelPlan>>,
}

/// Keeps plans as long as their catalog is the current one.
#[derive(Debug, Default)]
pub struct PlanCache(RwLock<(Arc<Catalog>, Arc<Plans>)>);

impl PlanCache {
    /// The plans of a catalog.
    pub fn of(&self, catalog: &Arc<Catalog>) -> Arc<Plans> {
        {
            let cached = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&cached.0, catalog) {
                return cached.1.clone();
            }
        }
        let mut cached = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&cached.0, catalog) {
            let mut plans = Plans::default();
            for (name, model) in &catalog.models {
                let revision = catalog.revisions.get(name).copied().unwrap_or_default();
                let kept = cached.1.models.get(name).filter(|plan| Arc::ptr_eq(&plan.model, model) || *plan.model == **model);
                let kept = kept.filter(|plan| plan.entities.first().is_none_or(|entity| entity.revision == revision));
                match kept.cloned().map_or_else(|| ModelPlan::new(model, revision).map(Arc::new), Ok) {
                    Ok(plan) => {
                        plans.models.insert(name.clone(), plan);
                    }
                    Err(error) => tracing::error!(model = name, %error, "this model can't be served: it has a bad pattern"),
                }
            }
            *cached = (catalog.clone(), Arc::new(plans));
        }
        cached.1.clone()
    }
}
