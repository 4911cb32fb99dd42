//! The resolved model: a DataModel checked and made final, with every name that anything outside ever sees. It is the compiled
//! catalog's content, so its JSON form is kept compatible: fields are added with a default, never renamed.

use serde::{Deserialize, Serialize};

pub use crate::data_model::{CheckOperator, OnDelete};

/// A DataModel, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The DataModel's name, a DNS label: also the path segment in `/api/{model}`.
    pub name: String,
    /// The Kubernetes namespace.
    pub namespace: String,
    /// For its users.
    #[serde(default)]
    pub description: Option<String>,
    /// The PostgreSQL schema.
    pub schema: String,
    /// The JetStream stream.
    pub stream: String,
    /// The subjects the stream listens to: `autonomy.{namespace}.{model}.>`.
    pub stream_subjects: String,
    /// The role (NOLOGIN) that may read the model's tables.
    pub reader_role: String,
    /// The role (NOLOGIN) that may read and write them.
    pub writer_role: String,
    /// The models whose entities this one refers to, in the order declared.
    #[serde(default)]
    pub imports: Vec<String>,
    /// Enumerations this model declares (imported ones are in their own model).
    #[serde(default)]
    pub enumerations: Vec<Enumeration>,
    /// Entities with a table, in the order declared. Abstract entities and parts' shapes are not here: they are in what uses them.
    pub entities: Vec<Entity>,
}

impl Model {
    /// The entity of that name (`Sale`).
    pub fn entity(&self, name: &str) -> Option<&Entity> {
        self.entities.iter().find(|entity| entity.name == name)
    }

    /// The entity at that path segment (`sales`).
    pub fn entity_by_path(&self, path: &str) -> Option<&Entity> {
        self.entities.iter().find(|entity| entity.path == path)
    }
}

/// An enumeration, a PostgreSQL enum type in the model's schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enumeration {
    /// Name in PascalCase.
    pub name: String,
    /// The PostgreSQL type's name, without its schema.
    pub type_name: String,
    /// For its users.
    #[serde(default)]
    pub description: Option<String>,
    /// The values in sort order.
    pub values: Vec<String>,
}

/// An entity with a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    /// Name in PascalCase: in subjects, event types and errors.
    pub name: String,
    /// The path segment in `/api/{model}/{path}`: the plural in camelCase.
    pub path: String,
    /// The table, without its schema.
    pub table: String,
    /// For its users.
    #[serde(default)]
    pub description: Option<String>,
    /// The entity this one extends, with its model, as declared.
    #[serde(default)]
    pub extends: Option<EntityReference>,
    /// Every column but the system columns (`id`, `version`, `created_at`, `updated_at`), in JSON order: inherited ones first, then attributes,
    /// relationships and parts as declared.
    pub columns: Vec<Column>,
    /// The natural key: columns of this entity (a unique constraint); empty where there is none.
    #[serde(default)]
    pub key: Vec<String>,
    /// Indexes and unique constraints beside the primary key, the natural key, and one for each foreign key and unique column.
    #[serde(default)]
    pub indexes: Vec<Index>,
    /// Conditions between two columns.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// The column whose value is the `routing` token of subjects.
    #[serde(default)]
    pub routing: Option<String>,
    /// The column whose value gives the `partition` token; the object's id where none.
    #[serde(default)]
    pub partition_key: Option<String>,
    /// Whether every former version of the objects is kept. Not written where false: catalogs from before stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
    /// Whether the last version of deleted objects is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft_delete: bool,
    /// The table's name before, where the entity is renamed.
    #[serde(default)]
    pub renamed_from_table: Option<String>,
    /// Whether changes and deletions must name the version seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_if_match: bool,
}

impl Entity {
    /// The column with that JSON member name.
    pub fn by_member(&self, member: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.member == member)
    }

    /// The column with that name in the table.
    pub fn by_column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Names of constraints and indexes. Each is the table, what it is over, and its kind, joined by `__`: [`crate::names::snake_case`] never
/// makes `__`, so none of them clashes with a table, a view or a type. Over-long ones end in a hash.
impl Entity {
    /// The primary key on `id`.
    pub fn primary_key_name(&self) -> String {
        self.constraint_name(&[], "pkey")
    }

    /// The unique constraint of the natural key.
    pub fn key_name(&self) -> String {
        self.constraint_name(&[], "key")
    }

    /// The unique constraint of a column that is `unique`.
    pub fn unique_name(&self, column: &Column) -> String {
        self.constraint_name(&[&column.name], "unique")
    }

    /// The foreign key of a relationship's column.
    pub fn foreign_key_name(&self, column: &Column) -> String {
        self.constraint_name(&[&column.name], "fkey")
    }

    /// The index of a relationship's column that is not `unique`.
    pub fn foreign_key_index_name(&self, column: &Column) -> String {
        self.constraint_name(&[&column.name], "idx")
    }

    /// The check that keeps a column's own limits (minimum, maximum, lengths, numbers of parts).
    pub fn limits_name(&self, column: &Column) -> String {
        self.constraint_name(&[&column.name], "limits")
    }

    /// The table with former versions, where the entity keeps any.
    pub fn history_table(&self) -> Option<String> {
        (self.history || self.soft_delete).then(|| self.constraint_name(&[], "history"))
    }

    /// The primary key of that table, on `id` and `number`.
    pub fn history_key_name(&self) -> String {
        self.constraint_name(&["history"], "pkey")
    }

    /// The index of that table over the moments at which versions ended.
    pub fn history_index_name(&self) -> String {
        self.constraint_name(&["history"], "ended")
    }

    /// What the database means by a constraint's or an index's name, in an error for example.
    pub fn constraint(&self, name: &str) -> Option<Constraint<'_>> {
        if name == self.primary_key_name() {
            return Some(Constraint::PrimaryKey);
        }
        if !self.key.is_empty() && name == self.key_name() {
            return Some(Constraint::Key);
        }
        let of_column = self.columns.iter().find_map(|column| {
            if name == self.unique_name(column) {
                Some(Constraint::Unique(column))
            } else if name == self.foreign_key_name(column) {
                Some(Constraint::ForeignKey(column))
            } else if name == self.limits_name(column) {
                Some(Constraint::Limits(column))
            } else {
                None
            }
        });
        of_column
            .or_else(|| self.indexes.iter().find(|index| index.name == name).map(Constraint::Index))
            .or_else(|| self.checks.iter().find(|check| check.name == name).map(Constraint::Check))
    }

    pub(crate) fn constraint_name(&self, over: &[&str], kind: &str) -> String {
        constraint_name(&self.table, over, kind)
    }
}

pub(crate) fn constraint_name(table: &str, over: &[&str], kind: &str) -> String {
    let mut name = table.to_owned();
    for part in over.iter().chain([&kind]) {
        name.push_str("__");
        name.push_str(part);
    }
    crate::names::shortened(name)
}

/// What a constraint's name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constraint<'a> {
    /// The primary key on `id`.
    PrimaryKey,
    /// The natural key.
    Key,
    /// A unique column.
    Unique(&'a Column),
    /// A relationship's foreign key.
    ForeignKey(&'a Column),
    /// A column's own limits.
    Limits(&'a Column),
    /// A declared index (violated only where it is unique).
    Index(&'a Index),
    /// A declared check.
    Check(&'a Check),
}

/// The column of a part's view that holds the place in its owner's list, from 0.
pub const PART_POSITION_COLUMN: &str = "part_position";

impl PartShape {
    /// The column of the part's view that holds the owner's id: `sale_id` for parts of `sale`.
    pub fn owner_column(&self, owner: &Entity) -> String {
        part_owner_column(&owner.table)
    }
}

pub(crate) fn part_owner_column(table: &str) -> String {
    crate::names::shortened(format!("{table}_id"))
}

/// An entity of some model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityReference {
    /// The DataModel's name.
    pub model: String,
    /// The model's PostgreSQL schema.
    pub schema: String,
    /// The entity's name.
    pub entity: String,
    /// The entity's table, without its schema.
    pub table: String,
}

/// A column of an entity's table, and the JSON member of its objects; also a member of a part, where it has no column of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// The column (of a part: the view's column) in snake_case.
    pub name: String,
    /// The JSON member in camelCase.
    pub member: String,
    /// What it holds.
    #[serde(flatten)]
    pub kind: ColumnKind,
    /// For its users.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether a value must be there (`NOT NULL`).
    #[serde(default)]
    pub required: bool,
    /// Whether no two objects may have the same value.
    #[serde(default)]
    pub unique: bool,
    /// The value where a writer gives none, in the JSON form of the type.
    #[serde(default)]
    pub default: Option<serde_json::Value>,
    /// The kind of information, for example `personal`.
    #[serde(default)]
    pub classification: Option<String>,
    /// The column's name before, where the attribute is renamed.
    #[serde(default)]
    pub renamed_from: Option<String>,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum ColumnKind {
    /// A value.
    Attribute {
        /// Its type.
        #[serde(rename = "valueType")]
        value_type: ValueType,
    },
    /// The id of an object of another entity: `uuid` with a foreign key.
    Relationship {
        /// The relationship's name in camelCase (`customer`; the member is `customerId`).
        relationship: String,
        /// The entity referred to.
        target: EntityReference,
        /// What happens when the object referred to is deleted.
        #[serde(rename = "onDelete")]
        on_delete: OnDelete,
    },
    /// A list of part objects: `jsonb NOT NULL DEFAULT '[]'`.
    Parts {
        /// The shape of each part.
        part: PartShape,
        /// The fewest parts.
        #[serde(rename = "minItems")]
        min_items: u32,
        /// The most parts.
        #[serde(rename = "maxItems")]
        max_items: u32,
    },
}

/// The shape of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartShape {
    /// The part entity's name in PascalCase.
    pub name: String,
    /// The typed SQL view over the parts, in the model's schema.
    pub view: String,
    /// For its users.
    #[serde(default)]
    pub description: Option<String>,
    /// Its members: attributes and relationships only.
    pub columns: Vec<Column>,
}

/// A value's type with its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ValueType {
    /// `varchar(n)` or `text`; a JSON string.
    #[serde(rename_all = "camelCase")]
    String {
        /// The fewest characters.
        #[serde(default)]
        min_length: Option<u32>,
        /// The most characters.
        #[serde(default)]
        max_length: Option<u32>,
        /// What the whole string matches.
        #[serde(default)]
        pattern: Option<String>,
    },
    /// `uuid`; a JSON string, lower case with hyphens.
    Uuid,
    /// `bigint`; a JSON number without fraction.
    Integer {
        /// The smallest value.
        #[serde(default)]
        minimum: Option<i64>,
        /// The largest value.
        #[serde(default)]
        maximum: Option<i64>,
    },
    /// `numeric(precision, scale)` or `numeric`; a JSON number with all its digits (a string is taken too).
    Decimal {
        /// Digits in all.
        #[serde(default)]
        precision: Option<u32>,
        /// Digits behind the point.
        #[serde(default)]
        scale: Option<u32>,
        /// The smallest value.
        #[serde(default)]
        minimum: Option<i64>,
        /// The largest value.
        #[serde(default)]
        maximum: Option<i64>,
    },
    /// `boolean`.
    Boolean,
    /// `date`; a JSON string `YYYY-MM-DD`.
    Date,
    /// `timestamptz`; a JSON string after RFC 3339, in UTC with `Z` when written by the platform.
    DateTime,
    /// `jsonb`; any JSON value.
    Json,
    /// `bytea`; a JSON string in base64.
    #[serde(rename_all = "camelCase")]
    Binary {
        /// The most bytes.
        #[serde(default)]
        max_length: Option<u32>,
    },
    /// A PostgreSQL enum; a JSON string.
    #[serde(rename_all = "camelCase")]
    Enumeration {
        /// The schema of the model that declares it.
        schema: String,
        /// The PostgreSQL type's name.
        type_name: String,
        /// The enumeration's name in PascalCase.
        enumeration: String,
        /// The values in sort order.
        values: Vec<String>,
    },
}

/// An index over columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Its name, unique in the schema.
    pub name: String,
    /// Columns of the table.
    pub columns: Vec<String>,
    /// Whether it is unique.
    pub unique: bool,
}

/// A condition between a column and something else of its row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The constraint's name.
    pub name: String,
    /// The name in the model, in camelCase.
    pub declared_name: String,
    /// The column on the left.
    pub column: String,
    /// How they are compared.
    pub operator: CheckOperator,
    /// What is on the right.
    #[serde(flatten)]
    pub compared: Compared,
}

/// What a check compares a column with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Compared {
    /// Another column.
    #[serde(rename = "other")]
    Column(String),
    /// The sum of a number over the parts in a column.
    SumOf {
        /// The column with the parts.
        column: String,
        /// The JSON member of each part.
        member: String,
    },
}

impl Compared {
    /// The column that it reads.
    pub fn column(&self) -> &String {
        match self {
            Self::Column(column) | Self::SumOf { column, .. } => column,
        }
    }
}

/// The system columns, in JSON order: column and member.
pub const SYSTEM_COLUMNS: [(&str, &str); 4] =
    [("id", "id"), ("version", "version"), ("created_at", "createdAt"), ("updated_at", "updatedAt")];
