//! The kind `DataModel`: business entities that become a PostgreSQL schema, an object API and a stream of changes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{DeletionPolicy, reconciled_status};
use crate::webhook::Webhook;

/// Business entities that belong together: one PostgreSQL schema, one part of the object API, one stream of changes.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autonomy.dev",
    version = "v1alpha1",
    kind = "DataModel",
    plural = "datamodels",
    shortname = "dm",
    category = "autonomy",
    namespaced,
    derive = "PartialEq",
    status = "DataModelStatus",
    doc = "Business entities that belong together: one PostgreSQL schema, one part of the object API, one stream of changes.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Entities","type":"integer","jsonPath":".status.entities"}"#,
    printcolumn = r#"{"name":"Revision","type":"integer","jsonPath":".status.revision"}"#,
    printcolumn = r#"{"name":"Migration","type":"string","priority":1,"jsonPath":".status.migration"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40", "metadata.name must be a DNS label of at most 40 characters that begins with a letter")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataModelSpec {
    /// The DataPlatform in this namespace that holds this model; `default` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub platform: Option<String>,
    /// What this model is about, for its users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// Entities of other DataModels of the same platform that this one refers to or extends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub imports: Vec<Import>,
    /// Value lists that attributes may use as their type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub enumerations: Vec<Enumeration>,
    /// The business entities.
    #[schemars(length(min = 1, max = 128))]
    pub entities: Vec<Entity>,
    /// Web addresses that get events, for those who don't speak NATS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub webhooks: Vec<Webhook>,
    /// Changes that may lose data or block, and were reviewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Migrations>,
    /// What becomes of the schema and the stream when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// While true, the operator leaves this model as it is.
    #[serde(default)]
    pub suspend: bool,
}

impl DataModelSpec {
    /// The name of the DataPlatform that holds this model.
    pub fn platform(&self) -> &str {
        self.platform.as_deref().unwrap_or(crate::DEFAULT_PLATFORM)
    }
}

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataModelStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling` and `Stalled`, after kstatus. What each reason means is in docs/operations.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many entities have a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entities: Option<i64>,
    /// The revision that is served; each change of the model makes a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The stream of changes in NATS JetStream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The latest Migration of this model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<String>,
    /// How the database differs from the model in ways that the operator does not make good, since data would be lost or guessed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<String>,
    /// What became of each webhook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub webhooks: Vec<WebhookStatus>,
}

/// What became of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// The webhook's name.
    pub name: String,
    /// The MicroService that sends its events; its conditions, its dead letters and its metrics tell more.
    pub service: String,
    /// Whether events are sent: the MicroService's condition `Ready`.
    pub ready: bool,
    /// Why not, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

reconciled_status!(DataModelStatus);

/// Changes that may lose data or block, and were reviewed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migrations {
    /// The `spec.sha256` of the Migration that may run although it is hazardous. It is good for that plan only: a new plan needs a new approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), length(max = 64))]
    pub approved: Option<String>,
}

/// Entities and enumerations taken from another DataModel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Import {
    /// The other DataModel's name.
    #[schemars(length(min = 1, max = 40))]
    pub model: String,
    /// The entities taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 48)))]
    pub entities: Vec<String>,
    /// The enumerations taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 48)))]
    pub enumerations: Vec<String>,
}

/// A list of values that attributes may use as their type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enumeration {
    /// Name in PascalCase, for example `SaleStatus`.
    #[schemars(length(min = 1, max = 48))]
    pub name: String,
    /// What the values mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// The values, in the order in which they sort. Adding values is safe; taking one away is not.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63)))]
    pub values: Vec<String>,
}

/// A business entity: a table, a set of paths in the object API, and three types of event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.key) || !has(self.partOf)", "a part has no key of its own: it lives in its owner"))]
#[x_kube(validation = ("!has(self.partOf) || !(has(self.history) && self.history || has(self.softDelete) && self.softDelete)", "a part has no history of its own and is not deleted by itself: say it of its owner"))]
pub struct Entity {
    /// Name in PascalCase, for example `LoyaltyAccrual`.
    #[schemars(length(min = 1, max = 48))]
    pub name: String,
    /// Plural in PascalCase or camelCase, used in the API's paths; the name with `s` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub plural: Option<String>,
    /// What the entity means to the business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// An abstract entity has no table: it lends its attributes and relationships to those that extend it.
    #[serde(default, rename = "abstract")]
    pub is_abstract: bool,
    /// The entity (of this model or imported) whose attributes, relationships, parts, indexes and checks this one takes over; its key and
    /// its events' addresses too, where this one has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 48))]
    pub extends: Option<String>,
    /// The entity's attributes. `id`, `version`, `createdAt` and `updatedAt` are there without being declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub attributes: Vec<Attribute>,
    /// The natural key: attributes or relationships that together are unique, and by which objects can be upserted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 56)))]
    pub key: Vec<String>,
    /// References to one object of another entity (or of the same).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub relationships: Vec<Relationship>,
    /// Lists of smaller objects that live and die with this one, for example the lines of a sale.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub parts: Vec<Part>,
    /// Marks this entity as the shape of a part: it has no table and no path of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 48))]
    pub part_of: Option<String>,
    /// Indexes beside those that keys and relationships bring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub indexes: Vec<Index>,
    /// Conditions that each object meets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub checks: Vec<Check>,
    /// How the entity's events are addressed.
    #[serde(default)]
    pub events: EntityEvents,
    /// Keeps every former version of the entity's objects: the API answers with objects as they were at a moment (`asOf`), and with an object's
    /// versions (`…/{id}/history`). What extends this entity keeps its history too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
    /// Keeps the last version of deleted objects: the API answers 410 with the time of the deletion, and still gives the object in
    /// `…/{id}/history`. Unique values are free again and events are as for any deletion. What extends this entity has it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft_delete: bool,
    /// Whether who changes or deletes an object must say which version of it they have seen (`If-Match`, `@ifMatch` in lists, `if` in
    /// transactions); without that they are refused with 428. It holds for the entities that extend this one too.
    #[serde(default)]
    pub require_if_match: bool,
    /// The name this entity had before, so that a rename is a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub renamed_from: Option<String>,
}

/// An attribute of an entity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.scale) || has(self.precision)", "scale needs precision"))]
#[x_kube(validation = ("!has(self.scale) || !has(self.precision) || self.scale <= self.precision", "scale can't be larger than precision"))]
#[x_kube(validation = ("!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum", "minimum can't be larger than maximum"))]
#[x_kube(validation = ("!(has(self.precision) && self.type != 'decimal')", "precision is for type decimal"))]
#[x_kube(validation = ("!(has(self.maxLength) && !(self.type in ['string', 'binary']))", "maxLength is for types string and binary"))]
#[x_kube(validation = ("!(has(self.pattern) && self.type != 'string')", "pattern is for type string"))]
pub struct Attribute {
    /// Name in camelCase, for example `soldAt`.
    #[schemars(length(min = 1, max = 56))]
    pub name: String,
    /// `string`, `uuid`, `integer`, `decimal`, `boolean`, `date`, `dateTime`, `json`, `binary`, or an enumeration's name.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 48))]
    pub type_name: String,
    /// What the attribute means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// Whether each object must have a value.
    #[serde(default)]
    pub required: bool,
    /// The value where a writer gives none, as JSON of the attribute's type. Decimals may be strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub default: Option<serde_json::Value>,
    /// Whether no two objects may have the same value.
    #[serde(default)]
    pub unique: bool,
    /// The fewest characters of a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// The most characters of a string, or bytes of a binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10485760))]
    pub max_length: Option<u32>,
    /// The digits of a decimal in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 38))]
    pub precision: Option<u32>,
    /// The digits of a decimal behind the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 38))]
    pub scale: Option<u32>,
    /// A regular expression that the whole string matches (no look-around, no back-references).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub pattern: Option<String>,
    /// The smallest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    /// The largest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
    /// What kind of information this is, for example `personal`; policies can name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub classification: Option<String>,
    /// The name this attribute had before, so that a rename is a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub renamed_from: Option<String>,
}

fn any_value(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A reference to one object of an entity: a foreign key, and a member `{name}Id` in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Relationship {
    /// Name in camelCase, for example `customer`; its member in JSON is `customerId`.
    #[schemars(length(min = 1, max = 56))]
    pub name: String,
    /// The entity referred to, of this model or imported.
    #[schemars(length(min = 1, max = 48))]
    pub target: String,
    /// What the reference means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// Whether each object must refer to one.
    #[serde(default)]
    pub required: bool,
    /// Whether no two objects may refer to the same one (one to one).
    #[serde(default)]
    pub unique: bool,
    /// What happens when the object referred to is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// The name this relationship had before, so that a rename is a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub renamed_from: Option<String>,
}

/// What happens to a reference when the object referred to is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// The deletion is refused.
    #[default]
    Restrict,
    /// The referring objects are deleted too.
    Cascade,
    /// The reference becomes null.
    SetNull,
}

/// A list of part objects held by an entity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Name of the list in camelCase, for example `lines`.
    #[schemars(length(min = 1, max = 56))]
    pub name: String,
    /// The entity that gives the parts' shape; it says `partOf` this one.
    #[schemars(length(min = 1, max = 48))]
    pub entity: String,
    /// What the list means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// The fewest parts an object has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_items: Option<u32>,
    /// The most parts an object has; 10,000 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_items: Option<u32>,
    /// The name this list had before, so that a rename is a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub renamed_from: Option<String>,
}

/// An index over attributes or relationships.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Index {
    /// Attributes or relationships, in order.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 56)))]
    pub attributes: Vec<String>,
    /// Whether no two objects may agree in all of them.
    #[serde(default)]
    pub unique: bool,
}

/// A condition that the database keeps: an attribute compared with another one, or with a sum over the object's parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.other) != has(self.sumOf)", "a check compares with exactly one of other and sumOf"))]
pub struct Check {
    /// Name in camelCase, for example `balanced`; it is in the error.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// The attribute on the left.
    #[schemars(length(min = 1, max = 56))]
    pub attribute: String,
    /// How the two are compared.
    pub operator: CheckOperator,
    /// The attribute on the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub other: Option<String>,
    /// On the right, the sum of an attribute of the object's parts; for example so that the entries of a ledger batch add up to its total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum_of: Option<PartSum>,
}

/// The sum of a number over the parts of an object. A part without the number adds nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartSum {
    /// The name of the list of parts.
    #[schemars(length(min = 1, max = 56))]
    pub parts: String,
    /// The number, an attribute of the parts.
    #[schemars(length(min = 1, max = 56))]
    pub attribute: String,
}

/// How a check compares two attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CheckOperator {
    /// Both are equal.
    Eq,
    /// They differ.
    Ne,
    /// The left one is smaller.
    Lt,
    /// The left one is smaller or equal.
    Lte,
    /// The left one is larger.
    Gt,
    /// The left one is larger or equal.
    Gte,
}

impl CheckOperator {
    /// Whether what met `before` meets this one too.
    pub fn allows_all_of(self, before: Self) -> bool {
        use CheckOperator::{Eq, Gt, Gte, Lt, Lte, Ne};
        self == before || matches!((before, self), (Eq, Lte | Gte) | (Lt, Lte | Ne) | (Gt, Gte | Ne))
    }

    /// As SQL writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Gt => ">",
            Self::Gte => ">=",
        }
    }
}

/// How an entity's events are addressed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntityEvents {
    /// The attribute (string, enumeration, integer or boolean) whose value is in the event's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub routing: Option<String>,
    /// The attribute or relationship whose equal values keep events in order with one another; the object's id where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    pub partition_key: Option<String>,
}
