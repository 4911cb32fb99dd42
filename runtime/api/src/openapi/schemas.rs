//! The schemas of objects and of their parts, as they are read and as they are written, and those that every model has.

use autonomy_crds::Model;
use autonomy_crds::resolved::{Column, ColumnKind, Entity, ValueType};
use serde_json::{Map, Value, json};

use super::reference;

/// The schemas of a model's objects and of their parts, by name.
pub fn object_schemas(model: &Model) -> Map<String, Value> {
    let mut schemas = Map::new();
    for entity in &model.entities {
        schemas.insert(entity.name.clone(), object_schema(entity));
        for column in &entity.columns {
            if let ColumnKind::Parts { part, .. } = &column.kind {
                schemas.insert(part.name.clone(), part_schema(&part.columns, Way::Read, part.description.as_deref()));
            }
        }
    }
    schemas
}

pub(super) fn value_schema(value_type: &ValueType) -> Value {
    match value_type {
        ValueType::String { min_length, max_length, pattern } => {
            let mut schema = json!({"type": "string"});
            set(&mut schema, "minLength", min_length.map(Value::from));
            set(&mut schema, "maxLength", max_length.map(Value::from));
            set(&mut schema, "pattern", pattern.as_ref().map(|pattern| Value::from(format!("^(?:{pattern})$"))));
            schema
        }
        ValueType::Uuid => json!({"type": "string", "format": "uuid"}),
        ValueType::Integer { minimum, maximum } => {
            let mut schema = json!({"type": "integer", "format": "int64"});
            set(&mut schema, "minimum", minimum.map(Value::from));
            set(&mut schema, "maximum", maximum.map(Value::from));
            schema
        }
        ValueType::Decimal { precision, scale, minimum, maximum } => {
            let mut schema = json!({"type": "number"});
            if let Some(precision) = precision {
                let digits = format!("Exact: {precision} digits, {} behind the point.", scale.unwrap_or(0));
                schema["description"] = digits.into();
            }
            set(&mut schema, "minimum", minimum.map(Value::from));
            set(&mut schema, "maximum", maximum.map(Value::from));
            schema
        }
        ValueType::Boolean => json!({"type": "boolean"}),
        ValueType::Date => json!({"type": "string", "format": "date"}),
        ValueType::DateTime => json!({"type": "string", "format": "date-time"}),
        ValueType::Json => json!({}),
        ValueType::Binary { max_length } => {
            let mut schema = json!({"type": "string", "contentEncoding": "base64"});
            set(&mut schema, "maxLength", max_length.map(|bytes| Value::from(u64::from(bytes).div_ceil(3) * 4)));
            schema
        }
        ValueType::Enumeration { values, .. } => json!({"type": "string", "enum": values}),
    }
}

// What a decimal may be in a request. A string keeps its digits whatever the client's JSON library makes of numbers.
fn written_decimal(value_type: &ValueType) -> Option<Value> {
    let ValueType::Decimal { precision, scale, minimum, .. } = value_type else { return None };
    let mut schema = value_schema(value_type);
    schema["type"] = json!(["number", "string"]);
    let sign = if minimum.is_some_and(|minimum| minimum >= 0) { "" } else { "-?" };
    let pattern = match (precision, scale.unwrap_or(0)) {
        (None, _) => format!("^{sign}[0-9]+(\\.[0-9]+)?$"),
        (Some(precision), 0) => format!("^{sign}[0-9]{{1,{precision}}}$"),
        (Some(precision), scale) => format!("^{sign}[0-9]{{1,{}}}(\\.[0-9]{{1,{scale}}})?$", precision.saturating_sub(scale).max(1)),
    };
    schema["pattern"] = pattern.into();
    if let Some(precision) = precision {
        let scale = scale.unwrap_or(0);
        schema["multipleOf"] = format!("1e-{scale}").parse::<f64>().map_or(Value::Null, Value::from);
        let bound = 10_f64.powi(precision.saturating_sub(scale) as i32);
        schema["exclusiveMaximum"] = bound.into();
        schema["exclusiveMinimum"] = (-bound).into();
    }
    Some(schema)
}

fn set(schema: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        schema[name] = value;
    }
}

// Whether a schema is of objects that are read or of what is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Written,
}

fn column_schema(column: &Column, way: Way) -> Value {
    let mut schema = match &column.kind {
        ColumnKind::Attribute { value_type } => {
            let written = if way == Way::Written { written_decimal(value_type) } else { None };
            written.unwrap_or_else(|| value_schema(value_type))
        }
        ColumnKind::Relationship { target, .. } => {
            json!({"type": "string", "format": "uuid", "description": format!("The id of a {}.", target.entity)})
        }
        ColumnKind::Parts { part, min_items, max_items } => {
            let items = if way == Way::Written { format!("{}Create", part.name) } else { part.name.clone() };
            json!({"type": "array", "items": reference(&items), "minItems": min_items, "maxItems": max_items})
        }
    };
    if !column.required && !matches!(column.kind, ColumnKind::Parts { .. }) {
        match schema.get_mut("type") {
            Some(Value::Array(kinds)) => kinds.push("null".into()),
            Some(kind) => *kind = json!([kind, "null"]),
            None => {}
        }
        if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            values.push(Value::Null);
        }
    }
    if let Some(description) = &column.description {
        let exact = schema.get("description").and_then(Value::as_str).map(|exact| format!(" {exact}")).unwrap_or_default();
        schema["description"] = format!("{description}{exact}").into();
    }
    set(&mut schema, "default", column.default.clone());
    set(&mut schema, "x-classification", column.classification.clone().map(Value::from));
    schema
}

fn system_properties() -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert(
        "id".to_owned(),
        json!({"type": "string", "format": "uuid", "description": "The object's id; made (UUID v7) where a new object has none."}),
    );
    properties.insert(
        "version".to_owned(),
        json!({"type": "integer", "format": "int64", "readOnly": true, "description": "Raised by one with every change; the ETag."}),
    );
    for (name, description) in [("createdAt", "When the object was made."), ("updatedAt", "When it was last changed.")] {
        properties.insert(name.to_owned(), json!({"type": "string", "format": "date-time", "readOnly": true, "description": description}));
    }
    properties
}

fn properties(entity: &Entity, way: Way) -> Map<String, Value> {
    let mut properties = system_properties();
    properties.extend(entity.columns.iter().map(|column| (column.member.clone(), column_schema(column, way))));
    properties
}

fn object_schema(entity: &Entity) -> Value {
    let properties = properties(entity, Way::Read);
    let mut schema = json!({
        "type": "object",
        "required": properties.keys().collect::<Vec<_>>(),
        "properties": properties,
    });
    set(&mut schema, "description", entity.description.clone().map(Value::from));
    set(&mut schema, "x-key", (!entity.key.is_empty()).then(|| members(entity, &entity.key)));
    schema
}

// Objects as they are read: with the members that `fields` asks for, and those that `embed` does.
pub(super) fn fields_schema(model: &Model, entity: &Entity) -> Value {
    let mut properties = properties(entity, Way::Read);
    for column in &entity.columns {
        let ColumnKind::Relationship { relationship, target, .. } = &column.kind else { continue };
        let embedded = match target.model == model.name {
            true => json!({"anyOf": [reference(&target.entity), {"type": "null"}], "description": "With `embed`."}),
            false => {
                json!({"type": ["object", "null"], "description": format!("With `embed`: a {} of the model {}.", target.entity, target.model)})
            }
        };
        // An attribute of that name stays what it is.
        properties.entry(relationship.clone()).or_insert(embedded);
    }
    json!({
        "type": "object",
        "description": format!("The members of a {} that `fields` asks for, or all, and the objects that `embed` asks for.", entity.name),
        "required": ["id"],
        "properties": properties,
    })
}

fn members(entity: &Entity, columns: &[String]) -> Value {
    columns.iter().filter_map(|name| entity.by_column(name)).map(|column| column.member.clone()).collect()
}

pub(super) fn create_schema(entity: &Entity) -> Value {
    let needed = |column: &&Column| match &column.kind {
        ColumnKind::Parts { min_items, .. } => *min_items > 0,
        _ => column.required && column.default.is_none(),
    };
    json!({
        "type": "object",
        "description": format!("A new {}, or the whole of one that is replaced.", entity.name),
        "required": entity.columns.iter().filter(needed).map(|column| &column.member).collect::<Vec<_>>(),
        "properties": properties(entity, Way::Written),
        "additionalProperties": false,
    })
}

pub(super) fn patch_schema(entity: &Entity) -> Value {
    let mut properties = properties(entity, Way::Written);
    for property in properties.values_mut() {
        property.as_object_mut().map(|property| property.remove("default"));
    }
    json!({
        "type": "object",
        "description": format!("Members of a {} to be set; null takes a value away.", entity.name),
        "properties": properties,
        "additionalProperties": false,
    })
}

pub(super) fn part_schema(columns: &[Column], way: Way, description: Option<&str>) -> Value {
    let mut schema = json!({
        "type": "object",
        "required": columns.iter().filter(|column| column.required && column.default.is_none()).map(|column| &column.member).collect::<Vec<_>>(),
        "properties": columns.iter().map(|column| (column.member.clone(), column_schema(column, way))).collect::<Map<_, _>>(),
        "additionalProperties": false,
    });
    set(&mut schema, "description", description.map(Value::from));
    schema
}

pub(super) fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "A problem (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "What kind of problem this is."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What happened."},
            "errors": {"type": "array", "description": "Every fault, up to 100.", "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "Where in the body (JSON Pointer)."},
                    "parameter": {"type": "string", "description": "Which query parameter or header."},
                    "detail": {"type": "string"},
                },
            }},
            "deletedAt": {"type": "string", "format": "date-time", "description": "With 410: when the object was deleted."},
            "usedKeys": {"type": "array", "items": {"type": "string"}, "description": "Idempotency keys that were used before."},
        },
    })
}

pub(super) fn aggregates_schema() -> Value {
    let by_attribute = |description: &str| json!({"type": "object", "description": description, "additionalProperties": true});
    json!({
        "type": "array",
        "description": "With `aggregate`: an object a group, with the members of `groupBy`.",
        "items": {"type": "object", "properties": {
            "count": {"type": "integer"},
            "countDistinct": by_attribute("How many different values, by attribute."),
            "sum": by_attribute("Sums by attribute."),
            "avg": by_attribute("Means by attribute."),
            "min": by_attribute("Smallest values by attribute."),
            "max": by_attribute("Largest values by attribute."),
        }},
    })
}
